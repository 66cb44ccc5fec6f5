"""The newest minutes of what a decode loop heard, showed and decoded.

Legend: N samples or spikes; two dimensions.
"""

from __future__ import annotations

import numpy as np

from poyo_edge.arrays import Float64, Rows
from poyo_edge.columns import Columns

STALE_S = 0.25
"""A cursor that was told longer ago is not known; values further apart have a hole between."""
_MOST_SPIKES = 20_000_000
_SPIKE = np.dtype([("tick", "<i8"), ("row", "<i4")])
_PLACE = np.dtype([("tick", "<i8"), ("at", "<f8", (2,))])


class Kept:
    """What the loop brought, the newest minutes of it."""

    def __init__(self, next_s: float) -> None:
        self.spikes = Columns(_SPIKE, most=_MOST_SPIKES)
        self.cursor, self.values = Columns(_PLACE), Columns(_PLACE)
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
        """What is older than a tick."""
        for one in (self.spikes, self.cursor, self.values):
            one.forget(before)

    def heard(self, rate: float) -> tuple[Float64, Rows]:
        """All spikes: seconds (N,) and rows (N,)."""
        spikes = self.spikes.rows()
        return spikes["tick"] / rate, np.ascontiguousarray(spikes["row"])

    def used(self, rate: float) -> tuple[Float64, Float64, Float64]:
        """Times (N,), cursor (N, 2) and decoded values (N, 2), where both are known."""
        cursor, values = self.cursor.rows(), self.values.rows()[::-1]
        at, first = np.unique(cursor["tick"], return_index=True)
        places = cursor["at"][first]
        told, last = np.unique(values["tick"], return_index=True)
        decoded = values["at"][last]
        after = np.clip(np.searchsorted(at, told), 1, max(1, len(at) - 1))
        near = (told >= at[0]) & (told <= at[-1] + STALE_S * rate)
        near &= at[np.minimum(after, len(at) - 1)] - at[after - 1] <= STALE_S * rate
        shown = np.stack([np.interp(told, at, places[:, i]) for i in range(2)], axis=1)
        return told[near] / rate, shown[near], decoded[near]
