"""What runs the core. A backend holds no stream state: feeds in, predictions out."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import BackendError, MissingExtraError, UsageError

MOST_THREADS = 256
Feeds = Mapping[str, npt.NDArray[Any]]


class Backend(Protocol):
    """Runs the core on the inputs of its graph."""

    name: str

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


def list_backends() -> list[BackendInfo]:
    """All backends that this version knows, best first."""
    if importlib.util.find_spec("onnxruntime") is None:
        reason = 'onnxruntime is not installed; run: pip install "poyo-edge[ort]"'
        return [BackendInfo(name="ort-cpu", present=False, reason=reason)]
    import onnxruntime

    reason = f"onnxruntime {onnxruntime.__version__}"
    return [BackendInfo(name="ort-cpu", present=True, reason=reason)]


def open_backend(name: str, core: bytes, *, threads: int = 1) -> Backend:
    """Open the core on a backend.

    Args:
        name: "ort-cpu", or "auto" for the best that is present.
        core: the bytes of ``core.onnx``, already checked against the manifest.
        threads: threads for one window.

    Raises:
        UsageError: unknown name, or threads out of range.
        MissingExtraError: the package behind the backend is not installed.
        BackendError: the backend cannot open the core.
    """
    known = [info.name for info in list_backends()]
    if name not in ("auto", *known):
        raise UsageError(f"backend: expected 'auto' or one of {known}, got {name!r}")
    if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads: expected an integer from 1 to {MOST_THREADS}, got {threads!r}")
    return OrtCpuBackend(core, threads=threads)


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
