"""The CUDA runtime of the double: what is captured works when it is launched, and not before."""

from __future__ import annotations

import ctypes
import enum
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helpers.trt.double import Double


def cuda_runtime(double: Double) -> Any:
    """A double of ``cuda.bindings.runtime``: tuples whose first member is an error code."""
    runtime = types.SimpleNamespace(
        cudaStreamNonBlocking=1,
        cudaHostAllocDefault=0,
        cudaMemcpyKind=enum.IntEnum(
            "cudaMemcpyKind", ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"]
        ),
        cudaStreamCaptureMode=enum.IntEnum(
            "cudaStreamCaptureMode", ["cudaStreamCaptureModeThreadLocal"]
        ),
    )

    def allocate(size: int, *_: Any) -> tuple[int, int]:
        if double.fail == "malloc":
            return 2, 0
        block = ctypes.create_string_buffer(size + 256)
        address = (ctypes.addressof(block) + 255) // 256 * 256
        double.memory[address] = block
        return 0, address

    def free(address: int) -> tuple[int]:
        del double.memory[address]
        return (0,)

    def copy(to: int, source: int, size: int, kind: Any, stream: int) -> tuple[int]:
        double.enqueue(lambda: void(ctypes.memmove(to, source, size)))
        return (0,)

    def void(_: object) -> None:
        """What a copy gives back is of no use."""

    def fill(address: int, value: int, size: int) -> tuple[int]:
        ctypes.memset(address, value, size)
        return (0,)

    def begin(stream: int, mode: Any) -> tuple[int]:
        double.captured = []
        return (0,)

    def end(stream: int) -> tuple[int, Any]:
        work, double.captured = double.captured, None
        return (900 if double.fail == "capture" else 0), work

    def instantiate(graph: Any, flags: int) -> tuple[int, Any]:
        return (1 if double.fail == "instantiate" else 0), graph

    def launch(graph: Any, stream: int) -> tuple[int]:
        double.launches += 1
        for work in graph:
            work()
        return (0,)

    def fine(*_: Any) -> tuple[int]:
        return (0,)

    functions = {
        "cudaStreamCreateWithFlags": lambda flags: (0, 77),
        "cudaMalloc": allocate, "cudaHostAlloc": allocate, "cudaFree": free,
        "cudaFreeHost": free, "cudaMemcpyAsync": copy, "cudaMemset": fill,
        "cudaStreamBeginCapture": begin, "cudaStreamEndCapture": end,
        "cudaGraphInstantiate": instantiate, "cudaGraphLaunch": launch,
        "cudaGraphDestroy": fine, "cudaGraphExecDestroy": fine, "cudaStreamDestroy": fine,
        "cudaStreamSynchronize": lambda stream: (700 if double.fail == "synchronize" else 0,),
    }  # fmt: skip
    for name, function in functions.items():
        setattr(runtime, name, function)
    return runtime
