"""The CUDA runtime of the double: what is captured works when it is launched, and not before."""

from __future__ import annotations

import ctypes
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.trt.double import Double

STREAM = 77


def cuda_runtime(double: Double) -> Any:
    """A double of ``libcudart``: functions that return an error code and write through pointers."""

    def allocate(pointer: Any, size: int, *_: int) -> int:
        if double.fail == "malloc":
            return 2
        block = ctypes.create_string_buffer(size + 256)
        address = (ctypes.addressof(block) + 255) // 256 * 256
        double.memory[address] = block
        return give(pointer, address)

    def give(pointer: Any, value: int) -> int:
        pointer._obj.value = value
        return 0

    def free(address: int) -> int:
        assert not double.pending, "giving memory back waits for the GPU"
        del double.memory[address]
        return 0

    def copy(to: int, source: int, size: int, kind: int, stream: int) -> int:
        double.copies += 1
        double.enqueue(lambda: void(ctypes.memmove(to, source, size)))
        return 0

    def void(_: object) -> None:
        """What a copy gives back is of no use."""

    def fill(address: int, value: int, size: int, stream: int) -> int:
        double.enqueue(lambda: void(ctypes.memset(address, value, size)))
        return 0

    def begin(stream: int, mode: int) -> int:
        double.captured = []
        return 0

    def end(stream: int, graph: Any) -> int:
        work, double.captured = double.captured, None
        double.graphs.append(work or [])
        give(graph, len(double.graphs))
        return 900 if double.fail == "capture" else 0

    def instantiate(executable: Any, graph: int, flags: int) -> int:
        give(executable, graph)
        return 1 if double.fail == "instantiate" else 0

    def launch(graph: int, stream: int) -> int:
        double.launches += 1
        for work in double.graphs[graph - 1]:
            double.enqueue(work)
        return 0

    def query(event: int) -> int:
        if double.fail == "synchronize":
            return 700
        return 0 if double.landed() else 600

    def synchronize(stream: int) -> int:
        assert not double.pending, "a wait without an end"
        return 700 if double.fail == "synchronize" else 0

    def attribute(value: Any, which: int, device: int) -> int:
        return give(value, int(double.integrated))

    def fine(*_: Any) -> int:
        return 0

    def shared(pointer: Any, address: int, flags: int) -> int:
        return give(pointer, address)

    functions: dict[str, Callable[..., int]] = {
        "cudaStreamCreateWithPriority": lambda stream, flags, priority: give(stream, STREAM),
        "cudaDeviceGetStreamPriorityRange": lambda low, high: give(low, 0) or give(high, -5),
        "cudaDeviceGetAttribute": attribute, "cudaHostGetDevicePointer": shared,
        "cudaMalloc": allocate, "cudaHostAlloc": allocate, "cudaFree": free,
        "cudaFreeHost": free, "cudaMemcpyAsync": copy, "cudaMemsetAsync": fill,
        "cudaStreamBeginCapture": begin, "cudaStreamEndCapture": end,
        "cudaGraphInstantiateWithFlags": instantiate, "cudaGraphLaunch": launch,
        "cudaStreamSynchronize": synchronize, "cudaEventQuery": query,
        "cudaEventCreateWithFlags": lambda event, flags: give(event, 5),
        "cudaRuntimeGetVersion": lambda version: give(version, 12060),
        "cudaDriverGetVersion": lambda version: give(version, 12060),
        **dict.fromkeys(
            ("cudaGraphDestroy", "cudaGraphExecDestroy", "cudaStreamDestroy", "cudaEventRecord",
             "cudaEventDestroy", "cudaSetDevice", "cudaSetDeviceFlags"), fine
        ),
    }  # fmt: skip
    return types.SimpleNamespace(**{name: named(f) for name, f in functions.items()})


def named(function: Callable[..., int]) -> Callable[..., int]:
    """A function of its own, since a library's functions are given signatures."""

    def call(*arguments: Any) -> int:
        return function(*arguments)

    return call
