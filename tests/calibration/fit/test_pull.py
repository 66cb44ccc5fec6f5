"""How far a fit may go from where it begins, and what it does where that is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.calibrating.teacher import DIM, LEARN, QUICK, adapter, at_mean, lesson, prior

from poyo_edge.arrays import Float32
from poyo_edge.calibration import CalibratedSession, Calibrator
from poyo_edge.calibration.fit.fitting import Fit
from poyo_edge.calibration.fit.folds import everything
from poyo_edge.calibration.fit.pace import Progress
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.calibration.fit.start import first_guess
from poyo_edge.unit_guess import NAMES, UnitGuess


def moved(known: Prior, pull: float | None) -> Float32:
    """Where a few steps lead."""
    labels = lesson().labels()
    settings = dataclasses.replace(QUICK, pull=pull)
    fit = Fit(adapter(), known, labels, everything(labels), settings, at_mean(6), seed=[0])
    for _ in range(4):
        fit.step()
    return fit.moved["z"]


def guessing(
    subject: str | None, keys: tuple[str, ...] = ("ape/e1",), shared: Float32 | None = None
) -> Prior:
    """The tiny model's prior, with a guess of what units of an ape are like."""
    n = len(NAMES)
    held = np.full((1, DIM), 0.25, np.float32)
    guess = UnitGuess(
        keys=keys,
        subjects=("ape",),
        statistics=NAMES,
        mean=np.zeros(n, np.float32),
        sd=np.ones(n, np.float32),
        shared=np.zeros((1, DIM), np.float32) if shared is None else shared,
        weight=np.zeros((n, DIM), np.float32),
        session_shared=prior().session_mean[None],
        session_held=held,
    )
    return dataclasses.replace(prior(), guess=guess, subject=subject)


@pytest.mark.parametrize(("subject", "pull"), [("ape", 30.0), (None, 30.0), ("rat", 2.0)])
def test_units_of_a_known_animal_stay_nearer(subject: str | None, pull: float) -> None:
    known = guessing(subject)
    np.testing.assert_array_equal(moved(known, None), moved(known, pull))
    assert not np.array_equal(moved(known, 2.0), moved(known, 30.0))


def test_without_a_guess_the_pull_is_that_of_the_spread_of_units() -> None:
    np.testing.assert_array_equal(moved(prior(), None), moved(prior(), 2.0))


@pytest.mark.parametrize("intended", [False, True])
def test_what_a_person_intended_begins_where_movements_are_held(intended: bool) -> None:
    taught, known = lesson(), guessing("ape")
    calibrator = Calibrator(
        adapter(), taught.unit_ids, session_id="day", settings=QUICK, prior=known
    )
    (taught.intend if intended else taught.give)(calibrator)
    begun = calibrator.fit(max_seconds=1e-9)
    assert begun.quality.steps == 0
    expected = known.session_mean + (0.25 if intended else 0.0)
    np.testing.assert_allclose(begun.session_embedding, expected, atol=1e-6)


def test_units_of_nobody_may_be_held_too() -> None:
    guess, nobody = guessing("ape").guess, guessing("ape").in_control().of_nobody()
    assert guess is not None and nobody.held and not nobody.knows_animal
    found = first_guess(adapter().artifact, nobody, ["day/e1"])
    np.testing.assert_allclose(found.session, prior().session_mean + 0.25, atol=1e-6)


def trained_as(shared: Float32) -> Calibrator:
    """One of the lesson, where training found electrodes of its names to be so."""
    taught = lesson()
    keys = tuple(f"ape/{unit.rpartition('/')[2]}" for unit in taught.unit_ids)
    calibrator = Calibrator(
        adapter(), taught.unit_ids, session_id="day",
        settings=dataclasses.replace(LEARN, pull=None), prior=guessing(None, keys, shared),
    )  # fmt: skip
    taught.give(calibrator)
    return calibrator


def by_accident() -> Float32:
    """Embeddings (U, D) that are far from those of the lesson; their mean is that of any unit."""
    z = np.random.default_rng(5).standard_normal((6, DIM))
    away = 3 * (z - z.mean(0)) @ prior().unit_root.T
    return np.asarray(prior().unit_mean + away, np.float32)


def fitted(shared: Float32) -> tuple[CalibratedSession, int]:
    """A fit where training found electrodes of the lesson's names to be so, and its steps."""
    seen = list[Progress]()
    session = trained_as(shared).fit(on_progress=seen.append)
    assert seen[-1].done == seen[-1].total
    return session, seen[-1].done


@pytest.mark.slow
def test_where_names_match_by_accident_units_are_taken_for_unknown() -> None:
    session, _ = fitted(by_accident())
    assert session.quality.started == "no unit known"
    assert session.quality.r2_heldout > 0.5
    assert any("the names match by accident" in note for note in session.quality.notes)


@pytest.mark.slow
def test_a_kill_while_units_are_taken_for_unknown_costs_only_time(tmp_path: Path) -> None:
    path, seen = tmp_path / "day.fit", list[int]()
    files = [path, tmp_path / "day.fit.unknown"]
    calibrator = trained_as(by_accident())
    whole = calibrator.fit()

    def die(progress: Progress) -> None:
        seen.append(progress.done)
        if files[1].exists():
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        calibrator.fit(resume_file=path, on_progress=die)
    assert all(file.exists() for file in files)
    before, seen = len(seen), []
    again = calibrator.fit(resume_file=path, on_progress=lambda p: seen.append(p.done))
    assert len(seen) < before, "neither search began anew"
    assert again.quality.started == "no unit known"
    assert again.quality.curve == whole.quality.curve
    np.testing.assert_array_equal(again.unit_embedding, whole.unit_embedding)
    assert not any(file.exists() for file in files)


@pytest.mark.slow
def test_where_names_are_right_nothing_else_is_tried() -> None:
    session, steps = fitted(lesson().truth.unit_embedding)
    assert session.quality.started == "first guess"
    assert session.quality.r2_heldout > 0.9
    assert steps <= 3 * 60
