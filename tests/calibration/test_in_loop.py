"""Labels that come with the stream become a session while decoding goes on."""

from __future__ import annotations

import dataclasses
import functools
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.teacher import LEARN, QUICK, Lesson, decoded, lesson
from helpers.paths import TINY
from helpers.waiting import PATIENCE_S

from poyo_edge.artifact import Artifact, Session
from poyo_edge.calibration.fit.labels import LabelCollector
from poyo_edge.calibration.in_loop import LoopCalibration
from poyo_edge.calibration.intention import IntentionSettings
from poyo_edge.errors import UsageError
from poyo_edge.runtime import Decoder
from poyo_edge.trials import Trial

RATE = 30_000


def decoder_of(taught: Lesson, *, knowing: bool = False) -> Decoder:
    """Of the lesson's units, with embeddings that know nothing, or all there is to know."""
    if knowing:
        return Decoder.open(TINY, session=taught.truth, tick_rate_hz=RATE)
    rng = np.random.default_rng(3)
    n_units, dim = taught.truth.unit_embedding.shape
    session = Session(
        header=dataclasses.replace(taught.truth.header, session_id="before"),
        unit_embedding=rng.standard_normal((n_units, dim)).astype(np.float32),
        session_embedding=rng.standard_normal((1, dim)).astype(np.float32)[0],
    )
    return Decoder.open(TINY, session=session, tick_rate_hz=RATE)


def on_ticks(taught: Lesson) -> Lesson:
    """The behaviour that the truth decodes of spikes at whole ticks."""
    spikes = np.rint(taught.spike_times * RATE) / RATE
    values = decoded(taught.truth, spikes, taught.spike_rows, taught.times)
    return dataclasses.replace(taught, spike_times=spikes, values=values)


def stream(taught: Lesson, calibration: LoopCalibration, *, shuffled: bool = False) -> None:
    """The lesson in packets of 50 ms, spikes before the labels of their time."""
    values = taught.values
    if shuffled:
        values = np.random.default_rng(0).permutation(values)
    ticks = np.rint(taught.spike_times * RATE).astype(np.int64)
    times = np.rint(taught.times * RATE).astype(np.int64)
    for start in range(0, int(ticks[-1]) + 1, RATE // 20):
        end = start + RATE // 20
        chunk = (ticks >= start) & (ticks < end)
        if chunk.any():
            calibration.on_spikes(ticks[chunk], taught.spike_rows[chunk].astype(np.int32))
        labels = (times >= start) & (times < end)
        if labels.any():
            calibration.on_labels(times[labels], values[labels])


def test_a_good_fit_is_swapped_in_and_saved(tmp_path: Path) -> None:
    taught = lesson()
    decoder = decoder_of(taught)
    total = float(np.ptp(taught.times))
    calibration = LoopCalibration(
        TINY, decoder, after_s=max(5.0, total - 3), save_to=tmp_path / "a.session", settings=LEARN
    )
    stream(taught, calibration)
    assert calibration.labelled_s > total - 3
    calibration._settled.wait(120)
    (fit,) = calibration.to_json()["fits"]
    assert fit["swapped"], fit
    assert fit["r2_heldout"] > 0
    assert decoder.session_id != "before"
    assert Session.open(tmp_path / "a.session").header.session_id == decoder.session_id
    calibration.stop()
    first = decoder.session
    assert calibration._fit is not None
    fitted = calibration._fit.result(0)
    other = dataclasses.replace(fitted, session_embedding=-fitted.session_embedding)
    calibration._in_use = first
    calibration._ended(types.SimpleNamespace(result=lambda _: other))  # type: ignore[arg-type]
    kept, newest = calibration.to_json()["fits"]
    assert [Session.open(fit["saved"]).digest for fit in (kept, newest)] == [
        first.digest, decoder.session.digest,
    ], "a journal names both"  # fmt: skip
    assert newest["saved"] == str(tmp_path / "a.session")
    assert first.digest != decoder.session.digest


@pytest.mark.slow
def test_a_session_that_cannot_be_saved_is_in_use_all_the_same(tmp_path: Path) -> None:
    taught = lesson()
    decoder = decoder_of(taught)
    calibration = LoopCalibration(
        TINY, decoder, after_s=float(np.ptp(taught.times)) - 3, settings=LEARN,
        save_to=tmp_path / "gone" / "a.session",
    )  # fmt: skip
    stream(taught, calibration)
    calibration._settled.wait(120)
    (fit,) = calibration.to_json()["fits"]
    assert fit["swapped"], fit
    assert "gone" in fit["not_saved"]
    assert "reason" not in fit
    assert "saved" not in fit
    assert decoder.session_id != "before"
    calibration.stop()


def test_spikes_after_a_swap_are_kept_for_the_units_that_the_fit_began_with() -> None:
    taught = lesson()
    decoder = decoder_of(taught)
    calibration = LoopCalibration(TINY, decoder, after_s=5.0, settings=QUICK)
    ids = decoder.unit_ids
    before = decoder.rows(ids)
    order = [*range(len(ids) - 1, -1, -1)]
    header = dataclasses.replace(
        taught.truth.header, session_id="back", unit_ids=tuple(ids[row] for row in order)
    )
    decoder.swap_session(dataclasses.replace(taught.truth, header=header))
    for i, rows in enumerate((before, decoder.rows(ids), np.arange(len(ids), dtype=np.int32))):
        calibration.on_spikes(np.arange(len(ids)) + i * RATE // 4, rows)
    assert decoder.rows(ids).tolist() == order
    assert calibration._spikes.rows()["row"].tolist() == [*range(len(ids))] * 3


def test_a_bad_fit_leaves_the_session_in_use() -> None:
    taught = lesson()
    decoder = decoder_of(taught)
    calibration = LoopCalibration(TINY, decoder, after_s=5.0, settings=QUICK)
    stream(taught, calibration, shuffled=True)
    calibration.stop()
    fits = calibration.to_json()["fits"]
    assert fits
    assert not any(fit["swapped"] for fit in fits)
    assert all("R²" in fit["reason"] or "expected" in fit["reason"] for fit in fits)
    assert decoder.session_id == "before"


@pytest.mark.slow
def test_the_first_fit_already_is_compared_with_the_session_in_use() -> None:
    """The labels are learned, and still the session in use decodes them better."""
    taught = on_ticks(lesson())
    decoder = decoder_of(taught, knowing=True)
    total = float(np.ptp(taught.times))
    calibration = LoopCalibration(TINY, decoder, after_s=total - 3, settings=LEARN)
    stream(taught, calibration)
    calibration._settled.wait(PATIENCE_S)
    (fit,) = calibration.to_json()["fits"]
    assert not fit["swapped"]
    assert 0 < fit["r2_heldout"] < fit["r2_in_use"] == pytest.approx(1.0, abs=0.01)
    assert "which the session in use has on the same samples" in fit["reason"]
    assert decoder.session is taught.truth


@pytest.mark.slow
def test_the_fit_before_stays_while_too_few_labels_are_later_than_its_own() -> None:
    """It would be judged on what it has learned."""
    taught = lesson()
    decoder = decoder_of(taught)
    total = float(np.ptp(taught.times))
    calibration = LoopCalibration(TINY, decoder, after_s=total - 3, settings=LEARN)
    stream(taught, calibration)
    calibration._settled.wait(PATIENCE_S)
    assert [fit["swapped"] for fit in calibration.to_json()["fits"]] == [True]
    first = decoder.session
    calibration._next_s = 0.0
    later = taught.times + total + 0.1
    calibration.on_labels(np.rint(later[:1] * RATE).astype(np.int64), taught.values[:1])
    assert calibration.fitting
    calibration._settled.wait(PATIENCE_S)
    (_, second) = calibration.to_json()["fits"]
    assert not second["swapped"]
    assert "blocks later than the labels that the session in use was fitted to" in second["reason"]
    assert decoder.session is first


def test_a_session_that_was_never_compared_is_not_replaced() -> None:
    """Somebody swaps another one in while a fit runs."""
    taught = lesson()
    decoder = decoder_of(taught)
    calibration = LoopCalibration(
        TINY, decoder, after_s=float(np.ptp(taught.times)) - 3, settings=LEARN
    )
    hang = Hang(calibration._calibrator._adapter, "gradients")
    stream(taught, calibration)
    assert hang.reached.wait(PATIENCE_S)
    decoder.swap_session(taught.truth)
    hang.opened.set()
    calibration._settled.wait(PATIENCE_S)
    (fit,) = calibration.to_json()["fits"]
    assert not fit["swapped"]
    assert "to be in use still, got 'day'" in fit["reason"]
    assert decoder.session is taught.truth


def test_a_session_of_other_units_begins_the_labels_anew() -> None:
    """Rows of spikes would mean other units."""
    taught = lesson()
    decoder = decoder_of(taught)
    calibration = LoopCalibration(TINY, decoder, after_s=1000.0, settings=QUICK)
    stream(taught, calibration)
    assert calibration.labelled_s > 3
    decoder.swap_session("tiny_a")
    calibration.on_spikes(np.array([5]), np.array([0], np.int32))
    assert calibration.labelled_s == 0
    assert calibration._calibrator.unit_ids == decoder.unit_ids
    calibration.stop()


class Hang:
    """A method of an object that waits until it may go on."""

    def __init__(self, owner: Any, name: str) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self._real = getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.reached.set()
        assert self.opened.wait(PATIENCE_S)
        return self._real(*arguments, **named)

    def __get__(self, instance: Any, _: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["labels", "gradients", "prepare", "save"])
def test_the_loop_never_waits_for_a_fit_or_a_save(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the fit hangs in, spikes, labels and a new clock are taken."""
    taught, epoch = lesson(), [0]
    decoder = decoder_of(taught)
    calibration = LoopCalibration(
        TINY, decoder, after_s=float(np.ptp(taught.times)) - 3, settings=LEARN,
        save_to=tmp_path / "a.session", epoch=lambda: epoch[0],
    )  # fmt: skip
    owners = {
        "labels": (LabelCollector, "labels"),
        "gradients": (calibration._calibrator._adapter, "gradients"),
        "prepare": (decoder, "prepare"),
        "save": (Session, "save"),
    }
    owner, name = owners[where]
    monkeypatch.setattr(owner, name, getattr(owner, name))  # put back at the end
    hang = Hang(owner, name)
    stream(taught, calibration)
    assert hang.reached.wait(PATIENCE_S)
    done = threading.Event()

    def go_on() -> None:
        later = dataclasses.replace(
            taught, spike_times=taught.spike_times + 41, times=taught.times + 41
        )
        stream(later, calibration)
        epoch[0] += 1
        stream(taught, calibration)
        assert calibration.to_json()["fitting"]
        done.set()

    loop = threading.Thread(target=go_on, daemon=True)
    loop.start()
    went_on = done.wait(20.0)
    hang.opened.set()
    loop.join(PATIENCE_S)
    calibration.stop()
    assert went_on, f"the loop waited for a fit that hung in {where}"


def test_a_new_clock_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    taught, epoch = lesson(), [0]
    calibration = LoopCalibration(
        TINY, decoder_of(taught), after_s=1000.0, epoch=lambda: epoch[0], settings=QUICK
    )
    for name in ("open", "read"):
        monkeypatch.setattr(Artifact, name, lambda *_: pytest.fail("opened in the loop's thread"))
    first = calibration._calibrator.session_id
    epoch[0] = 1
    calibration.on_spikes(np.array([5]), np.array([0], np.int32))
    assert calibration._calibrator.session_id != first, "it knows none of the labels before"
    calibration.stop()


def test_a_new_clock_forgets_the_labels_of_the_old_one() -> None:
    taught, epoch = lesson(), [0]
    calibration = LoopCalibration(
        TINY, decoder_of(taught), after_s=1000.0, epoch=lambda: epoch[0], settings=QUICK
    )
    stream(taught, calibration)
    before = calibration.labelled_s
    assert before > 3
    epoch[0] = 1
    calibration.on_spikes(np.array([5]), np.array([0], np.int32))
    assert calibration.labelled_s == 0
    calibration.stop()


def test_labels_and_settings_that_do_not_fit_are_refused() -> None:
    taught = lesson()
    decoder = decoder_of(taught)
    calibration = LoopCalibration(TINY, decoder, after_s=5.0)
    with pytest.raises(UsageError, match="2 dimensions, got 3"):
        calibration.on_labels(np.array([1]), np.zeros((1, 3)))
    with pytest.raises(UsageError, match="at least 5 labelled seconds"):
        LoopCalibration(TINY, decoder, after_s=1.0)
    seconds: Any = Decoder.open(TINY, session="tiny_a")
    with pytest.raises(UsageError, match="tick_rate_hz"):
        LoopCalibration(TINY, seconds, after_s=5.0)


OBSERVED = IntentionSettings(kind="observation", reaction_s=0.0, lead_s=0.0)


def perform(taught: Lesson, calibration: LoopCalibration, *, trial_s: float = 2.0) -> None:
    """The lesson as a task: a cursor that moves by the lesson's values, in trials."""
    position = np.cumsum(taught.values * 0.1, axis=0)
    ticks = np.rint(taught.spike_times * RATE).astype(np.int64)
    times = np.rint(taught.times * RATE).astype(np.int64)
    per_trial = round(trial_s * 10)
    for number in range(len(times) // per_trial):
        span = slice(number * per_trial, (number + 1) * per_trial)
        start, end = int(times[span][0]), int(times[span][-1])
        told = Trial(
            number=number, start=start, target=tuple(position[span][-1].tolist()), radius=0.5
        )
        calibration.on_trial(told)
        chunk = (ticks >= start) & (ticks < start + round(trial_s * RATE))
        calibration.on_spikes(ticks[chunk], taught.spike_rows[chunk].astype(np.int32))
        calibration.on_cursor(times[span], position[span])
        calibration.on_trial(dataclasses.replace(told, end=end, success=True))


@pytest.mark.slow
def test_trials_and_cursor_become_a_session_while_decoding_goes_on() -> None:
    taught = lesson()
    decoder = decoder_of(taught)
    calibration = LoopCalibration(
        TINY, decoder, after_s=float(np.ptp(taught.times)) - 3, settings=LEARN, intention=OBSERVED
    )
    perform(taught, calibration)
    assert calibration.labelled_s == pytest.approx(38.0, abs=0.5)
    assert calibration._settled.wait(PATIENCE_S)
    (fit,) = calibration.to_json()["fits"]
    assert fit["swapped"], fit
    assert fit["r2_heldout"] > 0
    assert fit["control"]["angular_error_deg"] < 45
    (made,) = fit["labels"]
    assert (made["kind"], made["trials_used"]) == ("observation", 20)
    assert decoder.session.header.labels[0].kind == "intention:observation"
    calibration.stop()


def test_a_task_without_a_cursor_leaves_the_session_in_use() -> None:
    taught = lesson()
    decoder = decoder_of(taught)
    calibration = LoopCalibration(TINY, decoder, after_s=5.0, settings=QUICK, intention=OBSERVED)
    for number in range(4):
        start = number * 2 * RATE
        told = Trial(number=number, start=start, end=start + 2 * RATE, target=(1.0, 1.0))
        calibration.on_trial(told)
    calibration.stop()
    (fit,) = calibration.to_json()["fits"]
    assert not fit["swapped"]
    assert "expected the shown cursor, got none" in fit["reason"]
    assert decoder.session_id == "before"


def test_a_new_clock_forgets_the_trials_of_the_old_one() -> None:
    taught, epoch = lesson(), [0]
    calibration = LoopCalibration(
        TINY, decoder_of(taught), after_s=1000.0, epoch=lambda: epoch[0], settings=QUICK,
        intention=OBSERVED,
    )  # fmt: skip
    perform(taught, calibration)
    assert calibration.labelled_s > 30
    epoch[0] = 1
    calibration.on_cursor(np.array([5]), np.zeros((1, 2)))
    assert calibration.labelled_s == 0
    calibration.stop()


def test_what_was_not_asked_for_is_refused() -> None:
    measured = LoopCalibration(TINY, decoder_of(lesson()), after_s=5.0)
    with pytest.raises(UsageError, match="expected labels of intention to be asked for"):
        measured.on_trial(Trial(number=0, start=0))
    with pytest.raises(UsageError, match="expected labels of intention to be asked for"):
        measured.on_cursor(np.array([0]), np.zeros((1, 2)))
    intended = LoopCalibration(TINY, decoder_of(lesson()), after_s=5.0, intention=OBSERVED)
    with pytest.raises(UsageError, match="expected trials and cursor of a task, got behaviour"):
        intended.on_labels(np.array([0]), np.zeros((1, 2)))
    with pytest.raises(UsageError, match="expected 2 coordinates, as the model decodes"):
        intended.on_cursor(np.array([0]), np.zeros((1, 3)))
