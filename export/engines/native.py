"""``build --target cpu``: operators of our own, where there are any, right and faster."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from poyo_edge.artifact import ADAPT, ADAPT_ORT_CPU, CORE, CORE_CPU, Artifact
from poyo_edge.errors import BackendError, CheckFailedError, UsageError
from poyo_edge.export.engines.cpu import speedup
from poyo_edge.export.parity.windows import Window, synthetic_windows
from poyo_edge.files.writing import sha256_bytes
from poyo_edge.runtime.backends import Backend, open_ort_cpu
from poyo_edge.runtime.backends.kernel_library import (
    KernelLibrary,
    compile_library,
    find_compiler,
    find_library,
    why_absent,
)
from poyo_edge.runtime.backends.machine import same_bits
from poyo_edge.runtime.backends.native_record import (
    ADAPT_GRAPH,
    NativeAdaptRecord,
    NativeRecord,
    forget_native_adapt,
)
from poyo_edge.runtime.backends.ort_native import NAME, OrtNativeBackend
from poyo_edge.runtime.constants import constant_shapes

if TYPE_CHECKING:
    from poyo_edge.export.engines.job import Job

_TIMED = (250, 1000)
"""Spikes of the windows that are timed, as far as the artifact allows so many."""
_REPEATS = 12
_TABLES = ("unit_embedding",)
"""Inputs of the graph of gradients with two axes, of which none is windows."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    data: bytes
    listed: bool
    """Whether the artifact's manifest has it."""


def add_native(job: Job, core: Backend, exact: Backend) -> NativeRecord | None:
    """Compile the operators where there are none, compare, time, and write the record.

    Args:
        job: what is built; says what was settled and what was not.
        core: the core as it is; the operators are held to it.
        exact: ``ort-cpu`` as it decodes; the operators are timed against it.

    Returns:
        The record, or None where the operators cannot be had; then everything works without.

    Raises:
        CheckFailedError: they disagree with the core; nothing is written. Where their gradients
            do, that stays unsettled: decoding needs none.
    """
    library = _library(job)
    graph = None if library is None else _graph(job)
    if library is None or graph is None:
        return None
    try:
        native = OrtNativeBackend(graph.data, threads=1)
    except BackendError as problem:
        job.unsettled.append(f"operators of our own: {problem}")
        return None
    job.say(f"comparing and timing operators of our own for {native.instructions}")
    parity = job.trial.compare(core, native, "fp32")
    tolerance = job.artifact.golden().tolerance
    if not parity.worst <= tolerance:
        raise CheckFailedError(
            f"{NAME}: expected an error of at most {tolerance:.2e}, got {parity.worst:.2e} on "
            f"{parity.worst_window}; nothing was written; ort-cpu decodes: please report this"
        )
    record = NativeRecord(
        core_sha256=job.core_sha256,
        graph_sha256=sha256_bytes(graph.data),
        sources=library.sources,
        instructions=native.instructions,
        cpu=same_bits()["cpu"],
        n_windows=parity.n_windows,
        max_abs_error=parity.worst,
        output_sd=parity.output_sd,
        speedup=speedup(exact, native, job.trial.constants, _windows(job)),
    )
    forget_native_adapt(job.artifact.path)  # it may be of another machine than this record
    record.save(job.artifact.path, None if graph.listed else graph.data)
    chosen = "uses them from now on" if record.speedup > 1 else "stays with ort-cpu"
    job.settled.append(
        f"operators of our own for {record.instructions} agree with the core to "
        f"{record.max_abs_error / record.output_sd:.1e} sd of the output and decode "
        f"{record.speedup:.2f} times as fast as ort-cpu on this machine; backend 'auto' {chosen}"
    )
    try:
        _add_gradients(job, library)
    except (BackendError, CheckFailedError) as problem:
        job.unsettled.append(f"gradients in operators of our own: {problem}")
    return record


def _add_gradients(job: Job, library: KernelLibrary) -> None:
    """The graph of gradients in our operators, where it can be made, compared and timed."""
    artifact, golden = job.artifact, job.artifact.golden().gradients
    before = next((n for n in (ADAPT_ORT_CPU, ADAPT) if n in artifact.manifest.files), None)
    if before is None:
        return
    try:
        graph = gradient_graph(artifact)
    except ImportError:
        job.unsettled.append(
            "gradients in operators of our own, with which calibration is faster: run this "
            "command where onnx is (pip install onnx onnx-ir)"
        )
        return
    job.say("comparing and timing gradients in operators of our own")
    session = open_ort_cpu(graph, threads=1, what=ADAPT_GRAPH, operators=str(library.path))
    other = open_ort_cpu(artifact.read(before), threads=1, what=before)
    names = list(golden.expected)
    found = session.run(names, golden.feeds)
    errors = [
        np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)
        for got, want in zip(found, golden.expected.values(), strict=True)
    ]
    worst = float(np.max(errors))
    if not worst <= golden.tolerance:
        raise CheckFailedError(
            f"gradients of {NAME}: expected a relative error of at most {golden.tolerance:.2e}, "
            f"got {worst:.2e}; calibration stays with {before}: please report this"
        )
    some = {k: v[-2:] if v.ndim > 1 and k not in _TABLES else v for k, v in golden.feeds.items()}
    taken = np.array([[_took(one, some) for one in (other, session)] for _ in range(_REPEATS)])
    first, second = np.percentile(taken, 25, axis=0).tolist()
    record = NativeAdaptRecord(
        core_sha256=job.core_sha256,
        graph_sha256=sha256_bytes(graph),
        sources=library.sources,
        max_relative_error=worst,
        speedup=round(first / max(second, 1.0), 3),
    )
    record.save(artifact.path, graph)
    chosen = "uses them from now on" if record.speedup > 1 else f"stays with {before}"
    job.settled.append(
        f"gradients in operators of our own agree with the golden ones to {worst:.1e} and are "
        f"{record.speedup:.2f} times as fast as {before} on this machine; calibrate {chosen}"
    )


def gradient_graph(artifact: Artifact) -> bytes:
    """``adapt.cpu.onnx``, written from the artifact's core.

    Raises:
        ImportError: onnx or onnx_ir is not installed.
    """
    import onnx

    from poyo_edge.export.graph.adapt_native import build_adapt_for_native, folded_of

    spec = artifact.manifest.spec
    core = onnx.load_model_from_string(artifact.read(CORE))
    folded = folded_of(core, spec, artifact.weights(constant_shapes(spec)))
    return bytes(build_adapt_for_native(folded).SerializeToString())


def _took(session: Any, feeds: dict[str, Any]) -> int:
    """Processor time in ns of loss and gradients of a batch."""
    started = time.process_time_ns()
    session.run(["loss", "unit_embedding_gradient", "session_embedding_gradient"], feeds)
    return time.process_time_ns() - started


def _library(job: Job) -> KernelLibrary | None:
    """The object, compiled if need be; what keeps it away is unsettled and no error."""
    if find_library() is None and find_compiler() is not None:
        job.say("compiling operators of our own; this takes about half a minute")
        try:
            compile_library()
        except (BackendError, UsageError) as problem:
            job.unsettled.append(f"operators of our own, which are faster: {problem}")
            return None
    library = find_library()
    if library is None:
        job.unsettled.append(f"operators of our own, which are faster: {why_absent()}")
    return library


def _graph(job: Job) -> _Graph | None:
    """The artifact's graph of our operators, or one made from its core."""
    listed = job.artifact.read_optional(CORE_CPU)
    if listed is not None:
        return _Graph(data=listed, listed=True)
    try:
        import onnx

        from poyo_edge.export.graph.native_fusion import fuse_for_native
    except ImportError:
        job.unsettled.append(
            "operators of our own, which are faster: the artifact was exported without a graph of "
            "them; run this command where onnx is (pip install onnx onnx-ir), or export again"
        )
        return None
    core = onnx.load_model_from_string(job.core)
    proto = fuse_for_native(core, job.artifact.manifest.spec)
    return _Graph(data=bytes(proto.SerializeToString()), listed=False)


def _windows(job: Job) -> Sequence[Window]:
    counts = np.minimum(_TIMED, job.most_spikes).tolist()
    n_units = len(job.trial.constants.unit_kv)
    return synthetic_windows(job.artifact.manifest.spec, n_units, counts * _REPEATS)
