"""Free use becomes a session that is offered or taken, and nothing else touches what decodes."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.free_use import free_use
from helpers.calibrating.teacher import LEARN, QUICK, Lesson, decoded, drifted, lesson
from helpers.paths import TINY
from helpers.waiting import PATIENCE_S

from poyo_edge.artifact import Session
from poyo_edge.calibration.free_use import recalibrating as module
from poyo_edge.calibration.free_use.inferred_labels import MOST_LEAD_S, InferredLabels
from poyo_edge.calibration.free_use.inferred_targets import InferredTargets
from poyo_edge.calibration.free_use.recalibrating import FreeUseCalibration, FreeUseSettings
from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.failsafe import Status
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.result import Controlled, Result

RATE = 30_000
LESSON_S = 60.0
SOON = FreeUseSettings(after_s=LESSON_S - 5, most_s=600.0, max_seconds=60.0)


def value_at(
    tick: int, value: Any, status: Status = Status.VALID, flags: tuple[str, ...] = ()
) -> LoopResult:
    result = Result(
        value=np.asarray(value, np.float64), status=status, n_spikes=10, t_last_spike=tick,
        latency_ns=0, t=tick, flags=flags, session_id="x",
    )  # fmt: skip
    return LoopResult(
        seq=tick, result=result, t_s=tick / RATE, epoch=0, sync=None, host_ns=0, newest_in_ns=0
    )


@pytest.fixture
def taught() -> Lesson:
    """What the truth decodes of spikes at whole ticks."""
    given = lesson(duration_s=LESSON_S)
    spikes = np.rint(given.spike_times * RATE) / RATE
    values = decoded(given.truth, spikes, given.spike_rows, given.times)
    return dataclasses.replace(given, spike_times=spikes, values=values)


def decoder_of(taught: Lesson, *, knowing: bool = False) -> Decoder:
    """Of the lesson's units, which have drifted since, unless it knows the truth."""
    other = drifted(taught.truth, 0.3)
    other = dataclasses.replace(
        other, header=dataclasses.replace(other.header, session_id="before")
    )
    return Decoder.open(TINY, session=taught.truth if knowing else other, tick_rate_hz=RATE)


def opened(decoder: Decoder, settings: FreeUseSettings = SOON, **more: Any) -> FreeUseCalibration:
    return FreeUseCalibration(TINY, decoder, settings=settings, fit=LEARN, **more)


def use(calibration: FreeUseCalibration, taught: Lesson, **what: Any) -> None:
    """The lesson's spikes at their times, and a person's cursor and values meanwhile."""
    person = free_use()
    status, cursor = what.get("status", Status.VALID), what.get("cursor", True)
    ticks = np.rint(taught.spike_times * RATE).astype(np.int64)
    for i in range(round(LESSON_S * 50)):
        start, end = i * RATE // 50, (i + 1) * RATE // 50
        inside = (ticks >= start) & (ticks < end)
        if inside.any():
            calibration.on_spikes(ticks[inside], taught.spike_rows[inside].astype(np.int32))
        if cursor:
            calibration.on_cursor(np.array([end]), person.cursor[i : i + 1])
        calibration.on_value(value_at(end, person.decoded[i], status))


def settled(calibration: FreeUseCalibration) -> dict[str, Any]:
    assert calibration._settled.wait(PATIENCE_S)
    return calibration.history[0]


@pytest.fixture
def of_the_truth(taught: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that the spikes can be fitted to: the weights of the tiny model suit no person."""

    def labels_from(inferred: InferredTargets, times: Any, *_: Any, **__: Any) -> InferredLabels:
        assert len(inferred) > 10
        assert np.ptp(times) > 50
        whole = (taught.times >= 1.0) & (taught.times <= times[-1])
        at = taught.times[whole]
        return InferredLabels(
            times=at, values=taught.values[whole], held_out=at > 0.7 * LESSON_S, lead_s=0.1,
            targets=30, targets_held_out=9,
        )  # fmt: skip

    monkeypatch.setattr(module, "labels_from", labels_from)


@pytest.mark.usefixtures("of_the_truth")
def test_a_session_that_passes_is_offered_and_decodes_only_once_it_is_taken(
    taught: Lesson, tmp_path: Path
) -> None:
    decoder, events = decoder_of(taught), list[dict[str, Any]]()
    before, path = decoder.session, tmp_path / "a.session"
    calibration = opened(decoder, save_to=path, on_event=events.append)
    use(calibration, taught)
    entry = settled(calibration)
    assert entry["passed"], entry
    assert entry["error"] < entry["error_in_use"]
    assert calibration.to_json()["offered"] == "before+free-use-1"
    assert decoder.session is before
    assert calibration.take() == decoder.session_id == "before+free-use-1"
    assert Session.open(path).header.session_id == "before+free-use-1"
    assert events[-1] == {"taken": "before+free-use-1", "saved": str(path)}
    with pytest.raises(UsageError, match="expected a session on offer"):
        calibration.take()
    calibration.on_cursor(np.array([10**7]), np.zeros((1, 2)))
    assert calibration.to_json()["used_s"] == 0, "what came through the one before is done with"


@pytest.mark.slow
@pytest.mark.usefixtures("of_the_truth")
def test_units_in_another_order_after_a_swap_are_the_same_units(taught: Lesson) -> None:
    """Rows of what is kept are of the session that it began with."""
    decoder = decoder_of(taught)
    calibration, old = opened(decoder), decoder.session
    header = dataclasses.replace(
        old.header, session_id="back", unit_ids=tuple(reversed(old.header.unit_ids))
    )
    back = dataclasses.replace(old, header=header, unit_embedding=old.unit_embedding[::-1].copy())
    decoder.swap_session(back)
    use(calibration, taught)
    entry = settled(calibration)
    assert entry["passed"], entry
    assert entry["in_use"]["angular_error_deg"] < 10
    assert calibration.take() == "back+free-use-1"
    assert decoder.unit_ids == old.header.unit_ids


@pytest.mark.slow
@pytest.mark.usefixtures("of_the_truth")
def test_an_offer_that_is_rejected_is_forgotten(taught: Lesson) -> None:
    decoder = decoder_of(taught)
    before, calibration = decoder.session, opened(decoder)
    use(calibration, taught)
    settled(calibration)
    assert calibration.reject() == "before+free-use-1"
    assert (calibration.offered, decoder.session) == (None, before)
    with pytest.raises(UsageError, match="reject: expected a session on offer"):
        calibration.reject()


@pytest.mark.slow
@pytest.mark.usefixtures("of_the_truth")
def test_by_choice_it_is_taken_at_once(taught: Lesson) -> None:
    decoder = decoder_of(taught)
    calibration = opened(decoder, dataclasses.replace(SOON, mode="take"))
    use(calibration, taught)
    settled(calibration)
    assert decoder.session_id == "before+free-use-1"
    assert calibration.offered is None


@pytest.mark.slow
@pytest.mark.usefixtures("of_the_truth")
def test_what_was_compared_with_another_session_is_not_taken(taught: Lesson) -> None:
    decoder = decoder_of(taught)
    calibration = opened(decoder)
    use(calibration, taught)
    settled(calibration)
    decoder.swap_session(taught.truth)
    with pytest.raises(UsageError, match="to be in use still, got 'day'"):
        calibration.take()
    assert decoder.session is taught.truth


@pytest.mark.slow
@pytest.mark.usefixtures("of_the_truth")
def test_a_session_that_was_swapped_in_while_it_was_fitted_is_not_offered_another(
    taught: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_of(taught)
    calibration = opened(decoder)
    fitted = calibration._fitted

    def and_swap(*arguments: Any) -> Any:
        session = fitted(*arguments)
        decoder.swap_session(taught.truth)
        return session

    monkeypatch.setattr(calibration, "_fitted", and_swap)
    use(calibration, taught)
    assert "to be in use still, got 'day'" in settled(calibration)["reason"]
    assert calibration.offered is None


@pytest.mark.slow
@pytest.mark.usefixtures("of_the_truth")
def test_the_session_in_use_stays_where_it_is_nearer_to_the_targets(taught: Lesson) -> None:
    decoder = decoder_of(taught, knowing=True)
    calibration = opened(decoder)
    use(calibration, taught)
    entry = settled(calibration)
    assert not entry["passed"]
    assert "the session in use" in entry["reason"]
    assert entry["in_use"]["angular_error_deg"] < 1
    assert (decoder.session, calibration.offered) == (taught.truth, None)


@pytest.mark.slow
def test_labels_of_a_person_that_these_spikes_know_nothing_of_are_refused(taught: Lesson) -> None:
    decoder = decoder_of(taught)
    before = decoder.session
    calibration = FreeUseCalibration(TINY, decoder, settings=SOON, fit=QUICK)
    use(calibration, taught)
    entry = settled(calibration)
    assert not entry["passed"]
    assert entry["reason"]
    assert entry["targets"] >= 16 > entry["targets_held_out"]
    assert decoder.session is before


@pytest.mark.slow
def test_without_a_cursor_or_valid_values_nothing_is_inferred(taught: Lesson) -> None:
    for what in ({"cursor": False}, {"status": Status.HELD}):
        calibration = opened(decoder_of(taught))
        use(calibration, taught, **what)
        said = calibration.to_json()
        assert (said["used_s"], said["fitting"], said["history"]) == (0, False, [])
        assert said["cursor"] == what.get("cursor", True)


@pytest.mark.slow
def test_a_cursor_that_is_not_ours_is_one_sentence(
    taught: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_of(taught)
    calibration = opened(decoder)
    real = calibration.on_cursor
    monkeypatch.setattr(calibration, "on_cursor", lambda ticks, at: real(ticks, -at))
    use(calibration, taught)
    assert "expected one that what is decoded moves" in settled(calibration)["reason"]


@pytest.mark.slow
def test_drift_is_no_reason_not_to_mend_it_and_lost_data_is(taught: Lesson) -> None:
    calibration = opened(decoder_of(taught))
    calibration.on_cursor(np.array([600]), np.zeros((1, 2)))
    for tick, flags in enumerate(
        [("drift",), ("drift", "loss"), ("wrong_session",), ("coverage",), ("drift", "control")]
    ):
        calibration.on_value(value_at(600 + tick, [1.0, 1.0], Status.DEGRADED, flags))
    assert calibration._kept.values.rows()["tick"].tolist() == [600, 603, 604]


@pytest.mark.slow
def test_the_lead_of_one_session_is_no_longer_than_that_of_the_one_before(
    taught: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that is off makes it look longer, and it would grow from session to session."""
    most, found = list[float](), iter([0.14, 0.10])

    def labels_from(*_: Any, most_lead_s: float, **__: Any) -> InferredLabels:
        most.append(most_lead_s)
        at = taught.times[taught.times >= 1.0]
        return InferredLabels(
            times=at, values=taught.values[taught.times >= 1.0], held_out=at > 0.7 * LESSON_S,
            lead_s=next(found), targets=30, targets_held_out=9,
        )  # fmt: skip

    monkeypatch.setattr(module, "labels_from", labels_from)
    calibration = opened(decoder_of(taught, knowing=True))
    use(calibration, taught)
    settled(calibration)
    units = calibration._followed.unit_ids
    with pytest.raises(CheckFailedError, match="it stays"):  # the truth cannot be bettered
        calibration._fitted(
            calibration._kept, units, taught.truth, threading.Event(), lambda _: None
        )
    assert most == [MOST_LEAD_S, 0.14]


@pytest.mark.slow
def test_what_was_decoded_counts_and_not_what_control_made_of_it(taught: Lesson) -> None:
    calibration = opened(decoder_of(taught))
    controlled = Controlled(
        decoded=np.array([3.0, 4.0]),
        status=Status.VALID,
        ramp=0.5,
        assist=0.5,
        click=False,
        held="",
    )
    calibration.on_cursor(np.array([600]), np.zeros((1, 2)))
    calibration.on_value(dataclasses.replace(value_at(600, [9.0, 9.0]), control=controlled))
    ((tick, decoded_then),) = calibration._kept.values.rows()
    assert (tick, decoded_then.tolist()) == (600, [3.0, 4.0])


@pytest.mark.slow
def test_a_new_clock_forgets_what_was_kept(taught: Lesson) -> None:
    epoch = [0]
    calibration = opened(
        decoder_of(taught), dataclasses.replace(SOON, after_s=500.0), epoch=lambda: epoch[0]
    )
    use(calibration, taught)
    assert calibration.to_json()["used_s"] > 50
    epoch[0] = 1
    calibration.on_cursor(np.array([5]), np.zeros((1, 2)))
    assert calibration.to_json()["used_s"] == 0


@pytest.mark.slow
def test_only_the_newest_minutes_are_kept(taught: Lesson) -> None:
    settings = dataclasses.replace(SOON, after_s=30.0, most_s=30.0)
    calibration = opened(decoder_of(taught), settings)
    calibration._kept.next_s = 1e9
    use(calibration, taught)
    kept = calibration._kept
    assert 29 * 50 <= len(kept.values.rows()) <= 30 * 50 + 1
    assert 29 * 50 <= len(kept.cursor.rows()) <= 30 * 50 + 1
    assert int(kept.spikes.rows()["tick"].min()) >= (LESSON_S - 31) * RATE


@pytest.mark.slow
def test_what_is_kept_is_bounded_also_while_no_value_is_used(taught: Lesson) -> None:
    calibration = opened(decoder_of(taught), dataclasses.replace(SOON, after_s=30.0, most_s=30.0))
    rows = np.zeros(1000, np.int32)
    for second in range(0, 400):
        ticks = np.arange(second * 1000, (second + 1) * 1000) * RATE // 1000
        calibration.on_spikes(ticks, rows)
        calibration.on_cursor(ticks, np.zeros((1000, 2)))
        calibration.on_value(value_at(int(ticks[-1]), [1.0, 1.0], Status.HELD, ("loss",)))
    assert len(calibration._kept.spikes) <= 30_000 + 2 * 4096
    assert len(calibration._kept.cursor) <= 30_000 + 2 * 4096


@pytest.mark.slow
def test_the_loop_never_waits_for_a_fit(taught: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, opens = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        reached.set()
        assert opens.wait(PATIENCE_S)
        raise UsageError("enough")

    monkeypatch.setattr(module, "infer_targets", hang)
    calibration = opened(decoder_of(taught))
    use(calibration, taught)
    assert reached.wait(PATIENCE_S)
    assert calibration.to_json()["fitting"]
    calibration.on_cursor(np.array([10**7]), np.zeros((1, 2)))
    calibration.on_value(value_at(10**7, [0.0, 0.0]))
    opens.set()
    calibration.stop()
    assert settled(calibration)["reason"] == "enough"


@pytest.mark.slow
def test_settings_and_decoders_that_do_not_fit_are_refused(taught: Lesson) -> None:
    with pytest.raises(UsageError, match="mode: expected one of"):
        FreeUseSettings(mode="always")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="30 <= after_s"):
        FreeUseSettings(after_s=5.0)
    with pytest.raises(UsageError, match="least_confidence"):
        FreeUseSettings(least_confidence=1.0)
    with pytest.raises(UsageError, match="max_seconds"):
        FreeUseSettings(max_seconds=0.0)
    with pytest.raises(UsageError, match="tick_rate_hz"):
        FreeUseCalibration(TINY, Decoder.open(TINY, session="tiny_a"))
    with pytest.raises(UsageError, match=r"expected positions \(N, 2\)"):
        opened(decoder_of(taught)).on_cursor(np.array([1]), np.zeros((1, 3)))
