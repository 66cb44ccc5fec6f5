"""Measures of control, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_edge.metrics import fitts_bits
from poyo_edge.simulation.closed_loop import Run
from poyo_edge.simulation.measures import decoder_gain, interval, joined, measure
from poyo_edge.simulation.tasks import trials_of

PERIOD = 0.02


def straight_run(*, success: bool = True, detour: float = 0.0) -> Run:
    """A second along x at 5 cm/s from the origin to a target at 5 cm, and 0.3 s within it.

    With a detour the way goes up by as much and down again in the first half second.
    """
    times = np.arange(66, dtype=np.float64) * PERIOD
    x = np.minimum(5.0 * times, 5.0)
    y = np.interp(times, [0.0, 0.25, 0.5], [0.0, detour, 0.0])
    position = np.stack([x, y], axis=1)
    velocity = np.diff(position, axis=0, append=position[-1:]) / PERIOD
    intended = np.zeros((66, 2))
    intended[:50] = [5.0, 0.0]
    return Run(
        period_s=PERIOD,
        delay_s=0.1,
        times=times,
        position=position,
        velocity=velocity,
        decoded=np.concatenate([np.zeros((6, 2)), 0.8 * intended[:-6]]),
        intended=intended,
        target=np.full((66, 2), np.nan),
        trials=trials_of([(0.0, 1.3, np.array([5.0, 0.0]), success)], 1.0),
        unit_ids=("a",),
        spike_times=np.empty(0),
        spike_rows=np.empty(0, np.int64),
    )


def test_a_straight_trial() -> None:
    found = measure(straight_run(), 0.3)
    assert found.success.tolist() == [True]
    assert found.time_s[0] == pytest.approx(1.3)
    assert found.dial_in_s[0] == pytest.approx(0.2)  # touched at 0.8 s, held from 1 s on
    assert found.path_efficiency[0] == pytest.approx(1.0)
    assert found.bits_per_s[0] == pytest.approx(np.log2(1 + 5.0 / 2.0))  # in a second
    assert found.angular_error_deg[0] == pytest.approx(0.0, abs=1e-6)


def test_a_detour_costs_efficiency_and_angle() -> None:
    found = measure(straight_run(detour=1.25), 0.3)
    # Half a second at 45 degrees to the way, and then 2.5 cm straight.
    assert found.path_efficiency[0] == pytest.approx(5.0 / (2.5 * np.sqrt(2) + 2.5), rel=0.02)
    assert 25 < found.angular_error_deg[0] < 45


def test_a_failed_trial_has_no_time_and_no_bits() -> None:
    found = measure(straight_run(success=False), 0.3)
    assert np.isnan([found.time_s[0], found.dial_in_s[0], found.path_efficiency[0]]).all()
    assert found.bits_per_s[0] == 0.0
    both = joined([found, measure(straight_run(), 0.3)]).summary()
    assert (both["n_trials"], both["success"], both["time_s"]) == (2, 0.5, 1.3)
    assert both["bits_per_s"] == pytest.approx(np.log2(3.5) / 2, abs=1e-4)
    assert found.summary()["time_s"] is None


def test_the_gain_is_of_what_was_intended_a_delay_before() -> None:
    assert decoder_gain(straight_run()) == pytest.approx(0.8)


def test_bits_are_of_the_width() -> None:
    assert fitts_bits(7.0, 3.5) == 1.0
    assert fitts_bits(7.0, 1.2) == pytest.approx(1.9696, abs=1e-4)


def test_an_interval_holds_the_mean_and_shrinks_with_trials() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(2.0, 1.0, 50), rng.normal(2.0, 1.0, 5000)
    (low, high), (lower, higher) = interval(few, rng), interval(many, rng)
    assert low < few.mean() < high
    assert higher - lower < 0.2 * (high - low)
    assert higher - lower == pytest.approx(2 * 1.96 / np.sqrt(5000), rel=0.15)
