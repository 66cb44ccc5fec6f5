"""A decoder of an artifact with engines, on a double of TensorRT that computes."""

from __future__ import annotations

import dataclasses
import gc
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import run_python
from helpers.damage import flip_bit
from helpers.models.tiny_windows import tiny_windows
from helpers.trt.double import Double
from helpers.trt.engines import engines, installed
from helpers.trt.machines import ORIN, on
from helpers.waiting import wait_until

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.errors import BackendError, UsageError
from poyo_edge.runtime.backends import opening as backends
from poyo_edge.runtime.backends.trt.engines import ENGINES
from poyo_edge.runtime.checks.verify import verify
from poyo_edge.runtime.core import Core
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.failsafe import Status


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def jetson(tiny_copy: Path, double: Double, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny artifact with engines for an Orin, on a machine that says that it is one."""
    for size, data in engines(Artifact.open(tiny_copy).read(CORE)).items():
        installed(tiny_copy, data, precision="fp32", n_spikes=size)
    on(ORIN, double, monkeypatch)
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
    assert (result.status, result.flags) == (Status.DEGRADED, ("unverified", "fallback"))
    assert result.value == pytest.approx(plain.decode(1.6).value)
    assert decoder.backend == "ort-cpu"
    double.fail = ""
    assert decoder.decode(1.7).flags[-1] == "fallback"  # it does not go back by itself


def test_nan_from_an_engine_is_a_failure_too(jetson: Path, double: Double) -> None:
    decoder = Decoder.open(jetson, "tiny_a")
    spikes(decoder)
    double.noise = float("nan")
    result = decoder.decode(1.6)
    assert np.isfinite(result.value).all()
    assert result.flags == ("unverified", "fallback")


def test_one_window_that_is_too_large_goes_to_the_cpu_alone(jetson: Path) -> None:
    feeds = tiny_windows(jetson, (0, 40, 90))
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
    wait_until(lambda: double.launches >= launches + 3)
    assert double.launches >= launches + 3
    assert np.array_equal(decoder.decode(1.5).value, want)


@pytest.mark.slow
def test_keeping_warm_ends_with_its_decoder_and_with_a_failure(
    jetson: Path, double: Double
) -> None:
    def threads() -> int:
        return sum(thread.name == "poyo-edge-keep-warm" for thread in threading.enumerate())

    def wait_for(count: int) -> int:
        def reached() -> bool:
            gc.collect()
            return threads() == count

        wait_until(reached)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_verify_runs_the_golden_windows_on_the_engine(jetson: Path, double: Double) -> None:
    checks = {check.name: check for check in verify(jetson)}
    assert checks["golden windows on tensorrt"].ok
    double.noise = 1.0
    checks = {check.name: check for check in verify(jetson)}
    assert not checks["golden windows on tensorrt"].ok
    double.noise, double.fail = 0.0, "enqueue"
    assert not {c.name: c for c in verify(jetson)}["golden windows on tensorrt"].ok


def test_a_tampered_engine_is_refused_before_tensorrt_is_imported(jetson: Path) -> None:
    """In a process of its own, with a TensorRT that would leave a mark."""
    flip_bit(sorted((jetson / ENGINES).glob("*.engine"))[0], 100)
    (jetson / "tensorrt.py").write_text("print('imported')\n")
    code = (
        "from poyo_edge.runtime.backends import opening as backends\n"
        "from poyo_edge.runtime.backends.machine import Machine\n"
        f"machine = Machine(**{ORIN.to_json()!r})\n"
        "backends.this_machine = lambda: machine\n"
        "from poyo_edge.runtime import Decoder\n"
        f"try:\n    Decoder.open({str(jetson)!r}, 'tiny_a', backend='tensorrt')\n"
        "except ValueError as error:\n    print(error.field)\n"
    )
    done = run_python(code, cwd=jetson)
    assert done.stdout == "sha256\n", done.stdout + done.stderr
