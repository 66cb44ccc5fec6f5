"""What a page keeps of the frames that it read: bounded, whatever the rate and however long.

Legend: F frames, D dimensions, U units, T bins of time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64

SHOWN_S = 10.0
"""Of traces and raster."""
LATENCY_S = 60.0
RATE_S = 10.0
"""Time constant of the rates of units."""
_MOST_FRAMES, _MOST_LATENCIES = 12_000, 60_000
_BIN_S = 0.025


class Newest:
    """The newest rows of a stream in one contiguous piece of memory.

    Args:
        most: rows that are kept.
        dtype: of a row.
    """

    def __init__(self, most: int, dtype: npt.DTypeLike) -> None:
        self._most, self._end, self._start = most, 0, 0
        self._rows = np.empty(2 * most, dtype)

    def __len__(self) -> int:
        return self._end - self._start

    @property
    def rows(self) -> npt.NDArray[Any]:
        """A view, oldest first; the next ``add`` may move what it shows."""
        return self._rows[self._start : self._end]

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Append; the oldest give way."""
        rows = rows[-self._most :]
        if self._end + len(rows) > len(self._rows):
            kept = self._rows[
                max(self._start, self._end - self._most + len(rows)) : self._end
            ].copy()
            self._rows[: len(kept)] = kept
            self._start, self._end = 0, len(kept)
        self._rows[self._end : self._end + len(rows)] = rows
        self._end += len(rows)
        self._start = max(self._start, self._end - self._most)

    def clear(self) -> None:
        """Forget all."""
        self._start = self._end = 0


class History:
    """The last seconds of a run.

    Args:
        rate_hz: windows per second.
        dtype: of a frame.
    """

    def __init__(self, rate_hz: float, dtype: np.dtype[Any]) -> None:
        self.rate_hz = rate_hz
        most = min(_MOST_FRAMES, math.ceil(rate_hz * SHOWN_S * 1.2))
        self._frames = Newest(most, dtype)
        self._latency = Newest(min(_MOST_LATENCIES, math.ceil(rate_hz * LATENCY_S)), np.float64)
        self.n_units = dtype["counts"].shape[0]
        self.rates = np.zeros(self.n_units)
        """(U,) spikes per second, over about ``RATE_S``."""
        self._weight = 0.0
        self._swaps = -1
        self._epoch = -1
        self.n_frames = 0
        self.extent = 1.0
        """No cursor or target was further from the middle, in either direction."""

    @property
    def frames(self) -> npt.NDArray[Any]:
        """(F,) the newest ones of one clock, oldest first; a view."""
        return self._frames.rows

    @property
    def last(self) -> Any:
        """The newest frame; None before the first."""
        return self._frames.rows[-1] if len(self._frames) else None

    @property
    def latency_ms(self) -> Float64:
        """Spike in → value out of the last ``LATENCY_S``; a view."""
        return self._latency.rows

    def add(self, frames: npt.NDArray[Any]) -> None:
        """Take frames (F,) that were just read."""
        if not len(frames):
            return
        self.n_frames += len(frames)
        if int(frames["epoch"][-1]) != self._epoch:  # times of another clock have no place here
            self._epoch = int(frames["epoch"][-1])
            self._frames.clear()
            frames = frames[frames["epoch"] == self._epoch]
        self._frames.add(frames)
        new = frames["in_to_out_ns"]
        self._latency.add(new[new >= 0] / 1e6)
        self._note_rates(frames)
        around = np.nan_to_num(frames["radius"])[:, None]
        for far in (np.abs(frames["cursor"][:, :2]), np.abs(frames["target"][:, :2]) + around):
            if np.isfinite(far).any():
                self.extent = max(self.extent, float(np.nanmax(far)))

    def percentile_ms(self, percent: float) -> float:
        """Of the latencies; NaN without any."""
        values = self._latency.rows
        return float(np.percentile(values, percent)) if len(values) else math.nan

    def raster(self) -> npt.NDArray[np.uint8]:
        """(U, T) spikes of each unit in bins of 25 ms, the newest on the right."""
        n_bins = round(SHOWN_S / _BIN_S)
        counts = np.zeros((n_bins, self.n_units), np.uint16)
        frames = self._frames.rows
        if len(frames):
            behind = (frames["t_s"][-1] - frames["t_s"]) / _BIN_S
            at = n_bins - 1 - np.floor(behind + 1e-6).astype(np.int64)
            inside = at >= 0
            np.add.at(counts, at[inside], frames["counts"][inside])
        return np.minimum(counts, 255).astype(np.uint8).T

    def trace(self, most: int = 500) -> tuple[Float64, Float64]:
        """Seconds (F,) before the newest frame, below 0, and values (F, D); at most so many."""
        frames = self._thinned(most)
        return frames["t_s"] - self._end_s, np.asarray(frames["value"])

    def truth(self, most: int = 500) -> tuple[Float64, Float64]:
        """The same of behaviour that came as labels; empty where none does."""
        frames = self._thinned(most)
        frames = frames[np.isfinite(frames["label_t_s"])]
        times = frames["label_t_s"]
        new = np.diff(times, prepend=-np.inf) > 0
        return times[new] - self._end_s, np.asarray(frames["label"][new])

    def path(self, seconds: float) -> Float64:
        """Positions (F, 2) of the cursor of the last seconds, oldest first."""
        frames = self._frames.rows
        if not len(frames):
            return np.empty((0, 2))
        lately = frames[frames["t_s"] > frames["t_s"][-1] - seconds]
        here = lately["cursor"][:, :2]
        return np.asarray(here[np.isfinite(here[:, 0]) & (lately["cursor_dims"] >= 2)])

    @property
    def _end_s(self) -> float:
        frames = self._frames.rows
        return float(frames["t_s"][-1]) if len(frames) else 0.0

    def _thinned(self, most: int) -> npt.NDArray[Any]:
        frames = self._frames.rows
        lately = frames[frames["t_s"] >= self._end_s - SHOWN_S] if len(frames) else frames
        step = max(1, -(-len(lately) // most))
        return lately[(len(lately) - 1) % step :: step] if len(lately) else lately

    def _note_rates(self, frames: npt.NDArray[Any]) -> None:
        swaps = int(frames["swaps"][-1])
        if swaps != self._swaps:  # rows are of other units
            self._swaps = swaps
            self.rates[:], self._weight = 0.0, 0.0
            frames = frames[frames["swaps"] == swaps]
        # One piece of time: exact enough as long as pages look more often than RATE_S.
        span_s = len(frames) / self.rate_hz
        kept = math.exp(-span_s / RATE_S)
        self._weight = kept * self._weight + 1 - kept
        share = (1 - kept) / self._weight
        self.rates += share * (frames["counts"].sum(0) / span_s - self.rates)
