"""ONNX Runtime on the CPU with operators of our own: attention and feed-forward as one node each.

It needs the object (``kernel_library``) and a graph made for it (``core.cpu.onnx``).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from poyo_edge.errors import BackendError
from poyo_edge.runtime.backends import ort_cpu
from poyo_edge.runtime.backends.base import Backend, BackendInfo, CoreToOpen
from poyo_edge.runtime.backends.kernel_library import find_library, why_absent
from poyo_edge.runtime.backends.machine import Machine, same_bits
from poyo_edge.runtime.backends.native_record import (
    ADAPT_GRAPH,
    NativeRecord,
    read_adapt_graph,
    read_built_graph,
    read_native,
    read_native_adapt,
)
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend, open_ort_cpu
from poyo_edge.runtime.backends.ov.package import openvino_version
from poyo_edge.runtime.backends.ov.precision import approved_precision

_log = logging.getLogger(__name__)
NAME = "ort-native"


class OrtNativeBackend(OrtCpuBackend):
    """ONNX Runtime on the CPU, with our operators."""

    name = NAME

    def __init__(self, graph: bytes, *, threads: int, instructions: str = "") -> None:
        """Open a graph of our operators.

        Args:
            graph: the bytes of ``core.cpu.onnx``, already checked.
            threads: threads for one window.
            instructions: "avx512", "avx2", "sse2" or "neon"; "" is the best of this processor.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            BackendError: there is no object with the operators, this processor lacks the
                instructions, or the operators do not serve the model's sizes.
        """
        library = find_library()
        if library is None:
            raise BackendError(f"{NAME}: {why_absent()}; until then use ort-cpu")
        self.instructions = library.choose(instructions)
        what = "the graph of our operators"
        try:
            self._session = open_ort_cpu(
                graph, threads=threads, what=what, operators=str(library.path)
            )
        except BackendError as problem:
            raise BackendError(f"{problem}; use ort-cpu") from problem


def look(machine: Machine) -> BackendInfo:
    """Whether ONNX Runtime and our operators are there."""
    runtime = ort_cpu.look(machine)
    library = find_library()
    if not runtime.present:
        return BackendInfo(name=NAME, present=False, reason=runtime.reason)
    if library is None:
        gain = (
            "windows of the published sizes and calibration then take a third to a fifth less time"
        )
        return BackendInfo(name=NAME, present=False, reason=f"{why_absent()}; {gain}")
    reason = f"{runtime.reason}, operators of our own for {library.instructions} in {library.path}"
    return BackendInfo(name=NAME, present=True, reason=reason)


def was_faster(given: CoreToOpen) -> bool:
    """Whether ``build --target cpu`` found it right and faster than ``ort-cpu`` on this machine,
    and than a precision that is approved below FP32.

    Raises:
        ArtifactError: a record is damaged.
    """
    folder, core_sha256 = given.beside.folder, given.beside.core_sha256
    record = None if folder is None else _record_of_this_machine(folder, core_sha256)
    if folder is None or record is None:
        return False
    version = openvino_version()
    lower = approved_precision(folder, core_sha256, version) if version else None
    return record.speedup > max(1.0, lower.speedup if lower is not None else 1.0)


def faster_in_fp32(artifact: Path, core_sha256: str) -> bool:
    """Whether ``build --target cpu`` found it right and faster than ``ort-cpu`` on this machine.

    Raises:
        ArtifactError: a record is damaged.
    """
    record = _record_of_this_machine(artifact, core_sha256)
    return record is not None and record.speedup > 1.0


def open_gradients(artifact: Path, core_sha256: str) -> Any:
    """A session of ``adapt.cpu.onnx``, one thread, where ``build --target cpu`` found it right and
    faster on this machine; None elsewhere.

    Raises:
        ArtifactError: a record or the graph is damaged.
        MissingExtraError: onnxruntime is not installed.
    """
    library, record = find_library(), read_native_adapt(artifact)
    if library is None or record is None or record.speedup <= 1.0:
        return None
    if (record.core_sha256, record.sources) != (core_sha256, library.sources):
        return None
    if _record_of_this_machine(artifact, core_sha256) is None:
        return None
    try:
        return open_built_gradients(artifact)
    except BackendError as problem:
        _log.warning("%s: gradients without operators of our own: %s", NAME, problem)
        return None


def open_built_gradients(artifact: Path) -> Any:
    """A session of the ``adapt.cpu.onnx`` that ``build`` made, whatever its record says.

    Raises:
        ArtifactError: it or its record is damaged.
        MissingExtraError: onnxruntime is not installed.
        BackendError: no such graph or no operators, or it cannot be opened.
    """
    library, record = find_library(), read_native_adapt(artifact)
    if library is None or record is None:
        raise BackendError(f"{NAME}: expected {ADAPT_GRAPH} and operators for it, got none")
    library.choose()
    graph = read_adapt_graph(artifact, record)
    return open_ort_cpu(graph, threads=1, what=ADAPT_GRAPH, operators=str(library.path))


def _record_of_this_machine(artifact: Path, core_sha256: str) -> NativeRecord | None:
    """The record of this core with these kernels on this processor."""
    library, record = find_library(), read_native(artifact)
    if library is None or record is None:
        return None
    measured = (record.core_sha256, record.sources, record.instructions, record.cpu)
    here = (core_sha256, library.sources, library.instructions, same_bits()["cpu"])
    if measured == here:
        return record
    _log.warning(
        "%s: measured with another core, processor or kernels; using ort-cpu until "
        "poyo-edge build --target cpu has run here",
        NAME,
    )
    return None


def open_core(given: CoreToOpen) -> Backend:
    """The graph of our operators, from the artifact or from what ``build`` has made.

    Raises:
        ArtifactError: the graph is damaged.
        MissingExtraError: onnxruntime is not installed.
        BackendError: no such graph or no operators, or it cannot be opened.
    """
    graph, beside = given.beside.native, given.beside
    if graph is None and beside.folder is not None:
        graph = read_built_graph(beside.folder, beside.core_sha256)
    if graph is None:
        raise BackendError(
            f"{NAME}: expected an artifact with a graph of our operators, got none; run: "
            f"poyo-edge build {beside.folder or 'ARTIFACT'} --target cpu; until then use ort-cpu"
        )
    return OrtNativeBackend(graph, threads=given.threads)
