"""TensorRT engines as a backend: one engine, context and CUDA graph for each token bucket.

Shapes are fixed, buffers are allocated once, and one window costs one copy in, one copy out and a
graph launch; on an integrated GPU, which shares the processor's memory, the launch alone.
``tensorrt`` and ``tensorrt-rtx`` share all of it; the module is all that differs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Array
from poyo_edge.core_inputs import INPUTS, OUTPUTS, PER_SESSION, PER_WINDOW
from poyo_edge.errors import BackendError
from poyo_edge.runtime.backends.base import Backend, LateError
from poyo_edge.runtime.backends.buckets import WindowTooLargeError, fitting_bucket
from poyo_edge.runtime.backends.keep_warm import KeepWarm
from poyo_edge.runtime.backends.trt.cuda import Block, Cuda

_log = logging.getLogger(__name__)
_WARM_UPS = 3
DEADLINE_SHARE = 0.5
"""Of the period in which a window has to be back; the rest is for the CPU to answer it."""
_NUDGE_S = 0.1
_ABANDONED: list[object] = []
"""What a GPU that hangs may still use; kept, because giving it back would wait for the GPU."""


@dataclasses.dataclass(slots=True, eq=False)
class _Lane:
    """One bucket: its context, its buffers, and its graph."""

    engine: Any
    context: Any
    inputs: Block
    output: Block
    graph: int | None = None


class TensorRTBackend(Backend):
    """Runs the core with engines of fixed shapes."""

    def __init__(
        self,
        name: str,
        trt: Any,
        cuda: Cuda,
        engines: Mapping[int, bytes],
        precision: str,
        *,
        again: str,
    ) -> None:
        """Deserialise, allocate, warm up and capture.

        Args:
            name: "tensorrt" or "tensorrt-rtx".
            trt: the module.
            cuda: a device to run on.
            engines: token bucket → bytes of an engine that have been checked.
            precision: of the engines.
            again: the command that builds them, for errors.

        Raises:
            BackendError: an engine cannot be opened or run.
        """
        self.name = name
        self.precision = precision
        self._again = again
        self.notes: list[str] = []
        """What did not go as planned, for reports."""
        self._trt = trt
        self._cuda = cuda
        self._lock = threading.Lock()
        self._warm: KeepWarm | None = None
        self._log = _make_logger(trt)
        self._deadline_s: float | None = None
        self._until: float | None = None
        """When the window in hand has to be back, in seconds of ``perf_counter``."""
        self._flying = False
        """Whether the device may still read and write the blocks."""
        self._event = cuda.event()
        self._session: Block | None = None
        self._session_seen: dict[str, Array] = {}
        runtime = trt.Runtime(self._log)
        self._lanes = {size: self._open(runtime, data) for size, data in sorted(engines.items())}
        for size, lane in self._lanes.items():
            self._warm_up(size, lane)

    @property
    def buckets(self) -> tuple[int, ...]:
        """The numbers of spikes that there are engines for."""
        return tuple(self._lanes)

    @property
    def captured(self) -> bool:
        """Whether every bucket runs as a CUDA graph."""
        return all(lane.graph is not None for lane in self._lanes.values())

    def run(self, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """(B, Q, O) float32 predictions in the model's scale, window after window.

        Raises:
            BackendError: the device failed, or a window or session is larger than any engine.
        """
        try:
            with self._lock:
                self._cuda.enter()
                deadline = self._deadline_s
                self._until = None if deadline is None else time.perf_counter() + deadline
                if not self._landed():
                    raise LateError(f"{self.name}: the GPU is still busy with an earlier window")
                return self._run(feeds)
        except BackendError:
            raise
        except Exception as problem:
            raise BackendError(f"{self.name}: {problem!r}") from problem
        finally:
            if self._warm is not None:
                self._warm.note()

    def layers(self) -> dict[int, str]:
        """Token bucket → what TensorRT made of the graph, its own JSON."""
        kind = self._trt.LayerInformationFormat.JSON
        return {
            size: lane.engine.create_engine_inspector().get_engine_information(kind)
            for size, lane in self._lanes.items()
        }

    def keep_warm(self, pause_s: float) -> None:
        """From now on, run the smallest engine whenever nothing ran for ``pause_s`` seconds.

        GPU clocks may fall when idle, and take a while to rise again. Whether this little work
        keeps them up has not been measured on any Jetson: compare what ``poyo-edge bench`` says. A
        real window waits for one of these at most.
        """
        self._warm = KeepWarm(self._nudge, pause_s)

    def set_period(self, period_s: float) -> None:
        """From now on a window that is not back after half of the period is late."""
        self._deadline_s = DEADLINE_SHARE * period_s

    def offer(self, feeds: Mapping[str, Array]) -> bool:
        """Begin the first query of the first window; False while an earlier one is running."""
        with self._lock:
            self._cuda.enter()
            if not self._landed():
                return False
            self._upload_session(feeds)
            self._launch(self._filled(feeds, 0), feeds["query_time"][0][0])
            return True

    def idle(self) -> bool:
        """Whether the device is done with all that was begun; never waits."""
        with self._lock:
            self._cuda.enter()
            return self._landed()

    def _nudge(self) -> None:
        lane = self._lanes[self.buckets[0]]
        with self._lock:
            self._cuda.enter()
            self._until = time.perf_counter() + _NUDGE_S
            with contextlib.suppress(LateError):  # the next window says so
                if self._landed():
                    self._answer(lane, 0.0)

    def close(self) -> None:
        """Give the device's memory back, or abandon it where a GPU that hangs still uses it: then
        it stays until the process ends, since giving it back would wait for the GPU."""
        if self._warm is not None:
            self._warm.stop()
        try:
            hangs = not self.idle()
        except BackendError:
            hangs = False
        if hangs:
            _ABANDONED.append((self._lanes, self._session, self._cuda))
            self._lanes = {}
            return
        self._lanes.clear()
        self._cuda.close()

    def _run(self, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        self._upload_session(feeds)
        out = []
        for i, queries in enumerate(feeds["query_time"]):
            lane = self._filled(feeds, i)
            out.append([self._answer(lane, query) for query in queries])
        return np.array(out, np.float32)

    def _filled(self, feeds: Mapping[str, Array], index: int) -> _Lane:
        """The lane for a window, with its spikes in the host's block."""
        mask = feeds["spike_mask"][index]
        n_spikes = int(mask.sum())
        size = fitting_bucket(self.buckets, n_spikes)
        if size is None:
            raise WindowTooLargeError(
                f"{self.name}: expected at most {self.buckets[-1]} spikes in a window, "
                f"got {n_spikes}; for larger engines run: {self._again} --max-spikes N"
            )
        lane = self._lanes[size]
        host = lane.inputs.host
        for name in ("spike_time", "spike_unit"):
            values = feeds[name][index]
            host[name][0, :n_spikes] = values if n_spikes == len(mask) else values[mask]
        host["spike_mask"][0, :n_spikes] = True
        host["spike_mask"][0, n_spikes:] = False
        return lane

    def _answer(self, lane: _Lane, query: float) -> Array:
        """(O,) for the window that is in the lane's host block."""
        self._launch(lane, query)
        self._wait()
        return np.array(lane.output.host["prediction"].reshape(-1))

    def _launch(self, lane: _Lane, query: float) -> None:
        lane.inputs.host["query_time"][...] = query
        self._flying = True
        if lane.graph is None:
            self._enqueue(lane)
        else:
            self._cuda.launch(lane.graph)
        self._cuda.record(self._event)

    def _wait(self) -> None:
        """Until the device is done, or the window is late: then its blocks are left alone."""
        if self._until is None:
            self._cuda.wait()
            self._flying = False
            return
        while not self._landed():
            if time.perf_counter() > self._until:
                raise LateError(f"{self.name}: a window was not back in time")

    def _landed(self) -> bool:
        if self._flying and self._cuda.done(self._event):
            self._flying = False
        return not self._flying

    def _enqueue(self, lane: _Lane) -> None:
        self._cuda.to_device(lane.inputs)
        if not lane.context.execute_async_v3(int(self._cuda.stream)):
            raise BackendError(f"{self.name}: {_last(self._log)}")
        self._cuda.to_host(lane.output)

    def _upload_session(self, feeds: Mapping[str, Array]) -> None:
        """Copy the session's constants, unless they are the arrays of the last window."""
        block = self._session
        changed = [name for name in PER_SESSION if feeds[name] is not self._session_seen.get(name)]
        if block is None or not changed:
            return
        for name in changed:
            host, values = block.host[name], feeds[name]
            if values.shape[1:] != host.shape[1:] or len(values) > len(host):
                raise WindowTooLargeError(
                    f"{self.name}: {name}: expected shape {host.shape} at most, "
                    f"got {values.shape}; to build for this session run: {self._again}"
                )
            self._session_seen.pop(name, None)  # until all of it is on the device
            host[: len(values)] = values
        self._cuda.to_device(block)  # in order before the windows, so nobody waits for it
        self._session_seen |= {name: feeds[name] for name in changed}

    def _open(self, runtime: Any, data: bytes) -> _Lane:
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise BackendError(
                f"{self.name}: the engine cannot be opened: {_last(self._log)}; "
                f"build it again: {self._again} --rebuild"
            )
        context = engine.create_execution_context()
        if context is None:
            raise BackendError(
                f"{self.name}: no memory for the engine: {_last(self._log)}; close other programs, "
                f"or build smaller ones: {self._again} --max-spikes N"
            )
        shapes = {
            name: (tuple(engine.get_tensor_shape(name)), self._dtype(engine.get_tensor_dtype(name)))
            for name in map(engine.get_tensor_name, range(engine.num_io_tensors))
        }
        expected = {*INPUTS, *OUTPUTS}
        if set(shapes) != expected:
            raise BackendError(
                f"{self.name}: expected an engine of a core, with {sorted(expected)}, "
                f"got {sorted(shapes)}"
            )
        session = self._share({name: shapes[name] for name in PER_SESSION})
        inputs = self._cuda.block({name: shapes[name] for name in PER_WINDOW})
        output = self._cuda.block({name: shapes[name] for name in OUTPUTS})
        for block in (session, inputs, output):
            for name in block.host:
                context.set_tensor_address(name, block.device(name))
        return _Lane(engine, context, inputs, output)

    def _share(self, shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> Block:
        """The session's constants lie in memory once, for all buckets."""
        if self._session is None:
            self._session = self._cuda.block(shapes)
        for name, (shape, _) in shapes.items():
            if self._session.host[name].shape != shape:
                raise BackendError(f"{self.name}: {name}: expected one shape in all engines")
        return self._session

    def _dtype(self, kind: Any) -> np.dtype[Any]:
        types = self._trt.DataType
        known = {types.FLOAT: np.float32, types.INT32: np.int32, types.BOOL: np.bool_}
        if kind not in known:
            raise BackendError(f"{self.name}: expected inputs of FP32, INT32 or BOOL, got {kind}")
        return np.dtype(known[kind])

    def _warm_up(self, size: int, lane: _Lane) -> None:
        """Run before the first window pays for it, then capture; without a graph it runs too."""
        for _ in range(_WARM_UPS):
            self._enqueue(lane)
            self._cuda.wait()
        try:
            lane.graph = self._cuda.capture(lambda: self._enqueue(lane))
        except BackendError as problem:
            lane.graph = None
            self.notes.append(f"{size} spikes: no CUDA graph ({problem})")
            _log.warning("%s, %d spikes: runs without a CUDA graph: %s", self.name, size, problem)


def _make_logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the last complaint."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message

    return Log()


def _last(log: Any) -> str:
    return log.last or "it gave no reason"
