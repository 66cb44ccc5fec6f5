"""What runs the core. A backend holds no stream state: feeds in, predictions out."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import BackendError, MissingExtraError, PoyoEdgeError, UsageError
from poyo_edge.runtime.buckets import SMALLEST, token_buckets
from poyo_edge.runtime.machine import this_machine

_log = logging.getLogger(__name__)
MOST_THREADS = 256
Feeds = Mapping[str, npt.NDArray[Any]]


class Backend(Protocol):
    """Runs the core on the inputs of its graph."""

    @property
    def name(self) -> str:
        """As ``list_backends`` calls it."""

    def run(self, feeds: Feeds) -> npt.NDArray[np.float32]:
        """(B, Q, O) float32 predictions in the model's scale.

        Raises:
            BackendError: the run failed.
        """


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """Whether a backend can be used on this machine, and why or why not."""

    name: str
    present: bool
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineSource:
    """Where the engines of an artifact are, and what they have to fit."""

    folder: Path
    core_sha256: str
    max_spikes: int


def list_backends() -> list[BackendInfo]:
    """All backends that this version knows, best first."""
    machine = this_machine()
    return [
        _engine_info("tensorrt", machine.tensorrt, machine.sm, "tensorrt"),
        _engine_info("tensorrt-rtx", machine.rtx, machine.sm, "rtx"),
        *_onnxruntime_infos(machine.sm),
    ]


def open_backend(
    name: str, core: bytes, *, threads: int = 1, engines: EngineSource | None = None
) -> Backend:
    """Open the core on a backend; behind each but ``ort-cpu``, that one stands ready.

    Args:
        name: a name from ``list_backends``, or "auto" for the best that is present and works.
        core: the bytes of ``core.onnx``, already checked against the manifest.
        threads: threads for one window on the CPU.
        engines: where engines are; None leaves the TensorRT backends out.

    Raises:
        UsageError: unknown name, or threads out of range.
        MissingExtraError: the package behind the backend is not installed.
        ArtifactError: an engine is damaged.
        BackendError: the backend cannot open the core.
    """
    infos = list_backends()
    known = [info.name for info in infos]
    if name not in ("auto", *known):
        raise UsageError(f"backend: expected 'auto' or one of {known}, got {name!r}")
    if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads: expected an integer from 1 to {MOST_THREADS}, got {threads!r}")
    if name in ("auto", "ort-cpu"):
        cpu = OrtCpuBackend(core, threads=threads)
        return cpu if name == "ort-cpu" else _best(infos, core, cpu, engines)
    first = _accelerated(name, core, engines)
    return _with_fallback(first, OrtCpuBackend(core, threads=threads))


def _best(
    infos: list[BackendInfo], core: bytes, cpu: Backend, engines: EngineSource | None
) -> Backend:
    """The first accelerated backend that is present and opens, or the CPU; says why."""
    for info in infos:
        if not info.present or info.name == cpu.name:
            continue
        try:
            return _with_fallback(_accelerated(info.name, core, engines), cpu)
        except PoyoEdgeError as problem:
            _log.info("auto: not %s: %s", info.name, problem)
    return cpu


def _accelerated(name: str, core: bytes, engines: EngineSource | None) -> Backend:
    if name == "ort-cuda":
        from poyo_edge.runtime.ort_cuda import OrtCudaBackend

        most = engines.max_spikes if engines is not None else SMALLEST
        return OrtCudaBackend(core, token_buckets(most))
    if engines is None:
        raise BackendError(f"{name}: expected an artifact with engines, got a core alone")
    from poyo_edge.runtime.engines import EngineStore
    from poyo_edge.runtime.tensorrt_backend import open_engines

    return open_engines(name, EngineStore(engines.folder), engines.core_sha256, this_machine())


def _with_fallback(first: Backend, second: Backend) -> Backend:
    from poyo_edge.runtime.fallback import FallbackBackend

    return FallbackBackend(first, second)


def _engine_info(name: str, version: str, sm: str, extra: str) -> BackendInfo:
    title = "TensorRT" if name == "tensorrt" else "TensorRT-RTX"
    if not version:
        hint = "it comes with JetPack" if extra == "tensorrt" else 'pip install "poyo-edge[rtx]"'
        return BackendInfo(name=name, present=False, reason=f"{title} is not installed; {hint}")
    if not sm:
        reason = f"{title} {version} is installed, but the driver shows no GPU"
        return BackendInfo(name=name, present=False, reason=reason)
    return BackendInfo(name=name, present=True, reason=f"{title} {version}, GPU of SM {sm}")


def _onnxruntime_infos(sm: str) -> list[BackendInfo]:
    if importlib.util.find_spec("onnxruntime") is None:
        reason = 'onnxruntime is not installed; run: pip install "poyo-edge[ort]"'
        gpu = 'onnxruntime is not installed; run: pip install "poyo-edge[gpu]"'
        return [
            BackendInfo(name="ort-cuda", present=False, reason=gpu),
            BackendInfo(name="ort-cpu", present=False, reason=reason),
        ]
    import onnxruntime

    reason = f"onnxruntime {onnxruntime.__version__}"
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if not cuda:
        gpu = f"{reason} is the CPU build" + (
            '; run: pip install "poyo-edge[gpu]"' if sm else ", and the driver shows no GPU"
        )
    else:
        gpu = reason if sm else f"{reason} has CUDA, but the driver shows no GPU"
    return [
        BackendInfo(name="ort-cuda", present=cuda and bool(sm), reason=gpu),
        BackendInfo(name="ort-cpu", present=True, reason=reason),
    ]


class OrtCpuBackend:
    """ONNX Runtime on the CPU."""

    name = "ort-cpu"

    def __init__(self, core: bytes, *, threads: int) -> None:
        self._session = open_ort_cpu(core, threads=threads, what="the core")

    def run(self, feeds: Feeds) -> npt.NDArray[np.float32]:
        """(B, Q, O) float32 predictions in the model's scale.

        Raises:
            BackendError: ONNX Runtime failed.
        """
        try:
            (prediction,) = self._session.run(["prediction"], dict(feeds))
        except Exception as problem:
            raise BackendError(f"ort-cpu: {problem}") from problem
        return np.asarray(prediction, np.float32)


def open_ort_cpu(model: bytes, *, threads: int, what: str) -> Any:
    """An ONNX Runtime session on the CPU.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        BackendError: it cannot open the model; ``what`` names it.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "ort", "running the model on the CPU") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise BackendError(f"ort-cpu: {what} cannot be opened: {problem}") from problem
