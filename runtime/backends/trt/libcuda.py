"""The CUDA functions that a decoder needs, from the machine's own library, through ctypes.

The library is the CUDA runtime that JetPack or a toolkit brought (``libcudart``), which matches the
driver; on a PC without one it is the driver itself (``libcuda``), whose functions have other names
and nearly the same arguments. A runtime newer than the driver is passed over: it would fail with
"CUDA driver version is insufficient" at its first call.

ctypes drops the GIL in every call, so a wait for the GPU stops no other thread. The signatures are
held against NVIDIA's headers of CUDA 12.6 and 13.0 in ``test_libcuda.py``.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from poyo_edge.errors import BackendError
from poyo_edge.targets import version_numbers

NOT_READY = 600
"""cudaErrorNotReady and CUDA_ERROR_NOT_READY: no failure, but not yet."""
NON_BLOCKING = 1
"""cudaStreamNonBlocking: on the default stream every enqueue would synchronise the device."""
MAPPED = 2
"""cudaHostAllocMapped."""
NO_TIMING = 2
"""cudaEventDisableTiming."""
SPIN = 1
"""cudaDeviceScheduleSpin: a wait burns a core and is not put to sleep."""
THREAD_LOCAL = 1
"""cudaStreamCaptureModeThreadLocal."""
COPY_DEFAULT = 4
"""cudaMemcpyDefault: the direction follows from the addresses."""
INTEGRATED, CAN_MAP = 18, 19
"""cudaDevAttrIntegrated, cudaDevAttrCanMapHostMemory."""

_int, _uint, _size, _pointer = ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_void_p
_flags64 = ctypes.c_ulonglong
_to_int, _to_pointer = ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_void_p)


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """One function: its name and arguments in either library; all of them return an error."""

    runtime: str
    arguments: tuple[Any, ...]
    """ctypes types, of the runtime's."""
    driver: str
    left_out: tuple[int, ...] = ()
    """Arguments that the driver's does not have."""


FUNCTIONS = {
    function.runtime: function
    for function in (
        Function("cudaDeviceGetAttribute", (_to_int, _int, _int), "cuDeviceGetAttribute"),
        Function(
            "cudaDeviceGetStreamPriorityRange", (_to_int, _to_int), "cuCtxGetStreamPriorityRange"
        ),
        Function(
            "cudaStreamCreateWithPriority",
            (_to_pointer, _uint, _int),
            "cuStreamCreateWithPriority",
        ),
        Function("cudaStreamDestroy", (_pointer,), "cuStreamDestroy_v2"),
        Function("cudaStreamSynchronize", (_pointer,), "cuStreamSynchronize"),
        Function("cudaStreamBeginCapture", (_pointer, _int), "cuStreamBeginCapture_v2"),
        Function("cudaStreamEndCapture", (_pointer, _to_pointer), "cuStreamEndCapture"),
        Function(
            "cudaGraphInstantiateWithFlags",
            (_to_pointer, _pointer, _flags64),
            "cuGraphInstantiateWithFlags",
        ),
        Function("cudaGraphDestroy", (_pointer,), "cuGraphDestroy"),
        Function("cudaGraphExecDestroy", (_pointer,), "cuGraphExecDestroy"),
        Function("cudaGraphLaunch", (_pointer, _pointer), "cuGraphLaunch"),
        Function("cudaMalloc", (_to_pointer, _size), "cuMemAlloc_v2"),
        Function("cudaFree", (_pointer,), "cuMemFree_v2"),
        Function("cudaHostAlloc", (_to_pointer, _size, _uint), "cuMemHostAlloc"),
        Function("cudaFreeHost", (_pointer,), "cuMemFreeHost"),
        Function(
            "cudaHostGetDevicePointer",
            (_to_pointer, _pointer, _uint),
            "cuMemHostGetDevicePointer_v2",
        ),
        Function(
            "cudaMemcpyAsync", (_pointer, _pointer, _size, _int, _pointer), "cuMemcpyAsync", (3,)
        ),
        Function("cudaMemsetAsync", (_pointer, _int, _size, _pointer), "cuMemsetD8Async"),
        Function("cudaEventCreateWithFlags", (_to_pointer, _uint), "cuEventCreate"),
        Function("cudaEventRecord", (_pointer, _pointer), "cuEventRecord"),
        Function("cudaEventQuery", (_pointer,), "cuEventQuery"),
        Function("cudaEventDestroy", (_pointer,), "cuEventDestroy_v2"),
    )
}
"""What ``Cuda`` calls, by the runtime's names."""
ONLY_RUNTIME: dict[str, tuple[Any, ...]] = {
    "cudaSetDeviceFlags": (_uint,),
    "cudaSetDevice": (_int,),
    "cudaRuntimeGetVersion": (_to_int,),
    "cudaDriverGetVersion": (_to_int,),
}
"""How the runtime is opened."""
ONLY_DRIVER: dict[str, tuple[Any, ...]] = {
    "cuInit": (_uint,),
    "cuDevicePrimaryCtxSetFlags_v2": (_int, _uint),
    "cuDevicePrimaryCtxRetain": (_to_pointer, _int),
    "cuCtxSetCurrent": (_pointer,),
}
"""How the driver is opened."""


class CudaLibrary:
    """A library that is loaded, with device 0 in use."""

    def __init__(self, library: Any, *, driver: bool = False) -> None:
        """Take the functions of a library and begin to use device 0.

        Args:
            library: what ``ctypes.CDLL`` gives.
            driver: whether it is ``libcuda`` rather than ``libcudart``.

        Raises:
            BackendError: a function is missing, or there is no usable GPU.
        """
        self.driver = driver
        self._calls = {
            name: _declared(library, f.driver if driver else name, self._arguments(f))
            for name, f in FUNCTIONS.items()
        }
        only = ONLY_DRIVER if driver else ONLY_RUNTIME
        self._open = {name: _declared(library, name, types) for name, types in only.items()}
        self._context = ctypes.c_void_p()
        self.spins = False
        """Whether waits spin; not granted where others in the process use the device already."""
        if driver:
            self._start_driver()
        else:
            self._start_runtime()

    def call(self, name: str, *arguments: Any) -> int:
        """An error code; 0 is success. Outputs are given as ``ctypes.byref(...)``."""
        left_out = FUNCTIONS[name].left_out if self.driver else ()
        given = [value for i, value in enumerate(arguments) if i not in left_out]
        return int(self._calls[name](*given))

    def enter(self) -> None:
        """Before calls from a thread: the runtime finds its device by itself, the driver must be
        told.

        Raises:
            BackendError: the driver refuses.
        """
        if self.driver:
            self._require("cuCtxSetCurrent", self._context)

    def _arguments(self, function: Function) -> tuple[Any, ...]:
        left_out = function.left_out if self.driver else ()
        return tuple(kind for i, kind in enumerate(function.arguments) if i not in left_out)

    def _start_runtime(self) -> None:
        found, allowed = ctypes.c_int(), ctypes.c_int()
        self._require("cudaRuntimeGetVersion", ctypes.byref(found))
        self._require("cudaDriverGetVersion", ctypes.byref(allowed))
        if not allowed.value:
            raise BackendError("CUDA: expected a driver for an NVIDIA GPU, got none")
        if found.value > allowed.value:
            raise BackendError(
                f"CUDA: expected a runtime of CUDA {version_of(allowed.value)} at most, which the "
                f"driver is for, got {version_of(found.value)}"
            )
        self.spins = self._open["cudaSetDeviceFlags"](SPIN) == 0
        self._require("cudaSetDevice", 0)

    def _start_driver(self) -> None:
        self._require("cuInit", 0)
        self.spins = self._open["cuDevicePrimaryCtxSetFlags_v2"](0, SPIN) == 0
        self._require("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), 0)
        self.enter()

    def _require(self, name: str, *arguments: Any) -> None:
        code = int(self._open[name](*arguments))
        if code:
            raise BackendError(f"CUDA: {name} failed with {code}; run poyo-edge doctor")


def load_cuda(driver_version: str, load: Callable[[str], Any] = ctypes.CDLL) -> CudaLibrary:
    """The CUDA runtime of this machine, or its driver where there is no runtime that fits.

    Args:
        driver_version: CUDA version of the driver, like "12.6"; "" where nobody can say.
        load: opens a library by name or path, and raises ``OSError`` where there is none.

    Raises:
        BackendError: there is neither, or no usable GPU; says why each was not taken.
    """
    why = []
    for name in _candidates(driver_version):
        try:
            library = load(name)
        except OSError:
            continue
        try:
            return CudaLibrary(library, driver=name.startswith("libcuda."))
        except BackendError as problem:
            why.append(f"{name}: {problem}")
    raise BackendError(
        "CUDA: expected libcudart, which JetPack and CUDA's toolkit bring, or libcuda, which the "
        f"driver brings, got {'; '.join(why) or 'neither'}; on a Jetson run: sudo apt install "
        "nvidia-jetpack"
    )


def version_of(number: int) -> str:
    """ "12.6" of 12060."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _candidates(driver_version: str) -> Iterator[str]:
    """Names to try, best first: never a runtime of a newer major version than the driver's."""
    known = version_numbers(driver_version)[:1]
    for major in (13, 12):
        if known and major > known[0]:
            continue
        yield f"libcudart.so.{major}"
        yield f"/usr/local/cuda/lib64/libcudart.so.{major}"
        yield f"/usr/local/cuda-{major}/lib64/libcudart.so.{major}"
    yield "libcuda.so.1"


def _declared(library: Any, name: str, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """A function with its signature, or the sentence that it is missing."""
    try:
        function: Callable[..., Any] = getattr(library, name)
    except AttributeError:
        raise BackendError(
            f"CUDA: expected a library with {name}, got one without it; update CUDA"
        ) from None
    function.argtypes, function.restype = arguments, ctypes.c_int  # type: ignore[attr-defined]
    return function
