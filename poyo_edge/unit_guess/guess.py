"""What training has found that new units are like, before any label or with a few.

Legend: M spikes, U units, K intervals, F statistics, C keys, A animals, D model dim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32, Float64
from poyo_edge.errors import UsageError
from poyo_edge.unit_guess.statistics import NAMES, unit_statistics

GUESS = "guess"
"""Before the names of a ``UnitGuess`` in files, and the key of what is no tensor."""
GUESS_NAMES = ("keys", "subjects", "statistics")
GUESS_TENSORS = ("mean", "sd", "shared", "weight", "session_shared")
GUESS_HELD = "session_held"
"""A tensor that files of models have whose training knew held movements."""
MOST_SD = 4.0
"""Statistics farther from those of trained units count as that far."""


class Heard(NamedTuple):
    """Activity of a session."""

    spike_times: Float64
    """(M,) ascending seconds."""
    spike_units: npt.NDArray[np.integer]
    """(M,) rows of the units."""
    intervals: Float64
    """(K, 2) seconds in which spikes were recorded."""

    def statistics(self, n_units: int) -> Float64:
        """Of each unit, (U, F) float64 (``unit_statistics``).

        Raises:
            UsageError: less than ten seconds of activity.
        """
        return unit_statistics(self.spike_times, self.spike_units, n_units, self.intervals)


def scaled(
    statistics: Float64, mean: npt.NDArray[np.floating], sd: npt.NDArray[np.floating]
) -> Float32:
    """Statistics (U, F) as multiples of their spread, bounded, 0 where there is nothing to say."""
    found = np.clip((statistics - mean) / sd, -MOST_SD, MOST_SD)
    return np.asarray(np.nan_to_num(found), dtype=np.float32)


def electrode_of(unit_id: str) -> str:
    """The part of a unit's id that stays from day to day: what follows the last "/"."""
    return unit_id.rpartition("/")[2]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitGuess:
    """What training has found that units of a new session are like, before any label.

    An embedding is guessed as ``shared[key] + ((statistics - mean) / sd) @ weight``, and the
    session's as that of its subject; what is not known by name takes the mean of those that are.
    """

    keys: tuple[str, ...]
    """(C,) "SUBJECT/ELECTRODE"."""
    subjects: tuple[str, ...]
    """(A,) animals."""
    statistics: tuple[str, ...]
    """(F,) names of the statistics."""
    mean: Float32
    """(F,) of the statistics of all trained units, and their spread."""
    sd: Float32
    shared: Float32
    """(C, D)."""
    weight: Float32
    """(F, D)."""
    session_shared: Float32
    """(A, D)."""
    session_held: Float32 | None = None
    """(1, D): what sessions differ by in which movements are held; None where training had none."""

    def __post_init__(self) -> None:
        dim = self.shared.shape[-1]
        wanted = {
            "mean": (len(NAMES),), "sd": (len(NAMES),), "weight": (len(NAMES), dim),
            "shared": (len(self.keys), dim), "session_shared": (len(self.subjects), dim),
            GUESS_HELD: (1, dim),
        }  # fmt: skip
        for name, shape in wanted.items():
            found = getattr(self, name)
            if found is not None and (found.shape != shape or not np.isfinite(found).all()):
                raise UsageError(f"{name}: expected finite values {shape}, got {found.shape}")
        if self.statistics != NAMES or not self.keys or not self.subjects:
            raise UsageError(
                f"statistics: expected {', '.join(NAMES)} and at least one key and subject, got "
                f"{', '.join(self.statistics)}; use the version of poyo-edge that wrote them"
            )

    def statistics_of(self, heard: Heard, n_units: int) -> Float32:
        """What ``units`` takes: (U, F) multiples of the spread of trained units.

        Raises:
            UsageError: less than ten seconds of activity.
        """
        return scaled(heard.statistics(n_units), self.mean, self.sd)

    def units(
        self, unit_ids: Sequence[str], subject: str | None, statistics: Float32 | None
    ) -> Float32:
        """Embeddings of units, (U, D) float32.

        Args:
            unit_ids: ids of the units.
            subject: the animal; None takes units of that electrode in any.
            statistics: (U, F) of ``statistics_of``; None leaves them out.
        """
        rows, everything = self._rows(subject), list(range(len(self.keys)))
        found = np.stack(
            [self.shared[rows.get(electrode_of(unit), everything)].mean(0) for unit in unit_ids]
        )
        if statistics is not None:
            found = found + statistics @ self.weight
        return np.asarray(found, dtype=np.float32)

    def _rows(self, subject: str | None) -> dict[str, list[int]]:
        """Electrode → rows of the keys, of one animal or of all."""
        rows: dict[str, list[int]] = {}
        for row, key in enumerate(self.keys):
            owner, _, electrode = key.rpartition("/")
            if subject is None or owner == subject:
                rows.setdefault(electrode, []).append(row)
        return rows

    def session(self, subject: str | None, *, held: bool = False) -> Float32:
        """Embedding of a session, (D,) float32.

        Args:
            subject: the animal; None, or one that training has not seen, takes the mean of all.
            held: one in which movements may be held, as in a loop, where training knew such.
        """
        found = self.session_shared.mean(0)
        if subject in self.subjects:
            found = self.session_shared[self.subjects.index(subject)]
        if held and self.session_held is not None:
            found = found + self.session_held[0]
        return np.asarray(found, dtype=np.float32)

    def knows(self, unit_ids: Sequence[str], subject: str | None) -> int:
        """How many of the units sit at an electrode that was trained."""
        rows = self._rows(subject)
        return sum(electrode_of(unit) in rows for unit in unit_ids)
