"""TensorRT engines as a backend: one engine, context and CUDA graph for each token bucket.

Shapes are fixed, buffers are allocated once, and one window costs one copy in, one copy out and a
graph launch; on an integrated GPU, which shares the processor's memory, the launch alone.
``tensorrt`` and ``tensorrt-rtx`` share all of it; the module is all that differs.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Array
from poyo_edge.core_inputs import INPUTS, OUTPUTS, PER_SESSION, PER_WINDOW
from poyo_edge.errors import BackendError, MissingExtraError, pip_install
from poyo_edge.runtime.backends.base import Backend, BackendInfo, CoreToOpen
from poyo_edge.runtime.backends.buckets import WindowTooLargeError, fitting_bucket
from poyo_edge.runtime.backends.keep_warm import KeepWarm
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.trt.cuda import Block, Cuda
from poyo_edge.runtime.backends.trt.engines import ENGINES, EngineStore

_log = logging.getLogger(__name__)
MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_WARM_UPS = 3


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

        GPU clocks fall when idle and take a while to rise again, which makes the window after a
        pause late. A real window waits for one of these at most.
        """
        self._warm = KeepWarm(self._nudge, pause_s)

    def _nudge(self) -> None:
        lane = self._lanes[self.buckets[0]]
        with self._lock:
            self._cuda.enter()
            self._answer(lane, 0.0)

    def close(self) -> None:
        """Give the device's memory back."""
        if self._warm is not None:
            self._warm.stop()
        self._lanes.clear()
        self._cuda.close()

    def _run(self, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        self._upload_session(feeds)
        out = []
        for unit, time, mask, queries in zip(*(feeds[name] for name in PER_WINDOW), strict=True):
            n_spikes = int(mask.sum())
            size = fitting_bucket(self.buckets, n_spikes)
            if size is None:
                raise WindowTooLargeError(
                    f"{self.name}: expected at most {self.buckets[-1]} spikes in a window, "
                    f"got {n_spikes}; for larger engines run: {self._again} --max-spikes N"
                )
            lane = self._lanes[size]
            host = lane.inputs.host
            for name, values in (("spike_time", time), ("spike_unit", unit)):
                host[name][0, :n_spikes] = values if n_spikes == len(mask) else values[mask]
            host["spike_mask"][0, :n_spikes] = True
            host["spike_mask"][0, n_spikes:] = False
            out.append([self._answer(lane, query) for query in queries])
        return np.array(out, np.float32)

    def _answer(self, lane: _Lane, query: float) -> Array:
        """(O,) for the window that is in the lane's host buffers."""
        lane.inputs.host["query_time"][...] = query
        if lane.graph is None:
            self._enqueue(lane)
        else:
            self._cuda.launch(lane.graph)
        self._cuda.wait()
        return np.array(lane.output.host["prediction"].reshape(-1))

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
        self._cuda.to_device(block)
        self._cuda.wait()
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


def look(machine: Machine) -> BackendInfo:
    """Whether TensorRT is installed, and the driver shows a GPU."""
    return _info("tensorrt", "TensorRT", machine.tensorrt, machine.sm, "it comes with JetPack")


def look_rtx(machine: Machine) -> BackendInfo:
    """Whether TensorRT-RTX is installed, and the driver shows a GPU."""
    hint = pip_install("rtx")
    return _info("tensorrt-rtx", "TensorRT-RTX", machine.rtx, machine.sm, hint)


def open_core(given: CoreToOpen) -> TensorRTBackend:
    """The artifact's engines for this machine: see ``open_engines``."""
    return _open_core("tensorrt", given)


def open_core_rtx(given: CoreToOpen) -> TensorRTBackend:
    """The artifact's engines of TensorRT-RTX for this machine: see ``open_engines``."""
    return _open_core("tensorrt-rtx", given)


def _info(name: str, title: str, version: str, sm: str, hint: str) -> BackendInfo:
    if not version:
        return BackendInfo(name=name, present=False, reason=f"{title} is not installed; {hint}")
    if not sm:
        reason = f"{title} {version} is installed, but the driver shows no GPU"
        return BackendInfo(name=name, present=False, reason=reason)
    return BackendInfo(name=name, present=True, reason=f"{title} {version}, GPU of SM {sm}")


def _open_core(name: str, given: CoreToOpen) -> TensorRTBackend:
    beside = given.beside
    if beside.folder is None:
        raise BackendError(f"{name}: expected an artifact with engines, got a core alone")
    store = EngineStore(beside.folder / ENGINES)
    return open_engines(name, store, beside.core_sha256, given.machine)


def open_engines(
    name: str, store: EngineStore, core_sha256: str, machine: Machine
) -> TensorRTBackend:
    """The engines of a core that fit this machine. TensorRT is imported after every check.

    Raises:
        ArtifactError: an engine is damaged.
        BackendError: none fits, or it cannot be run.
        MissingExtraError: TensorRT-RTX is not installed.
    """
    records = store.fitting(name, core_sha256, machine)
    engines = {record.key.n_spikes: store.read(record, machine) for record in records}
    precision = records[0].key.precision
    again = store.build_command(name, precision)
    return TensorRTBackend(
        name, import_tensorrt(name), Cuda.open(), engines, precision, again=again
    )


def import_tensorrt(name: str) -> Any:
    """The module behind "tensorrt" or "tensorrt-rtx".

    Raises:
        MissingExtraError: TensorRT-RTX is not installed.
        BackendError: TensorRT is not, or its libraries cannot be loaded.
    """
    for module in MODULES[name]:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as problem:
            raise BackendError(f"{name}: {module} cannot be loaded: {problem}") from problem
    if name == "tensorrt-rtx":
        raise MissingExtraError("tensorrt_rtx", "rtx", "the backend tensorrt-rtx")
    raise BackendError(
        "tensorrt: expected TensorRT's Python package, got none; on a Jetson run: sudo apt install "
        "nvidia-jetpack, and make virtual environments with --system-site-packages"
    )


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
