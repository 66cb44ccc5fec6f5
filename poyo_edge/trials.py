"""Trials: when each began and ended, what its target was, and whether it was reached.

``Trial`` is one trial as a feed tells of it, on the device's counter; ``TrialUpdate`` is what one
message says of it; ``Trials`` are those of a recording, in seconds.

Legend: K trials, D dimensions of the workspace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Bool, Float64
from poyo_edge.errors import UsageError
from poyo_edge.records import JsonRecord, require_fields

MOST_DIMS = 16
"""No target and no cursor has more coordinates."""
TIMES = ("start", "go_time", "end")
"""Fields of a trial that are times, in the order in which they come."""
NOW = "now"
"""A time of somebody who does not know the device's clock: when the message arrived."""


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
            not 1 <= len(self.target) <= MOST_DIMS or not np.isfinite(self.target).all()
        ):
            raise UsageError(
                f"trial {self.number}: expected a target of finite coordinates, got "
                f"{self.target!r:.80}"
            )
        if self.radius is not None and not 0 < self.radius < np.inf:
            raise UsageError(f"trial {self.number}: expected a radius > 0, got {self.radius!r}")


@dataclasses.dataclass(frozen=True, slots=True)
class TrialUpdate:
    """What one message says of a trial; what it leaves out stays as it was said before."""

    number: int
    given: Mapping[str, Any]
    """Fields of ``Trial`` but its number; times are ticks or ``NOW``."""

    @classmethod
    def of(cls, trial: Trial) -> TrialUpdate:
        """The message that says all of a trial."""
        given = {field.name: getattr(trial, field.name) for field in dataclasses.fields(trial)}
        return cls(given.pop("number"), given)

    def with_times(self, place: Callable[[Any], Any]) -> TrialUpdate:
        """The same with ``place`` of each time that is given."""
        placed = {
            name: place(value) if name in TIMES and value is not None else value
            for name, value in self.given.items()
        }
        return TrialUpdate(self.number, placed)

    def onto(self, before: Trial | None) -> Trial:
        """The trial as it is known by now.

        Args:
            before: as it was known; None if nothing was said of it.

        Raises:
            UsageError: nobody has said when it started, or what is said cannot be.
        """
        known = {} if before is None else dict(TrialUpdate.of(before).given)
        known |= self.given
        if known.get("start") is None:
            raise UsageError(
                f"trial {self.number}: expected its start in the first message about it, got none; "
                f"send the start again with each message"
            )
        return Trial(number=self.number, **known)


class TrialsError(UsageError):
    """Trials that cannot be: "trials: expected …, got in row N: …"."""

    def __init__(self, field: str, row: int | None, expected: str, got: str) -> None:
        self.field = field
        """Name of the array that is wrong."""
        self.row = row
        """Which trial, counted from 0; None where it is the array as a whole."""
        self.expected = expected
        self.got = got
        where = "" if row is None else f" in row {row}:"
        super().__init__(f"trials: expected {expected}, got{where} {got}")


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
    """(K, D) centres in the unit of the cursor's position; NaN in a trial without one; D may be 0
    where no trial has one."""
    success: Bool
    """(K,); False too where nobody says, see ``judged``."""
    radius: Float64
    """(K,) in the unit of the target; NaN where it is not known."""
    judged: Bool | None = None
    """(K,) whether somebody said if it was a success; None stands for all of them."""

    def __post_init__(self) -> None:
        n = len(self.start)
        if self.judged is None:
            object.__setattr__(self, "judged", np.ones(n, np.bool_))
        for name in ("start", "end", "go_time", "success", "radius", "judged"):
            shape = getattr(self, name).shape
            if shape != (n,):
                self._refuse_array(name, f"{name} of shape ({n},)", str(shape))
        shape = self.target.shape
        if len(shape) != 2 or shape[0] != n or shape[1] > MOST_DIMS:
            expected = f"target ({n}, D) with D up to {MOST_DIMS}"
            self._refuse_array("target", expected, str(shape))
        self._check_times()
        wrong = ~self.has_target & ~np.asarray(np.isnan(self.target).all(1))
        self._refuse("target", wrong, "a target of finite coordinates, or of NaN alone")
        wrong = (self.radius <= 0) | np.isinf(self.radius)
        self._refuse("radius", wrong, "a radius > 0, or NaN where it is not known")

    @classmethod
    def of(
        cls,
        start: npt.ArrayLike,
        end: npt.ArrayLike,
        *,
        go_time: npt.ArrayLike | None = None,
        target: npt.ArrayLike | None = None,
        success: npt.ArrayLike | None = None,
        radius: npt.ArrayLike | None = None,
        judged: npt.ArrayLike | None = None,
    ) -> Trials:
        """Trials of which only some fields may be known.

        Args:
            start, end: (K,) seconds.
            go_time, radius: (K,); None where nobody says.
            target: (K, D), or (K,) of one dimension; None where there is none.
            success: (K,) bool; None where nobody says.
            judged: (K,) bool; None stands for all where there is ``success``.

        Raises:
            TrialsError: they cannot be.
        """
        starts = np.asarray(start, np.float64)
        n = starts.shape[0] if starts.ndim else 0
        centres = np.empty((n, 0)) if target is None else np.asarray(target, np.float64)
        told = np.full(n, success is not None) if judged is None else np.asarray(judged, np.bool_)
        return cls(
            start=starts,
            end=np.asarray(end, np.float64),
            go_time=np.full(n, np.nan) if go_time is None else np.asarray(go_time, np.float64),
            target=centres[:, None] if centres.ndim == 1 else centres,
            success=np.zeros(n, np.bool_) if success is None else np.asarray(success, np.bool_),
            radius=np.full(n, np.nan) if radius is None else np.asarray(radius, np.float64),
            judged=told,
        )

    def __len__(self) -> int:
        return len(self.start)

    @property
    def has_target(self) -> Bool:
        """(K,) which trials have a target."""
        if not self.target.shape[1]:
            return np.zeros(len(self), np.bool_)
        return np.asarray(np.isfinite(self.target).all(1))

    @property
    def success_rate(self) -> float | None:
        """Share of successes among trials of which somebody said; None where nobody did."""
        judged = np.asarray(self.judged)
        return float(self.success[judged].mean()) if judged.any() else None

    @property
    def intervals(self) -> Float64:
        """(K, 2) seconds: start and end."""
        return np.stack([self.start, self.end], axis=-1)

    def rows(self, which: npt.NDArray[Any]) -> Trials:
        """Those of a mask (K,) or of ascending row numbers."""
        fields = {f.name: getattr(self, f.name)[which] for f in dataclasses.fields(self)}
        return Trials(**fields)

    def to_json(self) -> dict[str, Any]:
        """How many there are, with a target, with a radius, and the share of successes."""
        rate = self.success_rate
        return {
            "n": len(self),
            "with_target": int(self.has_target.sum()),
            "with_radius": int(np.isfinite(self.radius).sum()),
            "success_rate": None if rate is None else round(rate, 4),
        }

    def _check_times(self) -> None:
        for name in ("start", "end"):
            self._refuse(name, ~np.isfinite(getattr(self, name)), f"a finite {name}")
        self._refuse("end", self.end <= self.start, "an end after the start")
        overlaps = np.zeros(len(self), np.bool_)
        overlaps[1:] = self.start[1:] < self.end[:-1]
        self._refuse("start", overlaps, "a start at or after the end of the trial before")
        known = ~np.isnan(self.go_time)
        outside = known & ~((self.go_time >= self.start) & (self.go_time <= self.end))
        expected = "a go_time within the trial, or NaN where it is not known"
        self._refuse("go_time", outside, expected)

    def _refuse(self, field: str, wrong: Bool, expected: str) -> None:
        if wrong.any():
            row = int(wrong.argmax())
            raise TrialsError(field, row, expected, self._told(row))

    def _refuse_array(self, field: str, expected: str, got: str) -> NoReturn:
        raise TrialsError(field, None, expected, got)

    def _told(self, row: int) -> str:
        values: dict[str, Any] = {
            name: getattr(self, name)[row].tolist()
            for name in ("start", "end", "go_time", "target", "radius")
        }
        return ", ".join(f"{name} {value}" for name, value in values.items())
