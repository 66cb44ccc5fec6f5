"""What a task told of trials and cursor while decoding went on, for labels of intention.

Legend: N samples, D dimensions, K trials.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from poyo_edge.calibration.intention import IntentionLabels, IntentionSettings, intention_labels
from poyo_edge.columns import Columns
from poyo_edge.errors import UsageError
from poyo_edge.trials import Trial, Trials

_MOST_S = 3600.0
"""What is older than this is forgotten."""
_UNENDED, _OVERLAP = "it did not end", "it overlaps the trial before"


class TaskLog:
    """Trials and the shown cursor of one clock.

    Args:
        settings: of the labels.
        rate: ticks per second.
    """

    def __init__(self, settings: IntentionSettings, rate: float) -> None:
        self.settings = settings
        self._rate = rate
        self._trials = dict[int, Trial]()
        self._cursor: Columns | None = None
        self._width = 0
        self._counted = set[int]()
        self.labelled_s = 0.0
        """Of the trials that have ended, about: what is left out of them is known later."""

    def on_trial(self, trial: Trial) -> bool:
        """Note what is known of a trial; whether it has just ended."""
        self._trials[trial.number] = trial
        if trial.end is None or trial.target is None or trial.number in self._counted:
            return False
        self._counted.add(trial.number)
        go = trial.start if trial.go_time is None else trial.go_time
        seconds = (trial.end - go) / self._rate - self.settings.reaction_s
        self.labelled_s += max(0.0, seconds)
        return True

    def on_cursor(self, ticks: npt.NDArray[np.int64], positions: npt.NDArray[np.float64]) -> None:
        """Note where the cursor was shown: ticks (N,) and positions (N, D).

        Raises:
            UsageError: as many positions as ticks, and as wide as those before, were expected.
        """
        before = None if self._cursor is None else self._width
        if positions.ndim != 2 or len(positions) != len(ticks):
            raise UsageError(
                f"cursor: expected a position for each of {len(ticks)} times, got an array of "
                f"shape {positions.shape}"
            )
        if before is not None and positions.shape[1] != before:
            raise UsageError(
                f"cursor: expected {before} coordinates, as before, got {positions.shape[1]}"
            )
        if not len(ticks):
            return
        if self._cursor is None:
            self._width = positions.shape[1]
            self._cursor = Columns([("tick", "<i8"), ("at", "<f8", (self._width,))])
        self._cursor.add(tick=ticks, at=positions)
        self._cursor.forget(int(ticks.max()) - int(_MOST_S * self._rate))

    def so_far(self) -> TaskLog:
        """What was noted until now, in one that takes part in nothing later; at once."""
        other = TaskLog(self.settings, self._rate)
        other._trials = dict(self._trials)
        other._cursor = None if self._cursor is None else self._cursor.copy()
        return other

    def labels(self) -> IntentionLabels:
        """Labels at the times of the cursor, in seconds of the device's counter.

        Raises:
            UsageError: see ``intention_labels``; or there was no cursor, or no trial that ended.
        """
        if self._cursor is None:
            raise UsageError(
                "labels of intention: expected the shown cursor, got none; let the task send it"
            )
        rows = self._cursor.rows()
        ticks, positions = rows["tick"], rows["at"]
        finite = np.isfinite(positions).all(1)
        times, first = np.unique(ticks[finite] / self._rate, return_index=True)
        trials, left_out = self._table(positions.shape[1])
        made = intention_labels(trials, times, positions[finite][first], self.settings)
        report = made.report
        if left_out:
            report = dataclasses.replace(
                report,
                trials_left_out=report.trials_left_out + len(left_out),
                first_reason=report.first_reason or left_out[0],
            )
        return dataclasses.replace(made, report=report)

    def _table(self, n_dims: int) -> tuple[Trials, list[str]]:
        """Trials that ended, and why others are not among them."""
        rows, left_out = list[Trial](), list[str]()
        for trial in sorted(self._trials.values(), key=lambda one: one.start):
            if trial.end is None or trial.end <= trial.start:
                left_out.append(_UNENDED)
            elif rows and trial.start < (rows[-1].end or 0):
                left_out.append(_OVERLAP)
            else:
                rows.append(trial)
        wrong = [one for one in rows if one.target is not None and len(one.target) != n_dims]
        if wrong:
            assert wrong[0].target is not None
            raise UsageError(
                f"cursor: expected {len(wrong[0].target)} coordinates, as the target of trial "
                f"{wrong[0].number} has, got {n_dims}; send the cursor that the targets are for"
            )
        if not rows:
            got = f"{len(left_out)}, of which the first: {left_out[0]}" if left_out else "none"
            raise UsageError(f"labels of intention: expected trials that ended, got {got}")
        none = (np.nan,) * n_dims
        return Trials(
            start=np.array([one.start / self._rate for one in rows]),
            end=np.array([(one.end or 0) / self._rate for one in rows]),
            go_time=np.array(
                [np.nan if one.go_time is None else one.go_time / self._rate for one in rows]
            ),
            target=np.array([one.target or none for one in rows], np.float64),
            success=np.array([one.success is True for one in rows]),
            radius=np.array([np.nan if one.radius is None else one.radius for one in rows]),
        ), left_out
