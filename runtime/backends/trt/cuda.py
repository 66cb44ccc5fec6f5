"""The few CUDA calls that a decoder needs, through cuda-python, each one checked."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Array
from poyo_edge.errors import BackendError, MissingExtraError

ALIGNMENT = 256
"""TensorRT's for every tensor; ``cudaMalloc`` gives it."""


class Cuda:
    """A device, one stream of our own on it, and what is allocated there."""

    def __init__(self, runtime: Any) -> None:
        """``runtime`` is ``cuda.bindings.runtime``."""
        self._runtime = runtime
        self._device: list[int] = []
        self._host: list[int] = []
        self._graphs: list[Any] = []
        # Non-blocking: on the default stream every enqueue would synchronise the device.
        self.stream = self._call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)

    @classmethod
    def open(cls) -> Cuda:
        """On the machine's own cuda-python.

        Raises:
            MissingExtraError: it is not installed.
            BackendError: there is no usable GPU.
        """
        for name in ("cuda.bindings.runtime", "cuda.cudart"):  # the second: before 12.6
            try:
                return cls(importlib.import_module(name))
            except ImportError:
                continue
        raise MissingExtraError("cuda-python", "tensorrt", "running TensorRT engines")

    def device_buffer(self, n_bytes: int) -> int:
        """The address of zeroed device memory, aligned for TensorRT.

        Raises:
            BackendError: there is too little of it.
        """
        address = int(self._call("cudaMalloc", max(n_bytes, ALIGNMENT)))
        self._device.append(address)
        if address % ALIGNMENT:
            raise BackendError(f"CUDA: expected memory aligned to {ALIGNMENT}, got {address:#x}")
        self._call("cudaMemset", address, 0, max(n_bytes, ALIGNMENT))
        return address

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """A zeroed array in pinned memory, for copies that do not wait."""
        kind = np.dtype(dtype)
        n_bytes = max(1, int(np.prod(shape)) * kind.itemsize)
        address = int(self._call("cudaHostAlloc", n_bytes, self._runtime.cudaHostAllocDefault))
        self._host.append(address)
        memory: Any = (ctypes.c_byte * n_bytes).from_address(address)
        array: Array = np.ndarray(shape, kind, memory)
        array.fill(0)
        return array

    def to_device(self, address: int, array: Array) -> None:
        """Enqueue a copy of a pinned array to device memory."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)

    def to_host(self, array: Array, address: int) -> None:
        """Enqueue a copy of device memory to a pinned array."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)

    def wait(self) -> None:
        """Until everything enqueued is done; errors of kernels appear here."""
        self._call("cudaStreamSynchronize", self.stream)

    def capture(self, enqueue: Callable[[], None]) -> Any:
        """What ``enqueue`` puts onto the stream, as a graph that ``launch`` repeats.

        Raises:
            BackendError: something in it cannot be captured; the stream is usable again.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)
        try:
            enqueue()
        except BaseException:
            self._runtime.cudaStreamEndCapture(self.stream)
            raise
        graph = self._call("cudaStreamEndCapture", self.stream)
        try:
            executable = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._runtime.cudaGraphDestroy(graph)
        self._graphs.append(executable)
        return executable

    def launch(self, graph: Any) -> None:
        """Enqueue a captured graph."""
        self._call("cudaGraphLaunch", graph, self.stream)

    def close(self) -> None:
        """Give everything back; errors are ignored, since the device may be gone."""
        for graph in self._graphs:
            self._runtime.cudaGraphExecDestroy(graph)
        for address in self._device:
            self._runtime.cudaFree(address)
        for address in self._host:
            self._runtime.cudaFreeHost(address)
        self._graphs, self._device, self._host = [], [], []
        self._runtime.cudaStreamDestroy(self.stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """The value of a call, whose first result is an error code."""
        error, *values = getattr(self._runtime, name)(*arguments)
        if int(error) != 0:
            raise BackendError(f"CUDA: {name} failed with {getattr(error, 'name', error)}")
        return values[0] if values else None
