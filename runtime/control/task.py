"""The task as far as it has been told: the running trial, its target, and where the cursor is.

Legend: D dimensions of the velocity, of targets and of positions alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.runtime.control.shaping import bounded
from poyo_edge.trials import Trial

LONGEST_TRIAL_S = 60.0
"""A trial whose end nobody tells is given up after so long: its task may have died."""
CURSOR_S = 0.25
"""An older position says nothing any more."""


def is_same(trial: Trial, other: Trial) -> bool:
    """Whether two messages are of one trial: a task that was started again uses numbers again."""
    return (trial.number, trial.start) == (other.number, other.start)


class Task:
    """Remembers the newest trial and the newest position.

    Args:
        n_dims: D.
        tick_rate_hz: of the device's clock.
    """

    def __init__(self, n_dims: int, tick_rate_hz: float) -> None:
        self._n_dims, self._rate = n_dims, tick_rate_hz
        self.trial: Trial | None = None
        """The newest; it may have ended."""
        self._at: tuple[int, Float64] | None = None

    def forget(self) -> None:
        """The clock begins anew, and ticks from before mean nothing."""
        self.trial, self._at = None, None

    def note_trial(self, trial: Trial) -> bool:
        """Take what a feed tells; False for what is older than what is known.

        Raises:
            UsageError: a target of another number of dimensions.
        """
        if trial.target is not None and len(trial.target) != self._n_dims:
            raise UsageError(
                f"trial {trial.number}: expected a target of {self._n_dims} values, as the decoder "
                f"gives, got {len(trial.target)}; send targets in the cursor's own dimensions"
            )
        known = self.trial
        if known is not None:
            same = is_same(trial, known)
            if not same and trial.start < known.start:
                return False
            if same and trial.end is None and known.end is not None:
                return False  # it has ended, and one message was overtaken by another
        self.trial = trial
        return True

    def note_cursor(self, tick: int, position: npt.ArrayLike) -> None:
        """Take where the cursor was, (D,), at a tick.

        Raises:
            UsageError: another number of dimensions, or none that is finite.
        """
        try:
            found = np.asarray(position, np.float64)
        except (ValueError, TypeError):
            found = np.empty(0)
        if found.shape != (self._n_dims,) or not np.isfinite(found).all():
            raise UsageError(
                f"cursor: expected {self._n_dims} finite values, as the decoder gives, got "
                f"{position!r:.80}; send its position in the target's unit"
            )
        if self._at is None or tick >= self._at[0]:
            self._at = int(tick), bounded(found)

    def running(self, tick: int) -> Trial | None:
        """The trial that runs at a tick; None between trials."""
        trial = self.trial
        if trial is None or tick < trial.start:
            return None
        if trial.end is None:
            return trial if tick - trial.start <= LONGEST_TRIAL_S * self._rate else None
        return trial if tick <= trial.end else None

    def resting_s(self, tick: int) -> float | None:
        """Seconds since the end of the last trial; None while one runs or none was told."""
        trial = self.trial
        if trial is None or trial.end is None or tick <= trial.end:
            return None
        return (tick - trial.end) / self._rate

    def cursor(self, tick: int, velocity: Float64) -> Float64 | None:
        """Where it is (D,) at a tick: as it was told, and moved by the newest velocity (D,) since;
        None where nobody has told within ``CURSOR_S``."""
        if self._at is None:
            return None
        age_s = (tick - self._at[0]) / self._rate
        if abs(age_s) > CURSOR_S:
            return None
        return bounded(self._at[1] + bounded(velocity) * max(0.0, age_s))
