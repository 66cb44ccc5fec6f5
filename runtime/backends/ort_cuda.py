"""ONNX Runtime on an NVIDIA GPU: bound inputs and outputs, one CUDA graph for each bucket."""

from __future__ import annotations

import dataclasses
import logging
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Array
from poyo_edge.core_inputs import INPUTS, OUTPUTS, PER_SESSION, PER_WINDOW, one_window
from poyo_edge.errors import BackendError, pip_install
from poyo_edge.runtime.backends import ort_cpu
from poyo_edge.runtime.backends.base import Backend, BackendInfo, CoreToOpen
from poyo_edge.runtime.backends.buckets import (
    WindowTooLargeError,
    fitting_bucket,
    token_buckets,
    unit_capacity,
)
from poyo_edge.runtime.backends.machine import Machine

_log = logging.getLogger(__name__)
NAME = "ort-cuda"
PROVIDER = "CUDAExecutionProvider"


@dataclasses.dataclass(slots=True, eq=False)
class _Lane:
    """One bucket: a session of fixed shapes, its bound buffers, and host copies to fill them."""

    session: Any
    binding: Any
    device: dict[str, Any]
    host: dict[str, Array]
    seen: dict[str, Array]


class OrtCudaBackend(Backend):
    """Runs the core on the GPU through ONNX Runtime; sessions are made when first needed."""

    name = NAME

    def __init__(
        self, core: bytes, buckets: Sequence[int], *, device: str = "cuda", graphs: bool = True
    ) -> None:
        """Open the smallest bucket, so that what is missing is known at once.

        Args:
            core: the bytes of ``core.onnx``, already checked.
            buckets: numbers of spikes, ascending.
            device: "cuda"; "cpu" runs the same code where there is no GPU.
            graphs: whether to capture CUDA graphs.

        Raises:
            BackendError: ONNX Runtime has no CUDA provider, or cannot open the core with it.
        """
        import onnxruntime

        self._ort = onnxruntime
        self._core = core
        self._buckets = tuple(buckets)
        self._device = device
        self._provider = PROVIDER if device == "cuda" else "CPUExecutionProvider"
        self._graphs = graphs and device == "cuda"
        self._lanes: dict[tuple[int, int], _Lane] = {}
        if self._provider not in onnxruntime.get_available_providers():
            raise BackendError(
                f"ort-cuda: expected an ONNX Runtime with {PROVIDER}, got "
                f"{onnxruntime.get_available_providers()}; {_hint()}"
            )
        self._lane(self._buckets[0], unit_capacity(1))

    def run(self, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """(B, Q, O) float32 predictions in the model's scale, window after window.

        Raises:
            BackendError: ONNX Runtime failed, or a window is larger than any bucket.
        """
        try:
            return self._run(feeds)
        except BackendError:
            raise
        except Exception as problem:
            raise BackendError(f"ort-cuda: {problem!r}") from problem

    def _run(self, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        capacity, out = unit_capacity(len(feeds["unit_kv"])), []
        for unit, time, mask, queries in zip(*(feeds[name] for name in PER_WINDOW), strict=True):
            n_spikes = int(mask.sum())
            size = fitting_bucket(self._buckets, n_spikes)
            if size is None:
                raise WindowTooLargeError(
                    f"ort-cuda: expected at most {self._buckets[-1]} spikes in a window, "
                    f"got {n_spikes}"
                )
            lane = self._lane(size, capacity)
            self._upload_session(lane, feeds)
            lane.host["spike_time"][0, :n_spikes] = time[mask]
            lane.host["spike_unit"][0, :n_spikes] = unit[mask]
            lane.host["spike_mask"][0] = np.arange(size) < n_spikes
            out.append([self._answer(lane, query) for query in queries])
        return np.array(out, np.float32)

    def _answer(self, lane: _Lane, query: float) -> Array:
        lane.host["query_time"][...] = query
        for name in PER_WINDOW:
            lane.device[name].update_inplace(lane.host[name])
        lane.session.run_with_iobinding(lane.binding)
        return np.array(lane.device["prediction"].numpy()).reshape(-1)  # a copy, always

    def _upload_session(self, lane: _Lane, feeds: Mapping[str, Array]) -> None:
        for name in PER_SESSION:
            if feeds[name] is not lane.seen.get(name):
                lane.host[name][: len(feeds[name])] = feeds[name]
                lane.device[name].update_inplace(lane.host[name])
                lane.seen[name] = feeds[name]

    def _lane(self, size: int, capacity: int) -> _Lane:
        key = size, capacity
        if key not in self._lanes:
            try:
                self._lanes[key] = self._open(size, capacity, graphs=self._graphs)
            except Exception as problem:
                if not self._graphs:
                    raise BackendError(f"ort-cuda: the core cannot be opened: {problem}") from None
                _log.warning("ort-cuda runs without CUDA graphs: %s", problem)
                self._graphs = False
                return self._lane(size, capacity)
        return self._lanes[key]

    def _open(self, size: int, capacity: int, *, graphs: bool) -> _Lane:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        axes = one_window(size, capacity)
        for axis, value in axes.items():
            options.add_free_dimension_override_by_name(axis, value)
        settings = {"enable_cuda_graph": "1", "use_tf32": "0"} if graphs else {"use_tf32": "0"}
        provider: Any = (PROVIDER, settings) if self._device == "cuda" else self._provider
        session = self._ort.InferenceSession(self._core, options, providers=[provider])
        if session.get_providers()[0] != self._provider:
            raise BackendError(f"ort-cuda: {self._provider} cannot start on this machine")
        lane = _Lane(session, session.io_binding(), {}, {}, {})
        known = {**INPUTS, **OUTPUTS}
        for node in [*session.get_inputs(), *session.get_outputs()]:
            shape = [int(axes[d] if isinstance(d, str) else d) for d in node.shape]
            host: Array = np.zeros(shape, known[node.name].dtype)
            value = self._ort.OrtValue.ortvalue_from_numpy(host, self._device, 0)
            lane.host[node.name], lane.device[node.name] = host, value
            bind = (
                lane.binding.bind_ortvalue_output
                if node.name in OUTPUTS
                else lane.binding.bind_ortvalue_input
            )
            bind(node.name, value)
        for _ in range(3):  # With CUDA graphs, the first runs allocate and the next one captures.
            session.run_with_iobinding(lane.binding)
        return lane


def _hint(*, beside: bool = False) -> str:
    """What to do for an ONNX Runtime with CUDA; no wheel of it is for the Python of JetPack 6.

    Args:
        beside: whether the one for the CPU is there: both put the same module in one place.
    """
    if platform.machine() == "aarch64" and sys.version_info < (3, 12):
        return (
            "PyPI has no onnxruntime-gpu for this Python on ARM: on JetPack 6 build TensorRT "
            "engines instead (poyo-edge build ARTIFACT)"
        )
    return f"run: {'pip uninstall -y onnxruntime && ' * beside}{pip_install('gpu')}"


def look(machine: Machine) -> BackendInfo:
    """Whether ONNX Runtime was built with CUDA, and the driver shows a GPU."""
    beside = ort_cpu.look(machine)
    if not beside.present:
        reason = f"onnxruntime is not installed; {_hint()}"
        return BackendInfo(name=NAME, present=False, reason=reason)
    import onnxruntime

    reason, cuda = beside.reason, PROVIDER in onnxruntime.get_available_providers()
    if not cuda:
        reason += " is the CPU build"
        without = ", and the driver shows no GPU"
        reason += f"; {_hint(beside=True)}" if machine.sm else without
    elif not machine.sm:
        reason += " has CUDA, but the driver shows no GPU"
    return BackendInfo(name=NAME, present=cuda and bool(machine.sm), reason=reason)


def open_core(given: CoreToOpen) -> Backend:
    """The core with a bucket for each number of spikes that the artifact allows.

    Raises:
        BackendError: ONNX Runtime has no CUDA provider, or cannot open the core with it.
    """
    return OrtCudaBackend(given.core, token_buckets(given.beside.max_spikes))
