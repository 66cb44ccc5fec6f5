"""A double of TensorRT and of the CUDA runtime that computes, on ONNX Runtime's CPU.

It has exactly the members that ``runtime/backends/trt/api.py`` lists, takes exactly the numbers
of arguments listed there, and refuses everything else with ``AssertionError``. What it claims to
have is held against NVIDIA's own bindings in ``test_bindings.py``. "Device" memory is host memory
that only enqueued copies may touch; captured work happens when it is launched, and not before.
"""

from __future__ import annotations

import ctypes
import enum
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from helpers.models.graphs import open_graph
from helpers.trt.cuda import cuda_runtime
from helpers.trt.listed import Listed, listed_members

MAGIC = b"engine of the double:"
FAILURES = (
    "builder", "parse", "build", "memory", "deserialize", "context", "enqueue", "capture",
    "instantiate", "malloc", "synchronize", "cache",
)  # fmt: skip
_NUMPY = {"FLOAT": np.float32, "INT32": np.int32, "BOOL": np.bool_}
_ONNX = {"tensor(float)": "FLOAT", "tensor(int32)": "INT32", "tensor(bool)": "BOOL"}


class Double:
    """Makes the modules, and knows what is to fail.

    Args:
        version: what the module says it is; "rtx-1.7.1" for TensorRT-RTX.
        fail: one of ``FAILURES``, or "".
    """

    def __init__(self, version: str = "10.3.0", fail: str = "") -> None:
        assert not fail or fail in FAILURES, fail
        self.version, self.fail = version, fail
        self.calls: list[str] = []
        self.launches = 0
        self.noise = 0.0
        """Added to every prediction, as a faulty kernel would."""
        self.captured: list[Callable[[], None]] | None = None
        self.memory: dict[int, Any] = {}
        self.graphs: list[list[Callable[[], None]]] = []
        self.copies = 0
        self.late_s = 0.0
        """How long the GPU takes; infinite for one that hangs, which nobody may wait for."""
        self.pending: list[tuple[float, dict[int, bytes], Callable[[], None]]] = []
        self.integrated = False
        """Whether the GPU shares the processor's memory."""
        self.engines: dict[int, Any] = {}
        self.trt = self._module()
        self.cuda = cuda_runtime(self)
        """As ``ctypes.CDLL`` would give it."""

    def _class(self, name: str, **members: Any) -> Any:
        return type(name, (Listed,), {"KIND": name, "VERSION": self.version, **members})

    def _enum(self, kind: str) -> Any:
        names = listed_members(kind, self.version)
        # Other integers than TensorRT 10's, which nobody may count on.
        return enum.IntEnum(kind, {name: 7 + i for i, name in enumerate(names)})

    def _module(self) -> Any:
        trt = types.SimpleNamespace(__version__=self.version.removeprefix("rtx-"))
        kinds = ("NetworkDefinitionCreationFlag", "BuilderFlag", "MemoryPoolType", "DataType",
                 "ProfilingVerbosity", "LayerInformationFormat", "ComputeCapability")  # fmt: skip
        for kind in kinds:
            setattr(trt, kind, self._enum(kind))
        severity = self._enum("ILogger.Severity")
        trt.ILogger = type("ILogger", (), {"Severity": severity, "log": lambda *_: None})
        trt.IProgressMonitor = type("IProgressMonitor", (), {})
        self._types = trt.DataType
        self._severity = severity
        self._add_builder(trt)
        self._add_runtime(trt)
        return trt

    def _complain(self, log: Any, words: str) -> None:
        log.log(self._severity.ERROR, words)

    def _add_builder(self, trt: Any) -> None:
        double = self

        class Tensor(Listed):
            KIND, VERSION = "ITensor", double.version

            def __init__(self, name: str, shape: Any) -> None:
                self.name, self.shape = name, shape

        class Network(Listed):
            KIND, VERSION = "INetworkDefinition", double.version
            _graph = b""
            _inputs: tuple[Tensor, ...] = ()

            @property
            def num_inputs(self) -> int:
                return len(self._inputs)

            @property
            def num_layers(self) -> int:
                return 42

            def get_input(self, index: int) -> Tensor:
                return self._inputs[index]

        class ParserError(Listed):
            KIND, VERSION = "ParserError", double.version

            def desc(self) -> str:
                return "Assertion failed: like types"

            def node_name(self) -> str:
                return "layer0.attention.qkv"

        class Parser(Listed):
            KIND, VERSION = "OnnxParser", double.version

            def __init__(self, network: Network, log: Any) -> None:
                self._network = network

            def parse(self, graph: bytes) -> bool:
                if double.fail == "parse":
                    return False
                self._network._graph = graph
                self._network._inputs = tuple(
                    Tensor(node.name, [d if isinstance(d, int) else -1 for d in node.shape])
                    for node in open_graph(graph).get_inputs()
                )
                return True

            @property
            def num_errors(self) -> int:
                return 1 if double.fail == "parse" else 0

            def get_error(self, index: int) -> ParserError:
                return ParserError()

        class Cache(Listed):
            KIND, VERSION = "ITimingCache", double.version

            def __init__(self, data: bytes) -> None:
                self._data = data

            def serialize(self) -> bytes:
                return self._data + b"+timings"

        class Config(Listed):
            KIND, VERSION = "IBuilderConfig", double.version
            profiling_verbosity: Any = None
            progress_monitor: Any = None
            num_compute_capabilities = 0

            def set_memory_pool_limit(self, pool: Any, size: int) -> None:
                double.calls.append(f"workspace {size}")

            def clear_flag(self, flag: Any) -> None:
                double.calls.append(f"clear {flag.name}")

            def set_flag(self, flag: Any) -> None:
                double.calls.append(f"set {flag.name}")

            def set_compute_capability(self, capability: Any, index: int) -> bool:
                double.calls.append(f"capability {capability.name}")
                return True

            def create_timing_cache(self, data: bytes) -> Cache:
                return Cache(data)

            def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
                double.calls.append(f"cache of {len(cache._data)} bytes")
                return not (double.fail == "cache" and cache._data)

        class Builder(Listed):
            KIND, VERSION = "Builder", double.version

            def __new__(cls, log: Any) -> Any:
                return None if double.fail == "builder" else object.__new__(cls)

            def __init__(self, log: Any) -> None:
                self._logger = log

            def create_network(self, flags: int) -> Network:
                double.calls.append(f"network {flags}")
                return Network()

            def create_builder_config(self) -> Config:
                return Config()

            def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
                monitor = config.progress_monitor
                if monitor is not None:
                    monitor.phase_start("Building", None, 2)
                    goes_on = monitor.step_complete("Building", 0)
                    monitor.phase_finish("Building")
                    if not goes_on:
                        return None
                if double.fail in ("build", "memory"):
                    words = {
                        "build": "Could not find any implementation for node {ForeignNode[...]}.",
                        "memory": "Requested amount of GPU memory could not be allocated.",
                    }
                    double._complain(self._logger, words[double.fail])
                    return None
                return MAGIC + network._graph

        trt.Builder, trt.OnnxParser = Builder, Parser

    def _add_runtime(self, trt: Any) -> None:
        double = self

        class Inspector(Listed):
            KIND, VERSION = "EngineInspector", double.version

            def get_engine_information(self, kind: Any) -> str:
                return '{"Layers": ["myelin"]}'

        class Context(Listed):
            KIND, VERSION = "IExecutionContext", double.version

            def __init__(self, engine: Engine) -> None:
                self._engine = engine
                self._addresses: dict[str, int] = {}

            def set_tensor_address(self, name: str, address: int) -> bool:
                assert address % 256 == 0
                self._addresses[name] = address
                return True

            def execute_async_v3(self, stream: int) -> bool:
                if double.fail == "enqueue":
                    return False
                double.enqueue(lambda: self._engine._execute(self._addresses))
                return True

        class Engine(Listed):
            KIND, VERSION = "ICudaEngine", double.version

            def __init__(self, data: bytes) -> None:
                self._session = open_graph(data)
                self._tensors = [*self._session.get_inputs(), *self._session.get_outputs()]
                self._named = {tensor.name: tensor for tensor in self._tensors}

            @property
            def num_io_tensors(self) -> int:
                return len(self._tensors)

            def get_tensor_name(self, index: int) -> str:
                return str(self._tensors[index].name)

            def get_tensor_shape(self, name: str) -> list[int]:
                return list(self._named[name].shape)

            def get_tensor_dtype(self, name: str) -> Any:
                return double._types[_ONNX[self._named[name].type]]

            def create_execution_context(self) -> Context | None:
                return None if double.fail == "context" else Context(self)

            def create_engine_inspector(self) -> Inspector:
                return Inspector()

            def _execute(self, addresses: dict[str, int]) -> None:
                def view(name: str) -> Any:
                    tensor = self._named[name]
                    kind = np.dtype(_NUMPY[_ONNX[tensor.type]])
                    size = int(np.prod(tensor.shape)) * kind.itemsize
                    memory: Any = (ctypes.c_byte * size).from_address(addresses[name])
                    return np.ndarray(tensor.shape, kind, memory)

                feeds = {node.name: view(node.name) for node in self._session.get_inputs()}
                (out,) = self._session.run(["prediction"], feeds)
                view("prediction")[...] = out + double.noise

        class Runtime(Listed):
            KIND, VERSION = "Runtime", double.version

            def __init__(self, log: Any) -> None:
                self._logger = log

            def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
                if double.fail == "deserialize" or not data.startswith(MAGIC):
                    double._complain(self._logger, "Serialization assertion failed")
                    return None
                return Engine(data.removeprefix(MAGIC))

        trt.Runtime = Runtime

    def enqueue(self, work: Callable[[], None]) -> None:
        if self.captured is not None:
            self.captured.append(work)
        elif self.late_s or self.pending:
            memory = {address: block.raw for address, block in self.memory.items()}
            self.pending.append((time.monotonic() + self.late_s, memory, work))
        else:
            work()

    def landed(self) -> bool:
        """Whether the GPU is done; what it read must be what it was given."""
        if self.pending and max(ready for ready, _, _ in self.pending) > time.monotonic():
            return False
        for _, memory, _ in self.pending[-1:]:
            for address, block in self.memory.items():
                assert memory[address] == block.raw, "memory was written while the GPU used it"
        work, self.pending = [work for _, _, work in self.pending], []
        for each in work:
            each()
        return True
