"""The newest minutes of what a decode loop heard, showed and decoded.

Legend: N samples or spikes; two dimensions.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from poyo_edge.arrays import Float64, Int64, Rows

STALE_S = 0.25
"""A cursor that was told longer ago is not known; values further apart have a hole between."""
_MOST_SPIKES = 20_000_000


class Kept:
    """What the loop brought, the newest minutes of it."""

    def __init__(self, next_s: float) -> None:
        self.spikes: deque[tuple[Int64, Rows]] = deque()
        self.cursor: deque[tuple[Int64, Float64]] = deque()
        self.values: deque[tuple[int, Float64]] = deque()
        self.n_spikes = 0
        self.cursor_tick, self.value_tick = -(1 << 62), -(1 << 62)
        self.used_s, self.next_s = 0.0, next_s
        self.stale = False
        """Set when another session was taken: what came through the one before is done with."""

    def copy(self) -> Kept:
        """What is there now; at once."""
        other = Kept(self.next_s)
        other.spikes, other.cursor, other.values = (
            self.spikes.copy(), self.cursor.copy(), self.values.copy(),
        )  # fmt: skip
        return other

    def forget(self, before: int) -> None:
        """What is older than a tick, or more than fits."""
        while self.values and self.values[0][0] < before:
            self.values.popleft()
        while self.cursor and (not len(self.cursor[0][0]) or self.cursor[0][0].max() < before):
            self.cursor.popleft()
        while self.spikes and (
            not len(self.spikes[0][0])
            or self.spikes[0][0].max() < before
            or self.n_spikes > _MOST_SPIKES
        ):
            self.n_spikes -= len(self.spikes.popleft()[0])

    def heard(self, rate: float) -> tuple[Float64, Rows]:
        """All spikes: seconds (N,) and rows (N,)."""
        ticks, rows = zip(*self.spikes, strict=True)
        return np.concatenate(ticks) / rate, np.concatenate(rows)

    def used(self, rate: float) -> tuple[Float64, Float64, Float64]:
        """Times (N,), cursor (N, 2) and decoded values (N, 2), where both are known."""
        ticks = np.concatenate([ticks for ticks, _ in self.cursor])
        places = np.concatenate([places for _, places in self.cursor])
        at, first = np.unique(ticks, return_index=True)
        places = places[first]
        values = dict(self.values)
        told = np.array(sorted(values), np.int64)
        decoded = np.stack([values[tick] for tick in told.tolist()]).astype(np.float64)
        after = np.clip(np.searchsorted(at, told), 1, max(1, len(at) - 1))
        near = (told >= at[0]) & (told <= at[-1] + STALE_S * rate)
        near &= at[np.minimum(after, len(at) - 1)] - at[after - 1] <= STALE_S * rate
        cursor = np.stack([np.interp(told, at, places[:, i]) for i in range(2)], axis=1)
        return told[near] / rate, cursor[near], decoded[near]
