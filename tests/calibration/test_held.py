"""Windows of held commands are made of the moments that are near them."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_edge.arrays import Float64
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.held import held_steps

HZ = 20


def circling(seconds: float = 60.0, *, speed: float = 10.0) -> Labels:
    """Unit k of eight fires every 10 ms, 0.1 s before the label points to its eighth."""
    times = np.arange(round(seconds * HZ)) / HZ
    angle = 1.1 * times + np.sin(times)
    values = speed * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    spikes = np.arange(0, seconds, 0.01)
    after = 1.1 * (spikes + 0.1) + np.sin(spikes + 0.1)
    rows = np.round(after / (np.pi / 4)).astype(np.int64) % 8
    return Labels(
        n_units=8,
        spike_times=spikes,
        spike_rows=rows.astype(np.int32),
        times=times,
        values=values,
        stretches=np.array([[0.0, seconds]]),
    )


def every(labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(HZ, len(labels.times))


def test_each_window_has_the_spikes_of_its_command_all_along() -> None:
    labels = circling()
    held = held_steps(labels, every(labels), 1.0, seed=0)
    assert held is not None
    assert len(held.times) == 16
    assert np.linalg.norm(held.values, axis=1) == pytest.approx(np.full(16, 10.0), abs=0.5)
    for end, command in zip(held.times, held.values, strict=True):
        inside = (held.spike_times >= end - 1.0) & (held.spike_times < end)
        assert inside.sum() == pytest.approx(100, abs=10)
        expected = round(float(np.arctan2(command[1], command[0])) / (np.pi / 4)) % 8
        assert (held.spike_rows[inside] == expected).mean() > 0.9
    assert (np.diff(held.spike_times) >= 0).all()


def test_the_same_seed_gives_the_same_windows() -> None:
    labels = circling()
    first, second = (held_steps(labels, every(labels), 1.0, seed=1) for _ in range(2))
    assert first is not None
    assert second is not None
    assert np.array_equal(first.spike_times, second.spike_times)


def test_too_little_movement_gives_none() -> None:
    labels = circling()
    assert held_steps(labels, every(labels)[:30], 1.0, seed=0) is None


def test_directions_that_nobody_moved_in_are_left_out() -> None:
    labels = circling()
    right = np.flatnonzero(labels.values[:, 0] > 0.9 * 10.0)
    held = held_steps(labels, right[right > HZ], 1.0, seed=0)
    assert held is not None
    assert (held.values[:, 0] > 0).all()


@pytest.mark.parametrize(("n_dims", "n_windows"), [(1, 4), (3, 12)])
def test_other_numbers_of_dimensions_go_both_ways_along_each(n_dims: int, n_windows: int) -> None:
    labels = circling()
    rng = np.random.default_rng(0)
    values: Float64 = rng.normal(size=(len(labels.times), n_dims)) * 10
    given = Labels(
        n_units=8,
        spike_times=labels.spike_times,
        spike_rows=labels.spike_rows,
        times=labels.times,
        values=values,
        stretches=labels.stretches,
    )
    held = held_steps(given, every(given), 1.0, seed=0)
    assert held is not None
    assert held.values.shape == (n_windows, n_dims)
