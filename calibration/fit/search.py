"""How long to fit: the same fit on folds in time and on all labels, all in step.

At each judgement the folds say how well what they have learned so far decodes what they have not
seen; the fit on all labels at a moment chosen by that is the result. So there is a usable result
at any time, and whatever ends the search early loses only what would have come later.

Judgements on the way are of few samples, and the result is judged again on more. Where time is
short the schedule is: the learning rate falls to 0 within the time that there is.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.fitting import Fit, FitSettings, Tables
from poyo_edge.calibration.fit.folds import everything, folds
from poyo_edge.calibration.fit.judging import Judged, Point
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.pace import Pace
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.calibration.fit.workers import each

PAST_BEST, ALL_STEPS, TIME, INTERRUPTED = "past the best", "all steps", "time", "interrupted"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a search is."""

    done: int
    """Optimiser steps taken, over all fits."""
    total: int
    """Steps if nothing ends it earlier."""
    r2: float
    """Held-out R² at the last judgement."""
    left_s: float | None = None
    """Seconds that the rest will take at the pace so far; None where that is not known."""


_FALL = 0.05
"""How far below the best R² a fit has to stay to be ended: while the learning rate is high, it
wanders, and comes back as the rate falls."""
_MEASURED_SAMPLES = 4
_MEASURED_STEPS = 3
"""After so many steps the pace is known well enough to plan with: the first one is slower."""
OnProgress = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moment:
    """One judgement, and what had been learned by then."""

    point: Point
    judged: Judged
    tables: tuple[Tables, ...]
    """Of each fold's fit, and last that on all labels."""


class Search:
    """Fits on all folds and on everything; keeps the curve and the best moment."""

    def __init__(
        self,
        adapter: Adapter,
        prior: Prior,
        labels: Labels,
        settings: FitSettings,
        start: Tables,
        seed: int,
        *,
        share: float = 1.0,
    ) -> None:
        """Prepare the fits.

        ``share`` lets the folds learn from the first part of their samples only, judged on the
        same blocks: what fewer labels would have given.

        Raises:
            UsageError: too few labels to cut.
        """
        window_s = adapter.window_s
        n_blocks = settings.blocks_for(labels.seconds, window_s)
        cut = folds(labels, window_s, n_folds=settings.n_folds, n_blocks=n_blocks)
        cut = [
            dataclasses.replace(fold, train=fold.train[: max(1, int(share * len(fold.train)))])
            for fold in cut
        ]
        self.learned_s = labels.period * float(np.mean([len(fold.train) for fold in cut]))
        """Labelled seconds that a fold learns from."""
        self._adapter = adapter
        self.labels = labels
        self.window_s = window_s
        self.settings = settings
        self.start = start
        self.seed = seed
        seconds = share * labels.seconds
        self.steps = settings.steps_for(seconds)
        """Of the schedule; fewer while a search runs that has too little time for all."""
        self.fits = [
            Fit(adapter, prior, labels, fold, settings, start, seed=[seed, i], seconds=seconds)
            for i, fold in enumerate([*cut, everything(labels)])
        ]
        self.moments: list[Moment] = []
        self.stopped = ""
        self._all_steps = self.steps
        self._pace = Pace(seconds=math.inf)
        self._losses: list[float] = []
        self._settled: Moment | None = None

    @property
    def chosen(self) -> Moment:
        """The latest moment that is not clearly worse than the best one.

        Held-out R² of a minute of labels is noisy, and the learning rate falls towards the end
        of the schedule: the highest point of the curve is often luck, its end seldom is. A fit
        that really gets worse (published curves peak and fall) is left where it was best.
        """
        if self._settled is not None:
            return self._settled
        best = max(self.moments, key=lambda moment: moment.point.r2)
        later = self.moments[self.moments.index(best) + 1 :]
        good = [moment for moment in later if not moment.judged.clearly_worse(best.judged)]
        return good[-1] if good else best

    @property
    def curve(self) -> list[Point]:
        """All judgements in figures."""
        return [moment.point for moment in self.moments]

    def run(
        self,
        max_seconds: float,
        stop: threading.Event,
        on_progress: OnProgress,
        on_judged: Callable[[], None] = lambda: None,
    ) -> None:
        """Search until nothing better comes, the steps or the time are over, or it is stopped.

        Args:
            max_seconds: wall time.
            stop: set it to end the search; Ctrl-C in the main thread does the same.
            on_progress: called after each step.
            on_judged: called after each judgement, when the state may be kept.
        """
        deadline = time.monotonic() + max_seconds
        self._pace = Pace(seconds=max_seconds)
        try:
            if self._begin():
                on_judged()
            self._advance(deadline, stop, on_progress, on_judged)
            self._settle(deadline)
        except KeyboardInterrupt:
            if not self.moments:
                raise
            self.stopped = INTERRUPTED

    def _begin(self) -> bool:
        """Judge the start, by as many samples as the time allows; whether anything was judged.

        A search that goes on, and was in a hurry before, is judged anew where it no longer is.
        """
        wanted = self.settings.judged_on_the_way
        if self.moments:
            if self._pace.in_a_hurry or self.fits[0].most_judged >= wanted:
                return False
            self._judge_by(wanted)
            self.moments = [self._judged_anew(moment) for moment in self.moments]
            return True
        if self._pace.in_a_hurry:
            first, started = self.fits[0], time.monotonic()
            self._judge_by(_MEASURED_SAMPLES)
            first.predict_judged()
            self._pace.sample_s = (time.monotonic() - started) / len(first.judged())
        self._judge_by(self._pace.judged_within(wanted, len(self.fits) - 1))
        self._judge()
        return True

    def _judge_by(self, most: int) -> None:
        """Judge by at most so many samples of each fold from now on."""
        for fit in self.fits:
            fit.most_judged = most

    def _advance(
        self,
        deadline: float,
        stop: threading.Event,
        on_progress: OnProgress,
        on_judged: Callable[[], None],
    ) -> None:
        self.stopped = self._ended()
        began, before = time.monotonic(), self.moments[-1].point.step
        while not self.stopped:
            target = min(self.moments[-1].point.step + self.settings.judge_every, self.steps)
            for fits in self._turns(target):
                if stop.is_set() or time.monotonic() >= deadline:
                    self.stopped = INTERRUPTED if stop.is_set() else TIME
                    break
                self._step(fits, began, before, on_progress)
                taken = self.fits[-1].steps - before
                if fits[-1] is self.fits[-1] and taken == _MEASURED_STEPS:
                    self._plan(deadline, (time.monotonic() - began) / taken)
                    if self.fits[-1].steps >= self.steps:
                        break
            # Out of time, what was learned since the last judgement is judged all the same.
            learned = min(fit.steps for fit in self.fits) > self.moments[-1].point.step
            if self.stopped == INTERRUPTED or not learned:
                return
            self._judge()
            on_judged()
            self.stopped = self.stopped or self._ended()

    def _step(
        self, fits: Sequence[Fit], began: float, before: int, on_progress: OnProgress
    ) -> None:
        """One step of each of some fits, at the same time."""
        losses = each(Fit.step, fits, len(fits))
        for fit, loss in zip(fits, losses, strict=True):
            if fit is not self.fits[-1]:
                self._losses.append(loss)
        done = sum(fit.steps for fit in self.fits)
        new = done - before * len(self.fits)
        left = (self.steps * len(self.fits) - done) * (time.monotonic() - began) / max(1, new)
        for i in range(len(fits)):
            on_progress(self._progress(done - len(fits) + 1 + i, left))

    def _plan(self, deadline: float, step_s: float) -> None:
        """Shorten the schedule where the time is too short for all steps."""
        if not self._pace.in_a_hurry:
            return
        n_folds, now = len(self.fits) - 1, time.monotonic()
        most = self._pace.settled_within(self.settings.most_judged, n_folds)
        settling = most * n_folds * self._pace.sample_s
        judging = sum(len(fit.judged()) for fit in self.fits[:-1]) * self._pace.sample_s
        more = self._pace.steps_within(
            deadline - now - settling, step_s, judging, self.settings.judge_every
        )
        self.steps = min(self._all_steps, self.fits[-1].steps + more)
        for fit in self.fits:
            fit.total = self.steps

    def _settle(self, deadline: float) -> None:
        """Judge what is chosen by more samples, where there is time."""
        chosen, n_folds = self.chosen, len(self.fits) - 1
        before = self.fits[0].most_judged
        most = self._pace.settled_within(self.settings.most_judged, n_folds)
        late = time.monotonic() + most * n_folds * self._pace.sample_s > deadline
        if self.stopped == INTERRUPTED or late or most <= before:
            self._settled = chosen
            return
        self._judge_by(most)
        self._settled = self._judged_anew(chosen)
        self.moments[self.moments.index(chosen)] = self._settled

    def _judged_anew(self, moment: Moment) -> Moment:
        """The same moment, by the samples that count now."""
        judged = self.judge(lambda i: self.fits[i].predict_with(moment.tables[i]))
        point = judged.point(moment.point.step, [])
        point = dataclasses.replace(point, loss=moment.point.loss)
        return dataclasses.replace(moment, judged=judged, point=point)

    def judge(self, predict: Callable[[int], Float64]) -> Judged:
        """Held-out samples of all folds; ``predict`` decodes those of the fold of a number."""
        judges = self.fits[:-1]
        samples = np.concatenate([fit.judged() for fit in judges])
        return Judged(
            truth=self.labels.values[samples],
            decoded=np.concatenate([predict(i) for i in range(len(judges))]),
            block=np.concatenate([fit.judged_blocks() for fit in judges]),
        )

    def _judge(self) -> None:
        judged = self.judge(lambda i: self.fits[i].predict_judged())
        point = judged.point(self.fits[0].steps, self._losses)
        tables = tuple(fit.tables() for fit in self.fits)
        self._losses = []
        self.moments.append(Moment(point=point, judged=judged, tables=tables))

    def _turns(self, target: int) -> Iterator[Sequence[Fit]]:
        """The fits in turns, as many as run at once, until all have taken ``target`` steps."""
        for step in range(target):
            lagging = [fit for fit in self.fits if step >= fit.steps]
            for first in range(0, len(lagging), self._adapter.workers):
                yield lagging[first : first + self._adapter.workers]

    def _ended(self) -> str:
        if self.moments[-1].point.step >= self.steps:
            return ALL_STEPS if self.steps == self._all_steps else TIME
        best = max(self.moments, key=lambda moment: moment.point.r2)
        last = self.moments[-self.settings.patience :]
        if len(last) < self.settings.patience or best in last:
            return ""
        fallen = all(moment.judged.clearly_worse(best.judged, margin=_FALL) for moment in last)
        return PAST_BEST if fallen else ""

    def _progress(self, done: int, left_s: float) -> Progress:
        return Progress(
            done=done,
            total=self.steps * len(self.fits),
            r2=self.moments[-1].point.r2,
            left_s=left_s,
        )
