"""ONNX Runtime on the CPU: runs everywhere, stands behind every other backend."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import BackendError, MissingExtraError, pip_install
from poyo_edge.runtime.backends.base import Backend, BackendInfo, CoreToOpen, Feeds
from poyo_edge.runtime.backends.machine import Machine

_log = logging.getLogger(__name__)
NAME = "ort-cpu"


class OrtCpuBackend(Backend):
    """ONNX Runtime on the CPU."""

    name = NAME

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
            raise BackendError(f"{self.name}: {problem}") from problem
        return np.asarray(prediction, np.float32)


def look(_: Machine) -> BackendInfo:
    """Whether ONNX Runtime is installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        reason = f"onnxruntime is not installed; run: {pip_install('ort')}"
        return BackendInfo(name=NAME, present=False, reason=reason)
    import onnxruntime

    return BackendInfo(name=NAME, present=True, reason=f"onnxruntime {onnxruntime.__version__}")


def open_core(given: CoreToOpen) -> Backend:
    """The graph made for it, or the core where that does not open.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        BackendError: it cannot open the core.
    """
    if given.beside.fused is not None:
        try:
            return OrtCpuBackend(given.beside.fused, threads=given.threads)
        except BackendError as problem:
            _log.warning(
                "ort-cpu: the graph made for it does not open, using the core: %s", problem
            )
    return OrtCpuBackend(given.core, threads=given.threads)


def open_ort_cpu(model: bytes, *, threads: int, what: str, operators: str = "") -> Any:
    """An ONNX Runtime session on the CPU; ``operators`` is a library of more of them.

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
        if operators:
            options.register_custom_ops_library(operators)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise BackendError(f"ort-cpu: {what} cannot be opened: {problem}") from problem
