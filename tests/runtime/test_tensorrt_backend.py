"""The TensorRT backend on a double that computes: what it says, and how each failure ends."""

from __future__ import annotations

import dataclasses
import gc
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trt_double import MAGIC, Double

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.errors import BackendError, MissingExtraError, UsageError
from poyo_edge.export.static_shapes import fix_axes
from poyo_edge.files import sha256_bytes
from poyo_edge.runtime import backends
from poyo_edge.runtime.backends import OrtCpuBackend, open_backend
from poyo_edge.runtime.core import Core
from poyo_edge.runtime.cuda import Cuda
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.engine_key import EngineKey
from poyo_edge.runtime.engines import ENGINES, EngineRecord, EngineStore
from poyo_edge.runtime.failsafe import Status
from poyo_edge.runtime.machine import Machine
from poyo_edge.runtime.tensorrt_backend import TensorRTBackend, import_tensorrt
from poyo_edge.runtime.verify import verify

ORIN = Machine(sm="87", driver="12.6", l4t="36.4.3", tensorrt="10.3.0")
BUCKETS = (64, 1024)
AGAIN = "poyo-edge build tiny.poyo --target jetson"


@pytest.fixture(scope="module")
def core(tiny: Path) -> bytes:
    return Artifact.open(tiny).read(CORE)


def engines(core: bytes, n_units: int = 16) -> dict[int, bytes]:
    return {
        size: MAGIC
        + fix_axes(core, {"batch": 1, "n_spikes": size, "n_units": n_units, "n_queries": 1})
        for size in BUCKETS
    }


def backend(core: bytes, double: Double | None = None) -> TensorRTBackend:
    double = double or Double()
    return TensorRTBackend(
        "tensorrt", double.trt, Cuda(double.cuda), engines(core), "fp32", again=AGAIN
    )


@pytest.fixture
def feeds(tiny: Path) -> dict[str, Any]:
    """Three windows of 0, 40 and 90 spikes, each queried twice."""
    artifact = Artifact.open(tiny)
    session = artifact.session("tiny_a")
    opened = Core.open(artifact, backend="ort-cpu")
    constants = opened.constants(session.unit_embedding, session.session_embedding)
    rng = np.random.default_rng(0)
    mask = np.zeros((3, 90), np.bool_)
    for row, n in zip(mask, (0, 40, 90), strict=True):
        row[rng.permutation(90)[:n]] = True
    return {
        "spike_unit": rng.integers(0, 12, (3, 90)).astype(np.int32),
        "spike_time": rng.uniform(0, 1, (3, 90)).astype(np.float32),
        "spike_mask": mask,
        "query_time": np.tile(np.array([0.3, 1.0], np.float32), (3, 1)),
        **constants.feeds(),
    }


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
    opened = backend(core)
    opened.run(feeds)
    other = {**feeds, "session_query": feeds["session_query"] * 2, "unit_kv": feeds["unit_kv"] / 2}
    want = OrtCpuBackend(core, threads=1).run(other)
    assert np.abs(opened.run(other) - want).max() < 2e-6
    copies: list[Any] = []
    opened._cuda.to_device = lambda *a: copies.append(a)  # type: ignore[method-assign]
    opened.run(other)
    assert copies == []  # what a graph copies is not enqueued again


def test_an_engine_of_something_else_is_refused(core: bytes) -> None:
    double, renamed = Double(), engines(core)[64].replace(b"query_time", b"query_tide")
    with pytest.raises(BackendError, match=r"expected an engine of a core, with .* 'query_tide'"):
        TensorRTBackend(
            "tensorrt", double.trt, Cuda(double.cuda), {64: renamed}, "fp32", again=AGAIN
        )


def test_closing_gives_all_memory_back(core: bytes) -> None:
    double = Double()
    opened = backend(core, double)
    assert double.memory
    opened.close()
    assert double.memory == {}


def test_old_cuda_python_is_found_under_its_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Double().cuda
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda.cudart", runtime)
    assert Cuda.open().stream == 77
    monkeypatch.setitem(sys.modules, "cuda.cudart", None)
    with pytest.raises(
        MissingExtraError, match=r'cuda-python.*pip install "poyo-edge\[tensorrt\]"'
    ):
        Cuda.open()


def test_every_cuda_call_is_in_the_real_cuda_python() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    names = [name for name in vars(Double().cuda) if name.startswith("cuda")]
    assert len(names) > 15
    assert [name for name in names if not hasattr(runtime, name)] == []
    assert hasattr(runtime.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert hasattr(runtime.cudaMemcpyKind, "cudaMemcpyDeviceToHost")
    assert hasattr(runtime.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")


def test_missing_modules_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r'pip install "poyo-edge\[rtx\]"'):
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


# From here on: the backend as a decoder meets it, on an artifact with engines.


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def jetson(tiny_copy: Path, double: Double, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny artifact with engines for an Orin, on a machine that says that it is one."""
    artifact = Artifact.open(tiny_copy)
    sha256 = artifact.manifest.files[CORE].sha256
    for size, data in engines(artifact.read(CORE)).items():
        key = EngineKey(
            flavour="tensorrt", core_sha256=sha256, graph_sha256="", precision="fp32",
            n_spikes=size, n_units=16, version="10.3.0", sm=("87",), driver="12.6", l4t="36.4.3",
            flags=(),
        )  # fmt: skip
        record = EngineRecord(
            key=key, sha256=sha256_bytes(data), size=len(data), build_s=1.0, parity=None, created=""
        )
        EngineStore(tiny_copy / ENGINES).write(record, data)
    monkeypatch.setattr(backends, "this_machine", lambda: ORIN)
    monkeypatch.setitem(sys.modules, "tensorrt", double.trt)
    monkeypatch.setattr(Cuda, "open", lambda: Cuda(double.cuda))
    return tiny_copy


def spikes(decoder: Decoder) -> None:
    decoder.push(np.linspace(0, 1.999, 300), np.arange(300) % 12)


def test_auto_takes_tensorrt_and_decodes_the_same(jetson: Path) -> None:
    values = {}
    for name in ("auto", "ort-cpu"):
        decoder = Decoder.open(jetson, "tiny_a", backend=name)
        spikes(decoder)
        values[decoder.backend] = decoder.decode(2.0).value
    assert list(values) == ["tensorrt", "ort-cpu"]
    assert np.abs(values["tensorrt"] - values["ort-cpu"]).max() < 1e-5


def test_a_gpu_that_is_lost_costs_no_window(jetson: Path, double: Double) -> None:
    decoder = Decoder.open(jetson, "tiny_a")
    plain = Decoder.open(jetson, "tiny_a", backend="ort-cpu")
    for each in (decoder, plain):
        spikes(each)
        each.decode(1.5)
    double.fail = "synchronize"
    result = decoder.decode(1.6)
    assert (result.status, result.flags) == (Status.DEGRADED, ("fallback",))
    assert result.value == pytest.approx(plain.decode(1.6).value)
    assert decoder.backend == "ort-cpu"
    double.fail = ""
    assert decoder.decode(1.7).flags == ("fallback",)  # it does not go back by itself


def test_nan_from_an_engine_is_a_failure_too(jetson: Path, double: Double) -> None:
    decoder = Decoder.open(jetson, "tiny_a")
    spikes(decoder)
    double.noise = float("nan")
    result = decoder.decode(1.6)
    assert np.isfinite(result.value).all()
    assert result.flags == ("fallback",)


def test_one_window_that_is_too_large_goes_to_the_cpu_alone(
    jetson: Path, feeds: dict[str, Any]
) -> None:
    core = Core.open(Artifact.open(jetson))
    many = {name: np.zeros((1, 2000), feeds[name].dtype) for name in ("spike_unit", "spike_time")}
    many |= {"spike_mask": np.ones((1, 2000), np.bool_), "query_time": feeds["query_time"][:1]}
    for large in (many, {"unit_kv": np.zeros((17, feeds["unit_kv"].shape[1]), np.float32)}):
        assert np.isfinite(core.backend.run({**feeds, **large})).all()
        assert core.backend.name == "ort-cpu"
        assert np.isfinite(core.backend.run(feeds)).all()
        assert core.backend.name == "tensorrt"


def test_a_pause_is_filled_and_a_window_is_not_disturbed(jetson: Path, double: Double) -> None:
    decoder = Decoder.open(jetson, "tiny_a", keep_warm_s=0.01)
    spikes(decoder)
    want = decoder.decode(1.5).value
    launches = double.launches
    deadline = time.monotonic() + 20
    while double.launches < launches + 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert double.launches >= launches + 3
    assert np.array_equal(decoder.decode(1.5).value, want)


def test_keeping_warm_ends_with_its_decoder_and_with_a_failure(
    jetson: Path, double: Double
) -> None:
    def threads() -> int:
        return sum(thread.name == "poyo-edge-keep-warm" for thread in threading.enumerate())

    def wait_for(count: int) -> int:
        deadline = time.monotonic() + 20
        while threads() != count and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        return threads()

    before = wait_for(0)
    decoder = Decoder.open(jetson, "tiny_a", keep_warm_s=0.01)
    assert threads() == before + 1
    del decoder
    assert wait_for(before) == before
    decoder = Decoder.open(jetson, "tiny_a", keep_warm_s=0.01)
    double.fail = "synchronize"
    assert wait_for(before) == before
    spikes(decoder)
    assert decoder.decode(1.5).flags[-1] == "fallback"


@pytest.mark.parametrize(
    ("backend", "pause", "words"),
    [
        ("ort-cpu", 0.1, "expected a TensorRT backend, got ort-cpu"),
        ("tensorrt", 0.0, "expected finite seconds >= 0.001, got 0.0"),
        ("tensorrt", float("nan"), "expected finite seconds >= 0.001, got nan"),
    ],
)
def test_keeping_warm_is_refused_where_it_would_do_nothing(
    jetson: Path, backend: str, pause: float, words: str
) -> None:
    with pytest.raises(UsageError, match=f"^keep_warm_s: {words}$"):
        Decoder.open(jetson, "tiny_a", backend=backend, keep_warm_s=pause)


@pytest.mark.parametrize("damage", ["truncate", "foreign", "none"])
def test_auto_passes_by_engines_that_it_cannot_trust(
    jetson: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if damage == "truncate":
        for path in (jetson / ENGINES).glob("*.engine"):
            path.write_bytes(path.read_bytes()[:-1])
    elif damage == "foreign":
        other = dataclasses.replace(ORIN, l4t="36.5.0")
        monkeypatch.setattr(backends, "this_machine", lambda: other)
    else:
        for path in (jetson / ENGINES).iterdir():
            path.unlink()
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # would be an error if it were imported
    assert Decoder.open(jetson, "tiny_a").backend == "ort-cpu"
    with pytest.raises((BackendError, ValueError), match="build it again"):
        Decoder.open(jetson, "tiny_a", backend="tensorrt")


def test_verify_runs_the_golden_windows_on_the_engine(jetson: Path, double: Double) -> None:
    checks = {check.name: check for check in verify(jetson)}
    assert checks["golden windows on tensorrt"].ok
    double.noise = 1.0
    checks = {check.name: check for check in verify(jetson)}
    assert not checks["golden windows on tensorrt"].ok
    double.noise, double.fail = 0.0, "enqueue"
    assert not {c.name: c for c in verify(jetson)}["golden windows on tensorrt"].ok


def test_a_core_alone_has_no_engines(core: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "this_machine", lambda: ORIN)
    with pytest.raises(BackendError, match=r"^tensorrt: expected an artifact with engines, got a"):
        open_backend("tensorrt", core)


def test_a_tampered_engine_is_refused_before_tensorrt_is_imported(jetson: Path) -> None:
    """In a process of its own, with a TensorRT that would leave a mark."""
    path = sorted((jetson / ENGINES).glob("*.engine"))[0]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    (jetson / "tensorrt.py").write_text("print('imported')\n")
    code = (
        "from poyo_edge.runtime import backends\n"
        "from poyo_edge.runtime.machine import Machine\n"
        f"machine = Machine(**{ORIN.to_json()!r})\n"
        "backends.this_machine = lambda: machine\n"
        "from poyo_edge.runtime import Decoder\n"
        f"try:\n    Decoder.open({str(jetson)!r}, 'tiny_a', backend='tensorrt')\n"
        "except ValueError as error:\n    print(error.field)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=jetson, capture_output=True, text=True, check=False
    )
    assert done.stdout == "sha256\n", done.stdout + done.stderr
