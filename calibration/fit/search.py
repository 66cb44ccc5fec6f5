"""How long to fit: the same fit on folds in time and on all labels, all in step.

At each judgement the folds say how well what they have learned so far decodes what they have not
seen; the fit on all labels at a moment chosen by that is the result. So there is a usable result
at any time, and whatever ends the search early loses only what would have come later.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.fitting import Fit, FitSettings, Tables
from poyo_edge.calibration.fit.folds import everything, folds
from poyo_edge.calibration.fit.judging import Judged, Point
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.prior import Prior

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


_FALL = 0.05
"""How far below the best R² a fit has to stay to be ended: while the learning rate is high, it
wanders, and comes back as the rate falls."""
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
        self.labels = labels
        self.window_s = window_s
        self.settings = settings
        self.start = start
        self.seed = seed
        seconds = share * labels.seconds
        self.steps = settings.steps_for(seconds)
        self.fits = [
            Fit(adapter, prior, labels, fold, settings, start, seed=[seed, i], seconds=seconds)
            for i, fold in enumerate([*cut, everything(labels)])
        ]
        self.moments: list[Moment] = []
        self.stopped = ""
        self._losses: list[float] = []

    @property
    def chosen(self) -> Moment:
        """The latest moment that is not clearly worse than the best one.

        Held-out R² of a minute of labels is noisy, and the learning rate falls towards the end
        of the schedule: the highest point of the curve is often luck, its end seldom is. A fit
        that really gets worse (published curves peak and fall) is left where it was best.
        """
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
        try:
            if not self.moments:
                self._judge()
                on_judged()
            self._advance(deadline, stop, on_progress, on_judged)
        except KeyboardInterrupt:
            if not self.moments:
                raise
            self.stopped = INTERRUPTED

    def _advance(
        self,
        deadline: float,
        stop: threading.Event,
        on_progress: OnProgress,
        on_judged: Callable[[], None],
    ) -> None:
        self.stopped = self._ended()
        while not self.stopped:
            target = min(self.moments[-1].point.step + self.settings.judge_every, self.steps)
            for fit in self._lagging(target):
                if stop.is_set() or time.monotonic() >= deadline:
                    self.stopped = INTERRUPTED if stop.is_set() else TIME
                    return
                loss = fit.step()
                if fit is not self.fits[-1]:
                    self._losses.append(loss)
                on_progress(self._progress())
            self._judge()
            on_judged()
            self.stopped = self._ended()

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

    def _lagging(self, target: int) -> Sequence[Fit]:
        """The fits in turns until all have taken ``target`` steps."""
        return [fit for step in range(target) for fit in self.fits if step >= fit.steps]

    def _ended(self) -> str:
        if self.moments[-1].point.step >= self.steps:
            return ALL_STEPS
        best = max(self.moments, key=lambda moment: moment.point.r2)
        last = self.moments[-self.settings.patience :]
        if len(last) < self.settings.patience or best in last:
            return ""
        fallen = all(moment.judged.clearly_worse(best.judged, margin=_FALL) for moment in last)
        return PAST_BEST if fallen else ""

    def _progress(self) -> Progress:
        return Progress(
            done=sum(fit.steps for fit in self.fits),
            total=self.steps * len(self.fits),
            r2=self.moments[-1].point.r2,
        )
