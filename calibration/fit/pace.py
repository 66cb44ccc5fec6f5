"""How fast a fit goes on this machine, and how much of it fits into the time that there is."""

from __future__ import annotations

import dataclasses
import math

_JUDGING_SHARE, _SETTLING_SHARE = 0.1, 0.15
"""Most of the time that one judgement on the way, and that of the result, may take."""
_SPARE = 0.9
"""Share of the time that is planned with: a machine does not always go at the same pace."""
_FEWEST_JUDGED = 8


@dataclasses.dataclass(slots=True, kw_only=True)
class Pace:
    """Time that there is, and seconds measured so far."""

    seconds: float
    """For everything; infinite where nobody is in a hurry."""
    sample_s: float = 0.0
    """Of one judged sample."""

    @property
    def in_a_hurry(self) -> bool:
        """Whether there is an end to the time."""
        return math.isfinite(self.seconds)

    def judged_within(self, most: int, n_folds: int) -> int:
        """Samples of each fold to judge by on the way, ``most`` where time allows."""
        return self._within(_JUDGING_SHARE, most, n_folds)

    def settled_within(self, most: int, n_folds: int) -> int:
        """Samples of each fold to judge the result by."""
        return self._within(_SETTLING_SHARE, most, n_folds)

    def _within(self, share: float, most: int, n_folds: int) -> int:
        if not self.in_a_hurry or self.sample_s <= 0:
            return most
        fitting = share * self.seconds / (self.sample_s * n_folds)
        return max(min(most, _FEWEST_JUDGED), min(most, int(fitting)))

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
