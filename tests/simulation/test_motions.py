"""Mixed movements: what a model has to have seen to hold a command."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.recording import Recording
from poyo_edge.simulation.motions import GRID_HZ, Moved, Movements, move
from poyo_edge.simulation.recordings import Simulation, simulate_recording, simulate_study


def moved(motion: str, seconds: float = 600.0, seed: int = 0) -> Moved:
    path = Movements(
        np.random.default_rng(seed), workspace_cm=8.0, reach_s=(0.4, 0.9), pause_s=(0.1, 0.5)
    )
    return move(path, motion, round(seconds * GRID_HZ))  # type: ignore[arg-type]


def longest_s(same: Float64) -> float:
    """The longest stretch of ones, in seconds of the grid."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0.0], same, [0.0]])))
    return float((edges[1::2] - edges[::2]).max()) / GRID_HZ


@pytest.mark.slow
def test_mixed_movements_hold_a_velocity_for_seconds_and_reaches_never_do() -> None:
    for motion, low, high in (("reaches", 0.0, 0.05), ("mixed", 2.0, 3.2)):
        velocity = moved(motion).velocity
        moving = np.hypot(*velocity.T)[1:] > 1.0
        same = (np.abs(np.diff(velocity, axis=0)).max(axis=1) == 0) & moving
        assert low <= longest_s(same.astype(np.float64)) <= high, motion


@pytest.mark.slow
def test_mixed_movements_are_slow_and_fast_and_jump() -> None:
    velocity, reaching = moved("mixed").velocity, moved("reaches").velocity
    speed = np.hypot(*velocity.T)
    slow, slow_reaching = (np.abs(np.hypot(*v.T) - 3.5) < 2.5 for v in (velocity, reaching))
    assert slow.mean() > 1.3 * slow_reaching.mean()
    assert (speed > 20.0).mean() > 0.03
    assert 0.05 < (speed == 0).mean() < 0.3
    jumps = np.hypot(*np.diff(velocity, axis=0).T) > 5.0
    assert jumps.sum() > 20
    assert np.hypot(*np.diff(reaching, axis=0).T).max() < 5.0


def test_mixed_movements_keep_reaches_as_trials_and_their_share() -> None:
    found = moved("mixed")
    inside = sum(end - start for start, end, _ in found.reaches)
    assert 0.2 < inside / len(found.velocity) < 0.4
    for start, end, target in found.reaches[:20]:
        np.testing.assert_allclose(found.position[end], target, atol=0.05)
        assert (found.velocity[start] == 0).all()


@pytest.mark.slow
def test_the_position_is_the_sum_of_the_velocity_and_stays_near_the_workspace() -> None:
    found = moved("mixed")
    middle = (found.velocity[1:] + found.velocity[:-1]) / 2 / GRID_HZ
    step = np.diff(found.position, axis=0)
    assert np.abs(step - middle).max() < 0.03
    assert np.abs(found.position).max() < 100.0
    assert (np.abs(found.position).max(axis=1) < 40.0).mean() > 0.95


def test_the_same_seed_moves_the_same_way() -> None:
    np.testing.assert_array_equal(
        moved("mixed", 30.0, 4).velocity, moved("mixed", 30.0, 4).velocity
    )
    assert not np.array_equal(moved("mixed", 30.0, 4).velocity, moved("mixed", 30.0, 5).velocity)


def test_recordings_of_reaches_are_those_of_before(tmp_path: Path) -> None:
    path = simulate_recording(
        tmp_path / "a.h5",
        session_id="a",
        seed=3,
        simulation=Simulation(duration_s=60.0, n_units=10),
    )
    digest = hashlib.sha256()

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf":
            digest.update(name.encode() + np.asarray(item[()]).tobytes())

    with h5py.File(path) as file:
        file.visititems(add)
    assert digest.hexdigest()[:12] == "8f767075acb1"


def test_a_recording_of_mixed_movements_is_written_with_its_trials(tmp_path: Path) -> None:
    simulation = Simulation(duration_s=40.0, n_units=8, motion="mixed")
    (path,) = simulate_study(tmp_path, n_sessions=1, simulation=simulation, first=3)
    assert path.name == "sim_03.h5"
    recording = Recording.open(path)
    trials = recording.trials()
    assert trials is not None
    assert 5 <= len(trials) < 40
    assert trials.success.all()


def test_a_motion_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match=r"motion: expected one of \['reaches', 'mixed'\], got"):
        Simulation(motion="walk")  # type: ignore[arg-type]
