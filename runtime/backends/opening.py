"""The table of backends, and how one of them is opened.

Adding a backend takes a file with ``look`` and ``open_core``, and a row here.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from poyo_edge.errors import PoyoEdgeError, UsageError
from poyo_edge.runtime.backends import ort_cpu, ort_cuda, ort_native
from poyo_edge.runtime.backends.base import Backend, BackendInfo, Beside, CoreToOpen
from poyo_edge.runtime.backends.fallback import FallbackBackend
from poyo_edge.runtime.backends.machine import Machine, this_machine
from poyo_edge.runtime.backends.native_record import has_graph
from poyo_edge.runtime.backends.ov import backend as openvino
from poyo_edge.runtime.backends.trt import opening as tensorrt

_log = logging.getLogger(__name__)
MOST_THREADS = 256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackendRow:
    """One backend: whether it is there, how it opens a core, and when ``auto`` takes it."""

    help: str
    """One line."""
    extra: str
    """Of ours, that brings its library."""
    package: str
    """The library's name on PyPI; "" for one that comes with the machine."""
    look: Callable[[Machine], BackendInfo]
    """Whether it can be used on a machine, without loading more than it must."""
    open: Callable[[CoreToOpen], Backend]
    """Opens a core; its library is loaded here at the latest."""
    auto: Callable[[CoreToOpen], bool]
    """Whether ``auto`` takes it where it is present and opens; only what was seen to decode right
    and faster than what stands behind it may say yes."""
    gpu: bool = False
    """Whether it needs an NVIDIA GPU."""
    built: bool = False
    """Whether it runs engines that ``poyo-edge build`` has made."""
    holds: Callable[[Path], bool] | None = None
    """Whether an artifact's folder has the graph that it needs; None: it runs every core."""
    exact: bool = False
    """Whether ``verify`` holds it to the tolerance that an export is held to."""


def _always(_: CoreToOpen) -> bool:
    return True


BACKENDS = {
    "tensorrt": BackendRow(
        help="TensorRT engines, on a Jetson or another NVIDIA GPU",
        extra="tensorrt",
        package="",
        look=tensorrt.look,
        open=tensorrt.open_core,
        auto=_always,
        gpu=True,
        built=True,
    ),
    "tensorrt-rtx": BackendRow(
        help="TensorRT-RTX engines, on a GPU of an RTX workstation",
        extra="rtx",
        package="tensorrt_rtx_cu13_bindings",
        look=tensorrt.look_rtx,
        open=tensorrt.open_core_rtx,
        auto=_always,
        gpu=True,
        built=True,
    ),
    "ort-cuda": BackendRow(
        help="ONNX Runtime on an NVIDIA GPU",
        extra="gpu",
        package="onnxruntime-gpu",
        look=ort_cuda.look,
        open=ort_cuda.open_core,
        auto=_always,
        gpu=True,
    ),
    ort_cpu.NAME: BackendRow(
        help="decode on this machine: replay, verify, bench",
        extra="ort",
        package="onnxruntime",
        look=ort_cpu.look,
        open=ort_cpu.open_core,
        auto=_always,
        exact=True,
    ),
    ort_native.NAME: BackendRow(
        help="decode with operators of our own on the CPU",
        extra="ort",
        package="",
        look=ort_native.look,
        open=ort_native.open_core,
        auto=ort_native.was_faster,
        holds=has_graph,
        exact=True,
    ),
    "openvino": BackendRow(
        help="decode in BF16 on processors that compute it",
        extra="openvino",
        package="openvino",
        look=openvino.look,
        open=openvino.open_core,
        auto=openvino.was_faster,
    ),
}
"""Best first; ``auto`` asks them in this order, and those that are not ``BEHIND`` before it."""
BEHIND = ort_cpu.NAME
"""Stands behind all the others, and is the one that they are compared with."""


def list_backends() -> list[BackendInfo]:
    """All backends that this version knows, best first.

    ``auto`` takes OpenVINO before ONNX Runtime where BF16 or INT8 is approved, and was faster, and
    operators of our own where ``build`` found them right and faster on this machine.
    """
    machine = this_machine()
    return [row.look(machine) for row in BACKENDS.values()]


def open_backend(
    name: str, core: bytes, *, threads: int = 1, beside: Beside | None = None
) -> Backend:
    """Open the core on a backend; behind each but ``ort-cpu``, that one stands ready.

    Args:
        name: a name from ``list_backends``, or "auto" for the best that is present and works.
        core: the bytes of ``core.onnx``, already checked against the manifest.
        threads: threads for one window on the CPU.
        beside: what the artifact has beside its core; None for a core alone.

    Raises:
        UsageError: unknown name, or threads out of range.
        MissingExtraError: the package behind the backend is not installed.
        ArtifactError: an engine is damaged.
        BackendError: the backend cannot open the core.
    """
    known = list(BACKENDS)
    if name not in ("auto", *known):
        raise UsageError(f"backend: expected 'auto' or one of {known}, got {name!r}")
    if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads: expected an integer from 1 to {MOST_THREADS}, got {threads!r}")
    given = CoreToOpen(
        core=core, threads=threads, beside=beside or Beside(), machine=this_machine()
    )
    if name == BEHIND:
        return BACKENDS[BEHIND].open(given)
    if name == "auto":
        return _best(given)
    return FallbackBackend(BACKENDS[name].open(given), BACKENDS[BEHIND].open(given))


def _best(given: CoreToOpen) -> Backend:
    """The first other backend that is present, wanted and opens, or the last one; says why."""
    last = BACKENDS[BEHIND].open(given)
    for name, row in BACKENDS.items():
        if name == BEHIND or not row.look(given.machine).present or not row.auto(given):
            continue
        try:
            return FallbackBackend(row.open(given), last)
        except PoyoEdgeError as problem:
            _log.info("auto: not %s: %s", name, problem)
    return last
