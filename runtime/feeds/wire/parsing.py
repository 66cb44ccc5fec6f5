"""Bytes of a peer → packets. Whatever the bytes are, the answer is a packet or None."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MOST_SPIKES = 1 << 16
"""More in one message are not meant."""
MOST_TICKS = 2.0**62


class Parsed(NamedTuple):
    """One message."""

    ticks: npt.NDArray[np.int64]
    """(N,)."""
    units: npt.NDArray[np.str_]
    """(N,) names; empty for behaviour."""
    values: npt.NDArray[np.float64] | None
    """(N, D) behaviour, or None."""
    sync: Any


def parse_json(data: bytes, tick_rate_hz: float) -> Parsed | None:
    """One JSON object: ``{"t": [...], "units": [...]}`` or ``{"t": [...], "behavior": [[...]]}``.

    ``t`` is in seconds; ``ticks`` instead of it are integers. Single values may stand for lists;
    ``sync`` is passed through.

    Returns:
        None if it is anything else.
    """
    try:
        message = json.loads(data)
        if not isinstance(message, dict):
            return None
        ticks = _ticks(message, tick_rate_hz)
        if ticks is None or len(ticks) > MOST_SPIKES:
            return None
        sync = message.get("sync")
        if "behavior" in message:
            values = np.asarray(message["behavior"], dtype=np.float64)
            if values.ndim == 1:
                values = values.reshape(len(ticks), -1)
            if values.ndim != 2 or len(values) != len(ticks) or not np.isfinite(values).all():
                return None
            return Parsed(ticks, np.empty(0, np.str_), values, sync)
        units = message.get("units")
        names = [units] if isinstance(units, str) else units
        if not isinstance(names, list) or len(names) != len(ticks):
            return None
        if not all(isinstance(name, str) and len(name) <= 256 for name in names):
            return None
        return Parsed(ticks, np.array(names, dtype=np.str_), None, sync)
    except (ValueError, TypeError, RecursionError, OverflowError, MemoryError):
        return None


def spread_counts(
    counts: npt.NDArray[Any], end_tick: int, bin_ticks: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Spikes of a bin of counts, evenly over the bin: ticks (N,) and channel numbers (N,).

    Args:
        counts: (C,) numbers of spikes in ``[end_tick - bin_ticks, end_tick)``.
        end_tick: end of the bin.
        bin_ticks: its length.
    """
    whole = np.clip(np.nan_to_num(np.asarray(counts, np.float64)), 0, 1000).astype(np.int64)
    channels = np.repeat(np.arange(len(whole)), whole)
    first = np.concatenate([[0], np.cumsum(whole)[:-1]]) if len(whole) else whole
    place = np.arange(len(channels)) - first[channels] + 0.5
    offset = (place / whole[channels] * bin_ticks).astype(np.int64)
    return end_tick - int(np.ceil(bin_ticks)) + offset, channels


def _ticks(message: dict[str, Any], rate: float) -> npt.NDArray[np.int64] | None:
    exact = "ticks" in message
    given = message.get("ticks" if exact else "t")
    array = np.atleast_1d(np.asarray(given))
    if array.ndim != 1 or array.dtype.kind not in ("iu" if exact else "iuf"):
        return None if array.size or given != [] else np.empty(0, np.int64)
    if exact:
        return array.astype(np.int64) if not (array.astype(np.float64) > MOST_TICKS).any() else None
    seconds = array.astype(np.float64)
    if not (np.isfinite(seconds).all() and (np.abs(seconds) < MOST_TICKS / rate).all()):
        return None
    return _to_ticks(seconds, rate)


def _to_ticks(seconds: npt.NDArray[np.float64], rate: float) -> npt.NDArray[np.int64]:
    """Whole seconds and the rest apart, so that nothing is lost at high rates."""
    whole = np.floor(seconds)
    if float(rate).is_integer():
        rest = np.rint((seconds - whole) * rate).astype(np.int64)
        return np.asarray(whole.astype(np.int64) * np.int64(rate) + rest)
    return np.rint(seconds * rate).astype(np.int64)
