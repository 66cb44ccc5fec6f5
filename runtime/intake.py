"""What happens to each spike on its way in: the rules, and a counter for every rule."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Rows
from poyo_edge.errors import UsageError
from poyo_edge.runtime.ring import SpikeRing, Times

_MOST_TARDY, _LEAST_TARDY = 0.1, 3
"""Share of spikes that may be tardy; few of them say nothing."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class Counters:
    """How many spikes met each rule since the decoder was opened."""

    received: int = 0
    accepted: int = 0
    unknown_unit: int = 0
    """Unit not in the session: ignored."""
    late: int = 0
    """Older than every window still to come: ignored."""
    delayed: int = 0
    """Arrived after a window that should have held it was decoded: used in later windows."""
    future: int = 0
    """Further ahead of the last decoded time than ``future_limit_s``: ignored."""
    duplicate: int = 0
    """Same unit and same time as one already there: ignored."""
    not_finite: int = 0
    """Time is NaN or Inf: ignored."""
    overflow: int = 0
    """Pushed out of the full ring by newer spikes before its windows were over."""
    over_budget: int = 0
    """In a window, but more than ``max_spikes`` newer ones were there too (per window)."""
    stale_rows: int = 0
    """Integers that nothing says are rows of the session in use: ignored, as ``unknown_unit``."""
    session_change: int = 0
    """In the ring, of a unit that the session swapped in does not have: forgotten."""
    clock_resets: int = 0
    """The clock went back or jumped ahead of everything heard: the window started anew."""
    gaps: int = 0
    """A window was decoded that begins in a silence longer than itself, and ends after it."""
    backend_failures: int = 0
    """The backend raised or gave NaN or Inf."""

    def to_json(self) -> dict[str, int]:
        """Name → count."""
        return dataclasses.asdict(self)


class LateWatch:
    """Whether many of the spikes that came within about a window came too late for theirs."""

    def __init__(self) -> None:
        self.tardy = 0
        """Spikes since the last window that came more than a tenth of a window late."""
        self._at: Any = None
        self._received = 0
        self._came = self._came_tardy = 0.0

    def look(self, now: Any, window: Any, received: int) -> bool:
        """Follow what came up to ``now``; called once a window."""
        tardy, self.tardy = self.tardy, 0
        if self._at is not None:
            kept = math.exp(-max(0.0, float(now - self._at)) / float(window))
            self._came = kept * self._came + received - self._received
            self._came_tardy = kept * self._came_tardy + tardy
        self._at, self._received = now, received
        return self._came_tardy > max(_MOST_TARDY * self._came, _LEAST_TARDY)


class Intake:
    """Checks chunks of spikes and keeps the good ones. Not thread-safe: the decoder locks.

    Args:
        ring: where accepted spikes go.
        window: length of the window, in the ring's unit of time.
        future_limit: how far ahead of the last decoded time a spike may be, same unit.
    """

    def __init__(self, ring: SpikeRing, window: float, future_limit: float) -> None:
        self.ring = ring
        self.counters = Counters()
        self.window = window
        self.future_limit = future_limit
        self.decoded_until: Any = None
        """End of the last decoded window."""
        self.covered_since: Any = None
        """From when on the stream has been heard."""
        self.newest: Any = None
        """Time of the newest spike heard."""
        self.refused_at: Any = None
        """End of the first window after integers were last refused as rows of another session."""
        self._refused = False
        self._gap_end: Any = None
        self.lateness = LateWatch()

    def add(self, times: Times, rows: Rows, n_units: int) -> None:
        """Apply the rules to a chunk of spikes, times (N,) and rows (N,)."""
        n, counters = len(times), self.counters
        counters.received += n
        if not n:
            return
        strictly = n == 1 or bool((times[1:] > times[:-1]).all())
        ascending = strictly or bool((times[1:] >= times[:-1]).all())
        known = bool(rows.view(np.uint32).max() < n_units)
        if not (ascending and known and self._in_reach(times[0], times[-1])):
            times, rows = self._sifted(times, rows, n_units)
            strictly = False
        if len(times) and not (strictly and self._newer_than_all(times[0])):
            unique = self.ring.without_duplicates(times, rows)
            counters.duplicate += int((~unique).sum())
            times, rows = times[unique], rows[unique]
        if not len(times):
            return
        if self.decoded_until is not None and times[0] < self.decoded_until:
            counters.delayed += int(times.searchsorted(self.decoded_until))
            self.lateness.tardy += int(times.searchsorted(self.decoded_until - self.window / 10))
        self._note_heard(times[0], times[-1])
        counters.accepted += len(times)
        counters.overflow += self.ring.append(times, rows)

    def reset(self, t: Any) -> None:
        """Forget all spikes; the stream counts as heard from ``t`` on."""
        self.ring.clear()
        self.covered_since = t
        self.newest = self.refused_at = None
        self.lateness = LateWatch()

    @property
    def silent_since(self) -> Any:
        """Time of the newest spike that windows have left behind; without any, of the start."""
        left = self.ring.forgotten_until
        return self.covered_since if left is None else left

    def reservations(self, now: Any, times: Times) -> list[str]:
        """Flags of the window with spikes at (N,) times that ends at ``now``."""
        found = ["gap"] * self._after_gap(times) + ["stale_rows"] * self._lacks_refused(now)
        late = self.lateness.look(now, self.window, self.counters.received)
        return found + ["delayed"] * late

    def _after_gap(self, times: Times) -> bool:
        """Whether the first spike of a window, (N,) times, ended a silence longer than a window."""
        before = self.ring.forgotten_until
        if not len(times) or before is None or times[0] - before <= self.window:
            return False
        self.counters.gaps += bool(times[0] != self._gap_end)
        self._gap_end = times[0]
        return True

    def refuse(self, rows: Rows, in_use: str, opened_with: str) -> Rows:
        """Integers (N,) that may be rows of another session, as unknown units (N,)."""
        if len(rows) and not self.counters.stale_rows:
            _log.error(
                "push: expected unit ids or what rows(unit_ids) gives, as session %r has other "
                "units than %r, got plain integers, which are left out; push "
                "rows(unit_ids)[integers]", in_use, opened_with,
            )  # fmt: skip
        self._refused = self._refused or len(rows) > 0
        self.counters.stale_rows += len(rows)
        return np.full(len(rows), -1, np.int32)

    def _lacks_refused(self, now: Any) -> bool:
        """Whether rows were refused that the window ending at ``now`` may lack."""
        if self._refused:
            self._refused, self.refused_at = False, now
        return self.refused_at is not None and bool(now - self.refused_at < self.window)

    def _in_reach(self, first: Any, last: Any) -> bool:
        """Whether an ascending chunk is finite and neither late nor future."""
        if not (math.isfinite(first) and math.isfinite(last)):
            return False
        if self.decoded_until is None:
            return True
        earliest = self.decoded_until - self.window
        return bool(first >= earliest and last <= self.decoded_until + self.future_limit)

    def _newer_than_all(self, first: Any) -> bool:
        return self.newest is None or bool(first > self.newest)

    def _sifted(self, times: Times, rows: Rows, n_units: int) -> tuple[Times, Rows]:
        """What is finite, known, not late and not future, in the order of time."""
        counters = self.counters
        finite = np.isfinite(times)
        known = (rows >= 0) & (rows < n_units)
        counters.not_finite += int((~finite).sum())
        counters.unknown_unit += int((finite & ~known).sum())
        keep = finite & known
        if self.decoded_until is not None:
            late = keep & (times < self.decoded_until - self.window)
            future = keep & (times > self.decoded_until + self.future_limit)
            counters.late += int(late.sum())
            self.lateness.tardy += int(late.sum())
            counters.future += int(future.sum())
            keep &= ~(late | future)
        times, rows = times[keep], rows[keep]
        order = np.argsort(times, kind="stable")
        return times[order], rows[order]

    def _note_heard(self, first: Any, last: Any) -> None:
        if self.covered_since is None or first < self.covered_since:
            self.covered_since = first
        self.newest = last if self.newest is None else max(self.newest, last)


def as_times(times: npt.ArrayLike, dtype: type[np.float64] | type[np.int64]) -> Times:
    """Times as the ring's dtype, (N,).

    Raises:
        UsageError: not one-dimensional, or float where ticks are wanted, or the reverse, or
            float32 (absolute time in float32 is wrong after seconds).
    """
    array = np.asarray(times)
    if array.dtype == dtype and array.ndim == 1:
        return array
    if array.ndim != 1:
        raise UsageError(f"times: expected shape (N,), got {array.shape}")
    if array.size == 0:
        return np.empty(0, dtype)
    kind = array.dtype.kind
    if dtype is np.int64:
        if kind in "iu" and int(array.max()) <= np.iinfo(np.int64).max:
            return array.astype(np.int64)
        raise UsageError(
            f"times: expected integer ticks (the decoder was opened with tick_rate_hz), "
            f"got {array.dtype}"
        )
    if kind in "iu":
        raise UsageError(
            f"times: expected float64 seconds, got {array.dtype}; "
            f"open the decoder with tick_rate_hz to push integer ticks"
        )
    raise UsageError(
        f"times: expected float64 seconds, got {array.dtype}; float32 seconds have lost what the "
        f"model needs, so keep them float64 from their source on"
    )


class SessionRows(np.ndarray[Any, np.dtype[np.int32]]):
    """Rows (N,) int32 that know of whose units they are; so do what indexing and copies make of
    them. ``np.asarray`` and ``tolist`` give plain integers."""

    table: UnitTable | None = None

    def __array_finalize__(self, made_from: Any) -> None:
        self.table = getattr(made_from, "table", None)


def are_plain_rows(units: npt.ArrayLike) -> bool:
    """Whether units are integers that do not say of whose units they are rows."""
    if isinstance(units, SessionRows) and units.table is not None:
        return False
    return np.asarray(units).dtype.kind in "iu"


class UnitTable:
    """Unit ids of a session, for vectorised look-up."""

    def __init__(self, unit_ids: Sequence[str]) -> None:
        self.unit_ids = tuple(unit_ids)
        ids = np.array(self.unit_ids, dtype=np.str_)
        order = np.argsort(ids, kind="stable")
        self._sorted, self._row = ids[order], order.astype(np.int32)
        self._from: tuple[UnitTable, Rows | None] | None = None

    def __len__(self) -> int:
        return len(self.unit_ids)

    def rows(self, unit_ids: npt.ArrayLike) -> SessionRows:
        """Rows of the ids, (N,) int32; -1 for ids that the session does not have."""
        return self.own(self._found(unit_ids))

    def own(self, rows: Rows) -> SessionRows:
        """Rows (N,) of this table as rows that say so."""
        owned = rows.view(SessionRows)
        owned.table = self
        return owned

    def _found(self, unit_ids: npt.ArrayLike) -> Rows:
        wanted = np.asarray(unit_ids, dtype=np.str_)
        at = np.minimum(self._sorted.searchsorted(wanted), len(self._sorted) - 1)
        return np.where(self._sorted[at] == wanted, self._row[at], np.int32(-1)).astype(np.int32)

    def as_rows(self, units: npt.ArrayLike) -> Rows:
        """Rows (N,) int32 from rows or ids. Rows of other units are looked up by their ids.

        Raises:
            UsageError: not one-dimensional, or neither integers nor strings.
        """
        array = np.asarray(units)
        if isinstance(units, SessionRows) and units.table not in (None, self):
            array = self._moved(array.astype(np.int32), units.table)
        if array.dtype == np.int32 and array.ndim == 1:
            return array
        if array.ndim != 1:
            raise UsageError(f"units: expected shape (N,), got {array.shape}")
        if array.size == 0:
            return np.empty(0, np.int32)
        if array.dtype.kind in "iu":
            narrow = array.astype(np.int32)
            fits = narrow == array
            return narrow if fits.all() else np.where(fits, narrow, np.int32(-1))
        if array.dtype.kind == "S":
            return self._found(np.char.decode(array, "utf-8", "replace"))
        if array.dtype.kind in "UO":
            return self._found(array.astype(np.str_))
        raise UsageError(f"units: expected integer rows or string ids, got {array.dtype}")

    def _moved(self, rows: Rows, table: UnitTable) -> Rows:
        """Rows (N,) of another table's units in this one; -1 for what is not in both."""
        known = self._from  # replaced as a whole, as other threads look units up too
        if known is None or known[0] is not table:
            same = table.unit_ids == self.unit_ids
            self._from = known = table, None if same else self._found(table.unit_ids)
        row = known[1]
        if row is None or not len(row):
            return rows
        inside = (rows >= 0) & (rows < len(row))
        return np.where(inside, row[np.where(inside, rows, 0)], np.int32(-1)).astype(np.int32)
