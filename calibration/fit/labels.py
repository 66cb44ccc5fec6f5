"""Labelled data of a new session: spikes and behaviour as trials arrive, checked on the way in.

Legend: M spikes, S behaviour samples, O outputs, U units.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Bool, Float64
from poyo_edge.errors import UsageError
from poyo_edge.runtime.intake import UnitTable

_SMALLEST_GAP_S = 0.05
_SPEEDS_PER_SD = 1e-3
"""A dimension that varies less than this share of the most varying one does not move."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """All labelled data of a session, sorted by time. Times are seconds on the device's clock."""

    n_units: int
    spike_times: Float64
    """(M,)."""
    spike_rows: npt.NDArray[np.int32]
    """(M,) rows of the session's units."""
    times: Float64
    """(S,) of the behaviour samples whose whole window has been heard."""
    values: Float64
    """(S, O) in behaviour units."""
    stretches: Float64
    """(K, 2) start and end of what has been heard without a hole."""

    @property
    def period(self) -> float:
        """Typical seconds between behaviour samples."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0

    @property
    def seconds(self) -> float:
        """Labelled seconds: what the samples cover, holes left out."""
        gaps = np.diff(self.times)
        hole = max(4 * self.period, _SMALLEST_GAP_S)
        return float(gaps[gaps <= hole].sum() + self.period) if len(self.times) else 0.0

    def silent(self) -> list[int]:
        """Rows of the units without a spike."""
        counts = np.bincount(self.spike_rows, minlength=self.n_units)
        return np.flatnonzero(counts == 0).tolist()

    def of_units(self, rows: npt.NDArray[np.int64]) -> Labels:
        """Only the spikes of some units, whose new rows count along ``rows``."""
        new = np.full(self.n_units, -1, np.int32)
        new[rows] = np.arange(len(rows))
        keep = new[self.spike_rows] >= 0
        return dataclasses.replace(
            self,
            n_units=len(rows),
            spike_times=self.spike_times[keep],
            spike_rows=new[self.spike_rows[keep]],
        )

    def until(self, seconds: float) -> Labels:
        """The first labelled seconds only."""
        gaps = np.diff(self.times, prepend=self.times[:1])
        hole = max(4 * self.period, _SMALLEST_GAP_S)
        heard = np.cumsum(np.where(gaps <= hole, gaps, 0.0)) + self.period
        keep = heard <= seconds + 1e-9
        end = self.times[keep][-1] if keep.any() else -np.inf
        spikes = self.spike_times < end
        return dataclasses.replace(
            self,
            spike_times=self.spike_times[spikes],
            spike_rows=self.spike_rows[spikes],
            times=self.times[keep],
            values=self.values[keep],
            stretches=np.minimum(self.stretches[self.stretches[:, 0] < end], end),
        )


class LabelCollector:
    """Takes labelled data in pieces. A piece that is refused changes nothing."""

    def __init__(self, unit_ids: Sequence[str], dim_out: int, window_s: float) -> None:
        self._units = UnitTable(_checked_ids(unit_ids))
        self._dim_out = dim_out
        self._window_s = window_s
        self._pieces: list[tuple[Float64, npt.NDArray[np.int32], Float64, Float64]] = []
        self.unknown_spikes = 0
        """Spikes of units that the session does not have: left out."""

    @property
    def unit_ids(self) -> tuple[str, ...]:
        """Ids of the units, in the order of their rows."""
        return self._units.unit_ids

    @property
    def n_pieces(self) -> int:
        """Pieces taken so far."""
        return len(self._pieces)

    def so_far(self) -> LabelCollector:
        """What was taken until now, in one that takes part in nothing later; at once."""
        other = copy.copy(self)
        other._pieces = list(self._pieces)
        return other

    def add(
        self,
        spike_times: npt.ArrayLike,
        spike_units: npt.ArrayLike,
        behavior_times: npt.ArrayLike,
        behavior: npt.ArrayLike,
    ) -> None:
        """Check and keep one piece.

        Raises:
            UsageError: shapes, NaN, times that do not ascend, or labels and spikes that do not
                overlap in time.
        """
        times = _times("spike_times", spike_times)
        rows = self._units.as_rows(spike_units)
        if len(rows) != len(times):
            raise UsageError(
                f"spike_units: expected one for each of {len(times)} spike times, got {len(rows)}"
            )
        samples = _times("behavior_times", behavior_times)
        values = _values(behavior, len(samples), self._dim_out)
        back = np.flatnonzero(np.diff(samples) <= 0)
        if len(back):
            raise UsageError(
                f"behavior_times: expected ascending seconds, got {samples[back[0] + 1]:.6f} after "
                f"{samples[back[0]]:.6f}; sort the samples and leave repeated ones out"
            )
        _require_overlap(times, samples, self._window_s)
        known = (rows >= 0) & (rows < len(self._units))
        self.unknown_spikes += int((~known).sum())
        self._pieces.append((times[known], rows[known].astype(np.int32), samples, values))

    def labels(self) -> Labels:
        """Everything so far.

        Samples of later pieces win over earlier ones at the same time; equal spikes count once.

        Raises:
            UsageError: nothing was added.
        """
        if not self._pieces:
            raise UsageError(
                "labels: expected labelled data, got none; call add with spikes and behaviour"
            )
        columns = zip(*self._pieces, strict=True)
        spikes, rows, times, values = (np.concatenate(list(column)) for column in columns)
        order = np.lexsort((rows, spikes))
        spikes, rows = spikes[order], rows[order]
        new = np.ones(len(spikes), np.bool_)
        new[1:] = (np.diff(spikes) > 0) | (np.diff(rows) != 0)
        # Of equal times, np.unique takes the first: look from the end.
        times, last = np.unique(times[::-1], return_index=True)
        values = values[::-1][last]
        stretches = self._stretches(times)
        heard = _heard_whole(times, stretches, self._window_s)
        return Labels(
            n_units=len(self._units),
            spike_times=spikes[new],
            spike_rows=rows[new],
            times=times[heard],
            values=values[heard],
            stretches=stretches,
        )

    def _stretches(self, times: Float64) -> Float64:
        """From the first to the last event of each piece, joined where pieces meet."""
        period = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        hole = max(min(4 * period, self._window_s / 4), _SMALLEST_GAP_S)
        spans = []
        for spikes, _, samples, _ in self._pieces:
            both = np.concatenate([spikes, samples])
            if len(both):
                spans.append((both.min(), both.max()))
        joined: list[list[float]] = []
        for start, end in sorted(spans):
            if joined and start - joined[-1][1] <= hole:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([start, end])
        return np.array(joined, np.float64).reshape(-1, 2)


def _heard_whole(times: Float64, stretches: Float64, window_s: float) -> Bool:
    inside = np.zeros(len(times), np.bool_)
    for start, end in stretches:
        inside |= (times - window_s >= start) & (times <= end)
    return inside


def _times(name: str, values: npt.ArrayLike) -> Float64:
    times = np.asarray(values)
    if times.ndim != 1 or (times.dtype.kind not in "fiu" and times.size):
        raise UsageError(
            f"{name}: expected a list of seconds, got shape {times.shape}, dtype {times.dtype}"
        )
    times = times.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        raise UsageError(
            f"{name}: expected finite seconds, got {len(bad)} NaN or infinite, the first at index "
            f"{bad[0]}; leave them out"
        )
    return times


def _values(behavior: npt.ArrayLike, n_samples: int, dim_out: int) -> Float64:
    try:
        values: npt.NDArray[Any] = np.asarray(behavior)
    except ValueError:  # Rows of different lengths.
        values = np.empty(0, object)
    if values.size == 0 or (values.ndim == 1 and dim_out == 1):
        values = values.reshape(-1, dim_out) if values.dtype.kind in "fiub" else values
    if values.dtype.kind not in "fiub" or values.shape != (n_samples, dim_out):
        got = values.shape if values.dtype.kind in "fiub" else "no table of numbers"
        raise UsageError(
            f"behavior: expected shape ({n_samples}, {dim_out}), one row for each time and one "
            f"column for each output of the model, got {got}"
        )
    values = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise UsageError(
            f"behavior: expected finite values, got {len(bad)} samples with NaN or Inf, the first "
            f"at index {bad[0]}; leave these samples out or interpolate them"
        )
    return values


def _require_overlap(spikes: Float64, samples: Float64, window_s: float) -> None:
    if not len(spikes) or not len(samples):
        return
    if samples[-1] < spikes.min() - window_s or samples[0] - window_s > spikes.max():
        raise UsageError(
            f"labels: expected spikes and behaviour of the same time, got spikes from "
            f"{spikes.min():.3f} to {spikes.max():.3f} s and behaviour from {samples[0]:.3f} to "
            f"{samples[-1]:.3f} s; give both on one clock"
        )


def _checked_ids(unit_ids: Sequence[str]) -> tuple[str, ...]:
    ids = tuple(unit_ids)
    if not ids:
        raise UsageError("unit_ids: expected at least one unit, got none")
    wrong = [unit for unit in ids if not isinstance(unit, str) or not unit]
    if wrong:
        raise UsageError(f"unit_ids: expected non-empty strings, got {wrong[0]!r}")
    repeated = (
        sorted({unit for unit in ids if ids.count(unit) > 1}) if len(set(ids)) < len(ids) else []
    )
    if repeated:
        raise UsageError(
            f"unit_ids: expected unique ids, got {repeated[0]!r} more than once; name each unit "
            f"differently"
        )
    return ids
