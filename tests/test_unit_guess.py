"""Statistics of unlabelled activity, and what is guessed of new units from them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import UsageError
from poyo_edge.unit_guess import (
    MOST_SD,
    NAMES,
    UnitGuess,
    scaled,
    unit_statistics,
)


def poisson(rates_hz: Float64, seconds: float, seed: int = 0) -> tuple[Float64, Int64]:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rates_hz * seconds)
    times = rng.uniform(0, seconds, counts.sum())
    units = np.repeat(np.arange(len(rates_hz)), counts)
    order = np.argsort(times)
    return times[order], units[order]


def named(statistics: Float64, name: str) -> Float64:
    return statistics[:, NAMES.index(name)]


def test_rates_and_spreads_are_those_of_the_process() -> None:
    rates = np.array([0.0, 2.0, 20.0, 50.0])
    found = unit_statistics(*poisson(rates, 400.0), 4, [(0.0, 400.0)])
    assert found.shape == (4, len(NAMES))
    np.testing.assert_allclose(named(found, "log_rate"), np.log(rates + 0.1), atol=0.1)
    expected = np.log(np.sqrt(rates * 0.05) + 0.02)
    np.testing.assert_allclose(named(found, "log_sd"), expected, atol=0.1)
    np.testing.assert_allclose(named(found, "log_fano_slow"), 0.0, atol=0.15)
    np.testing.assert_allclose(named(found, "lag_1"), 0.0, atol=0.05)
    np.testing.assert_allclose(named(found, "with_population"), 0.0, atol=0.15)
    assert np.ptp(named(found, "session_log_rate")) == 0.0
    assert np.isfinite(found).all()


def test_units_that_follow_the_population_are_told_from_others() -> None:
    rng = np.random.default_rng(1)
    wave = 10.0 + 8.0 * np.sin(np.arange(8000) / 15.0)
    counts = rng.poisson(np.stack([wave, wave, wave, np.full(8000, 10.0)]) * 0.05)
    unit, at = np.nonzero(counts)
    repeats = counts[unit, at]
    times = np.repeat((at + 0.5) * 0.05, repeats)
    units = np.repeat(unit, repeats)
    order = np.argsort(times, kind="stable")
    found = unit_statistics(times[order], units[order], 4, [(0.0, 400.0)])
    together = named(found, "with_population")
    assert (together[:3] > 0.5).all() and abs(together[3]) < 0.15
    assert (named(found, "lag_1")[:3] > named(found, "lag_1")[3] + 0.1).all()
    assert (named(found, "log_fano_slow")[:3] > named(found, "log_fano_slow")[3] + 0.5).all()


def test_only_the_intervals_count() -> None:
    times, units = poisson(np.array([5.0, 30.0]), 100.0)
    inside = (times >= 20) & (times < 60)
    whole = unit_statistics(times, units, 2, [(20.0, 40.0), (40.0, 60.0)])
    cut = unit_statistics(times[inside], units[inside], 2, np.array([[20.0, 40.0], [40.0, 60.0]]))
    assert np.array_equal(whole, cut)


def test_a_few_seconds_say_nothing() -> None:
    times, units = poisson(np.array([5.0]), 9.0)
    with pytest.raises(UsageError, match=r"expected at least 10 s of spikes, got 9\.00 s"):
        unit_statistics(times, units, 1, [(0.0, 9.0)])


GUESS = UnitGuess(
    keys=("ape/e1", "ape/e2", "rat/e1"),
    subjects=("ape", "rat"),
    statistics=NAMES,
    mean=np.zeros(len(NAMES), np.float32),
    sd=np.full(len(NAMES), 2.0, np.float32),
    shared=np.array([[1, 0], [0, 1], [5, 5]], np.float32),
    weight=np.eye(len(NAMES), 2, dtype=np.float32),
    session_shared=np.array([[1, 1], [3, 3]], np.float32),
)


def test_electrodes_of_another_animal_that_are_called_alike_say_nothing() -> None:
    assert GUESS.units(["day/e1"], "ape", None).tolist() == [[1, 0]]
    assert GUESS.units(["day/e1"], "rat", None).tolist() == [[5, 5]]
    assert GUESS.units(["day/e1"], None, None).tolist() == [[3, 2.5]]
    assert GUESS.units(["day/e1"], "cat", None).tolist() == [[2, 2]]
    assert [GUESS.knows(["day/e1", "day/e9"], one) for one in ("ape", "cat", None)] == [1, 0, 1]
    assert GUESS.session("rat").tolist() == [3, 3] and GUESS.session("cat").tolist() == [2, 2]


def test_a_session_that_may_be_held_differs_by_what_was_learned() -> None:
    knows = dataclasses.replace(GUESS, session_held=np.array([[0.5, -1]], np.float32))
    assert knows.session("rat", held=True).tolist() == [3.5, 2]
    assert knows.session("cat", held=True).tolist() == [2.5, 1]
    assert knows.session("rat").tolist() == [3, 3]
    assert GUESS.session("rat", held=True).tolist() == [3, 3]


def test_statistics_move_the_guess_and_no_farther_than_a_bound() -> None:
    statistics = np.full((1, len(NAMES)), np.nan)
    statistics[0, :2] = 1.0, 1e6
    found = scaled(statistics, GUESS.mean, GUESS.sd)
    assert found[0, :3].tolist() == [0.5, MOST_SD, 0.0]
    assert GUESS.units(["day/e1"], "ape", found).tolist() == [[1.5, MOST_SD]]


@pytest.mark.parametrize(
    "change",
    [
        {"shared": np.zeros((2, 2), np.float32)},
        {"weight": np.full((len(NAMES), 2), np.nan, np.float32)},
        {"statistics": NAMES[::-1]},
        {"session_held": np.zeros((2, 2), np.float32)},
        {"session_held": np.full((1, 2), np.inf, np.float32)},
        {"subjects": (), "session_shared": np.zeros((0, 2), np.float32)},
        {"statistics": (*NAMES, "guessed_-1_0")},
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="expected"):
        dataclasses.replace(GUESS, **change)  # type: ignore[arg-type]
