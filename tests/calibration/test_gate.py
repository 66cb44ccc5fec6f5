"""What a new session is compared with before it replaces the session in use."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.calibrating.teacher import (
    LEARN,
    QUICK,
    REPORT,
    SOUND,
    Lesson,
    T,
    drifted,
    lesson,
    new_session,
)
from helpers.calibrating.teacher import adapter as model

from poyo_edge.arrays import Float64
from poyo_edge.artifact import Session
from poyo_edge.calibration import CalibratedSession, Calibrator, Progress
from poyo_edge.calibration.gate import Compared
from poyo_edge.calibration.refusing import Candidate, refusal
from poyo_edge.errors import CheckFailedError
from poyo_edge.metrics import r2_per_dim

HALF_S = 20.0


def add(calibrator: Calibrator, given: Lesson, start: float, end: float) -> None:
    spikes = (given.spike_times >= start) & (given.spike_times < end)
    labels = (given.times >= start) & (given.times < end)
    calibrator.add(
        given.spike_times[spikes], given.spike_rows[spikes], given.times[labels],
        given.values[labels],
    )  # fmt: skip


def calibrator() -> Calibrator:
    made = Calibrator(model(), lesson().unit_ids, session_id="day", settings=SOUND)
    add(made, lesson(), 0.0, HALF_S)
    return made


def as_if_fitted(session: Session, by: CalibratedSession) -> CalibratedSession:
    """Other embeddings in the place of those that a fit found."""
    return dataclasses.replace(
        by, unit_embedding=session.unit_embedding, session_embedding=session.session_embedding,
        wiener=None,
    )  # fmt: skip


@pytest.mark.slow
def test_an_earlier_fit_of_these_labels_is_judged_on_later_ones_only() -> None:
    """The figure is that of the samples whose whole window it never saw."""
    made = calibrator()
    first = as_if_fitted(drifted(lesson().truth, 0.3), made.fit(max_seconds=1e-9))
    assert first.learned_until is not None
    assert first.learned_until == pytest.approx(HALF_S - 0.1)
    add(made, lesson(), HALF_S, 40.0)
    again = made.fit(start=lesson().truth, in_use=first)
    compared = again.quality.compared
    assert compared is not None
    assert compared.later_only
    assert compared.later_s is not None
    assert 10 < compared.later_s < HALF_S
    assert compared.r2 == pytest.approx(1.0, abs=1e-4)
    assert "later ones" in compared.note
    assert again.quality.r2_in_use == compared.r2_in_use
    labels = lesson().labels()
    later = np.flatnonzero(labels.times >= first.learned_until + T)
    decoded = model().predict(labels, later, first.unit_embedding, first.session_embedding)
    expected = r2_per_dim(labels.values[later], decoded).mean()
    assert compared.r2_in_use == pytest.approx(expected, abs=0.1)
    again.require_good()


@pytest.mark.slow
def test_worse_on_the_later_labels_is_refused_however_good_it_is_on_all() -> None:
    made = calibrator()
    first = as_if_fitted(lesson().truth, made.fit(max_seconds=1e-9))
    add(made, lesson(), HALF_S, 40.0)
    worse = made.fit(start=drifted(lesson().truth, 0.1), in_use=first, max_seconds=1e-9)
    assert worse.quality.r2_heldout > 0
    with pytest.raises(CheckFailedError, match="s of labels that neither learned") as refused:
        worse.require_good()
    assert "expected an R² of at least 1.000" in str(refused.value)
    assert "the session in use stays" in str(refused.value)


@pytest.mark.slow
def test_while_too_few_labels_are_later_the_session_in_use_stays() -> None:
    made = calibrator()
    first = made.fit(start=lesson().truth, max_seconds=1e-9)
    add(made, lesson(), HALF_S, HALF_S + 3)
    again = made.fit(start=lesson().truth, in_use=first, max_seconds=1e-9)
    compared = again.quality.compared
    assert compared is not None
    assert compared.undecided
    with pytest.raises(CheckFailedError, match="later than the labels that the session in use"):
        again.require_good()


@pytest.mark.slow
def test_a_file_of_this_session_says_how_many_labelled_seconds_it_learned(tmp_path: Path) -> None:
    made = calibrator()
    made.fit(start=lesson().truth, max_seconds=1e-9).save(tmp_path / "day.session")
    add(made, lesson(), HALF_S, 40.0)
    quality = made.fit(in_use=tmp_path / "day.session", max_seconds=1e-9).quality
    assert quality.compared is not None
    assert quality.compared.later_only
    assert quality.r2_in_use == pytest.approx(1.0)
    other = Session.open(tmp_path / "day.session")
    other = dataclasses.replace(
        other, header=dataclasses.replace(other.header, session_id="another day")
    )
    quality = made.fit(in_use=other, max_seconds=1e-9).quality
    assert quality.compared is not None
    assert not quality.compared.later_only, "fitted to other labels, it is judged on all"


@pytest.mark.parametrize(
    ("r2", "compared", "said"),
    [
        (0.5, None, None),
        (0.0, None, "holding the mean"),
        (float("nan"), None, "holding the mean"),
        (0.5, Compared(r2=0.5, r2_in_use=0.5), None),
        (0.5, Compared(r2=0.5, r2_in_use=0.51), "on the same samples"),
        (0.5, Compared(r2=float("nan"), r2_in_use=0.1), "on the same samples"),
        (0.5, Compared(r2=None, r2_in_use=None), None),
        (0.5, Compared(r2=None, r2_in_use=None, later_only=True, later_s=2.0), "got 2 s; the s"),
        (0.5, Compared(r2=0.3, r2_in_use=0.4, later_only=True, later_s=9.0), "got 0.300 on 9 s"),
    ],
)
def test_the_gate_passes_what_is_no_worse_and_says_why_not(
    r2: float, compared: Compared | None, said: str | None
) -> None:
    new = Candidate(
        session_id="day", r2_heldout=r2, r2_per_dim=(r2,), labelled_s=60.0, compared=compared
    )
    reason = refusal(new)
    assert (reason is None) == (said is None)
    assert said is None or said in str(reason)


def test_who_has_no_session_in_use_is_compared_with_nothing() -> None:
    assert lesson().calibrator(QUICK).fit(max_seconds=1e-9).quality.compared is None


def on_labels(given: Lesson, *, in_use: Session | None, intentions: bool = False) -> str | None:
    """Why the session that is fitted to the labels from the truth on is not taken."""
    made = Calibrator(model(), given.unit_ids, session_id="new", settings=SOUND)
    if intentions:
        given.intend(made)
    else:
        given.give(made)
    found = made.fit(start=lesson().truth, in_use=in_use)
    assert found.quality.control is not None
    try:
        found.require_good()
    except CheckFailedError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_good_labels_pass_beside_a_session_that_is_a_little_worse() -> None:
    assert on_labels(lesson(), in_use=drifted(lesson().truth, 0.1), intentions=True) is None


@pytest.mark.slow
@pytest.mark.parametrize("intentions", [False, True])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lesson().values[:, ::-1] * [-1, 1], "turned by at most 30"),
        (lesson().values * [1, -1], "turned by at most 30"),
        (np.roll(lesson().values, 4, axis=0), "got labels 0.40 s later"),
    ],
)
def test_labels_that_are_turned_or_late_are_known_by_the_session_in_use(
    values: Float64, said: str, intentions: bool
) -> None:
    strange = dataclasses.replace(lesson(), values=values)
    reason = on_labels(strange, in_use=lesson().truth, intentions=intentions)
    assert reason is not None
    assert said in reason
    assert "the session in use stays" in reason


@pytest.mark.slow
def test_labels_that_are_decoded_backwards_are_refused_by_their_angle_alone() -> None:
    """With no session in use there is nothing else to tell it by."""
    backwards = dataclasses.replace(lesson(), values=-lesson().values)
    reason = on_labels(backwards, in_use=None, intentions=True)
    assert reason is not None
    assert "an angular error of at most 60°" in reason


@pytest.mark.slow
def test_a_session_that_is_slower_than_the_one_in_use_is_refused_with_its_gain() -> None:
    """It decodes the directions as well, and half the speed."""
    made = Calibrator(model(), lesson().unit_ids, session_id="new", settings=SOUND)
    lesson().give(made)
    found = made.fit(start=lesson().truth, in_use=drifted(lesson().truth, 0.1))
    compared = found.quality.compared
    assert compared is not None
    assert compared.control is not None
    assert compared.control.gain == pytest.approx(1.0, abs=0.05)
    assert compared.control_in_use is not None
    slow = dataclasses.replace(compared.control, gain=compared.control_in_use.gain * 0.5)  # type: ignore[operator]
    quality = dataclasses.replace(
        found.quality, compared=dataclasses.replace(compared, control=slow)
    )
    with pytest.raises(CheckFailedError, match="the gain has collapsed; the session in use stays"):
        dataclasses.replace(found, quality=quality).require_good()


@pytest.mark.slow
def test_figures_of_control_are_those_of_the_samples_that_judge_r2() -> None:
    found = lesson().calibrator(SOUND).fit(start=lesson().truth)
    control = found.quality.control
    assert control is not None
    assert control.angular_error_deg == pytest.approx(0, abs=2)
    assert control.gain == pytest.approx(1, abs=0.05)
    assert found.quality.to_json()["control"] == control.to_json()


@pytest.mark.slow
def test_both_starts_are_fitted_and_the_better_one_is_taken() -> None:
    near = drifted(lesson().truth, 0.05)
    near = dataclasses.replace(
        near, header=dataclasses.replace(near.header, session_id="yesterday")
    )
    found = lesson().calibrator(SOUND).fit(in_use=near)
    assert found.quality.started == "session in use"
    assert found.quality.r2_heldout > 0.5
    poor = lesson().calibrator(SOUND).fit(in_use=near, max_seconds=1e-9)
    assert poor.quality.started == "first guess"
    far = lesson().calibrator(LEARN).fit(in_use=drifted(new_session(6, away=4.0), 1.0))
    assert far.quality.started == "first guess"


@pytest.mark.slow
def test_progress_counts_both_starts() -> None:
    seen = list[Progress]()
    lesson().calibrator(SOUND).fit(
        in_use=drifted(lesson().truth, 0.05, seed=1), on_progress=seen.append
    )
    assert seen[-1].done == seen[-1].total == len(seen)


@pytest.mark.slow
def test_a_session_remembers_how_its_labels_were_made(tmp_path: Path) -> None:
    made = Calibrator(model(), lesson().unit_ids, session_id="new", settings=SOUND)
    lesson().intend(made, from_s=2.0)
    found = made.fit(start=lesson().truth)
    found.save(tmp_path / "new.session")
    (kept,) = Session.open(tmp_path / "new.session").header.labels
    assert (kept.kind, kept.speed) == ("intention:proportional", 20.0)
    assert found.quality.to_json()["labels"] == [REPORT.to_json()]
    lesson().calibrator(SOUND).fit(start=lesson().truth).save(tmp_path / "day.session")
    assert Session.open(tmp_path / "day.session").header.labels == ()
    assert Session.open(tmp_path / "day.session").header.schema_version == 2
