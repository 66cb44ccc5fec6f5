"""What can be built for: one table of machines, their TensorRT versions and what is known of them.

Plain data and look-ups; nothing here touches a machine. Versions are compared by their leading
numbers: ``10.3`` covers 10.3.0 and 10.3.0.30.
"""

from __future__ import annotations

import dataclasses
import difflib
import re

from poyo_edge.errors import UsageError, pip_install

OLDEST_TENSORRT, NEWEST_TENSORRT = "10.1", "11.4"
"""The range that the builder is written for; others are refused or warned about."""
RTX_VERSION = "1.7.1.116"
RTX_CAPABILITIES = ("SM80", "SM86", "SM89", "SM120", "SM121")
"""What TensorRT-RTX compiles our graphs for ahead of time, by the names of its own enum.

It also knows SM75 (Turing), where it refuses every product in FP32, the readout's too.
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A system release of a target, and the TensorRT that comes with it."""

    name: str
    l4t: tuple[str, ...]
    """Leading numbers of the L4T versions it is."""
    python: str
    cuda: str
    tensorrt: str
    upgrades: tuple[str, ...] = ()
    """Other versions of TensorRT that NVIDIA lets one install there."""
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KnownBad:
    """Versions of TensorRT with a reported fault that touches decoders like ours."""

    first: str
    until: str
    """The first version without it; empty when no fixed one is known."""
    fault: str
    issues: tuple[str, ...]
    answer: str
    """What poyo-edge does about it, or what to do."""

    def covers(self, version: str) -> bool:
        """Whether ``version`` is one of them."""
        found = version_numbers(version)
        return version_numbers(self.first) <= found and (
            not self.until or found < version_numbers(self.until)
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something to build for."""

    name: str
    title: str
    backend: str
    """The backend of the runtime that runs what is built."""
    sm: tuple[str, ...] = ()
    """Compute capabilities; empty for any."""
    releases: tuple[Release, ...] = ()
    built_on_device: bool = False
    """Whether engines can only be built on the machine that runs them."""
    install: tuple[str, ...] = ()
    """What to install there, as commands and sentences."""


JETPACK_6 = Release(
    name="JetPack 6.1 to 6.2.1",
    l4t=("36.4", "36.5"),
    python="3.10",
    cuda="12.6",
    tensorrt="10.3",
    upgrades=("10.7",),
    note="10.7 is the newest TensorRT that NVIDIA lists for JetPack 6",
)
JETPACK_7_0 = Release(
    name="JetPack 7.0 and 7.1",
    l4t=("38",),
    python="3.12",
    cuda="13.0",
    tensorrt="10.13",
)
JETPACK_7_2 = Release(
    name="JetPack 7.2",
    l4t=("39",),
    python="3.12",
    cuda="13.2",
    tensorrt="10.16",
    upgrades=("11.4",),
    note="from 7.2.2 on, TensorRT 11.4.1 can be installed through the SBSA packages",
)

_JETSON_INSTALL = (
    "sudo apt update && sudo apt install nvidia-jetpack python3-venv  # TensorRT and CUDA",
    "/usr/bin/python3 -m venv --system-site-packages ~/poyo && . ~/poyo/bin/activate",
    "pip install '.[ort]'  # in a clone of poyo-edge; CUDA comes with JetPack",
)

_TARGETS = (
    Target(
        name="jetson",
        title="a Jetson, whichever it turns out to be",
        backend="tensorrt",
        sm=("87", "110", "101"),
        releases=(JETPACK_6, JETPACK_7_0, JETPACK_7_2),
        built_on_device=True,
        install=_JETSON_INSTALL,
    ),
    Target(
        name="jetson-orin",
        title="Jetson Orin (Nano, NX, AGX)",
        backend="tensorrt",
        sm=("87",),
        releases=(JETPACK_6, JETPACK_7_2),
        built_on_device=True,
        install=_JETSON_INSTALL,
    ),
    Target(
        name="jetson-thor",
        title="Jetson Thor",
        backend="tensorrt",
        sm=("110", "101"),
        releases=(JETPACK_7_0, JETPACK_7_2),
        built_on_device=True,
        install=_JETSON_INSTALL,
    ),
    Target(
        name="rtx",
        title="a workstation with an NVIDIA RTX GPU, compiled ahead of time on any CPU",
        backend="tensorrt-rtx",
        sm=tuple(name.removeprefix("SM") for name in RTX_CAPABILITIES),
        install=(pip_install("ort"), pip_install("rtx")),
    ),
    Target(
        name="cuda",
        title="ONNX Runtime on any CUDA GPU; no engine is built",
        backend="ort-cuda",
        install=(pip_install("gpu"),),
    ),
    Target(
        name="cpu",
        title="ONNX Runtime on the CPU; no engine is built",
        backend="ort-cpu",
        install=(pip_install("ort"),),
    ),
)
TARGETS = {target.name: target for target in _TARGETS}

_TENSORRT = "https://github.com/NVIDIA/TensorRT/issues/"
KNOWN_BAD = (
    KnownBad(
        first="10.3",
        until="10.5",
        fault="silently wrong output of transformers with dynamic shapes",
        issues=(f"{_TENSORRT}4419", f"{_TENSORRT}4330"),
        answer="engines have static shapes, and none is installed before it agrees with the core",
    ),
    KnownBad(
        first="10.1",
        until="10.8",
        fault="lost accuracy when an engine has several optimisation profiles",
        issues=(f"{_TENSORRT}4250",),
        answer="one engine for each token bucket, none with a profile",
    ),
    KnownBad(
        first="10.7",
        until="10.8",
        fault="wrong fusion of attention whose queries and keys are both scaled",
        issues=(f"{_TENSORRT}4333", f"{_TENSORRT}4328"),
        answer="only queries are scaled, at export",
    ),
)


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in TARGETS:
        near = _near(name)
        hint = f"; did you mean {near!r}?" if near else ""
        raise UsageError(f"target: expected one of {list(TARGETS)}, got {name!r}{hint}")
    return TARGETS[name]


def build_command(artifact: object, backend: str, *flags: str) -> str:
    """What to type to make the engines of a backend again.

    Args:
        artifact: its path.
        backend: "tensorrt" or "tensorrt-rtx".
        flags: to add, like "--precision fp32".
    """
    target = next(target.name for target in _TARGETS if target.backend == backend)
    return " ".join(["poyo-edge build", str(artifact), "--target", target, *flags])


def known_faults(tensorrt: str) -> list[KnownBad]:
    """What is reported against a version of TensorRT."""
    return [bad for bad in KNOWN_BAD if bad.covers(tensorrt)]


def find_release(l4t: str) -> Release | None:
    """The release that an L4T version is, or None for one that is not in the table."""
    numbers = version_numbers(l4t)
    for release in (JETPACK_6, JETPACK_7_0, JETPACK_7_2):
        for prefix in map(version_numbers, release.l4t):
            if numbers[: len(prefix)] == prefix:
                return release
    return None


def find_jetson(sm: str) -> Target | None:
    """The Jetson with a compute capability like "87", or None."""
    for name in ("jetson-orin", "jetson-thor"):
        if sm in TARGETS[name].sm:
            return TARGETS[name]
    return None


def _near(name: str) -> str:
    """The target that a mistyped one, or the name of a board, most likely means; or ""."""
    words = name.lower().replace("_", "-")
    pieces = {piece for piece in words.split("-") if piece != "jetson"}
    boards = [
        target.name
        for target in _TARGETS
        if pieces <= set(re.findall(r"\w+", target.title.lower()))
    ]
    # A name that begins like two of them is near to both, whatever follows.
    cutoff = 0.75 if words.startswith("jetson-") else 0.5
    close = difflib.get_close_matches(words, TARGETS, n=1, cutoff=cutoff)
    return (boards if len(boards) == 1 else close or [""])[0]


def supported_tensorrt(version: str) -> bool:
    """Whether the builder is written for a version of TensorRT."""
    numbers = version_numbers(version)[:2]
    return version_numbers(OLDEST_TENSORRT) <= numbers <= version_numbers(NEWEST_TENSORRT)


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (10, 3, 0, 30) of "10.3.0.30"; () when it has none."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
