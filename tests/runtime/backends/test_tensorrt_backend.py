"""The TensorRT backend on a double that computes: what it says, and how each failure ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models.tiny_windows import tiny_windows
from helpers.trt.double import Double
from helpers.trt.engines import BUCKETS, engines
from helpers.trt.machines import ORIN

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.errors import BackendError, MissingExtraError
from poyo_edge.runtime.backends import open_backend
from poyo_edge.runtime.backends import opening as backends
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.trt.backend import TensorRTBackend
from poyo_edge.runtime.backends.trt.cuda import Cuda
from poyo_edge.runtime.backends.trt.libcuda import CudaLibrary
from poyo_edge.runtime.backends.trt.opening import import_tensorrt

AGAIN = "poyo-edge build tiny.poyo --target jetson"


@pytest.fixture(scope="module")
def core(tiny: Path) -> bytes:
    return Artifact.open(tiny).read(CORE)


def backend(core: bytes, double: Double | None = None) -> TensorRTBackend:
    double = double or Double()
    return TensorRTBackend("tensorrt", double.trt, cuda(double), engines(core), "fp32", again=AGAIN)


def cuda(double: Double) -> Cuda:
    return Cuda(CudaLibrary(double.cuda))


@pytest.fixture
def feeds(tiny: Path) -> dict[str, Any]:
    return tiny_windows(tiny, (0, 40, 90))


def test_it_says_what_the_cpu_says(core: bytes, feeds: dict[str, Any]) -> None:
    want = OrtCpuBackend(core, threads=1).run(feeds)
    got = backend(core).run(feeds)
    assert got.shape == want.shape == (3, 2, 2)
    assert got.dtype == np.float32
    assert np.abs(got - want).max() < 2e-6


def test_a_short_window_after_a_long_one_is_not_disturbed(
    core: bytes, feeds: dict[str, Any]
) -> None:
    opened = backend(core)
    first = opened.run(feeds)
    assert np.array_equal(opened.run(feeds), first)
    backwards = {name: value[::-1] if value.shape[:1] == (3,) else value
                 for name, value in feeds.items()}  # fmt: skip
    assert np.array_equal(opened.run(backwards)[::-1], first)


def test_each_bucket_runs_as_one_graph(core: bytes) -> None:
    opened = backend(core)
    assert opened.buckets == BUCKETS
    assert opened.captured
    assert opened.notes == []
    assert opened.layers() == dict.fromkeys(BUCKETS, '{"Layers": ["myelin"]}')


@pytest.mark.parametrize("failure", ["capture", "instantiate"])
def test_without_graphs_it_runs_all_the_same_and_says_so(
    core: bytes, feeds: dict[str, Any], failure: str
) -> None:
    opened = backend(core, Double(fail=failure))
    assert not opened.captured
    assert len(opened.notes) == len(BUCKETS)
    assert "no CUDA graph (CUDA: cuda" in opened.notes[0]
    assert np.array_equal(opened.run(feeds), backend(core).run(feeds))


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("deserialize", "the engine cannot be opened: Serialization assertion failed"),
        ("context", "no memory for the engine"),
        ("enqueue", "tensorrt: it gave no reason"),
        ("malloc", "CUDA: cudaHostAlloc failed with 2"),
        ("synchronize", "CUDA: cudaStreamSynchronize failed with 700"),
    ],
)
def test_each_failure_to_open_is_a_backend_error(core: bytes, failure: str, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        backend(core, Double(fail=failure))


@pytest.mark.parametrize("failure", ["synchronize"])
def test_a_lost_device_is_a_backend_error(core: bytes, feeds: dict[str, Any], failure: str) -> None:
    double = Double()
    opened = backend(core, double)
    double.fail = failure
    with pytest.raises(BackendError, match="CUDA: cudaStreamSynchronize failed with 700"):
        opened.run(feeds)


def test_more_spikes_or_units_than_any_engine_holds_are_refused(
    core: bytes, feeds: dict[str, Any]
) -> None:
    opened = backend(core)
    many = {name: np.zeros((1, 2000), feeds[name].dtype) for name in ("spike_unit", "spike_time")}
    many |= {"spike_mask": np.ones((1, 2000), np.bool_), "query_time": feeds["query_time"][:1]}
    with pytest.raises(
        BackendError,
        match=f"at most 1024 spikes in a window, got 2000; for larger .*: {AGAIN} --max-spikes N",
    ):
        opened.run({**feeds, **many})
    wide = np.zeros((17, feeds["unit_kv"].shape[1]), np.float32)
    with pytest.raises(BackendError, match=r"unit_kv: expected shape \(16, 64\) at most, got \(17"):
        opened.run({**feeds, "unit_kv": wide})


def test_another_session_is_uploaded_and_the_same_one_is_not(
    core: bytes, feeds: dict[str, Any]
) -> None:
    double = Double()
    opened = backend(core, double)
    opened.run(feeds)
    other = {**feeds, "session_query": feeds["session_query"] * 2, "unit_kv": feeds["unit_kv"] / 2}
    want = OrtCpuBackend(core, threads=1).run(other)
    assert np.abs(opened.run(other) - want).max() < 2e-6
    double.copies = 0
    opened.run(other)
    assert double.copies == 0  # what a graph copies is not enqueued again


def test_an_engine_of_something_else_is_refused(core: bytes) -> None:
    double, renamed = Double(), engines(core)[64].replace(b"query_time", b"query_tide")
    with pytest.raises(BackendError, match=r"expected an engine of a core, with .* 'query_tide'"):
        TensorRTBackend("tensorrt", double.trt, cuda(double), {64: renamed}, "fp32", again=AGAIN)


def test_closing_gives_all_memory_back(core: bytes) -> None:
    double = Double()
    opened = backend(core, double)
    assert double.memory
    opened.close()
    assert double.memory == {}


def test_a_window_is_one_copy_in_and_one_out_and_none_where_memory_is_shared(
    core: bytes, feeds: dict[str, Any]
) -> None:
    want = backend(core).run(feeds)
    for integrated, copies in ((False, 2), (True, 0)):
        double = Double(fail="capture")  # without a graph each copy is seen
        double.integrated = integrated
        opened = backend(core, double)
        opened.run(feeds)  # the session is on the device
        double.copies = 0
        assert np.array_equal(opened.run(feeds), want)
        assert double.copies == copies * 6  # three windows of two queries
        opened.close()
        assert double.memory == {}


def test_what_a_lane_reads_is_packed_and_each_tensor_is_aligned(core: bytes) -> None:
    block = backend(core)._lanes[64].inputs
    starts = {name: array.ctypes.data - block.source for name, array in block.host.items()}
    assert starts == {"spike_unit": 0, "spike_time": 256, "spike_mask": 512, "query_time": 768}
    assert block.n_bytes == 1024
    assert all(block.device(name) % 256 == 0 for name in starts)
    assert not any(array.any() for array in block.host.values())


def test_missing_modules_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r'pip install "tensorrt_rtx_cu13_libs=='):
        import_tensorrt("tensorrt-rtx")
    with pytest.raises(BackendError, match=r"run: sudo apt install nvidia-jetpack, and make virt"):
        import_tensorrt("tensorrt")


def test_a_tensorrt_whose_libraries_are_missing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: not found')\n")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"tensorrt cannot be loaded: libnvinfer\.so\.10"):
        import_tensorrt("tensorrt")


def test_a_core_alone_has_no_engines(core: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "this_machine", lambda: ORIN)
    with pytest.raises(BackendError, match=r"^tensorrt: expected an artifact with engines, got a"):
        open_backend("tensorrt", core)
