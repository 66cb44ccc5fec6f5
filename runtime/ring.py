"""Recent spikes in bounded memory: no allocation that grows with time, no loop over spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Rows

Times = npt.NDArray[Any]
"""(N,) float64 seconds or int64 ticks; one kind per ring."""


class SpikeRing:
    """The last ``capacity`` spikes that may still fall into a window.

    The buffer is twice as long as the capacity; when its end is reached the live part moves to
    the front, so that live spikes are always one contiguous piece, sorted by time. Late spikes
    are merged into its tail; spikes of one time stay in the order in which they came.
    """

    def __init__(self, capacity: int, dtype: type[np.float64] | type[np.int64]) -> None:
        self.capacity = capacity
        self._times = np.empty(2 * capacity, dtype)
        self._rows = np.empty(2 * capacity, np.int32)
        self._start = 0
        self._end = 0
        self.forgotten_until: Any = None
        """Time of the newest spike that a window has left behind, None without any."""
        self.lost_until: Any = None
        """Time of the newest spike that had to give way, None without any."""

    def __len__(self) -> int:
        return self._end - self._start

    def clear(self) -> None:
        """Forget everything."""
        self._start = self._end = 0
        self.forgotten_until = self.lost_until = None

    def append(self, times: Times, rows: Rows) -> int:
        """Add spikes (N,); the newest ``capacity`` of all are kept. Returns how many were lost.

        Args:
            times: (N,) of the ring's dtype, ascending, at least one.
            rows: (N,) integers.
        """
        lost = max(0, len(self) + len(times) - self.capacity)
        if len(times) > self.capacity:
            self._note_lost(times[-self.capacity - 1])
            times, rows = times[-self.capacity :], rows[-self.capacity :]
        n = len(times)
        if self._end + n > len(self._times):
            self._move_to_front()
        self._times[self._end : self._end + n] = times
        self._rows[self._end : self._end + n] = rows
        if len(self) and times[0] < self._times[self._end - 1]:
            self._merge_behind(times[0], self._end + n)
        self._end += n
        if len(self) > self.capacity:
            self._start = self._end - self.capacity
            self._note_lost(self._times[self._start - 1])
        return lost

    def window(self, start: Any, end: Any) -> tuple[Times, Rows]:
        """Copies of times and rows in ``[start, end)``, sorted; spikes before it are forgotten."""
        live = self._times[self._start : self._end]
        first, last = live.searchsorted([start, end])
        lo, hi = self._start + first, self._start + last
        if first:
            self.forgotten_until = self._times[lo - 1]
        self._start = int(lo)
        return self._times[lo:hi].copy(), self._rows[lo:hi].copy()

    def without_duplicates(self, times: Times, rows: Rows) -> npt.NDArray[np.bool_]:
        """(N,) bool: False for spikes that repeat a (time, row) here or earlier in the chunk.

        Args:
            times: (N,) ascending, at least one.
            rows: (N,) integers.
        """
        live = self._times[self._start : self._end]
        first = self._start + int(live.searchsorted(times[0]))
        last = self._start + int(live.searchsorted(times[-1], side="right"))
        known = last - first
        if known:
            times = np.concatenate([self._times[first:last], times])
            rows = np.concatenate([self._rows[first:last], rows])
        order = np.lexsort((rows, times))
        times, rows = times[order], rows[order]
        repeats = (times[1:] == times[:-1]) & (rows[1:] == rows[:-1])
        keep = np.ones(len(order), np.bool_)
        keep[order[1:][repeats]] = False
        return keep[known:]

    def remap(self, new_row: Rows) -> int:
        """Give every spike the row ``new_row[row]``; forget those with -1 and say how many."""
        live = slice(self._start, self._end)
        rows = new_row[self._rows[live]]
        kept = rows >= 0
        n = int(kept.sum())
        forgotten = len(self) - n
        self._times[:n] = self._times[live][kept]
        self._rows[:n] = rows[kept]
        self._start, self._end = 0, n
        return forgotten

    def _note_lost(self, newest: Any) -> None:
        self.lost_until = newest if self.lost_until is None else max(self.lost_until, newest)

    def _merge_behind(self, time: Any, end: int) -> None:
        """Sort everything after ``time``, up to ``end``; what came first stays first."""
        live = self._times[self._start : self._end]
        tail = slice(self._start + int(live.searchsorted(time, side="right")), end)
        order = np.argsort(self._times[tail], kind="stable")
        self._times[tail] = self._times[tail][order]
        self._rows[tail] = self._rows[tail][order]

    def _move_to_front(self) -> None:
        n = len(self)
        self._times[:n] = self._times[self._start : self._end]
        self._rows[:n] = self._rows[self._start : self._end]
        self._start, self._end = 0, n
