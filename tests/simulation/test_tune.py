"""Tuning with decoders whose fault is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from poyo_edge.arrays import Float64, Int64, Rows
from poyo_edge.errors import UsageError
from poyo_edge.runtime.control import ControlSettings
from poyo_edge.simulation.array import SimulatedArray
from poyo_edge.simulation.tasks import TaskSettings
from poyo_edge.simulation.tune import RANGES, Tuned, TuneSettings, tune

pytestmark = pytest.mark.slow

FEW = TuneSettings(n_trials=12, radii_cm=(1.2,))


class Scaled:
    """Gives what was intended ``delay_s`` ago, times a factor and with noise."""

    name = "scaled"

    def __init__(self, array: SimulatedArray, factor: float, noise: float = 1.0) -> None:
        self._array, self._factor, self._noise = array, factor, noise
        self.restart()

    def restart(self) -> None:
        """The same noise each time."""
        self._rng = np.random.default_rng(0)

    def step(self, end: int, ticks: Int64, rows: Rows) -> Float64:
        """A velocity (2,)."""
        behind = round(self._array.delay_s / self._array.period_s)
        noise = self._rng.normal(0, self._noise, 2)
        return np.asarray(self._factor * self._array._intended[behind] + noise)


@pytest.fixture(scope="module")
def array() -> SimulatedArray:
    return SimulatedArray.draw(seed=1)


@pytest.fixture(scope="module")
def weak(array: SimulatedArray) -> Tuned:
    return tune(array, Scaled(array, 0.4), FEW)


def test_a_decoder_that_is_too_weak_gets_more_gain(weak: Tuned) -> None:
    assert weak.settings.gain > 1.2
    assert weak.bits_per_s > 1.1 * weak.bits_per_s_before


def test_the_same_seed_chooses_the_same(array: SimulatedArray) -> None:
    few, near = dataclasses.replace(FEW, n_trials=8, radii_cm=(2.0,)), TaskSettings(distance_cm=3.0)
    found = [tune(array, Scaled(array, 0.6), few, task=near) for _ in range(2)]
    assert found[0] == found[1]


def test_what_is_not_better_leaves_what_was_there(array: SimulatedArray) -> None:
    begin = ControlSettings(speed_cap=30.0)
    fewest = dataclasses.replace(FEW, n_trials=8)  # none of them ends before its time is over
    short = TaskSettings(timeout_s=1.0)
    found = tune(array, Scaled(array, 0.0, noise=0.0), fewest, begin=begin, task=short)
    assert found.settings == begin
    assert found.bits_per_s == found.bits_per_s_before == 0.0


def test_candidates_lie_in_their_ranges_and_better_ones_get_more_trials(weak: Tuned) -> None:
    for one in weak.tried:
        for name, (low, high) in RANGES.items():
            assert low <= getattr(one.settings, name) <= high
    trials = [one.n_trials for one in weak.tried]
    assert trials == [4] * 32 + [4] * 10 + [4, 4] * 4 + [9] * 3 + [12, 12]


def test_a_best_that_was_not_drawn_is_found_through_noise(
    array: SimulatedArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bits(control: ControlSettings) -> float:
        lead, smoothing = control.lead_ms / 100, control.smoothing_ms / 60
        exponent = np.log(control.speed_exponent)
        return float(
            3 - 3 * np.log(control.gain) ** 2 - (lead - 0.8) ** 2 - smoothing**2 - exponent**2
        )

    def controlled(
        search: object, control: ControlSettings, radius: float, n_trials: int, number: int
    ) -> tuple[Float64, float]:
        rng = np.random.default_rng(abs(hash((control.gain, control.lead_ms, radius, number))))
        return bits(control) + rng.normal(0, 0.7, n_trials), 1.0

    monkeypatch.setattr("poyo_edge.simulation.tune._Search._controlled", controlled)
    found = [
        tune(array, Scaled(array, 1.0), TuneSettings(n_trials=40, seed=seed)) for seed in range(8)
    ]
    drawn = [max(bits(one.settings) for one in each.tried[:32]) for each in found]
    chosen = [bits(each.settings) for each in found]
    assert np.mean(chosen) > 2.9
    assert np.mean(chosen) > np.mean(drawn)


@pytest.mark.parametrize("wrong", [{"latency_ms": -1}, {"radii_cm": ()}, {"n_trials": 2}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TuneSettings(**wrong)  # type: ignore[arg-type]
