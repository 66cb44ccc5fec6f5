"""Recalibration in closed loop, with decoders that need no model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import TINY

from poyo_edge.calibration import IntentionSettings
from poyo_edge.errors import UsageError
from poyo_edge.simulation.array import SimulatedArray
from poyo_edge.simulation.calibrating import Calibration, observed
from poyo_edge.simulation.decoding import Decoding, WienerDecoding
from poyo_edge.simulation.mornings.recalibrating import Recalibration, recalibrated
from poyo_edge.simulation.observing import ObservationSettings
from poyo_edge.simulation.tasks import TaskSettings

CALIBRATION = Calibration(artifact=Path(TINY), observation=ObservationSettings(seconds=30.0))
SHORT = Recalibration(seconds=30.0)


@pytest.fixture(scope="module")
def array() -> SimulatedArray:
    return SimulatedArray.draw(seed=1)


def wiener(array: SimulatedArray, factor: float = 1.0) -> WienerDecoding:
    """Fitted to the observation, and too weak by a factor."""
    fitted = WienerDecoding.fitted(observed(array, CALIBRATION, seed=1))
    fitted._weights, fitted._bias = factor * fitted._weights, factor * fitted._bias
    return fitted


def test_a_decoder_is_fitted_to_both_blocks_with_the_lead_that_is_found(
    array: SimulatedArray,
) -> None:
    before = wiener(array)
    (after,), (told,) = recalibrated(array, [before], CALIBRATION, SHORT, seed=1)
    assert isinstance(after, WienerDecoding)
    assert not np.array_equal(after._weights, before._weights)
    assert told.taken and told.reason == "" and told.success > 0.9
    assert 15 < told.labelled_s < 30
    assert told.lead_s == pytest.approx(array.delay_s, abs=0.08)


def test_a_block_without_a_whole_trial_teaches_nothing_and_the_decoder_stays(
    array: SimulatedArray,
) -> None:
    before: Decoding = wiener(array, factor=0.0)
    patient = dataclasses.replace(CALIBRATION, task=TaskSettings(timeout_s=60.0))
    (after,), (told,) = recalibrated(array, [before], patient, SHORT, seed=1)
    assert after is before
    assert not told.taken and "trial" in told.reason


@pytest.mark.parametrize("seconds", [1.0, 1e6])
def test_seconds_that_cannot_be_meant_are_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match="recalibrate_s"):
        Recalibration(seconds=seconds, labels=IntentionSettings(kind="constant"))
