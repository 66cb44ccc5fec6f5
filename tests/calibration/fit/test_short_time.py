"""Fits whose time, or whose labels, are short: what they plan, and what is left when it is over."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.calibrating.teacher import QUICK, at_mean, lesson, run, search

import poyo_edge.calibration.fit.search as search_module
from poyo_edge.calibration import Progress
from poyo_edge.calibration.fit.search import TIME

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


def test_enough_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, searching = Clock(monkeypatch, lambda _: 1.0), search(lesson())
    searching.run(1e5, threading.Event(), clock.note)
    whole = run(search(lesson()))
    assert (searching.stopped, searching.curve) == (whole.stopped, whole.curve)
    assert np.array_equal(searching.chosen.tables[-1].units, whole.chosen.tables[-1].units)


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
