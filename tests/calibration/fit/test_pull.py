"""How far a fit may go from where it begins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.calibrating.teacher import DIM, QUICK, adapter, at_mean, lesson, prior

from poyo_edge.arrays import Float32
from poyo_edge.calibration.fit.fitting import Fit
from poyo_edge.calibration.fit.folds import everything
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.unit_guess import NAMES, UnitGuess


def moved(known: Prior, pull: float | None) -> Float32:
    """Where a few steps lead."""
    labels = lesson().labels()
    settings = dataclasses.replace(QUICK, pull=pull)
    fit = Fit(adapter(), known, labels, everything(labels), settings, at_mean(6), seed=[0])
    for _ in range(4):
        fit.step()
    return fit.moved["z"]


def guessing(subject: str | None) -> Prior:
    """The tiny model's prior, with a guess of what units of an ape are like."""
    n = len(NAMES)
    guess = UnitGuess(
        keys=("ape/e1",),
        subjects=("ape",),
        statistics=NAMES,
        mean=np.zeros(n, np.float32),
        sd=np.ones(n, np.float32),
        shared=np.zeros((1, DIM), np.float32),
        weight=np.zeros((n, DIM), np.float32),
        session_shared=np.zeros((1, DIM), np.float32),
    )
    return dataclasses.replace(prior(), guess=guess, subject=subject)


@pytest.mark.parametrize(("subject", "pull"), [("ape", 30.0), (None, 30.0), ("rat", 2.0)])
def test_units_of_a_known_animal_stay_nearer(subject: str | None, pull: float) -> None:
    known = guessing(subject)
    np.testing.assert_array_equal(moved(known, None), moved(known, pull))
    assert not np.array_equal(moved(known, 2.0), moved(known, 30.0))


def test_without_a_guess_the_pull_is_that_of_the_spread_of_units() -> None:
    np.testing.assert_array_equal(moved(prior(), None), moved(prior(), 2.0))
