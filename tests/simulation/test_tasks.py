"""Tasks: which targets are shown, and when one is taken."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.simulation.tasks import KINDS, Kind, Targets, Task, TaskSettings


def shown(kind: Kind, n: int, seed: int = 0) -> Float64:
    targets = Targets(TaskSettings(kind=kind), seed)
    return np.array([targets.next() for _ in range(n)])


def test_center_out_goes_to_each_target_once_in_a_block_and_back() -> None:
    targets = shown("center-out", 32)
    np.testing.assert_array_equal(targets[1::2], 0.0)
    out = targets[0::2]
    np.testing.assert_allclose(np.hypot(*out.T), 7.0)
    for block in (out[:8], out[8:]):
        angles = np.round(np.rad2deg(np.arctan2(block[:, 1], block[:, 0]))) % 360
        assert sorted(angles.tolist()) == [0, 45, 90, 135, 180, 225, 270, 315]
    assert not np.array_equal(out[:8], out[8:])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_shows_the_same_targets_none_twice_in_a_row(kind: Kind) -> None:
    targets = shown(kind, 100)
    np.testing.assert_array_equal(targets, shown(kind, 100))
    assert not np.array_equal(targets, shown(kind, 100, seed=1))
    assert (np.hypot(*np.diff(targets, axis=0).T) > 0.5).all()
    assert np.abs(targets).max() <= 7.0 + 1e-9


def test_a_target_is_taken_by_holding_it_without_a_break() -> None:
    settings = TaskSettings(hold_s=0.1, timeout_s=1.0)
    task = Task(settings, 0, starts_at=2.0)
    at, edge, away = task.target, task.target * (1 - 1.2 / 7.0 + 1e-9), np.zeros(2)
    assert not task.look(2.00, away)
    assert not task.look(2.04, at)
    assert not task.look(2.10, edge)
    assert not task.look(2.12, away)  # a break
    assert not task.look(2.16, at)
    assert not task.look(2.24, at)
    assert task.look(2.26, at)
    trials = task.trials()
    assert (trials.start[0], trials.end[0], trials.success[0]) == (2.0, 2.26, True)
    np.testing.assert_array_equal(trials.target[0], at)
    np.testing.assert_array_equal(task.target, 0.0)
    assert task.start == 2.26


def test_a_trial_that_takes_too_long_has_failed() -> None:
    task = Task(TaskSettings(timeout_s=1.0), 0)
    looked = [task.look(t / 50, np.array([50.0, 50.0])) for t in range(51)]
    assert looked == [False] * 50 + [True]
    trials = task.trials()
    assert (trials.end[0], trials.success[0], trials.radius[0]) == (1.0, False, 1.2)


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong, said in (
        ({"kind": "maze"}, "task: expected one of"),
        ({"distance_cm": 12.0}, "targets in the workspace of ±10 cm, got 12 cm"),
        ({"hold_s": 6.0}, "hold_s: expected 0 up to the timeout of 5 s"),
        ({"radius_cm": 0.0}, "radius_cm: expected a number > 0"),
        ({"n_targets": 1}, "n_targets: expected 2 to 64"),
    ):
        with pytest.raises(UsageError, match=said):
            TaskSettings(**wrong)
