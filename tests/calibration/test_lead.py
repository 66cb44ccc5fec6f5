"""The neural lead of labels of intention is found in both directions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from poyo_edge.arrays import Float64
from poyo_edge.calibration.intention import IntentionLabels, IntentionReport, IntentionSettings
from poyo_edge.calibration.lead import LAGS_S, find_lag, with_lead

SECONDS, HZ, N_UNITS = 30.0, 50, 20
TIMES = np.arange(1.0, SECONDS - 1.0, 1 / HZ)


def smooth(times: Float64) -> Float64:
    """A velocity (S, 2) that turns and changes within tenths of a second."""
    angle = 2.1 * times + 1.3 * np.sin(1.7 * times)
    speed = 8 + 6 * np.sin(5.1 * times)
    return np.stack([speed * np.cos(angle), speed * np.sin(angle)], axis=1)


def fired(lag_s: float, *, gain: float = 2.0) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Spikes of cosine-tuned units that follow the velocity after so many seconds."""
    rng = np.random.default_rng(0)
    grid = np.arange(0, SECONDS, 1e-3)
    tuning = rng.normal(size=(2, N_UNITS))
    rate = np.maximum(30 + gain * smooth(grid - lag_s) @ tuning, 0)
    at, rows = np.nonzero(rng.random(rate.shape) < rate * 1e-3)
    return grid[at], rows


def labels() -> IntentionLabels:
    report = IntentionReport(
        kind="observation", reaction_s=0.2, speed=1.0, per_s=1.0, labelled_s=28.0,
        trials_used=1, trials_left_out=0,
    )  # fmt: skip
    return IntentionLabels(
        times=TIMES, values=smooth(TIMES), labelled=np.ones(len(TIMES), bool), report=report
    )


@pytest.mark.slow
@pytest.mark.parametrize("lag_s", [-0.17, -0.1, 0.0, 0.05, 0.2])
def test_the_lag_of_the_spikes_is_found_in_both_directions(lag_s: float) -> None:
    found = find_lag(TIMES, smooth(TIMES), *fired(lag_s), N_UNITS)
    assert found.lag_s == pytest.approx(lag_s, abs=0.015)
    assert len(found.curve) == len(LAGS_S)
    assert max(r2 for _, r2 in found.curve) > 0.5
    assert not found.at_edge


@pytest.mark.slow
@pytest.mark.parametrize("lag_s", [-0.1, 0.1])
def test_labels_are_moved_to_where_a_decoder_of_movement_gives_them(lag_s: float) -> None:
    """Spikes that come 0.1 s before what is labelled, as before a movement, move nothing."""
    settings = IntentionSettings(kind="observation", model_lead_s=0.1)
    moved = with_lead(labels(), settings, *fired(lag_s), N_UNITS)
    assert moved.report.lead_s == pytest.approx(lag_s + 0.1, abs=0.015)
    assert moved.times == pytest.approx(TIMES + moved.report.lead_s)
    assert moved.report.spike_lag_s == pytest.approx(lag_s, abs=0.015)
    assert moved.report.note == ""


def test_a_lead_that_is_given_is_not_searched() -> None:
    settings = IntentionSettings(kind="observation", lead_s=0.14)
    moved = with_lead(labels(), settings, *fired(0.0), N_UNITS)
    assert moved.report.lead_s == 0.14
    assert moved.report.lead_curve == ()
    assert moved.times == pytest.approx(TIMES + 0.14)


@pytest.mark.slow
def test_spikes_that_say_nothing_of_the_labels_give_no_lag_and_a_note() -> None:
    spikes, rows = fired(0.0, gain=0.0)
    moved = with_lead(labels(), IntentionSettings(kind="constant"), spikes, rows, N_UNITS)
    assert moved.report.spike_lag_s is None
    assert moved.report.lead_s == 0.1
    assert "no lag was found" in moved.report.note


@pytest.mark.slow
def test_a_lag_at_the_edge_of_the_search_is_noted() -> None:
    spikes, rows = fired(0.5)
    moved = with_lead(labels(), IntentionSettings(kind="constant"), spikes, rows, N_UNITS)
    assert "at the edge of the search (+0.30 s)" in moved.report.note
