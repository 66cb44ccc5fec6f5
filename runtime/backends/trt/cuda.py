"""A device, one stream on it and what is allocated there: every CUDA call checked."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Array
from poyo_edge.errors import BackendError
from poyo_edge.runtime.backends.machine import this_machine
from poyo_edge.runtime.backends.trt.libcuda import (
    CAN_MAP,
    COPY_DEFAULT,
    INTEGRATED,
    MAPPED,
    NO_TIMING,
    NON_BLOCKING,
    NOT_READY,
    THREAD_LOCAL,
    CudaLibrary,
    load_cuda,
)

ALIGNMENT = 256
"""TensorRT's for every tensor; ``cudaMalloc`` gives it."""


class Block:
    """Arrays that lie side by side in pinned memory, and where the device finds each.

    One copy moves them all. On an integrated GPU, which shares its memory with the processor, both
    are the same memory and nothing is copied.
    """

    def __init__(self, host: dict[str, Array], address: int, source: int, n_bytes: int) -> None:
        self.host = host
        self.address = address
        """The device's."""
        self.source = source
        """The host's."""
        self.n_bytes = n_bytes

    def device(self, name: str) -> int:
        """The device's address of one array."""
        return self.address + self.host[name].ctypes.data - self.source

    @property
    def mapped(self) -> bool:
        """Whether the device reads the host's memory."""
        return self.n_bytes == 0


class Cuda:
    """Device 0, one stream of our own on it, and what is allocated there."""

    def __init__(self, library: CudaLibrary) -> None:
        """Make the stream, of the highest priority that there is."""
        self._library = library
        self._device: list[int] = []
        self._host: list[int] = []
        self._graphs: list[int] = []
        self._events: list[int] = []
        library.enter()
        least, greatest = ctypes.c_int(), ctypes.c_int()
        self._call("cudaDeviceGetStreamPriorityRange", ctypes.byref(least), ctypes.byref(greatest))
        self.stream = self._made("cudaStreamCreateWithPriority", NON_BLOCKING, greatest.value)
        self.maps = self._attribute(INTEGRATED) == 1 and self._attribute(CAN_MAP) == 1
        """Whether the device shares the processor's memory."""

    @classmethod
    def open(cls) -> Cuda:
        """With the machine's own library.

        Raises:
            BackendError: there is none, or no usable GPU.
        """
        return cls(load_cuda(this_machine().driver))

    def enter(self) -> None:
        """Before other calls of a thread."""
        self._library.enter()

    def device_buffer(self, n_bytes: int) -> int:
        """The address of device memory, aligned for TensorRT and zeroed on the stream.

        Raises:
            BackendError: there is too little of it.
        """
        size = max(n_bytes, ALIGNMENT)
        address = self._made("cudaMalloc", size)
        self._device.append(address)
        if address % ALIGNMENT:
            raise BackendError(f"CUDA: expected memory aligned to {ALIGNMENT}, got {address:#x}")
        # On our stream: a memset on the default stream is not ordered with a non-blocking one.
        self._call("cudaMemsetAsync", address, 0, size, self.stream)
        return address

    def block(self, arrays: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]) -> Block:
        """Zeroed arrays by name, each of a shape and dtype, aligned for TensorRT.

        Raises:
            BackendError: there is too little memory.
        """
        starts, n_bytes = {}, 0
        for name, (shape, dtype) in arrays.items():
            starts[name] = n_bytes
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            n_bytes += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        source = self._made("cudaHostAlloc", n_bytes + ALIGNMENT, MAPPED if self.maps else 0)
        self._host.append(source)
        start = -source % ALIGNMENT
        memory: Any = (ctypes.c_byte * n_bytes).from_address(source + start)
        ctypes.memset(source + start, 0, n_bytes)
        host: dict[str, Array] = {
            name: np.ndarray(shape, np.dtype(dtype), memory, starts[name])
            for name, (shape, dtype) in arrays.items()
        }
        if self.maps:
            address = self._made("cudaHostGetDevicePointer", source, 0) + start
            return Block(host, address, source + start, 0)
        return Block(host, self.device_buffer(n_bytes), source + start, n_bytes)

    def to_device(self, block: Block) -> None:
        """Enqueue a copy of a block to the device, if it has memory of its own."""
        self._copy(block.address, block.source, block.n_bytes)

    def to_host(self, block: Block) -> None:
        """Enqueue a copy of a block from the device, if it has memory of its own."""
        self._copy(block.source, block.address, block.n_bytes)

    def _copy(self, to: int, source: int, n_bytes: int) -> None:
        if n_bytes:
            self._call("cudaMemcpyAsync", to, source, n_bytes, COPY_DEFAULT, self.stream)

    def wait(self) -> None:
        """Until everything enqueued is done; errors of kernels appear here."""
        self._call("cudaStreamSynchronize", self.stream)

    def event(self) -> int:
        """Something to record on the stream and ask about."""
        event = self._made("cudaEventCreateWithFlags", NO_TIMING)
        self._events.append(event)
        return event

    def record(self, event: int) -> None:
        """Note in an event what is enqueued so far."""
        self._call("cudaEventRecord", event, self.stream)

    def done(self, event: int) -> bool:
        """Whether what an event noted is done; never waits.

        Raises:
            BackendError: a kernel failed.
        """
        code = self._library.call("cudaEventQuery", event)
        if code not in (0, NOT_READY):
            raise BackendError(f"CUDA: cudaEventQuery failed with {code}")
        return code == 0

    def capture(self, enqueue: Callable[[], None]) -> int:
        """What ``enqueue`` puts onto the stream, as a graph that ``launch`` repeats.

        Raises:
            BackendError: something in it cannot be captured; the stream is usable again.
        """
        self._call("cudaStreamBeginCapture", self.stream, THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            graph = ctypes.c_void_p()
            self._library.call("cudaStreamEndCapture", self.stream, ctypes.byref(graph))
            raise
        graph = ctypes.c_void_p()
        self._call("cudaStreamEndCapture", self.stream, ctypes.byref(graph))
        try:
            executable = self._made("cudaGraphInstantiateWithFlags", graph.value, 0)
        finally:
            self._library.call("cudaGraphDestroy", graph.value)
        self._graphs.append(executable)
        return executable

    def launch(self, graph: int) -> None:
        """Enqueue a captured graph."""
        self._call("cudaGraphLaunch", graph, self.stream)

    def close(self) -> None:
        """Give everything back; errors are ignored, since the device may be gone."""
        give_back = [
            ("cudaGraphExecDestroy", self._graphs),
            ("cudaEventDestroy", self._events),
            ("cudaFree", self._device),
            ("cudaFreeHost", self._host),
            ("cudaStreamDestroy", [self.stream]),
        ]
        for name, things in give_back:
            for thing in things:
                self._library.call(name, thing)
        self._graphs, self._events, self._device, self._host = [], [], [], []

    def _attribute(self, which: int) -> int:
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), which, 0)
        return value.value

    def _made(self, name: str, *arguments: Any) -> int:
        """What a call writes through its first argument, a pointer."""
        made = ctypes.c_void_p()
        self._call(name, ctypes.byref(made), *arguments)
        return made.value or 0

    def _call(self, name: str, *arguments: Any) -> None:
        code = self._library.call(name, *arguments)
        if code:
            raise BackendError(f"CUDA: {name} failed with {code}")
