"""Promises about what goes out: finite values, honest status, deadlines, drift."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.calibrating.teacher import QUICK, lesson
from helpers.paths import TINY
from helpers.waiting import PATIENCE_S

from poyo_edge.artifact import Activity, Artifact, Session, activity_of
from poyo_edge.calibration import Calibrator
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.errors import BackendError, CheckFailedError, SessionError, UsageError
from poyo_edge.runtime import Decoder, DecoderSettings, HealthSettings, Status
from poyo_edge.runtime.backends import Backend
from poyo_edge.runtime.backends.fallback import FallbackBackend
from poyo_edge.runtime.checks.verify import verify
from poyo_edge.runtime.watchdog import Watchdog

if TYPE_CHECKING:
    from conftest import Rig


class Failing(Backend):
    """A backend that does what it is told to the prediction."""

    name = "failing"

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.failure: Callable[[], float] | None = None

    def run(self, feeds: Any) -> npt.NDArray[np.float32]:
        prediction: npt.NDArray[np.float32] = self.backend.run(feeds)
        if self.failure is not None:
            prediction[..., 1] = self.failure()
        return prediction


def _nan_gradients(_: Any, batch: Any, units: Any, session: Any) -> tuple[float, Any, Any]:
    return float("nan"), units, session


def lost_device() -> float:
    raise BackendError("cudaErrorDeviceUnavailable")


def test_R05_nan_and_inf_never_leave(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = rig.a.unit_embedding.copy()
    poisoned[3, 2] = np.nan
    session = dataclasses.replace(rig.a, unit_embedding=poisoned)
    session.save(tmp_path / "bad.session")
    with pytest.raises(SessionError, match="unit_embedding: expected finite values, got 1 NaN"):
        Session.open(tmp_path / "bad.session")
    with pytest.raises(UsageError, match="finite"):
        rig.decoder().swap_session(session)

    calibrator, given = lesson().calibrator(QUICK), lesson()
    behavior = given.values.copy()
    behavior[50, 1] = np.inf
    with pytest.raises(UsageError, match="finite"):
        calibrator.add(given.spike_times, given.spike_rows, given.times, behavior)
    monkeypatch.setattr(Adapter, "gradients", _nan_gradients)
    with pytest.raises(CheckFailedError, match="loss"):
        calibrator.fit()

    for poison in (np.nan, np.inf, -np.inf):
        backend = Failing(rig.core.backend)
        decoder = Decoder(dataclasses.replace(rig.core, backend=backend), rig.a)
        good = decoder.decode(1.0)
        backend.failure = lambda poison=poison: poison
        decoded = [decoder.decode(t) for t in (1.0625, 1.2, 1.7)]
        assert [one.status for one in decoded] == [Status.HELD, Status.INVALID, Status.INVALID]
        assert np.array_equal(decoded[0].value, good.value)
        assert decoded[2].value.tolist() == [0.0, 0.0]
        assert all(np.isfinite(one.value).all() for one in decoded)


def test_R10_a_lost_backend_is_replaced_in_one_call_and_a_hang_is_noticed(rig: Rig) -> None:
    times, rows = rig.stream(300, 2.0)
    gpu = Failing(rig.core.backend)
    core = dataclasses.replace(rig.core, backend=FallbackBackend(gpu, rig.core.backend))
    decoder = Decoder(core, rig.a)
    rig.run(decoder, times, rows, [1.0])
    gpu.failure = lost_device
    decoder.push(times[times >= 1], rows[times >= 1])
    result = decoder.decode(2.0)
    assert (result.status, result.flags) == (Status.DEGRADED, ("unverified", "fallback"))
    assert np.array_equal(result.value, rig.batch(times, rows, 2.0))
    gpu.failure = None
    assert decoder.decode(2.0).flags[-1] == "fallback", "a GPU that was lost once is left alone"

    period, beat, now = 20_000_000, [1], [1]
    heard: list[tuple[str, float]] = []
    dog = Watchdog(
        lambda: beat[0], limit_s=3 * period / 1e9, now_ns=lambda: now[0],
        on_stall=lambda s: heard.append(("stall", s)),
        on_recovery=lambda s: heard.append(("recovery", s)),
    )  # fmt: skip
    for quarter in range(1, 21):
        now[0] = 1 + quarter * period // 4
        dog.check()
    assert [word for word, _ in heard] == ["stall"], "once"
    assert heard[0][1] == pytest.approx(0.065), "within a quarter of a period after three"
    beat[0] = now[0]
    assert not dog.check()
    assert [word for word, _ in heard] == ["stall", "recovery"]
    assert heard[1][1] == pytest.approx(0.1)
    for _ in range(13):
        now[0] += period // 4
        dog.check()
    beat[0] = now[0]
    dog.check()
    assert heard[3][0] == "recovery"
    assert heard[3][1] == pytest.approx(0.065), "of this stall, not of the longest"
    assert dog.to_json() == {"stalled": False, "stalls": 2, "longest_s": 0.1}
    stalled = threading.Event()
    watching = Watchdog(lambda: 1, limit_s=0.01, on_stall=lambda _: stalled.set())
    watching.start()
    assert stalled.wait(PATIENCE_S), "its own thread looks too"
    watching.stop()
    watching.stop()


def test_R11_the_same_input_gives_the_same_bits_and_golden_windows_hold(
    rig: Rig, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times, rows = rig.stream(800, 3.0)
    ends = [1.0 + i / 16 for i in range(33)]
    once, again = (
        np.array([one.value for one in rig.run(Decoder.open(tiny, "tiny_a"), times, rows, ends)])
        for _ in range(2)
    )
    assert np.array_equal(once, again)
    checks = {check.name: check for check in verify(tiny)}
    assert checks["golden windows on ort-cpu"].ok
    assert checks["golden gradients on ort-cpu"].ok
    golden = Artifact.open(tiny).golden()
    other = golden.windows[0] | {"prediction": golden.windows[0]["prediction"] + 1e-2}
    wrong = dataclasses.replace(golden, windows=(other, *golden.windows[1:]))
    monkeypatch.setattr(Artifact, "golden", lambda _: wrong)
    checks = {check.name: check for check in verify(tiny)}
    assert not checks["golden windows on ort-cpu"].ok


def test_R16_decoding_does_not_wait_for_a_fit() -> None:
    adapter = Adapter(Artifact.open(TINY))
    reached, opened = threading.Event(), threading.Event()
    gradients = adapter.gradients

    def waiting(*arguments: Any) -> Any:
        reached.set()
        assert opened.wait(PATIENCE_S)
        return gradients(*arguments)

    setattr(adapter, "gradients", waiting)  # noqa: B010
    given = lesson()
    calibrator = Calibrator(adapter, given.unit_ids, session_id="day", settings=QUICK)
    given.give(calibrator)
    decoder, alone = Decoder.open(TINY, "tiny_a"), Decoder.open(TINY, "tiny_a")
    for one in (decoder, alone):
        one.push(given.spike_times, given.spike_rows)
    fit = calibrator.start()
    try:
        assert reached.wait(PATIENCE_S)
        for i in range(50):
            result = decoder.decode(1.5 + i / 50)
            assert result.status is Status.VALID
            assert np.array_equal(result.value, alone.decode(1.5 + i / 50).value)
        assert not fit.done, "all fifty were decoded in the middle of one step"
    finally:
        opened.set()
    assert fit.result(PATIENCE_S).quality.steps >= 0


def test_R22_decoding_that_outlasts_its_budget_is_flagged_until_it_keeps_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DecoderSettings(health=HealthSettings(latency_budget_ms=20.0))
    decoder = rig.decoder(settings=settings)
    clock, took_ms = [0], [5]

    def now_ns() -> int:
        clock[0] += took_ms[0] * 1_000_000
        return clock[0]

    monkeypatch.setattr("poyo_edge.runtime.decoder.time.perf_counter_ns", now_ns)
    decoder.push(np.arange(0, 10, 1 / 64), np.zeros(640, np.int32))
    flags = []
    for i in range(400):
        took_ms[0] = 25 if 100 <= i < 110 else 5
        flags.append(decoder.decode(1.5 + i / 64).flags)
    assert [i for i, one in enumerate(flags) if "slow" in one] == list(range(102, 300))
    assert decoder.health()["status"] == "unknown"
    took_ms[0] = 25
    results = [decoder.decode(8.0 + i / 64) for i in range(3)]
    assert results[-1].status is Status.DEGRADED
    assert (decoder.health()["status"], decoder.health()["flags"]) == ("degraded", ["slow"])


def poisson(rate_hz: npt.NDArray[np.float64], seconds: float, seed: int) -> Any:
    """Times and rows of independent units."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rate_hz * seconds)
    times = rng.uniform(0, seconds, int(counts.sum()))
    order = np.argsort(times)
    return times[order], np.repeat(np.arange(len(rate_hz)), counts)[order].astype(np.int32)


def calibrated(rig: Rig, rate_hz: npt.NDArray[np.float64]) -> Session:
    """Session a with the activity of a minute at these rates."""
    times, rows = poisson(rate_hz, 60.0, seed=9)
    activity = activity_of(
        times, rows, np.random.default_rng(0).normal(size=(600, 2)) * 3,
        n_units=rig.n_units, stretches=np.array([[0.0, 60.0]]), window_s=1.0,
    )  # fmt: skip
    assert isinstance(activity, Activity)
    return dataclasses.replace(rig.a, activity=activity)


def test_R23_drift_and_lost_units_are_visible_while_decoding_goes_on(
    rig: Rig, tmp_path: Path
) -> None:
    rate = np.linspace(4, 30, rig.n_units)
    calibrated(rig, rate).save(tmp_path / "day.session")
    session = Session.open(tmp_path / "day.session")
    changed = {
        "same": (rate, "ok", []),
        "five units dead": (np.where(np.arange(12) % 12 < 5, 0, rate), "degraded", ["drift"]),
        "all faster": (rate * 2.5, "degraded", ["drift"]),
        "one dead": (np.where(np.arange(12) == 3, 0, rate), "ok", []),
    }
    for name, (now, status, flags) in changed.items():
        decoder = Decoder(rig.core, session)
        times, rows = poisson(now, 60.0, seed=3)
        decoded = rig.run(decoder, times, rows, [1.0 + i / 2 for i in range(118)])
        health = decoder.health()
        assert (health["status"], health["flags"]) == (status, flags), name
        statuses = {one.status for one in decoded[44:]}
        assert statuses == ({Status.VALID} if status == "ok" else {Status.DEGRADED}), name
        z = np.array(list(decoder.stats()["health"]["rate_z"].values()))
        assert (np.abs(z[now == rate]) < 1).all(), name
        assert (np.abs(z[now != rate]) > 1).all(), name
        dead = [unit for unit, hz in zip(decoder.unit_ids, now, strict=True) if hz == 0]
        assert health["silent_units"] == dead
    strangers = Decoder(rig.core, session)
    times, rows = poisson(np.concatenate([rate, rate]), 40.0, seed=4)
    rig.run(strangers, times, rows, [1.0 + i / 2 for i in range(78)])
    health = strangers.health()
    assert (health["status"], health["flags"]) == ("degraded", ["coverage"])
    assert health["coverage"] == pytest.approx(0.5, abs=0.03)
