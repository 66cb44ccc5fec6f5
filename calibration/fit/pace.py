"""How fast a fit goes on this machine, and how much of it fits into the time that there is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from poyo_edge.calibration.fit.schedule import Schedule

_JUDGING_SHARE, _RESULT_SHARE = 0.1, 0.2
"""Most of the time that one judgement on the way, and all that is judged at the end, may take."""
_SPARE = 0.9
"""Share of the time that is planned with: a machine does not always go at the same pace."""
_FEWEST_JUDGED = 8
_MEASURED, _MORE, _MOST_MEASURED = 2, 4, 32
"""Samples that are timed first, times as many then, and the most."""
_MEASURING_SHARE = 0.02
"""Most of the time that timing more samples may take."""
_GRADIENT = 3.3
"""What loss and gradients of a window take, in forward passes: 3.1 (1.3M), 3.3 (11.8M)."""
_HELD, _HELD_FROM = 16, 40
"""Windows of held commands that the gate decodes in each fold, and the judged samples of a fold
below which it decodes none (``calibration.held``)."""
_LOOKS = 2
"""Moments that are judged at the end: what is chosen, and the start."""
_WORTH = 2
"""Times as many samples as on the way, for which it is worth to judge again."""


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
    judged_at: int = 0
    """Steps of each fit at the last judgement; 0 for the start."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Pace:
    """Time that there is, and seconds measured so far."""

    seconds: float
    """For everything; infinite where nobody is in a hurry."""
    workers: int = 1
    """Windows that are worked on at once."""
    rival: bool = False
    """Whether the gate judges a session in use beside the result."""
    sample_s: float = 0.0
    """Of one judged sample, with all workers."""
    whole_step_s: float = 0.0
    """Of the last step of all fits; guessed before there was one."""

    @property
    def in_a_hurry(self) -> bool:
        """Whether there is an end to the time."""
        return math.isfinite(self.seconds)

    def measure(self, judge: Callable[[int], int], now: Callable[[], float]) -> None:
        """Time what a judged sample takes, on more and more of them while that takes next to none
        of the time: the first ones are slower, and so are batches that are not full.

        Args:
            judge: judges at most so many samples, with one worker, and says how many there were.
            now: seconds of a clock.
        """
        wanted = _MEASURED
        while True:
            began = now()
            judged = judge(wanted)
            took = now() - began
            self.sample_s = took / (max(judged, 1) * self.workers)
            wanted *= _MORE
            if wanted > _MOST_MEASURED or _MORE * took > _MEASURING_SHARE * self.seconds:
                return

    def judged_within(self, most: int, n_folds: int) -> int:
        """Samples of each fold to judge by on the way, ``most`` where time allows."""
        if not self.in_a_hurry or self.sample_s <= 0:
            return most
        fitting = int(_JUDGING_SHARE * self.seconds / (self.sample_s * n_folds))
        return min(most, max(_FEWEST_JUDGED, fitting))

    def settled_within(self, most: int, before: int, n_folds: int) -> int:
        """Samples of each fold to judge the result by, so that the gate's part fits too.

        Not many more than on the way, ``before``, are not worth their time.
        """
        if not self.in_a_hurry or self.sample_s <= 0:
            return max(before, most)
        windows = _RESULT_SHARE * self.seconds / (self.sample_s * n_folds)
        each = _LOOKS + self.rival
        fitting = int((windows - self._held()) / each)
        if fitting < _HELD_FROM:
            fitting = min(_HELD_FROM - 1, int(windows / each))
        fitting = min(most, fitting)
        return fitting if fitting >= _WORTH * before else before

    def result_s(self, n_judged: int, before: int, n_folds: int) -> float:
        """Seconds from the last step on: the result's judgement and the gate's."""
        looks = self.rival + (_LOOKS if n_judged > before else 0)
        held = self._held() if n_judged >= _HELD_FROM else 0
        return (looks * n_judged + held) * n_folds * self.sample_s

    def step_s(self, schedule: Schedule, n_fits: int) -> float:
        """Seconds of a step of all fits, guessed from a forward pass before one was taken."""
        spread = self.workers / min(self.workers, n_fits)
        windows = schedule.batch_size + (n_fits - 1) * schedule.of_a_fold().batch_size
        return _GRADIENT * self.sample_s * windows * spread

    def one_step_s(self, n_fits: int) -> float:
        """Seconds of a step of one fit, as long as the last one of all of them was."""
        return self.whole_step_s * min(self.workers, n_fits) / n_fits

    def steps_within(self, left_s: float, step_s: float, judging_s: float, every: int) -> int:
        """Steps for which there is time, each of ``step_s``, judged every so many steps.

        Args:
            left_s: seconds left, without what the judgement of the result takes.
            step_s: of one step of all fits.
            judging_s: of one judgement.
            every: steps between judgements.
        """
        if not self.in_a_hurry:
            raise ValueError("there is time for all steps")
        each_s = step_s + judging_s / every
        return max(0, int((_SPARE * left_s - judging_s) / max(each_s, 1e-9)))

    def _held(self) -> int:
        return _HELD * (3 if self.rival else 1)
