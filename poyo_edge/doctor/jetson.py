"""What a Jetson is set to: release, power mode, clocks, packages; and what to fix.

Parsers take the text of a file and give a value, or nothing for text that is not what was
expected. ``examine_jetson`` reads the files below a root, so that it can be tried on samples.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from pathlib import Path

from poyo_edge.records import JsonRecord
from poyo_edge.runtime.backends.machine import Machine, l4t_version
from poyo_edge.targets import (
    JETPACK_6,
    NEWEST_TENSORRT,
    OLDEST_TENSORRT,
    find_jetson,
    find_release,
    known_faults,
    supported_tensorrt,
    version_numbers,
)

_PACKAGES = ("nvidia-jetpack", "libnvinfer10", "libnvinfer11", "python3-libnvinfer")
_GPU_CLOCKS = ("*gpu*", "*ga10b*", "*gb10b*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clock(JsonRecord):
    """A clock's range, in MHz."""

    name: str
    low: float
    high: float
    now: float

    @property
    def fixed(self) -> bool:
        """Whether it stays at its highest, as ``jetson_clocks`` leaves it."""
        return self.low >= self.high


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Jetson(JsonRecord):
    """Everything that was found; "" and None where a file is missing or says something else."""

    model: str
    l4t: str
    release: str
    packages: dict[str, str]
    cuda: str
    power_mode: str
    power_modes: dict[str, str]
    """Id → name."""
    clocks: list[Clock]
    cpu_governor: str
    target: str
    """Name of the target that it is."""
    fix: list[str]
    """What to do, each a command with its reason."""


def examine_jetson(machine: Machine, root: Path = Path("/")) -> Jetson | None:
    """What this Jetson is and what to fix; None on other machines. In a container that does not
    show the release it is known by its board and GPU."""
    l4t = l4t_version(_text(root / "etc/nv_tegra_release"))
    if not l4t and not machine.jetson:
        return None
    release, target = find_release(l4t), find_jetson(machine.sm)
    modes = power_modes(_text(root / "etc/nvpmodel.conf"))
    mode = power_mode(_text(root / "var/lib/nvpmodel/status"))
    found = Jetson(
        model=_text(root / "proc/device-tree/model").strip("\0 \n") or machine.board,
        l4t=l4t,
        release=release.name if release else "",
        packages=installed(_text(root / "var/lib/dpkg/status"), _PACKAGES),
        cuda=cuda_version(_text(root / "usr/local/cuda/version.json")),
        power_mode=modes.get(mode, mode),
        power_modes=modes,
        clocks=_clocks(root / "sys/class/devfreq"),
        cpu_governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip(),
        target=target.name if target else "",
        fix=[],
    )
    return dataclasses.replace(found, fix=what_to_fix(found, machine))


def power_modes(text: str) -> dict[str, str]:
    """Id → name of the modes in ``/etc/nvpmodel.conf``: ``< POWER_MODEL ID=0 NAME=MAXN >``."""
    return dict(re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text, re.MULTILINE))


def power_mode(text: str) -> str:
    """The id in ``/var/lib/nvpmodel/status``: "2" of ``pmode:0002``."""
    found = re.search(r"pmode:(\d+)", text)
    return str(int(found[1])) if found else ""


def cuda_version(text: str) -> str:
    """The version in ``/usr/local/cuda/version.json``."""
    try:
        return str(json.loads(text)["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return ""


def installed(text: str, names: tuple[str, ...]) -> dict[str, str]:
    """Package → version of those that ``/var/lib/dpkg/status`` calls installed."""
    found = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): (.+)$", stanza, re.MULTILINE))
        if fields.get("Package") in names and fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields.get("Version", "")
    return found


def what_to_fix(jetson: Jetson, machine: Machine) -> list[str]:
    """Commands, most important first."""
    fix = []
    release = find_release(jetson.l4t)
    if machine.sm and not jetson.target:
        fix.append(f"take a Jetson Orin or Thor  # JetPack 6 and 7 are not for "
                   f"{jetson.model or 'this board'}, compute capability {machine.sm}")  # fmt: skip
    elif jetson.l4t and not jetson.release:
        fix.append(_unknown_release(jetson.l4t))
    if not machine.tensorrt and not jetson.l4t:
        fix.append("start from an image with TensorRT's Python package  # Python finds none in "
                   "this container")  # fmt: skip
    elif not machine.tensorrt and "python3-libnvinfer" in jetson.packages:
        fix.append("make the virtual environment again, with /usr/bin/python3 -m venv "
                   "--system-site-packages  # python3-libnvinfer is installed, but not seen from "
                   "this one")  # fmt: skip
    elif not machine.tensorrt:
        fix.append("sudo apt install nvidia-jetpack  # Python finds no TensorRT; a virtual "
                   "environment needs --system-site-packages")  # fmt: skip
    elif not supported_tensorrt(machine.tensorrt):
        fix.append(f"install TensorRT {OLDEST_TENSORRT} to {NEWEST_TENSORRT}  "
                   f"# {machine.tensorrt} was never looked at")  # fmt: skip
    if not machine.sm:
        fix.append(
            "sudo usermod -aG video,render $USER, then log in again  # the driver shows no GPU"
        )
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if release is not None and machine.tensorrt == "" and python != release.python:
        fix.append(f"use python{release.python}  # JetPack's TensorRT is for it, this is {python}")
    here = "" if jetson.l4t else "on the Jetson, outside of the container: "
    best = max(jetson.power_modes.values(), key=_power, default="")
    if jetson.power_mode and _power(jetson.power_mode) < _power(best):
        number = next(i for i, name in jetson.power_modes.items() if name == best)
        limit = "; this mode needs a fan and its power supply" if best.startswith("MAXN") else ""
        fix.append(f"{here}sudo nvpmodel -m {number}  # {jetson.power_mode} limits the clocks"
                   f"{limit}")  # fmt: skip
    if any(not clock.fixed for clock in jetson.clocks):
        fix.append(f"{here}sudo jetson_clocks  # clocks that fall when idle make the next window "
                   "late")  # fmt: skip
    return fix


def _unknown_release(l4t: str) -> str:
    """For releases before the oldest that we know to update; after it, what to try first."""
    if version_numbers(l4t) < version_numbers(JETPACK_6.l4t[0]):
        return f"update JetPack to 6.1 or newer  # L4T {l4t} is older, and has no TensorRT 10.3"
    return (
        "run poyo-edge build, verify and bench before you rely on this release  "
        f"# L4T {l4t} is none that this version of poyo-edge knows"
    )


def _power(mode: str) -> float:
    """Watts in the name of a mode; modes of the name MAXN have no limit."""
    watts = re.search(r"(\d+)W", mode)
    return math.inf if mode.startswith("MAXN") else float(watts[1]) if watts else 0.0


def remarks(machine: Machine) -> list[str]:
    """Known faults of the TensorRT that is there, and what is done about them."""
    return [
        f"TensorRT {machine.tensorrt}: {fault.fault} ({', '.join(fault.issues)}); {fault.answer}"
        for fault in known_faults(machine.tensorrt)
    ]


def _clocks(folder: Path) -> list[Clock]:
    found = sorted({path for pattern in _GPU_CLOCKS for path in folder.glob(pattern)})
    clocks = []
    for path in found:
        values = [_text(path / f"{name}_freq").strip() for name in ("min", "max", "cur")]
        if all(value.isdigit() for value in values):
            low, high, now = (int(value) / 1e6 for value in values)
            clocks.append(Clock(name=path.name, low=low, high=high, now=now))
    return clocks


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
