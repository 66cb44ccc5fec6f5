"""The simulated array: rates follow the tuning, leads and noise are what was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.simulation.array import TICK_HZ, ArraySettings, Drift, SimulatedArray
from poyo_edge.simulation.tuning import SHAPES, Shape, Tuning, TuningRanges


def counts_of(array: SimulatedArray, intended: Float64, n_steps: int) -> Float64:
    """(n_steps, U) spikes of each step while a velocity (D,) is intended."""
    n = len(array.unit_ids)
    return np.array(
        [np.bincount(array.step(intended)[1], minlength=n) for _ in range(n_steps)], np.float64
    )


def test_the_same_seed_gives_the_same_spikes_and_another_seed_others() -> None:
    a, b, c = (SimulatedArray.draw(seed=seed) for seed in (3, 3, 4))
    toward = np.array([10.0, 0.0])
    for _ in range(20):
        (ticks, rows), (ticks_b, rows_b) = a.step(toward), b.step(toward)
        np.testing.assert_array_equal(ticks, ticks_b)
        np.testing.assert_array_equal(rows, rows_b)
    assert not np.array_equal(a.tuning.weights, c.tuning.weights)
    a.restart([3, 1])
    first = a.step(toward)
    b.restart([3, 1])
    np.testing.assert_array_equal(first[0], b.step(toward)[0])


def test_spikes_lie_in_their_step_ascending_and_apart() -> None:
    array = SimulatedArray.draw(ArraySettings(refractory_s=0.004), seed=1)
    all_ticks, all_rows = [], []
    for _ in range(500):
        begin = array.tick
        ticks, rows = array.step(np.array([20.0, 0.0]))
        assert ((ticks >= begin) & (ticks < array.tick)).all()
        assert (np.diff(ticks) >= 0).all()
        all_ticks.append(ticks)
        all_rows.append(rows)
    ticks, rows = np.concatenate(all_ticks), np.concatenate(all_rows)
    for unit in range(60):
        assert (np.diff(ticks[rows == unit]) >= 0.004 * TICK_HZ).all()


@pytest.mark.slow
@pytest.mark.parametrize("refractory_s", [0.0, 0.002])
def test_rates_match_the_tuning(refractory_s: float) -> None:
    array = SimulatedArray.draw(ArraySettings(n_units=40, refractory_s=refractory_s), seed=2)
    toward = np.array([12.0, -9.0])
    counts_of(array, toward, 10)
    rate = counts_of(array, toward, 5000).mean(0) / array.period_s
    expected = array.tuning.rates(np.repeat(toward[None], 40, axis=0))
    np.testing.assert_allclose(rate, expected, rtol=0.1, atol=0.5)
    assert expected.max() > 20


def test_a_unit_follows_an_intention_by_the_delay_less_its_lead() -> None:
    """All is quiet until then: a step of intention, and units of two leads."""
    tuning = Tuning(
        base=np.zeros(2),
        weights=np.array([[15.0, 0.0], [15.0, 0.0]]),
        speed_weight=np.zeros(2),
        lead=np.array([0.05, 0.15]),
        scale=np.ones(2),
        typical_cm_s=15.0,
    )
    array = SimulatedArray(tuning, ["a", "b"], np.zeros((2, 0)), settings=ArraySettings(), seed=0)
    assert array.delay_s == 0.15
    counts = counts_of(array, np.array([20.0, 0.0]), 12)
    first = (counts > 0).argmax(0)
    assert first.tolist() == [5, 0]  # 0.1 s and at once
    array.restart(1)
    array.step(np.array([3.0, 4.0]))
    for _ in range(7):
        assert not array.intention().any()
        array.step(np.zeros(2))
    np.testing.assert_allclose(array.intention(), [1.5, 2.0])  # half of the step is 0.15 s ago


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_rises_from_its_base_toward_the_preferred_direction(shape: Shape) -> None:
    ranges = TuningRanges(speed_share=(0.0, 0.0))
    tuning = Tuning.draw(20, ranges, np.random.default_rng(0), shape)
    ahead = tuning.weights / np.linalg.norm(tuning.weights, axis=1)[:, None]
    rates = np.array([tuning.rates(speed * ahead) for speed in (-30.0, -15.0, 0.0, 15.0, 30.0)])
    assert (rates >= 0).all()
    assert (np.diff(rates, axis=0) >= 0).all()
    np.testing.assert_allclose(rates[2], tuning.base, atol=0.7)  # the knee
    gain = 15.0 * np.linalg.norm(tuning.weights, axis=1)
    np.testing.assert_allclose(rates[3], tuning.base + gain, rtol=0.1)


@pytest.mark.slow
def test_shared_factors_make_counts_vary_together() -> None:
    plain = ArraySettings(n_units=30)
    shared = ArraySettings(n_units=30, n_factors=2, shared_sd=0.4)
    spread = []
    for settings in (plain, shared):
        array = SimulatedArray.draw(settings, seed=5)
        counts = counts_of(array, np.zeros(2), 4000).reshape(400, 10, 30).sum(1)
        correlation = np.corrcoef(counts.T)
        spread.append(float((correlation[np.triu_indices(30, 1)] ** 2).mean()))
        assert counts.mean() / 0.2 == pytest.approx(array.tuning.base.mean(), rel=0.05)
    assert spread[1] > 2 * spread[0]


def test_an_array_drifts_as_it_is_told_and_begins_anew_without() -> None:
    drift = Drift(direction_deg=60.0, lost=0.4, rate_factor=1.8)
    array = SimulatedArray.draw(ArraySettings(n_units=1000, drift=drift), seed=6)
    before = np.arctan2(*array.tuning.weights.T[::-1])
    for _ in range(60):
        array.age(60.0)
    turned = np.arctan2(*array.tuning.weights.T[::-1]) - before
    wrapped = (turned + np.pi) % (2 * np.pi) - np.pi
    assert np.rad2deg(wrapped.std()) == pytest.approx(60.0, rel=0.1)
    lost = array.tuning.scale == 0
    assert lost.mean() == pytest.approx(0.4, abs=0.05)
    np.testing.assert_allclose(array.tuning.scale[~lost], 1.8, rtol=1e-6)
    array.restart(0)
    np.testing.assert_array_equal(array.tuning.scale, 1.0)


def test_drift_comes_with_the_seconds_that_pass() -> None:
    drift = Drift(exchanged=0.5, log_rate=0.1)
    array = SimulatedArray.draw(ArraySettings(n_units=400, drift=drift), seed=7)
    before = array.tuning.base.copy()
    for _ in range(100):
        array.step(np.zeros(2))
    assert array.tuning.scale.std() == pytest.approx(0.1 * np.sqrt(2 / 3600), rel=0.2)
    array.age(3600.0)
    assert (array.tuning.base != before).mean() == pytest.approx(0.5, abs=0.08)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="base_hz: expected 0 <= low <= high"):
        TuningRanges(base_hz=(5.0, 1.0))
    with pytest.raises(UsageError, match="n_factors, shared_sd"):
        ArraySettings(n_factors=2)
    with pytest.raises(UsageError, match="lost: expected 0 to 1"):
        Drift(lost=1.5)
    with pytest.raises(UsageError, match="shape: expected one of"):
        SimulatedArray.draw(ArraySettings(shape="round"))  # type: ignore[arg-type]
