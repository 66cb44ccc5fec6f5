"""A GPU that is late, hangs, comes back or fails: what leaves the decoder, and what is counted.

The double computes a window when it is asked whether it is done, ``late_s`` after its launch, and
fails where its memory was written meanwhile, or where anybody waits for a GPU that hangs.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models.tiny_windows import tiny_windows
from helpers.trt.double import Double
from helpers.trt.engines import engines, installed
from helpers.trt.machines import ORIN, on

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.errors import BackendError
from poyo_edge.runtime.backends import fallback
from poyo_edge.runtime.backends.base import Backend, LateError
from poyo_edge.runtime.backends.fallback import GOOD_WINDOWS, FallbackBackend
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.trt import backend as trt_backend
from poyo_edge.runtime.backends.trt.backend import DEADLINE_SHARE, TensorRTBackend
from poyo_edge.runtime.backends.trt.cuda import Cuda
from poyo_edge.runtime.backends.trt.libcuda import CudaLibrary
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.failsafe import Status

PERIOD_S = 0.6
"""Long, since other work on the machine may take its time too."""


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def feeds(tiny: Path) -> dict[str, Any]:
    both = tiny_windows(tiny, (40, 90))
    first = {name: both[name][:1] for name in ("spike_unit", "spike_time", "spike_mask")}
    return both | first | {"query_time": np.ones((1, 1), np.float32)}


@pytest.fixture
def gpu(tiny: Path, double: Double) -> TensorRTBackend:
    core = Artifact.open(tiny).read(CORE)
    cuda = Cuda(CudaLibrary(double.cuda))
    opened = TensorRTBackend("tensorrt", double.trt, cuda, engines(core), "fp32", again="")
    opened.set_period(PERIOD_S)
    return opened


@pytest.fixture
def decoder(tiny_copy: Path, double: Double, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    for size, data in engines(Artifact.open(tiny_copy).read(CORE)).items():
        installed(tiny_copy, data, precision="fp32", n_spikes=size)
    on(ORIN, double, monkeypatch)
    opened = Decoder.open(tiny_copy, "tiny_a")
    assert opened.backend == "tensorrt"
    opened.push(np.linspace(0, 9.999, 1000), np.arange(1000) % 12)
    opened.set_period(PERIOD_S)
    return opened


def test_a_window_that_is_back_in_time_is_answered_by_the_gpu(
    gpu: TensorRTBackend, tiny: Path, double: Double, feeds: dict[str, Any]
) -> None:
    double.late_s = PERIOD_S * DEADLINE_SHARE / 10
    want = OrtCpuBackend(Artifact.open(tiny).read(CORE), threads=1).run(feeds)
    assert np.abs(gpu.run(feeds) - want).max() < 2e-6


def waits_no_more(gpu: TensorRTBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a wait for the GPU is a failure."""

    def wait() -> None:
        raise AssertionError("it waits for a GPU that hangs")

    monkeypatch.setattr(gpu, "_wait", wait)


def test_a_late_window_ends_at_the_deadline_and_its_memory_is_left_alone(
    gpu: TensorRTBackend, double: Double, feeds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    want = gpu.run(feeds)
    double.late_s = 2 * PERIOD_S
    started = time.perf_counter()
    with pytest.raises(LateError, match=r"^tensorrt: a window was not back in time$"):
        gpu.run(feeds)
    assert PERIOD_S * DEADLINE_SHARE <= time.perf_counter() - started < 2 * PERIOD_S
    waits_no_more(gpu, monkeypatch)
    other = {**feeds, "spike_time": feeds["spike_time"] / 2, "unit_kv": feeds["unit_kv"] * 2}
    with pytest.raises(LateError, match=r"the GPU is still busy with an earlier window$"):
        gpu.run(other)
    assert not gpu.offer(other)
    double.late_s = 0.0
    time.sleep(2 * PERIOD_S)
    monkeypatch.undo()
    assert gpu.idle()  # the double has found its memory as it was
    assert np.array_equal(gpu.run(feeds), want)


def test_close_abandons_what_a_gpu_that_hangs_may_still_use(
    gpu: TensorRTBackend, double: Double, feeds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[object] = []
    monkeypatch.setattr(trt_backend, "_ABANDONED", kept)
    double.late_s = math.inf
    with pytest.raises(LateError):
        gpu.run(feeds)
    started = time.perf_counter()
    gpu.close()
    assert time.perf_counter() - started < PERIOD_S
    assert len(kept) == 1
    assert double.memory  # nothing was given back


def test_keeping_warm_does_not_wait_for_a_gpu_that_hangs(
    gpu: TensorRTBackend, double: Double, feeds: dict[str, Any]
) -> None:
    double.late_s = math.inf
    gpu._nudge()  # ends by itself, and says nothing
    with pytest.raises(LateError, match="still busy"):
        gpu.run(feeds)


def test_a_late_window_is_answered_by_the_cpu_and_counted(
    decoder: Decoder, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder.decode(5.0)
    double.late_s = math.inf
    started = time.perf_counter()
    result = decoder.decode(5.1)
    assert time.perf_counter() - started < 2 * PERIOD_S
    assert (result.status, result.flags[-1]) == (Status.DEGRADED, "fallback")
    assert np.isfinite(result.value).all()
    assert decoder.stats()["backend_late"] == 1
    waits_no_more(decoder._core.backend._first, monkeypatch)  # type: ignore[attr-defined]
    for i in range(5):
        assert decoder.decode(5.2 + i / 10).flags[-1] == "fallback"
    assert decoder.stats()["backend_late"] == 6
    decoder.swap_session("tiny_b")  # nor a swap
    assert decoder.decode(6.0).session_id == "tiny_b"


def test_a_gpu_that_comes_back_is_used_after_a_stated_number_of_good_windows(
    decoder: Decoder, double: Double
) -> None:
    double.late_s = PERIOD_S
    assert decoder.decode(5.0).flags[-1] == "fallback"
    time.sleep(PERIOD_S)
    double.late_s = 0.0
    by = [decoder.decode(5.0 + i / 20).flags[-1:] for i in range(1, GOOD_WINDOWS + 4)]
    assert by[:GOOD_WINDOWS] == [("fallback",)] * GOOD_WINDOWS
    assert by[GOOD_WINDOWS:] == [("unverified",)] * 3
    assert decoder.backend == "tensorrt"
    assert decoder.stats()["backend_late"] == 1


def test_a_gpu_that_fails_after_it_was_late_is_not_asked_again(
    decoder: Decoder, double: Double
) -> None:
    double.late_s = PERIOD_S
    decoder.decode(5.0)
    double.fail = "synchronize"
    assert decoder.decode(5.1).flags[-1] == "fallback"
    double.fail, double.late_s = "", 0.0
    assert [decoder.decode(5.2 + i / 20).flags[-1] for i in range(25)] == ["fallback"] * 25


class Slow(Backend):
    """A second backend that takes longer than the period."""

    name = "slow"

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.runs = 0

    def run(self, feeds: Any) -> Any:
        self.runs += 1
        time.sleep(self.takes_s)
        return np.zeros((1, 1, 2), np.float32)


def test_a_cpu_that_would_be_late_too_is_not_asked(
    gpu: TensorRTBackend, double: Double, feeds: dict[str, Any]
) -> None:
    """Then the decoder holds its last value: no answer is better than a late one."""
    slow = Slow(PERIOD_S)
    both = FallbackBackend(gpu, slow)
    both.set_period(PERIOD_S)
    for _ in range(fallback._REHEARSALS):
        both.run(feeds)
    assert slow.runs == fallback._REHEARSALS  # timed, and not asked since
    double.late_s = 2 * PERIOD_S
    with pytest.raises(BackendError, match="not back in time"):
        both.run(feeds)
    assert slow.runs == fallback._REHEARSALS
    time.sleep(2 * PERIOD_S)
    double.late_s = 0.0
    for _ in range(GOOD_WINDOWS):  # with nobody else to answer, it is asked, and counted
        assert np.abs(both.run(feeds)).max() > 0
    assert both._good is None
    assert (both.late, both.name) == (1, "tensorrt")


def test_without_a_period_nothing_is_late(
    tiny: Path, double: Double, feeds: dict[str, Any]
) -> None:
    core = Artifact.open(tiny).read(CORE)
    cuda = Cuda(CudaLibrary(double.cuda))
    opened = TensorRTBackend("tensorrt", double.trt, cuda, engines(core), "fp32", again="")
    assert opened.run(feeds).shape == (1, 1, 2)
    assert opened.late == 0
