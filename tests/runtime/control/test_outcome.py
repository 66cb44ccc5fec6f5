"""Blocks of simulated trials with known turns, speeds and successes."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from poyo_edge.errors import UsageError
from poyo_edge.runtime.control.outcome import (
    DEGRADED,
    OK,
    UNKNOWN,
    Block,
    OutcomeMonitor,
    OutcomeSettings,
    TrialOutcome,
)
from poyo_edge.trials import Trial

RATE, STEP = 1000, 20
"""Ticks a second; a value each 20 ms."""


class Task:
    """Center-out trials whose decoded velocity is turned, scaled and noisy."""

    def __init__(self, monitor: OutcomeMonitor, seed: int = 0) -> None:
        self.monitor, self.rng = monitor, np.random.default_rng(seed)
        self.tick, self.numbers, self.session = 0, itertools.count(1), "a"

    def trial(
        self, *, turn_deg: float = 0.0, speed: float = 10.0, fail: float = 0.0,
        target: bool = True, radius: float | None = 1.0,
    ) -> None:  # fmt: skip
        """One trial of 7 cm."""
        angle = self.rng.uniform(0, 2 * np.pi)
        goal = 7.0 * np.array([np.cos(angle), np.sin(angle)])
        begun = Trial(
            number=next(self.numbers), start=self.tick, go_time=self.tick,
            target=tuple(goal.tolist()) if target else None, radius=radius,
        )  # fmt: skip
        self.monitor.note_trial(begun)
        here = np.zeros(2)
        turn = np.radians(turn_deg) + self.rng.normal(0, 0.25)
        rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        n = int(np.linalg.norm(goal) / speed / STEP * RATE)
        for _ in range(n):
            self.monitor.note_cursor(np.array([self.tick]), here[None])
            way = (goal - here) / np.linalg.norm(goal - here)
            velocity = rotate @ way * speed + self.rng.normal(0, 1, 2)
            self.monitor.note_value(self.tick, velocity, self.session)
            here = here + velocity * STEP / RATE
            self.tick += STEP
        success = bool(self.rng.uniform() >= fail)
        self.monitor.note_trial(dataclasses.replace(begun, end=self.tick, success=success))
        self.tick += 200

    def block(self, n: int = 16, **how: Any) -> str:
        """Several trials; the verdict after them."""
        for _ in range(n):
            self.trial(**how)
        return self.monitor.verdict


@pytest.fixture
def task() -> Task:
    return Task(OutcomeMonitor(RATE))


def test_nothing_is_said_before_a_block_of_trials(task: Task) -> None:
    assert task.block(15) == UNKNOWN
    assert not task.monitor.holds(task.tick) and not task.monitor.worse(task.tick)
    assert task.block(1) == OK
    assert task.monitor.holds(task.tick)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_unchanged_control_is_never_called_worse(seed: int) -> None:
    task = Task(OutcomeMonitor(RATE), seed)
    assert {task.block(1, fail=0.1) for _ in range(600)} == {UNKNOWN, OK}


def test_directions_that_turned_are_noticed_within_a_block(task: Task) -> None:
    task.block()
    assert task.block(turn_deg=45) == DEGRADED
    assert "angular error rose" in task.monitor.reason and "turned by +4" in task.monitor.reason
    assert task.monitor.worse(task.tick)


def test_a_fall_of_success_is_noticed_and_overcome(task: Task) -> None:
    task.block()
    assert task.block(fail=0.75) == DEGRADED
    assert "success fell from 100%" in task.monitor.reason
    assert task.block() == OK
    assert task.monitor.reason == ""


def test_a_slow_cursor_is_noticed_by_its_throughput(task: Task) -> None:
    task.block()
    assert task.block(speed=4.0) == DEGRADED
    assert "throughput fell" in task.monitor.reason


def test_a_block_that_goes_anywhere_is_no_control_even_as_a_reference(task: Task) -> None:
    assert task.block(turn_deg=90) == DEGRADED
    assert "no control" in task.monitor.reason


def test_a_verdict_is_forgotten_when_no_trial_ends(task: Task) -> None:
    task.block()
    assert task.monitor.holds(task.tick + 299 * RATE)
    assert not task.monitor.holds(task.tick + 301 * RATE)
    assert not task.monitor.holds(0)


def test_a_swap_begins_a_new_reference(task: Task) -> None:
    task.block()
    task.monitor.restart()
    assert task.monitor.verdict == UNKNOWN
    assert task.block(turn_deg=30) == OK


def test_trials_without_target_or_radius_tell_what_they_can(task: Task) -> None:
    assert task.block(target=False) == UNKNOWN
    assert task.monitor.n_trials == 0
    assert task.block(radius=None) == OK
    found = task.monitor.to_json()
    assert found["reference"]["bits_per_s"] is None
    assert found["reference"]["angle_deg"] == pytest.approx(14, abs=6)


def test_an_end_that_is_told_twice_counts_once(task: Task) -> None:
    monitor = task.monitor
    for _ in range(2):
        monitor.note_trial(Trial(number=1, start=0, end=500, target=(1.0, 0.0), success=True))
    assert monitor.n_trials == 1
    monitor.note_trial(Trial(number=0, start=-10, end=-1, target=(1.0, 0.0), success=True))
    assert monitor.n_trials == 1, "it is of before"


def test_a_task_that_was_started_again_may_count_from_one_again(task: Task) -> None:
    task.block(15)
    task.numbers = itertools.count(1)
    assert task.block(1) == OK
    assert task.monitor.n_trials == 16


def test_memory_stays_bounded(task: Task) -> None:
    for tick in range(0, 400_000, 5):
        task.monitor.note_value(tick, np.ones(2), "a")
        task.monitor.note_cursor(np.array([tick]), np.ones((1, 2)))
    assert len(task.monitor._values) <= 12_000 and len(task.monitor._cursor) <= 12_000


def test_figures_of_one_trial_by_hand() -> None:
    monitor = OutcomeMonitor(RATE, OutcomeSettings(block_trials=4))
    begun = Trial(number=1, start=0, go_time=0, target=(8.0, 0.0), radius=1.0)
    monitor.note_trial(begun)
    for tick in range(0, 1000, 20):
        monitor.note_cursor(np.array([tick]), np.array([[tick / 200, 0.0]]))
        monitor.note_value(tick, np.array([3.0, 3.0]), "a")
    monitor.note_trial(dataclasses.replace(begun, end=2000, success=True))
    block = monitor.to_json()["block"]
    assert block["time_s"] == 2.0
    assert block["angle_deg"] == pytest.approx(45, abs=1e-3)
    assert block["turn_deg"] == pytest.approx(45, abs=1e-3)
    assert block["speed"] == pytest.approx(3.0)
    assert block["bits_per_s"] == pytest.approx(np.log2(5) / 2, abs=1e-3)


def test_a_block_of_what_nobody_knows() -> None:
    one = TrialOutcome(
        number=1, success=None, time_s=1.0, angle_deg=None, turn_deg=None, speed=None,
        bits_per_s=None,
    )  # fmt: skip
    block = Block.of([one])
    assert (block.success, block.angle_deg, block.bits_per_s) == (None, None, None)


@pytest.mark.parametrize(
    "wrong",
    [{"block_trials": 1}, {"standard_errors": 0}, {"least_success": 2}, {"most_angle_deg": 0}],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        OutcomeSettings(**wrong)  # type: ignore[arg-type]


def test_another_session_begins_a_new_reference(task: Task) -> None:
    task.monitor.note_value(0, np.ones(2), "a")
    task.block()
    assert task.monitor.verdict == OK
    task.monitor.note_value(task.tick, np.ones(2), "b")
    assert (task.monitor.verdict, task.monitor.to_json()["reference"]) == (UNKNOWN, None)


def test_a_new_clock_keeps_the_reference_and_no_verdict_in_force(task: Task) -> None:
    task.block()
    task.monitor.new_clock()
    assert not task.monitor.holds(0)
    assert task.monitor.to_json()["reference"] is not None
