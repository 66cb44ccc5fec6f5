"""An array fitted to a recording has its tuning, leads and rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.paths import SHARED

from poyo_edge.errors import RecordingError
from poyo_edge.recording import Recording, write_recording
from poyo_edge.simulation.array import ArraySettings, SimulatedArray
from poyo_edge.simulation.fitted.from_recording import array_from_recording, describe
from poyo_edge.simulation.observing import ObservationSettings, observe
from poyo_edge.simulation.person import Person
from poyo_edge.simulation.tasks import TaskSettings
from poyo_edge.simulation.tuning import TuningRanges

RANGES = TuningRanges(lead_s=(0.0, 0.15))


def recorded(folder: Path, array: SimulatedArray, seconds: float = 180.0) -> Recording:
    """What the array fires while reaches are shown, as a recording of movement."""
    settings = ObservationSettings(seconds=seconds)
    block = observe(array, Person(), TaskSettings(kind="random"), settings, seed=1)
    times = block.times + array.delay_s  # the movement that an intention is of
    keep = times < seconds
    path = write_recording(
        folder / "day.h5",
        session_id="day",
        subject_id="simulated",
        unit_ids=list(array.unit_ids),
        spike_times=block.spike_times,
        spike_units=block.spike_rows,
        behaviors={
            "cursor.vel": (times[keep], block.velocity[keep]),
            "lever.force": (times[keep], block.velocity[keep, :1]),
        },
        domains={"train": [(0.0, seconds)], "test": [(0.0, 5.0)]},
    )
    return Recording.open(path)


def drawn(**settings: float | int) -> SimulatedArray:
    return SimulatedArray.draw(ArraySettings(n_units=40, ranges=RANGES, **settings), seed=4)  # type: ignore[arg-type]


@pytest.mark.slow
def test_tuning_leads_and_rates_are_recovered(tmp_path: Path) -> None:
    array = drawn()
    fitted = array_from_recording(recorded(tmp_path, array), "cursor.vel")
    assert fitted.unit_ids == array.unit_ids
    ours, theirs = fitted.tuning, array.tuning
    assert np.corrcoef(ours.weights.ravel(), theirs.weights.ravel())[0, 1] > 0.98
    slope = (ours.weights * theirs.weights).sum() / (theirs.weights**2).sum()
    assert slope == pytest.approx(1.0, abs=0.07)
    assert np.abs(ours.lead - theirs.lead).mean() < 0.02
    np.testing.assert_allclose(ours.base, theirs.base, atol=1.5)
    assert describe(fitted)["n_units"] == 40


@pytest.mark.slow
def test_shared_fluctuations_are_recovered(tmp_path: Path) -> None:
    plain, shared = (
        array_from_recording(recorded(tmp_path, array), "cursor.vel").settings
        for array in (drawn(), drawn(n_factors=1, shared_sd=0.4, shared_s=0.3))
    )
    assert plain.shared_sd < 0.2
    assert shared.shared_sd == pytest.approx(0.4, abs=0.12)
    assert shared.shared_s == pytest.approx(0.3, rel=0.5)


@pytest.mark.slow
def test_a_silent_unit_stays_silent(tmp_path: Path) -> None:
    array = drawn()
    array.tuning.scale[3] = 0.0
    fitted = array_from_recording(recorded(tmp_path, array, 60.0), "cursor.vel")
    rows = np.concatenate([fitted.step(np.zeros(2))[1] for _ in range(500)])
    assert 3 not in rows
    assert len(np.unique(rows)) == 39


@pytest.mark.slow
def test_a_recording_that_says_too_little_is_refused(tmp_path: Path) -> None:
    recording = recorded(tmp_path, drawn(), 30.0)
    with pytest.raises(RecordingError, match=r"at least 10 s of cursor\.vel"):
        array_from_recording(recording, "cursor.vel", split="test")
    with pytest.raises(RecordingError, match="a velocity of two dimensions"):
        array_from_recording(recording, "lever.force")


MOTOR = SHARED / "data" / "motor" / "jango_20141203.h5"


@pytest.mark.slow
@pytest.mark.skipif(not MOTOR.is_file(), reason="the real recordings are not part of the project")
def test_an_array_fires_as_the_real_recording_that_it_was_fitted_to() -> None:
    recording = Recording.open(MOTOR)
    array = array_from_recording(recording, "cursor.vel")
    settings = ObservationSettings(seconds=60.0)
    block = observe(array, Person(), TaskSettings(kind="random"), settings, seed=1)
    n = len(recording.unit_ids)
    ours = np.bincount(block.spike_rows, minlength=n) / 60.0
    theirs = np.bincount(recording.spike_units, minlength=n) / 1200.0
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.15)
    assert 0.02 <= array.delay_s <= 0.2
