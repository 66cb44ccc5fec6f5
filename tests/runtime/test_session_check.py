"""Another session's units are noticed within seconds; the right ones are not held up."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.paths import SHARED

from poyo_edge.arrays import Float64
from poyo_edge.artifact import Activity, Session, activity_of
from poyo_edge.errors import UsageError
from poyo_edge.journal import Journal, JournalHeader, JournalWriter
from poyo_edge.recording import Recording
from poyo_edge.runtime import Decoder, DecoderSettings, HealthSettings, Status
from poyo_edge.runtime.rig.recorder import Recorder
from poyo_edge.runtime.session_check import SessionCheck
from poyo_edge.simulation import Simulation, simulate_study

if TYPE_CHECKING:
    from conftest import Rig

RATE_HZ = np.array([3.0, 40.0, 8.0, 25.0, 1.0, 60.0, 5.0, 15.0, 30.0, 2.0, 50.0, 10.0])
OTHER_HZ = RATE_HZ[[5, 4, 1, 9, 10, 0, 8, 2, 6, 11, 7, 3]]
ENDS = [round(0.25 * i, 2) for i in range(1, 29)]


def poisson(rate_hz: Float64, seconds: float, seed: int) -> tuple[Float64, npt.NDArray[np.int32]]:
    """Times and rows of independent units."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rate_hz * seconds)
    times = rng.uniform(0, seconds, int(counts.sum()))
    order = np.argsort(times)
    return times[order], np.repeat(np.arange(len(rate_hz)), counts)[order].astype(np.int32)


def measured(rate_hz: Float64, seconds: float = 60.0, seed: int = 9) -> Activity:
    """The activity of a minute at these rates."""
    times, rows = poisson(rate_hz, seconds, seed)
    found = activity_of(
        times, rows, np.random.default_rng(0).normal(size=(600, 2)) * 3,
        n_units=len(rate_hz), stretches=np.array([[0.0, seconds]]), window_s=1.0,
    )  # fmt: skip
    assert found is not None
    return found


def known(rig: Rig, rate_hz: Float64 = RATE_HZ) -> Session:
    """Session a with a record of its activity."""
    return dataclasses.replace(rig.a, activity=measured(rate_hz))


def heard(rig: Rig, session: Session, rate_hz: Float64, ends: Any = ENDS, **settings: Any) -> Any:
    """The decoder and what it gave while a stream of these rates was heard."""
    health = HealthSettings(**settings)
    decoder = Decoder(rig.core, session, settings=DecoderSettings(health=health))
    return decoder, rig.run(decoder, *poisson(rate_hz, 8.0, seed=3), ends)


def test_the_right_session_is_verified_within_four_seconds(rig: Rig) -> None:
    decoder, decoded = heard(rig, known(rig), RATE_HZ)
    waiting = [one.t for one in decoded if "verifying" in one.flags]
    assert waiting == ENDS[: len(waiting)], "once"
    assert 3.0 <= waiting[-1] < 4.5
    assert {one.status for one in decoded if one.t <= waiting[-1]} == {Status.WARMUP}
    assert {one.status for one in decoded if one.t > waiting[-1]} == {Status.VALID}
    found = decoder.health()["session_check"]
    assert (found["state"], found["reason"]) == ("verified", None)
    assert found["units_heard"] == 1.0
    assert found["agreement"] > found["least_agreement"]


def test_a_wrong_session_says_so_once_and_why(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        decoder, decoded = heard(rig, known(rig), OTHER_HZ)
    assert Status.VALID not in {one.status for one in decoded}
    first = next(one for one in decoded if "wrong_session" in one.flags)
    assert 4.0 <= first.t <= 5.0
    assert {one.status for one in decoded if one.t >= first.t} == {Status.DEGRADED}
    assert [one for one in caplog.messages if "not the session" in one] == [caplog.messages[0]]
    health = decoder.health()
    assert (health["status"], health["flags"]) == ("degraded", ["wrong_session"])
    reason = health["session_check"]["reason"]
    assert reason.split("hears")[0] in caplog.messages[0]
    for part in ("'tiny_a' expects unit 'tiny_a/unit_", "spikes/s, hears", "check --session"):
        assert part in reason


def test_a_gain_that_all_units_share_is_not_another_session(rig: Rig) -> None:
    for gain in (0.5, 1.8):
        decoder, decoded = heard(rig, known(rig), RATE_HZ * gain)
        assert decoder.health()["session_check"]["state"] == "verified", gain
        assert decoded[-1].status is Status.VALID, gain


def test_an_electrode_that_failed_is_not_another_session(rig: Rig) -> None:
    decoder, _ = heard(rig, known(rig), np.where(np.arange(12) == 1, 0.0, RATE_HZ))
    found = decoder.health()["session_check"]
    assert found["state"] == "verified"
    assert found["units_heard"] == pytest.approx(1 - 1 / 12, abs=0.03)


def test_two_seconds_of_artefact_are_no_evidence(rig: Rig) -> None:
    times, rows = poisson(RATE_HZ, 8.0, seed=3)
    more, units = poisson(np.full(12, 150.0), 2.0, seed=4)
    order = np.argsort(all_times := np.concatenate([times, more + 0.5]))
    decoder = Decoder(rig.core, known(rig))
    decoded = rig.run(decoder, all_times[order], np.concatenate([rows, units])[order], ENDS)
    assert not any("wrong_session" in one.flags for one in decoded)
    assert decoded[-1].status is Status.VALID


def test_seconds_of_artefact_in_a_calibration_do_not_blunt_the_check() -> None:
    times, rows = poisson(RATE_HZ, 60.0, seed=9)
    more, units = poisson(RATE_HZ[::-1] * 10, 2.0, seed=4)
    order = np.argsort(all_times := np.concatenate([times, more + 30.0]))
    found = activity_of(
        all_times[order], np.concatenate([rows, units])[order], np.zeros((1, 2)),
        n_units=12, stretches=np.array([[0.0, 60.0]]), window_s=1.0,
    )  # fmt: skip
    assert found is not None
    assert found.rate_hz == pytest.approx(measured(RATE_HZ).rate_hz, rel=0.05)
    assert found.rate_sd_hz == pytest.approx(measured(RATE_HZ).rate_sd_hz, rel=0.05)


def test_a_wrong_session_is_forgiven_when_the_stream_fits(rig: Rig) -> None:
    times, rows = poisson(OTHER_HZ, 6.0, seed=3)
    more, units = poisson(RATE_HZ, 8.0, seed=4)
    decoder = Decoder(rig.core, known(rig))
    ends = [0.25 * i for i in range(1, 55)]
    decoded = rig.run(
        decoder, np.concatenate([times, more + 6.0]), np.concatenate([rows, units]), ends
    )
    wrong = [one.t for one in decoded if "wrong_session" in one.flags]
    assert 4.0 <= wrong[0] <= 5.0
    assert 7.0 < wrong[-1] < 11.0
    assert decoded[-1].status is Status.VALID


def test_a_swap_to_the_right_session_goes_on_without_a_pause(rig: Rig) -> None:
    """Its units are in another order: what was heard is placed by unit id."""
    decoder, _ = heard(rig, known(rig, OTHER_HZ), RATE_HZ, ENDS[:20])
    assert decoder.health()["session_check"]["state"] == "wrong_session"
    order = np.random.default_rng(0).permutation(12)
    units = tuple(rig.a.header.unit_ids[i] for i in order)
    right = dataclasses.replace(
        rig.a,
        header=dataclasses.replace(rig.a.header, session_id="right", unit_ids=units),
        activity=measured(RATE_HZ[order]),
    )
    times, rows = poisson(RATE_HZ, 8.0, seed=3)
    later = rows[times >= 5.0]
    decoder.push(times[times >= 5.0], decoder.rows(decoder.unit_ids)[later])
    decoder.swap_session(right)
    assert decoder.health()["session_check"]["state"] == "verified"
    result = decoder.decode(5.25)
    assert (result.session_id, result.status, result.flags) == ("right", Status.VALID, ())
    decoder.revert()
    assert decoder.decode(5.5).flags == ("wrong_session",)


def test_a_wrong_session_s_value_is_not_held(rig: Rig) -> None:
    decoder, decoded = heard(rig, known(rig, OTHER_HZ), RATE_HZ, ENDS[:20])
    assert decoded[-1].flags == ("wrong_session",)
    lost = decoder.decode(5.02, stream_lost=True)
    assert (lost.status, lost.value.tolist()) == (Status.INVALID, [0.0, 0.0])


def test_a_swap_to_the_session_in_use_changes_nothing(rig: Rig) -> None:
    decoder, _ = heard(rig, known(rig), RATE_HZ, ENDS[:20])
    before = decoder.session
    assert decoder.health()["session_check"]["state"] == "verified"
    other = decoder.prepare(dataclasses.replace(known(rig), header=before.header))
    decoder.swap_session(other)
    found = decoder.health()["session_check"]
    decoder.swap_session(other)
    assert decoder.health()["session_check"] == found
    assert found["heard_s"] > 0
    decoder.revert()
    assert decoder.session is before


def test_a_session_that_comes_back_is_judged_by_what_is_heard_then(rig: Rig) -> None:
    decoder, _ = heard(rig, known(rig), RATE_HZ, horizon_s=2.0, verify_s=None)
    first = decoder.health()
    assert first["windows"] > 0
    decoder.swap_session(rig.b)
    decoder.revert()
    again = decoder.health()
    assert (again["windows"], again["flags"], again["judged"]) == (0, [], False)


def test_a_swap_to_units_that_were_not_heard_waits(rig: Rig) -> None:
    decoder, _ = heard(rig, known(rig), RATE_HZ)
    units = tuple(f"other/{i}" for i in range(9)) + rig.a.header.unit_ids[9:]
    header = dataclasses.replace(rig.a.header, unit_ids=units)
    decoder.swap_session(dataclasses.replace(known(rig), header=header))
    found = decoder.health()["session_check"]
    assert (found["state"], found["heard_s"]) == ("verifying", 0.0)


def test_a_session_without_a_record_is_unverified_and_keeps_its_status(rig: Rig) -> None:
    decoder, decoded = heard(rig, rig.a, RATE_HZ)
    assert all("unverified" in one.flags for one in decoded)
    assert decoded[-1].status is Status.VALID
    health = decoder.health()
    assert (health["flags"], health["session_check"]["state"]) == ([], "unverified")
    assert "does not say how its units fired" in health["session_check"]["reason"]


@pytest.mark.parametrize("rate_hz", [np.full(12, 20.0), np.linspace(0.1, 0.6, 12)])
def test_units_that_cannot_tell_are_unverified_and_not_wrong(rig: Rig, rate_hz: Float64) -> None:
    """All alike, or so rare that a second says little."""
    decoder, decoded = heard(rig, known(rig, rate_hz), rate_hz[::-1])
    assert not any("wrong_session" in one.flags or "verifying" in one.flags for one in decoded)
    assert "to be told from others" in decoder.health()["session_check"]["reason"]


def test_nobody_waits_for_ever(rig: Rig) -> None:
    """Of windows that were lost in part nothing is told."""
    decoder = Decoder(rig.core, known(rig))
    states = []
    for i in range(1, 13):
        decoder.push([float(i) - 0.3, float(i) - 5.0], [1, 2])  # the second is late: never whole
        decoder._intake.lateness.tardy = 99
        states.append(decoder.decode(float(i)).flags)
    assert any("verifying" in one for one in states[:5])
    assert "unverified" in states[-1]
    assert "whole windows" in decoder.health()["session_check"]["reason"]


def test_it_can_be_switched_off(rig: Rig) -> None:
    decoder, decoded = heard(rig, known(rig), OTHER_HZ, verify_s=None)
    assert {one.flags for one in decoded} == {("warmup",), ()}
    assert decoder.health()["session_check"]["state"] == "off"
    with pytest.raises(UsageError, match=r"verify_s: expected seconds >= 1 or None, got 0\.5"):
        HealthSettings(verify_s=0.5)


def test_strangers_are_noticed_within_five_seconds(rig: Rig) -> None:
    """Most spikes are of units that the session does not know."""
    decoder = Decoder(rig.core, known(rig))
    times, rows = poisson(np.concatenate([RATE_HZ, RATE_HZ]), 8.0, seed=4)
    decoded = rig.run(decoder, times, rows, ENDS)
    first = next(one.t for one in decoded if "coverage" in one.flags)
    assert 4.0 <= first <= 5.0


def test_the_journal_says_what_came_of_it(rig: Rig, tmp_path: Path) -> None:
    decoder = Decoder(rig.core, known(rig, OTHER_HZ), tick_rate_hz=rig.grid_hz)
    path = tmp_path / "a.journal"
    journal = JournalWriter(
        path, JournalHeader(session_id="x", unit_ids=decoder.unit_ids, tick_rate_hz=rig.grid_hz)
    )
    recorder = Recorder(journal, decoder)
    times, rows = poisson(RATE_HZ, 8.0, seed=3)
    decoder.push((times * rig.grid_hz).astype(np.int64), decoder.rows(decoder.unit_ids)[rows])
    for end in range(1024, 7 * 4096, 1024):
        recorder.decoded(end, 0, decoder.decode(end), None)
    journal.close()
    said = [one["session_check"] for one in Journal(path).entries()
            if isinstance(one, dict) and "session_check" in one]  # fmt: skip
    assert [one["state"] for one in said] == ["wrong_session"]
    assert "check --session" in said[0]["reason"]


def states_of(activity: Activity, recording: Recording, row_of: Any, starts: Any) -> list[str]:
    """What five seconds from each start on come to."""
    times, units = recording.spike_times, recording.spike_units
    found = []
    for start in starts:
        check = SessionCheck("day", recording.unit_ids, activity, 1.0, HealthSettings())
        for second in range(5):
            lo, hi = times.searchsorted([start + second, start + second + 1])
            check.look(row_of[units[lo:hi]].astype(np.int32))
        found.append(check.state)
    return found


def of_first(recording: Recording, seconds: float) -> Activity:
    """The activity of its first seconds."""
    found = activity_of(
        recording.spike_times, recording.spike_units, np.zeros((1, 1)),
        n_units=len(recording.unit_ids), stretches=np.array([[0.0, seconds]]), window_s=1.0,
    )  # fmt: skip
    assert found is not None
    return found


@pytest.mark.slow
def test_simulated_sessions_are_told_apart(tmp_path: Path) -> None:
    """With pauses of up to four seconds between reaches."""
    simulation = Simulation(duration_s=120.0, pause_s=(0.1, 4.0))
    paths = simulate_study(tmp_path, n_sessions=3, seed=2, simulation=simulation)
    recordings = [Recording.open(path) for path in paths]
    starts, same = np.arange(0, 110, 5.0), np.arange(60)
    for one in recordings:
        activity = of_first(one, 60.0)
        assert set(states_of(activity, one, same, starts)) == {"verified"}
        shuffled = np.random.default_rng(1).permutation(60)
        assert set(states_of(activity, one, shuffled, starts)) == {"wrong_session"}
        for other in recordings:
            if other is not one:
                assert set(states_of(activity, other, same, starts)) == {"wrong_session"}


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data/motor").is_dir(), reason="no recordings in ../shared")
def test_days_and_animals_are_told_apart() -> None:
    names = ("spike_20120820", "spike_20120822", "spike_20120829", "jango_20141203")
    recordings = [Recording.open(SHARED / f"data/motor/{name}.h5") for name in names]
    same, wrong = np.arange(96), list[str]()
    for one in recordings:
        activity = of_first(one, 120.0)
        inside = np.concatenate([one.intervals(split) for split in ("train", "valid", "test")])
        starts = [s for s in np.arange(0, 1190, 15.0)
                  if ((inside[:, 0] <= s) & (s + 5 <= inside[:, 1])).any()]  # fmt: skip
        assert len(starts) > 30
        assert set(states_of(activity, one, same, starts)) == {"verified"}
        shuffled = np.random.default_rng(1).permutation(96)
        assert set(states_of(activity, one, shuffled, starts)) == {"wrong_session"}
        for other in recordings:
            if other is not one:
                wrong += states_of(activity, other, same, np.arange(0, 1190, 30.0))
    assert np.mean([state == "wrong_session" for state in wrong]) >= 0.95
