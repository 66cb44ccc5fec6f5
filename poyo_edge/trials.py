"""Trials: when each began and ended, what its target was, and whether it was reached.

``Trial`` is one trial as a feed tells of it, on the device's counter; ``Trials`` are those of a
recording, in seconds.

Legend: K trials, D dimensions of the workspace.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from poyo_edge.arrays import Bool, Float64
from poyo_edge.errors import UsageError
from poyo_edge.records import JsonRecord, require_fields

_MOST_DIMS = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial(JsonRecord):
    """One trial as far as it is known: told at its start, and again when more is known of it.

    The newest message of a ``number`` stands for the trial, so one that is lost is made good by
    the next. Times are ticks of the device's counter.
    """

    number: int
    """Which trial; ascending in a run."""
    start: int
    go_time: int | None = None
    """When the person was told to move; None while it was not said."""
    end: int | None = None
    """None while the trial runs."""
    target: tuple[float, ...] | None = None
    """(D,) centre of the target, in the unit of the cursor's position; None if there is none."""
    radius: float | None = None
    """Of the target, same unit; None where it is not known."""
    success: bool | None = None
    """None while the trial runs, or where nobody says."""

    def __post_init__(self) -> None:
        require_fields(self)
        for name in ("go_time", "end"):
            at = getattr(self, name)
            if at is not None and at < self.start:
                raise UsageError(
                    f"trial {self.number}: expected {name} at or after its start "
                    f"({self.start}), got {at}"
                )
        if self.end is not None and self.go_time is not None and self.go_time > self.end:
            raise UsageError(
                f"trial {self.number}: expected go_time at or before its end ({self.end}), got "
                f"{self.go_time}"
            )
        if self.target is not None and (
            not 1 <= len(self.target) <= _MOST_DIMS or not np.isfinite(self.target).all()
        ):
            raise UsageError(
                f"trial {self.number}: expected a target of finite coordinates, got "
                f"{self.target!r:.80}"
            )
        if self.radius is not None and not 0 < self.radius < np.inf:
            raise UsageError(f"trial {self.number}: expected a radius > 0, got {self.radius!r}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trials:
    """Trials of a recording, ascending by start and apart from each other."""

    start: Float64
    """(K,) seconds."""
    end: Float64
    """(K,) seconds, after the start and not after the next one's."""
    go_time: Float64
    """(K,) seconds, within the trial; NaN where it is not known."""
    target: Float64
    """(K, D) centres in the unit of the cursor's position; NaN in a trial without one."""
    success: Bool
    """(K,)."""
    radius: Float64
    """(K,) in the unit of the target; NaN where it is not known."""

    def __post_init__(self) -> None:
        n = len(self.start)
        for name in ("start", "end", "go_time", "success", "radius"):
            if getattr(self, name).shape != (n,):
                raise UsageError(
                    f"trials: expected {name} of shape ({n},), got {getattr(self, name).shape}"
                )
        if self.target.ndim != 2 or len(self.target) != n:
            raise UsageError(f"trials: expected target ({n}, D), got {self.target.shape}")
        self._check_times()
        wrong = ~self.has_target & ~np.asarray(np.isnan(self.target).all(1))
        self._refuse(wrong, "a target of finite coordinates, or of NaN alone")
        self._refuse(self.radius <= 0, "a radius > 0, or NaN where it is not known")

    def __len__(self) -> int:
        return len(self.start)

    @property
    def has_target(self) -> Bool:
        """(K,) which trials have a target."""
        return np.asarray(np.isfinite(self.target).all(1))

    def _check_times(self) -> None:
        self._refuse(~(np.isfinite(self.start) & np.isfinite(self.end)), "finite start and end")
        self._refuse(self.end <= self.start, "an end after the start")
        overlaps = np.zeros(len(self), bool)
        overlaps[1:] = self.start[1:] < self.end[:-1]
        self._refuse(overlaps, "a start at or after the end of the trial before")
        known = ~np.isnan(self.go_time)
        outside = known & ((self.go_time < self.start) | (self.go_time > self.end))
        self._refuse(outside, "a go_time within the trial, or NaN where it is not known")

    def _refuse(self, wrong: Bool, expected: str) -> None:
        if wrong.any():
            row = int(wrong.argmax())
            raise UsageError(f"trials: expected {expected}, got in row {row}: {self._told(row)}")

    def _told(self, row: int) -> str:
        values: dict[str, Any] = {
            name: getattr(self, name)[row].tolist()
            for name in ("start", "end", "go_time", "target", "radius")
        }
        return ", ".join(f"{name} {value}" for name, value in values.items())
