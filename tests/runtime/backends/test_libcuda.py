"""The CUDA functions that we call: their signatures in NVIDIA's headers, and how they are called.

The headers and the runtimes of CUDA 12.6 and 13.0 are NVIDIA's own, from PyPI. A stub in C stands
for a library that works, since no GPU is here.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.trt.cuda_wheels import WHEELS, cuda_wheel, declarations, values
from helpers.trt.double import Double

from poyo_edge.errors import BackendError
from poyo_edge.runtime.backends.trt import libcuda
from poyo_edge.runtime.backends.trt.cuda import Cuda
from poyo_edge.runtime.backends.trt.libcuda import (
    FUNCTIONS,
    ONLY_DRIVER,
    ONLY_RUNTIME,
    CudaLibrary,
    load_cuda,
)

KINDS = {
    "int": ctypes.c_int, "unsigned int": ctypes.c_uint, "size_t": ctypes.c_size_t,
    "unsigned long long": ctypes.c_ulonglong, "int*": ctypes.POINTER(ctypes.c_int),
    "unsigned char": ctypes.c_int,  # passed as an int by every C
}  # fmt: skip
HANDLES = ("Stream_t", "Graph_t", "GraphExec_t", "Event_t", "CUstream", "CUgraph", "CUgraphExec",
           "CUevent", "CUcontext", "CUdeviceptr")  # fmt: skip
ENUMS = ("cudaDeviceAttr", "cudaStreamCaptureMode", "cudaMemcpyKind", "CUdevice_attribute",
         "CUstreamCaptureMode", "CUdevice")  # fmt: skip
CONSTANTS = {
    "cudaErrorNotReady": libcuda.NOT_READY, "cudaStreamNonBlocking": libcuda.NON_BLOCKING,
    "cudaHostAllocMapped": libcuda.MAPPED, "cudaEventDisableTiming": libcuda.NO_TIMING,
    "cudaDeviceScheduleSpin": libcuda.SPIN, "cudaMemcpyDefault": libcuda.COPY_DEFAULT,
    "cudaStreamCaptureModeThreadLocal": libcuda.THREAD_LOCAL,
    "cudaDevAttrIntegrated": libcuda.INTEGRATED,
    "cudaDevAttrCanMapHostMemory": libcuda.CAN_MAP,
}  # fmt: skip
DRIVER_CONSTANTS = {
    "CUDA_ERROR_NOT_READY": libcuda.NOT_READY, "CU_STREAM_NON_BLOCKING": libcuda.NON_BLOCKING,
    "CU_MEMHOSTALLOC_DEVICEMAP": libcuda.MAPPED, "CU_EVENT_DISABLE_TIMING": libcuda.NO_TIMING,
    "CU_CTX_SCHED_SPIN": libcuda.SPIN,
    "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": libcuda.THREAD_LOCAL,
    "CU_DEVICE_ATTRIBUTE_INTEGRATED": libcuda.INTEGRATED,
    "CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY": libcuda.CAN_MAP,
}  # fmt: skip


@pytest.fixture(scope="session")
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = getattr(request.config, "cache", None)
    if kept is None:  # pytest -p no:cacheprovider
        return tmp_path_factory.mktemp("cuda-runtimes")
    return Path(kept.mkdir("cuda-runtimes"))


@pytest.fixture(params=list(WHEELS))
def wheel(request: pytest.FixtureRequest, cache: Path) -> Path:
    return cuda_wheel(request.param, cache)


def header(wheel: Path, name: str) -> Path:
    (found,) = wheel.rglob(f"include/{name}")
    return found


def as_ctypes(kind: str) -> Any:
    """What is passed for a C type."""
    plain = kind.rstrip("*")
    if plain == "void" or plain.endswith(HANDLES):
        pointer = kind.endswith("**") if plain == "void" else kind.endswith("*")
        return ctypes.POINTER(ctypes.c_void_p) if pointer else ctypes.c_void_p
    return ctypes.c_int if kind in ENUMS else KINDS[kind]


@pytest.mark.slow
def test_signatures_are_those_of_the_runtimes_header(wheel: Path) -> None:
    declared = declarations(header(wheel, "cuda_runtime_api.h"))
    ours = {name: f.arguments for name, f in FUNCTIONS.items()} | ONLY_RUNTIME
    assert len(ours) > 20
    for name, types in ours.items():
        assert tuple(map(as_ctypes, declared[name])) == types, name


def test_signatures_are_those_of_the_drivers_header(wheel: Path) -> None:
    declared = declarations(header(wheel, "cuda.h"))
    ours = dict(ONLY_DRIVER)
    for f in FUNCTIONS.values():
        ours[f.driver] = tuple(a for i, a in enumerate(f.arguments) if i not in f.left_out)
    for name, types in ours.items():
        assert tuple(map(as_ctypes, declared[name])) == types, name


def test_constants_are_those_of_the_headers(wheel: Path) -> None:
    known = values(header(wheel, "driver_types.h"))
    assert {name: known[name] for name in CONSTANTS} == CONSTANTS
    known = values(header(wheel, "cuda.h"))
    assert {name: known[name] for name in DRIVER_CONSTANTS} == DRIVER_CONSTANTS


def test_a_wrong_signature_would_be_noticed(wheel: Path) -> None:
    declared = declarations(header(wheel, "cuda_runtime_api.h"))
    assert tuple(map(as_ctypes, declared["cudaMalloc"])) != FUNCTIONS["cudaFree"].arguments
    assert as_ctypes("cudaStream_t*") != as_ctypes("cudaStream_t")


def test_nvidias_own_runtime_is_opened_and_says_that_there_is_no_driver(wheel: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("a driver is here")
    (path,) = wheel.rglob("lib/libcudart.so.*")
    with pytest.raises(BackendError, match=r"expected a driver for an NVIDIA GPU, got none"):
        CudaLibrary(ctypes.CDLL(str(path)))


def test_a_library_without_a_function_is_named() -> None:
    library = Double().cuda
    del library.cudaEventQuery
    with pytest.raises(BackendError, match=r"a library with cudaEventQuery, got one without it"):
        CudaLibrary(library)


def loaded(driver: str, there: dict[str, Any]) -> tuple[list[str], Any]:
    """The names that are tried on a machine with these libraries, and what came of it."""
    tried = []

    def load(name: str) -> Any:
        tried.append(name)
        if name not in there:
            raise OSError(name)
        return there[name]

    try:
        return tried, load_cuda(driver, load)
    except BackendError as problem:
        return tried, problem


def driver_library() -> Any:
    """A double of ``libcuda``: the functions of the runtime's under their other names."""
    library = Double().cuda
    for f in FUNCTIONS.values():
        setattr(library, f.driver, getattr(library, f.runtime))
    for name in ONLY_DRIVER:
        setattr(library, name, lambda *_: 0)
    return library


def test_a_runtime_newer_than_the_driver_is_passed_over() -> None:
    newer, older = Double().cuda, Double().cuda

    def version_12_8(version: Any) -> int:
        version._obj.value = 12080
        return 0

    newer.cudaRuntimeGetVersion = version_12_8
    tried, library = loaded("12.6", {"libcudart.so.12": newer, "libcuda.so.1": driver_library()})
    assert not [name for name in tried if "13" in name]  # never one of a newer major version
    assert library.driver
    tried, library = loaded("13.0", {"libcudart.so.13": older})
    assert tried == ["libcudart.so.13"]
    assert not library.driver
    tried, problem = loaded("12.6", {"libcudart.so.12": newer})
    assert "runtime of CUDA 12.6 at most, which the driver is for, got 12.8" in str(problem)
    tried, problem = loaded("", {})
    assert str(problem).endswith("got neither; on a Jetson run: sudo apt install nvidia-jetpack")
    assert tried[-1] == "libcuda.so.1"


def test_the_driver_is_told_its_context_in_every_thread_and_no_direction_of_copies() -> None:
    given: dict[str, Any] = {}
    library = driver_library()
    library.cuMemcpyAsync = lambda *a: given.update(copy=a) or 0
    library.cuCtxSetCurrent = lambda c: given.update(times=given.get("times", 0) + 1) or 0
    cuda = Cuda(CudaLibrary(library, driver=True))
    block = cuda.block({"x": ((4,), "float32")})
    cuda.to_device(block)
    assert given["copy"] == (block.address, block.source, 256, cuda.stream)
    before = given["times"]
    cuda.enter()
    assert given["times"] == before + 1


def test_the_stream_has_the_highest_priority_and_spinning_is_asked_for() -> None:
    given: dict[str, Any] = {}
    library = Double().cuda
    plain = library.cudaStreamCreateWithPriority
    library.cudaStreamCreateWithPriority = lambda *a: given.update(stream=a[1:]) or plain(*a)
    library.cudaSetDeviceFlags = lambda flags: given.update(flags=flags) or 708  # in use already
    opened = CudaLibrary(library)
    Cuda(opened)
    assert given == {"stream": (libcuda.NON_BLOCKING, -5), "flags": libcuda.SPIN}
    assert not opened.spins
    assert CudaLibrary(Double().cuda).spins


def test_an_event_says_whether_work_is_done_and_a_failure_is_one() -> None:
    library = Double().cuda
    cuda = Cuda(CudaLibrary(library))
    event = cuda.event()
    cuda.record(event)
    answers = iter((libcuda.NOT_READY, 0, 700))
    library = Double().cuda
    library.cudaEventQuery = lambda event: next(answers)
    cuda = Cuda(CudaLibrary(library))
    assert [cuda.done(event), cuda.done(event)] == [False, True]
    with pytest.raises(BackendError, match=r"^CUDA: cudaEventQuery failed with 700$"):
        cuda.done(event)


STUB = """
#include <stddef.h>
#include <string.h>
#include <unistd.h>
static char memory[4096] __attribute__((aligned(256)));
static void *last[3];
int cudaRuntimeGetVersion(int *v) { *v = 12060; return 0; }
int cudaDriverGetVersion(int *v) { *v = 12060; return 0; }
int cudaSetDevice(int d) { return d; }
int cudaSetDeviceFlags(unsigned f) { return f != 1; }
int cudaDeviceGetAttribute(int *v, int a, int d) { *v = a == 18 || a == 19; return d; }
int cudaDeviceGetStreamPriorityRange(int *l, int *g) { *l = 0; *g = -3; return 0; }
int cudaStreamCreateWithPriority(void **s, unsigned f, int p) {
    *s = (void *)0x7ffffffffff0; return f != 1 || p != -3; }
int cudaStreamSynchronize(void *s) { usleep(300000); return s != (void *)0x7ffffffffff0; }
int cudaHostAlloc(void **p, size_t n, unsigned f) { *p = memory; return n > 4096 || f != 2; }
int cudaHostGetDevicePointer(void **d, void *h, unsigned f) { *d = h; return f; }
int cudaMemcpyAsync(void *t, const void *f, size_t n, int k, void *s) {
    memcpy(t, f, n); last[0] = s; return k != 4; }
int cudaMemsetAsync(void *p, int v, size_t n, void *s) { memset(p, v, n); last[1] = s; return 0; }
int cudaGraphInstantiateWithFlags(void **e, void *g, unsigned long long f) {
    *e = g; return f != 0; }
#define NOTHING(name) int name(void *a) { (void)a; return 0; }
NOTHING(cudaStreamDestroy) NOTHING(cudaGraphDestroy) NOTHING(cudaGraphExecDestroy)
NOTHING(cudaFree) NOTHING(cudaFreeHost) NOTHING(cudaEventQuery) NOTHING(cudaEventDestroy)
int cudaMalloc(void **p, size_t n) { *p = memory; return n > 4096; }
int cudaStreamBeginCapture(void *s, int m) { (void)s; return m != 1; }
int cudaStreamEndCapture(void *s, void **g) { (void)s; *g = (void *)0x123456789ab0; return 0; }
int cudaGraphLaunch(void *g, void *s) { (void)s; return g != (void *)0x123456789ab0; }
int cudaEventCreateWithFlags(void **e, unsigned f) { *e = memory; return f != 2; }
int cudaEventRecord(void *e, void *s) { (void)e; (void)s; return 0; }
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Cuda:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stub with")
    folder = tmp_path_factory.mktemp("stub")
    (folder / "stub.c").write_text(STUB)
    words = [compiler, "-shared", "-fPIC", "-o", str(folder / "stub.so"), str(folder / "stub.c")]
    subprocess.run(words, check=True, capture_output=True)
    return Cuda(CudaLibrary(ctypes.CDLL(str(folder / "stub.so"))))


def test_arguments_reach_c_as_they_are_meant(stub: Cuda) -> None:
    """Each function of the stub fails where an argument is not what it should be."""
    assert stub.maps
    assert stub.stream == 0x7FFFFFFFFFF0  # 64 bits of it
    block = stub.block({"x": ((3,), "float32"), "y": ((2,), "bool")})
    assert block.mapped
    assert block.device("y") - block.device("x") == 256
    graph = stub.capture(lambda: stub.to_device(block))
    stub.launch(graph)
    event = stub.event()
    stub.record(event)
    assert stub.done(event)


def test_other_threads_run_while_one_waits_for_the_gpu(stub: Cuda) -> None:
    counted = 0
    waiting = threading.Thread(target=stub.wait)
    waiting.start()
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        counted += 1
    assert waiting.is_alive()  # it waits 0.3 s, and we counted meanwhile
    waiting.join()
    assert counted > 1000
