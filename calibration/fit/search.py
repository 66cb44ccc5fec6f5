"""How long to fit: the same fit on folds in time and on all labels, all in step.

At each judgement the folds say how well what they have learned so far decodes what they have not
seen; the fit on all labels at a moment chosen by that is the result. So there is a usable result
at any time, and whatever ends the search early loses only what would have come later.

Judgements on the way may be of few samples, and the result is judged again on more. Where time is
short the schedule is: the learning rate falls to 0 within the time that there is. Where it is very
short, only one fold is held out, and what is not better than the start is not taken.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.fitting import Fit, FitSettings, Tables
from poyo_edge.calibration.fit.folds import everything, folds
from poyo_edge.calibration.fit.judging import Judged, Moment, Point, latest_good
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.pace import Pace, Progress
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.calibration.fit.schedule import schedule_for, short_schedule
from poyo_edge.calibration.fit.start import nothing_known
from poyo_edge.calibration.fit.workers import Crew

PAST_BEST, ALL_STEPS, TIME, INTERRUPTED = "past the best", "all steps", "time", "interrupted"
_FALL = 0.05
"""How far below the best R² a fit has to stay to be ended: while the learning rate is high, it
wanders, and comes back as the rate falls."""
_FEW_S, _LEAST_GAP = 60.0, 0.01
"""Of so few labels a fold learns from half. Where training says what units of the animal are like,
the fit on all labels is better than its folds look, and counts as clearly worse where it is below
the best one by ``_FALL``, elsewhere by ``_LEAST_GAP``."""
_MEASURED_STEPS = (1, 3, 10, 30)
"""Steps after which the rest is planned anew: the first ones are slower, and machines change."""
_ENOUGH = 0.5
"""Share of the schedule's steps that there must be time for if all folds are to be fitted."""
_FEWEST_BLOCKS = 2
"""Held-out blocks without which nothing can be said about chance."""
OnProgress = Callable[[Progress], None]


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
        all_folds: bool = False,
    ) -> None:
        """Prepare the fits.

        ``share`` lets the folds learn from the first part of their samples only, judged on the
        same blocks: what fewer labels would have given. ``all_folds`` fits all of them even where
        time is short.

        Raises:
            UsageError: too few labels to cut.
        """
        window_s = adapter.window_s
        self._adapter = adapter
        self.prior = prior
        self.labels = labels
        self.window_s = window_s
        self.settings = settings
        self.start = start
        self.seed = seed
        self.seconds = share * labels.seconds
        """Labelled seconds that schedule and pull are for."""
        known = {"from_prior": nothing_known(start, prior), "from_afar": start.from_afar}
        self.schedule = settings.over(schedule_for(self.seconds, adapter.spec, **known))
        n_blocks = settings.blocks_for(labels.seconds, window_s)
        self.all_folds = all_folds
        self.folds = folds(
            labels, window_s, n_folds=settings.n_folds, n_blocks=n_blocks, share=share
        )
        """What the fits before the last one learn from and are judged by."""
        self.learned_s = labels.period * float(np.mean([len(f.train) for f in self.folds]))
        """Labelled seconds that a fold learns from."""
        self.steps = self.schedule.steps
        """Of the schedule; fewer while a search runs that has too little time for all."""
        if adapter.fits_encoder:
            self.steps += self.schedule.encoder_steps
        self._all_steps = self.steps
        whole = everything(labels)
        self.fits = [
            Fit(
                adapter,
                prior,
                labels,
                fold,
                settings,
                start,
                seed=[seed, i],
                seconds=self.seconds,
                schedule=self.schedule if fold is whole else self.schedule.of_a_fold(),
            )
            for i, fold in enumerate([*self.folds, whole])
        ]
        trusted = prior.knows_animal and self.seconds < _FEW_S
        self._margin = _FALL if trusted else _LEAST_GAP
        self.moments: list[Moment] = []
        self.stopped = ""
        self.shortened = False
        """Whether there was too little time for the schedule."""
        self.left_out = 0
        """Folds that there was too little time for."""
        self._pace = Pace(seconds=math.inf)
        self._losses: list[tuple[int, int, float]] = []
        self._settled: Moment | None = None

    @property
    def chosen(self) -> Moment:
        """The latest moment that is not clearly worse than the best one (``latest_good``).

        Moments of the second stage, in which the encoder's weights are fitted, are taken where
        they are better than that of the first.
        """
        if self._settled is not None:
            return self._settled
        learned = [m for m in self.moments if m.point.step <= self.schedule.steps]
        first = latest_good(learned, self._margin)
        behind = [m for m in self.moments if m.point.step > self.schedule.steps]
        second = latest_good(behind) if behind else first
        return second if second.point.r2 > first.point.r2 else first

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
        *,
        rival: bool = False,
    ) -> None:
        """Search until nothing better comes, the steps or the time are over, or it is stopped.

        Args:
            max_seconds: wall time, with what the gate decodes afterwards.
            stop: set it to end the search; Ctrl-C in the main thread does the same.
            on_progress: called after each step.
            on_judged: called after each judgement, when the state may be kept.
            rival: whether the gate judges a session in use too.
        """
        deadline = time.monotonic() + max_seconds
        self._pace = Pace(seconds=max_seconds, workers=self._adapter.workers, rival=rival)
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
        wanted = self.schedule.judged_on_the_way
        if self.moments:
            if self._pace.in_a_hurry or self.fits[0].most_judged >= wanted:
                return False
            self._judge_by(wanted)
            self.moments = [self._judged_anew(moment) for moment in self.moments]
            return True
        if self._pace.in_a_hurry:
            self._pace.measure(lambda most: len(self._decoded_by_first(most)), time.monotonic)
            self._judge_by(wanted)
            self._fit_into_time()
        self._judge_by(self._on_the_way())
        self._judge()
        return True

    def _fit_into_time(self) -> None:
        """Take the short schedule, and fewer folds, where there is no time for more."""
        if self._steps_within(self._pace.seconds) >= self.steps:
            return
        self._leave_the_encoder()
        if self._steps_within(self._pace.seconds) >= self.steps:
            return
        short = self.settings.over(short_schedule(self.seconds))
        if short.windows < self.schedule.windows:
            self.schedule, self.steps, self.shortened = short, short.steps, True
            self._all_steps = self.steps
            for fit in self.fits:
                fit.begin_with(short if fit is self.fits[-1] else short.of_a_fold())
        if self.all_folds or self._steps_within(self._pace.seconds) >= _ENOUGH * self.steps:
            return
        kept, blocks = 0, 0
        while kept < len(self.fits) - 1 and blocks < _FEWEST_BLOCKS:
            blocks += len(np.unique(self.fits[kept].judged_blocks()))
            kept += 1
        self.left_out = len(self.folds) - kept
        self.folds, self.fits = self.folds[:kept], [*self.fits[:kept], self.fits[-1]]

    def _leave_the_encoder(self) -> None:
        """Take no steps for the encoder's weights."""
        self.steps = self.schedule.steps
        self.shortened = self.steps < self._all_steps
        for fit in self.fits:
            fit.take(self.steps)

    def _steps_within(self, left_s: float, step_s: float | None = None) -> int:
        """Steps of all fits for which there is time; None guesses what one takes."""
        if step_s is None:
            step_s = self._pace.step_s(self.schedule, len(self.fits))
        left_s -= self._result_s()
        return self._pace.steps_within(left_s, step_s, self._judging_s(), self.schedule.judge_every)

    def _judging_s(self) -> float:
        """Seconds of a judgement on the way."""
        return self._on_the_way() * (len(self.fits) - 1) * self._pace.sample_s

    def _on_the_way(self) -> int:
        """Samples of each fold that judgements on the way are of."""
        most = self.schedule.judged_on_the_way
        return self._pace.judged_within(most, len(self.fits) - 1)

    def _result_s(self) -> float:
        """Seconds of the result's judgement, and of the gate's."""
        before, n_folds = self._on_the_way(), len(self.fits) - 1
        most = self._pace.settled_within(self.settings.most_judged, before, n_folds)
        return self._pace.result_s(most, before, n_folds)

    def _judge_by(self, most: int) -> None:
        """Judge by at most so many samples of each fold from now on."""
        for fit in self.fits:
            fit.most_judged = most

    def _decoded_by_first(self, most: int) -> Float64:
        """What the first fit decodes of its fold, at most so many samples."""
        self._judge_by(most)
        return self.fits[0].predict_judged()

    def _advance(
        self,
        deadline: float,
        stop: threading.Event,
        on_progress: OnProgress,
        on_judged: Callable[[], None],
    ) -> None:
        began = ended = time.monotonic()
        before, last, pace = self.moments[-1].point.step, self.fits[-1], self._pace
        self._plan(deadline, None)
        self.stopped = self._ended()
        pace.whole_step_s = pace.step_s(self.schedule, len(self.fits))
        done = sum(fit.steps for fit in self.fits)

        def may_begin(fit: Fit) -> bool:
            step_s = pace.whole_step_s if fit is self.fits[0] else pace.one_step_s(len(self.fits))
            if stop.is_set() or self._late(deadline, step_s):
                self.stopped = INTERRUPTED if stop.is_set() else TIME
            return not self.stopped

        def taken(fit: Fit, loss: float) -> None:
            nonlocal done, ended
            now, index, done = time.monotonic(), self.fits.index(fit), done + 1
            if fit is not last:
                self._losses.append((fit.steps, index, loss))
            else:
                pace.whole_step_s, ended = now - ended, now
                if fit.steps - before in _MEASURED_STEPS:
                    self._plan(deadline, (now - began) / (fit.steps - before), crew.reached())
            on_progress(self._progress(done, (now - began) / (done - before * len(self.fits))))

        crew = Crew(
            self.fits, self._adapter.workers, Fit.step, self._next_judgement,
            may_begin=may_begin, taken=taken,
        )  # fmt: skip
        while not self.stopped:
            ended = time.monotonic()
            crew.advance()
            # Out of time, what was learned since the last judgement is judged all the same.
            learned = min(fit.steps for fit in self.fits) > self.moments[-1].point.step
            if self.stopped == INTERRUPTED or not learned:
                return
            self._judge()
            on_judged()
            self.stopped = self.stopped or self._ended()

    def _next_judgement(self) -> int:
        """The step behind which the fits are judged next; the end of each stage is one."""
        last, end = self.moments[-1].point.step, min(self.schedule.steps, self.steps)
        return min(last + self.schedule.judge_every, end if last < end else self.steps)

    def _late(self, deadline: float, seconds: float) -> bool:
        """Whether so many seconds, and what comes after the last step, would end too late."""
        after_s = seconds + self._judging_s() + self._result_s() if self._pace.in_a_hurry else 0.0
        now = time.monotonic()
        return now >= deadline or now + after_s > deadline

    def _plan(self, deadline: float, step_s: float | None, reached: int = 0) -> None:
        """Shorten the schedule where the time is too short for all steps; not below what some fit
        has ``reached``."""
        if not self._pace.in_a_hurry:
            return
        more = self._steps_within(deadline - time.monotonic(), step_s)
        self.steps = min(self._all_steps, max(reached, self.fits[-1].steps + more))
        for fit in self.fits:
            fit.take(self.steps)

    def _settle(self, deadline: float) -> None:
        """Judge what is chosen by more samples, where there is time.

        Where time was short, it was not enough to say what is chance: what does not decode better
        than the start, on the same samples, is not taken.
        """
        chosen, start, n_folds = self.chosen, self.moments[0], len(self.fits) - 1
        rivals = [chosen] if self.stopped != TIME or chosen is start else [start, chosen]
        before = self.fits[0].most_judged
        most = self._pace.settled_within(self.settings.most_judged, before, n_folds)
        late = time.monotonic() + self._pace.result_s(most, before, n_folds) > deadline
        if self.stopped != INTERRUPTED and not late and most > before:
            self._judge_by(most)
            for i, moment in enumerate(rivals):
                rivals[i] = self._judged_anew(moment)
                self.moments[self.moments.index(moment)] = rivals[i]
        self._settled = max(reversed(rivals), key=lambda moment: moment.point.r2)

    def _judged_anew(self, moment: Moment) -> Moment:
        """The same moment, by the samples that count now."""
        judged = self.judge(lambda i: self.fits[i].predict_with(moment.tables[i]))
        point = judged.point(moment.point.step, [])
        point = dataclasses.replace(point, loss=moment.point.loss)
        return dataclasses.replace(moment, judged=judged, point=point)

    def settle_on(self, moment: Moment) -> None:
        """Take this as what is chosen, once the search has ended."""
        self._settled = moment

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
        started = time.monotonic()
        judged = self.judge(lambda i: self.fits[i].predict_judged())
        if self._pace.in_a_hurry:
            self._pace.sample_s = (time.monotonic() - started) / len(judged.truth)
        losses = [loss for _, _, loss in sorted(self._losses)]  # in one order with any workers
        point = judged.point(self.fits[0].steps, losses)
        tables = tuple(fit.tables() for fit in self.fits)
        self._losses = []
        self.moments.append(Moment(point=point, judged=judged, tables=tables))

    def _ended(self) -> str:
        if self.moments[-1].point.step >= self.steps:
            return TIME if self.shortened or self.steps < self._all_steps else ALL_STEPS
        if self.moments[-1].point.step == self.schedule.steps != self.chosen.point.step:
            return ALL_STEPS  # the second stage goes on from the end of the first alone
        best = max(self.moments, key=lambda moment: moment.point.r2)
        last = self.moments[-self.settings.patience :]
        if len(last) < self.settings.patience or best in last:
            return ""
        fallen = all(moment.judged.clearly_worse(best.judged, margin=_FALL) for moment in last)
        return PAST_BEST if fallen else ""

    def _progress(self, done: int, each_s: float) -> Progress:
        total = self.steps * len(self.fits)
        return Progress(
            done=done,
            total=total,
            r2=self.moments[-1].point.r2,
            left_s=(total - done) * each_s,
            judged_at=self.moments[-1].point.step,
        )
