"""What runs the core. A backend holds no stream state: feeds in, predictions out."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import BackendError, MissingExtraError, PoyoEdgeError, UsageError
from poyo_edge.runtime.backends.buckets import SMALLEST, token_buckets
from poyo_edge.runtime.backends.machine import this_machine

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CpuSource:
    """What an artifact has for the CPU beside its core."""

    fused: bytes | None = None
    """The bytes of ``core.ort-cpu.onnx``, already checked."""
    precision: str = "fp32"
    """What OpenVINO may compute in: below FP32 only what ``build`` has measured."""
    ranges: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What INT8 needs to know of the core's values."""
    faster: bool = False
    """Whether it was faster so than ONNX Runtime in FP32."""


def list_backends() -> list[BackendInfo]:
    """All backends that this version knows, best first.

    ``auto`` takes OpenVINO before ONNX Runtime where BF16 or INT8 is approved, and was faster.
    """
    machine = this_machine()
    return [
        _engine_info("tensorrt", machine.tensorrt, machine.sm, "tensorrt"),
        _engine_info("tensorrt-rtx", machine.rtx, machine.sm, "rtx"),
        *_onnxruntime_infos(machine.sm),
        _openvino_info(),
    ]


def open_backend(
    name: str,
    core: bytes,
    *,
    threads: int = 1,
    engines: EngineSource | None = None,
    cpu: CpuSource | None = None,
) -> Backend:
    """Open the core on a backend; behind each but ``ort-cpu``, that one stands ready.

    Args:
        name: a name from ``list_backends``, or "auto" for the best that is present and works.
        core: the bytes of ``core.onnx``, already checked against the manifest.
        threads: threads for one window on the CPU.
        engines: where engines are; None leaves the TensorRT backends out.
        cpu: what there is for the CPU beside the core.

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
    opening = _Opening(core, threads, engines, cpu or CpuSource())
    if name == "ort-cpu":
        return opening.ort_cpu()
    if name == "auto":
        return opening.best(infos)
    return _with_fallback(opening.open(name), opening.ort_cpu())


@dataclasses.dataclass(frozen=True, slots=True)
class _Opening:
    """One core about to be opened."""

    core: bytes
    threads: int
    engines: EngineSource | None
    cpu: CpuSource

    def best(self, infos: list[BackendInfo]) -> Backend:
        """The first other backend that is present and opens, or ONNX Runtime; says why."""
        last = self.ort_cpu()
        for info in infos:
            if not info.present or info.name == last.name:
                continue
            if info.name == "openvino" and not self.cpu.faster:
                continue  # in FP32 ONNX Runtime is
            try:
                return _with_fallback(self.open(info.name), last)
            except PoyoEdgeError as problem:
                _log.info("auto: not %s: %s", info.name, problem)
        return last

    def ort_cpu(self) -> Backend:
        """ONNX Runtime on the graph made for it, or on the core where that does not open."""
        if self.cpu.fused is not None:
            try:
                return OrtCpuBackend(self.cpu.fused, threads=self.threads)
            except BackendError as problem:
                _log.warning(
                    "ort-cpu: the graph made for it does not open, using the core: %s", problem
                )
        return OrtCpuBackend(self.core, threads=self.threads)

    def open(self, name: str) -> Backend:
        """Any of the others."""
        engines = self.engines
        if name == "openvino":
            from poyo_edge.runtime.backends.ov.backend import OpenVinoBackend

            return OpenVinoBackend(
                self.core,
                threads=self.threads,
                precision=self.cpu.precision,
                ranges=self.cpu.ranges,
            )
        if name == "ort-cuda":
            from poyo_edge.runtime.backends.ort_cuda import OrtCudaBackend

            most = engines.max_spikes if engines is not None else SMALLEST
            return OrtCudaBackend(self.core, token_buckets(most))
        if engines is None:
            raise BackendError(f"{name}: expected an artifact with engines, got a core alone")
        from poyo_edge.runtime.backends.trt.backend import open_engines
        from poyo_edge.runtime.backends.trt.engines import EngineStore

        store = EngineStore(engines.folder)
        return open_engines(name, store, engines.core_sha256, this_machine())


def _with_fallback(first: Backend, second: Backend) -> Backend:
    from poyo_edge.runtime.backends.fallback import FallbackBackend

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


def _openvino_info() -> BackendInfo:
    version = openvino_version()
    if version:
        return BackendInfo(name="openvino", present=True, reason=f"openvino {version}")
    reason = 'openvino is not installed; run: pip install "poyo-edge[openvino]"'
    return BackendInfo(name="openvino", present=False, reason=reason)


def openvino_version() -> str:
    """The version of the package, or "" where it is not installed."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return ""


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
    # It keeps a plan for each new number of spikes: memory grows, and nothing gets faster.
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise BackendError(f"ort-cpu: {what} cannot be opened: {problem}") from problem
