"""One engine from one graph of fixed shapes: the same code for TensorRT 10.1 to 11.4 and RTX.

Everything is asked for by name, since the integers behind TensorRT's enums moved in 11. Precision
is in the graph: networks are strongly typed. What is used here is listed in
``runtime/backends/trt/api.py``, and tested against the bindings of five versions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from poyo_edge.errors import BackendError
from poyo_edge.export.engines.kernel_plan import LISTING
from poyo_edge.targets import version_numbers

MIB = 1 << 20
Progress = Callable[[str, int, int], None]
"""Called with a phase, steps done, and steps in all."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """What an engine is built with, beside its graph."""

    workspace_mib: int = 256
    """Most scratch memory of a kernel; small, because a Jetson shares it with the system."""
    compute_capabilities: tuple[str, ...] = ()
    """TensorRT-RTX only: what to compile for, by the names of its enum."""
    weak_fp16: bool = False
    """TensorRT 10.3 only: an FP32 graph, with the choice of precision left to the builder."""

    def flags(self) -> tuple[str, ...]:
        """What distinguishes the engine, for its key."""
        typing = "weak-fp16" if self.weak_fp16 else "strongly-typed"
        return (typing, "no-tf32", f"workspace-{self.workspace_mib}MiB")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """A serialized engine, and how it came about."""

    data: bytes
    seconds: float
    n_layers: int
    """Of the network, before fusion."""
    warnings: tuple[str, ...]
    timing_cache: bytes
    listing: str
    """The builder's own list of kernels (see ``kernel_plan.py``); "" where it gave none."""


def build_engine(
    trt: Any,
    graph: bytes,
    settings: BuildSettings,
    *,
    timing_cache: bytes = b"",
    progress: Progress | None = None,
) -> BuiltEngine:
    """Parse a graph and build it.

    Args:
        trt: the module ``tensorrt`` or ``tensorrt_rtx``.
        graph: ONNX, all axes fixed.
        settings: see ``BuildSettings``.
        timing_cache: of an earlier build on this machine, or empty.
        progress: told how far the builder is, where this version of TensorRT can say.

    Raises:
        BackendError: the parser or the builder refuses; the message has their words.
        KeyboardInterrupt: from ``progress``, or from the keyboard: the builder was told to stop.
    """
    log = _make_logger(trt)
    builder = _made("a builder", trt.Builder(log), log)
    network = builder.create_network(_network_flags(trt, settings))
    _parse(trt, network, graph, log)
    config = builder.create_builder_config()
    cache = _configure(trt, config, settings, timing_cache)
    monitor = _make_monitor(trt, progress or (lambda *_: None))
    if monitor is not None:
        config.progress_monitor = monitor
    started = time.perf_counter()
    n_layers = network.num_layers
    with _interruptible(monitor):
        made = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.stopped is not None:
        raise monitor.stopped
    plan = _made("an engine", made, log)
    return BuiltEngine(
        data=bytes(plan),
        seconds=time.perf_counter() - started,
        n_layers=n_layers,
        warnings=tuple(log.warnings),
        timing_cache=bytes(cache.serialize()) if cache is not None else b"",
        listing=log.listing,
    )


@contextlib.contextmanager
def _interruptible(monitor: Any) -> Iterator[None]:
    """Ctrl-C tells the builder to stop, instead of raising in the middle of its C++."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main and monitor is not None else None
    if before is None:
        yield
        return

    def stop(*_: object) -> None:
        monitor.stopped = monitor.stopped or KeyboardInterrupt()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _network_flags(trt: Any, settings: BuildSettings) -> int:
    if settings.weak_fp16:
        if version_numbers(trt.__version__)[:2] != (10, 3):
            raise BackendError(
                f"weak typing: expected TensorRT 10.3, the only version it is kept for, "
                f"got {trt.__version__}; build with --precision fp32"
            )
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _parse(trt: Any, network: Any, graph: bytes, log: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        words = "; ".join(f"{error.node_name()}: {error.desc()}" for error in errors[:3])
        raise BackendError(
            f"TensorRT {trt.__version__}: expected a graph that its parser takes, "
            f"got: {words or _last(log.errors)}; please report this"
        )
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if any(size < 0 for size in tensor.shape):
            raise BackendError(
                f"TensorRT {trt.__version__}: expected fixed shapes, got "
                f"{tuple(tensor.shape)} for {tensor.name!r}"
            )


def _configure(trt: Any, config: Any, settings: BuildSettings, timing_cache: bytes) -> Any:
    """Set everything that is asked for; returns the timing cache in use."""
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib * MIB)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    if settings.weak_fp16:
        config.set_flag(trt.BuilderFlag.FP16)
    if settings.compute_capabilities:
        _set_capabilities(trt, config, settings.compute_capabilities)
        return None  # Ahead of time nothing is measured, so there is nothing to remember.
    cache = config.create_timing_cache(timing_cache)
    if cache is not None and not config.set_timing_cache(cache, False) and timing_cache:
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _set_capabilities(trt: Any, config: Any, names: Sequence[str]) -> None:
    config.num_compute_capabilities = len(names)
    for i, name in enumerate(names):
        if not config.set_compute_capability(getattr(trt.ComputeCapability, name), i):
            raise BackendError(f"TensorRT-RTX {trt.__version__}: it does not compile for {name}")


def _made(what: str, thing: Any, log: Any) -> Any:
    if thing is None:
        words = _last(log.errors)
        hint = (
            "; there may be too little memory: close other programs, or add a lower --max-spikes"
            if "memory" in words.lower() or "any implementation" in words.lower()
            else ""
        )
        raise BackendError(f"TensorRT: expected {what}, got none: {words}{hint}")
    return thing


def _last(messages: Sequence[str]) -> str:
    return messages[-1] if messages else "it gave no reason"


def _make_logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps what the builder complains of, and its list of kernels."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []
            self.listing = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                self.warnings.append(message)
            elif message.startswith(LISTING):
                self.listing = message

    return Log()


def _make_monitor(trt: Any, progress: Progress) -> Any:
    """A monitor, or None on versions without one."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Tells how far each phase is, and ends the build where that raises.

        The builder would make an error of its own of anything that is raised in here, Ctrl-C too.
        """

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.stopped: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            self._tell(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1, self.steps.get(phase_name, step + 1))
            return self.stopped is None

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self.steps.pop(phase_name, 0), 0)

        def _tell(self, phase: str, done: int, total: int) -> None:
            if self.stopped is not None:
                return
            try:
                progress(phase, done, total)
            except BaseException as problem:
                self.stopped = problem

    return Monitor()
