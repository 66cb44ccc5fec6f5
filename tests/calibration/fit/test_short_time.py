"""Fits whose time, or whose labels, are short: what they plan, and what is left when it is over."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.teacher import (
    QUICK,
    adapter,
    at_mean,
    lesson,
    quiet,
    run,
    search,
)

import poyo_edge.calibration.calibrator as calibrator_module
import poyo_edge.calibration.fit.search as search_module
import poyo_edge.calibration.starts as starts_module
from poyo_edge.calibration import FitSettings, Progress
from poyo_edge.calibration.fit.fitting import Tables
from poyo_edge.calibration.fit.pace import Pace
from poyo_edge.calibration.fit.resuming import ResumeFile
from poyo_edge.calibration.fit.schedule import long_schedule, short_schedule, with_encoder
from poyo_edge.calibration.fit.search import ALL_STEPS, TIME, Search

N_FITS = QUICK.n_folds + 1


def test_no_time_leaves_the_start() -> None:
    searched = run(search(lesson()), max_seconds=0.0)
    assert (searched.stopped, len(searched.curve)) == (TIME, 1)
    assert np.array_equal(searched.chosen.tables[-1].units, at_mean(6).units)
    assert np.array_equal(searched.chosen.tables[-1].session, at_mean(6).session)


class Clock:
    """One that goes on by so many seconds with every step of a fit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_s: Callable[[int], float]) -> None:
        self.now, self.taken, self.step_s = 0.0, 0, step_s
        monkeypatch.setattr(search_module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def note(self, _: Progress) -> None:
        self.now += self.step_s(self.taken)
        self.taken += 1


LONG = dataclasses.replace(QUICK, steps=1000, judge_every=4, patience=10**6)


@pytest.mark.slow
def test_a_short_time_shortens_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, searching = Clock(monkeypatch, lambda _: 1.0), search(lesson(), LONG)
    searching.run(30.0 * N_FITS, threading.Event(), clock.note)
    assert searching.stopped == TIME
    steps = {fit.steps for fit in searching.fits}
    assert steps == {searching.steps}
    assert 20 < searching.steps <= 28, "most of the time is used, and some is left"
    assert searching.curve[-1].step == searching.steps
    units = np.stack([moment.tables[-1].units for moment in searching.moments])
    way = np.abs(np.diff(units, axis=0)).mean((1, 2))
    first, last = way[0], way[-1]
    assert last < 0.3 * first, "the learning rate falls within the time"


@pytest.mark.slow
def test_enough_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, searching = Clock(monkeypatch, lambda _: 1.0), search(lesson())
    searching.run(1e5, threading.Event(), clock.note)
    whole = run(search(lesson()))
    assert (searching.stopped, searching.curve) == (whole.stopped, whole.curve)
    assert np.array_equal(searching.chosen.tables[-1].units, whole.chosen.tables[-1].units)


@pytest.mark.slow
def test_the_time_is_looked_at_before_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine gets slower than was planned with, what was learned is judged."""
    slow = 6 * N_FITS - 2
    clock = Clock(monkeypatch, lambda taken: 1.0 if taken < slow else 1e3)
    searching = search(lesson(), LONG)
    searching.run(30.0 * N_FITS, threading.Event(), clock.note)
    assert searching.stopped == TIME
    assert clock.taken == slow + 1
    assert [fit.steps for fit in searching.fits] == [6] * (N_FITS - 1) + [5]
    assert [point.step for point in searching.curve] == [0, 4, 6]


class Machine:
    """One whose time goes on only with windows: a second each, and 3.3 s with gradients."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lesson()  # whose values were decoded at another time
        self.now, opened = 0.0, adapter()
        clock = SimpleNamespace(monotonic=lambda: self.now)
        for module in (search_module, starts_module, calibrator_module):
            monkeypatch.setattr(module, "time", clock)

        def predict(labels: Any, samples: Any, *tables: Any) -> Any:
            self.now += len(samples)
            return type(opened).predict(opened, labels, samples, *tables)

        def gradients(batch: Any, *tables: Any) -> Any:
            self.now += 3.3 * len(batch["target"])
            return type(opened).gradients(opened, batch, *tables)

        monkeypatch.setattr(opened, "predict", predict)
        monkeypatch.setattr(opened, "gradients", gradients)


@pytest.mark.parametrize(
    ("seconds", "sample_s", "times"), [(2000.0, 0.1, [2, 8, 32]), (10.0, 2.6, [2])]
)
def test_first_samples_are_not_what_all_take(
    seconds: float, sample_s: float, times: list[int]
) -> None:
    """Where there is time to measure again: the first call of a runtime is far slower."""
    now, judged = [0.0], list[int]()

    def judge(most: int) -> int:
        now[0] += 0.1 * most + (5.0 if not judged else 0.0)
        judged.append(most)
        return most

    pace = Pace(seconds=seconds)
    pace.measure(judge, lambda: now[0])
    assert judged == times
    assert pace.sample_s == pytest.approx(sample_s)


SLOW = dataclasses.replace(QUICK, steps=240, batch_size=4, judge_every=80, judged_on_the_way=80)
"""A step of all three fits takes 40 s on ``Machine``; all of them without judging, 9500 s."""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [60.0, 120.0, 300.0, 1000.0, 4000.0])
def test_a_limit_is_kept_and_used(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """With judging, and with what the gate decodes: 16 windows a fold of held commands."""
    given, machine = lesson(duration_s=60.0), Machine(monkeypatch)
    session = given.calibrator(SLOW).fit(max_seconds=seconds)
    assert 0.6 * seconds < machine.now <= seconds
    assert session.quality.wall_s == machine.now
    assert session.quality.stopped == TIME
    assert session.quality.n_judged >= 8


def test_a_limit_too_short_for_anything_leaves_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    quality = lesson().calibrator(SLOW).fit(max_seconds=10.0).quality
    assert (quality.steps, quality.stopped, len(quality.curve)) == (0, TIME, 1)
    assert machine.now <= 12.0, "two samples to measure, eight to judge"


def short_search(
    monkeypatch: pytest.MonkeyPatch, seconds: float, *, all_folds: bool = False
) -> Search:
    Machine(monkeypatch)
    searching = search(lesson(), SLOW, all_folds=all_folds)
    searching.run(seconds, threading.Event(), quiet)
    return searching


@pytest.mark.slow
def test_little_time_holds_out_one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    folds = search(lesson(), SLOW).fits
    little = short_search(monkeypatch, 300.0)
    assert (little.left_out, len(little.fits)) == (1, 2)
    blocks = set(folds[0].judged_blocks().tolist())
    assert set(little.chosen.judged.block.tolist()) == blocks
    assert len(blocks) == 2
    assert len({fit.steps for fit in little.fits}) == 1
    more = short_search(monkeypatch, 8000.0)
    assert (more.left_out, len(more.fits)) == (0, 3)
    kept = short_search(monkeypatch, 300.0, all_folds=True)
    assert (kept.left_out, len(kept.fits)) == (0, 3)
    assert kept.steps < little.steps


def test_folds_of_one_block_are_not_left_out_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch)
    settings = dataclasses.replace(SLOW, n_folds=4, n_blocks=4)
    searching = search(lesson(), settings)
    searching.run(300.0, threading.Event(), quiet)
    assert (searching.left_out, len(searching.fits)) == (2, 3)
    assert len(np.unique(searching.chosen.judged.block)) == 2


def test_a_user_is_told_of_folds_that_were_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch)
    notes = lesson().calibrator(SLOW).fit(max_seconds=300.0).quality.notes
    assert "time was short: judged on 1 of 2 folds" in notes


@pytest.mark.slow
def test_a_short_time_takes_the_short_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few windows, where the long one does not fit; given settings stay."""
    settings = FitSettings(n_folds=2)
    Machine(monkeypatch)
    enough, little = search(lesson(), settings), search(lesson(), settings)
    usual = enough.schedule
    of_the_tiny_model = long_schedule(enough.seconds, from_prior=True)
    assert usual == with_encoder(of_the_tiny_model, enough.seconds, from_prior=True)
    little.run(2000.0, threading.Event(), quiet)
    assert little.schedule == short_schedule(little.seconds)
    assert (little.shortened, little.stopped) == (True, TIME)
    given = search(lesson(), dataclasses.replace(settings, batch_size=usual.batch_size))
    given.run(1000.0, threading.Event(), quiet)
    assert given.schedule == usual


def still_from_the_truth() -> Search:
    """Steps too small to matter lead away from what decodes best."""
    truth = lesson().truth
    start = Tables(units=truth.unit_embedding, session=truth.session_embedding)
    settings = dataclasses.replace(SLOW, steps=40, judge_every=10, lr_units=1e-5, lr_session=1e-5)
    return search(lesson(), settings, start=start)


@pytest.mark.slow
def test_what_a_short_time_made_worse_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch)
    little, all_steps = still_from_the_truth(), still_from_the_truth()
    little.run(400.0, threading.Event(), quiet)
    assert little.stopped == TIME
    assert len(little.moments) > 1
    last, start = little.moments[-1], little.moments[0]
    assert not last.judged.clearly_worse(start.judged)
    assert len(last.judged.truth) == len(start.judged.truth), "on the same samples"
    assert little.chosen is start
    assert last.point.r2 < start.point.r2
    all_steps.run(math.inf, threading.Event(), quiet)
    assert (all_steps.stopped, all_steps.chosen.point.step) == (ALL_STEPS, 40)


def test_what_a_short_time_made_better_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    little = short_search(monkeypatch, 1000.0)
    assert little.stopped == TIME
    assert little.chosen.point.step == little.steps > 0
    assert little.chosen.point.r2 > little.moments[0].point.r2


def test_the_file_of_a_search_with_fewer_folds_is_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    little = short_search(monkeypatch, 300.0)
    ResumeFile(tmp_path / "fit", little, "core").save()
    again = search(lesson(), SLOW)
    assert not ResumeFile(tmp_path / "fit", again, "core").load()
    assert again.moments == []
    whole = short_search(monkeypatch, 300.0, all_folds=True)
    ResumeFile(tmp_path / "fit", whole, "core").save()
    assert ResumeFile(tmp_path / "fit", again, "core").load()
    assert [fit.steps for fit in again.fits] == [whole.steps] * 3
