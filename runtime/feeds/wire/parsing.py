"""Bytes of a peer → packets. Whatever the bytes are, the answer is a packet or ``Malformed``."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MOST_SPIKES = 1 << 16
"""More in one message are not meant."""
MOST_IN_BIN = 1000
"""No channel has more spikes in a bin."""
MOST_TICKS = 2.0**62
_LIKE = 'like {"t": [1.5], "units": ["ch1"]}'
_SHOWN = 60


class Malformed(ValueError):
    """Bytes of a peer that cannot be meant: expected, got, what to do."""


class Parsed(NamedTuple):
    """One message."""

    ticks: npt.NDArray[np.int64]
    """(N,)."""
    units: npt.NDArray[np.str_]
    """(N,) names; empty for behaviour."""
    values: npt.NDArray[np.float64] | None
    """(N, D) behaviour, or None."""
    sync: Any
    seq: int | None = None
    """The sender's number of the message, where it numbers them."""


def parse_json(data: bytes, tick_rate_hz: float) -> Parsed | None:
    """What ``read_json`` reads, or None where it cannot."""
    try:
        return read_json(data, tick_rate_hz)
    except Malformed:
        return None


def read_json(data: bytes, tick_rate_hz: float) -> Parsed:
    """One JSON object: ``{"t": [...], "units": [...]}`` or ``{"t": [...], "behavior": [[...]]}``.

    ``t`` is in seconds; ``ticks`` instead of it are integers. Single values may stand for lists;
    ``sync`` is passed through, and ``seq`` counts the sender's messages.

    Raises:
        Malformed: it is anything else.
    """
    return read_packet(load_json(data), data, tick_rate_hz)


def load_json(data: bytes) -> Any:
    """The JSON value of bytes.

    Raises:
        Malformed: they are none.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed(f"expected a JSON object, got {shown(data)}; send one, {_LIKE}") from None


def read_packet(message: Any, data: bytes, tick_rate_hz: float) -> Parsed:
    """The packet that a JSON value is, which came as ``data``.

    Raises:
        Malformed: see ``read_json``.
    """
    try:
        return _parsed(message, tick_rate_hz)
    except Malformed as error:
        raise Malformed(f"{error}, in {shown(data)}") from None
    except (ValueError, TypeError, RecursionError, OverflowError, MemoryError):
        raise Malformed(f"expected lists of numbers, got {shown(data)}; send {_LIKE}") from None


def shown(data: object) -> str:
    """An example of what came, short."""
    text = data[:_SHOWN].decode("utf-8", "backslashreplace") if isinstance(data, bytes) else data
    text = text if isinstance(text, str) else repr(text)
    return text if len(text) < _SHOWN else f"{text[:_SHOWN]}…"


def _parsed(message: Any, rate: float) -> Parsed:
    if not isinstance(message, dict):
        raise Malformed(f"expected a JSON object, {_LIKE}, got another value")
    ticks, sync, seq = times_of(message, rate), message.get("sync"), sequence_number(message)
    if "behavior" in message:
        values = np.asarray(message["behavior"], dtype=np.float64)
        if values.ndim == 1:
            values = values.reshape(len(ticks), -1)
        if values.ndim != 2 or len(values) != len(ticks) or not np.isfinite(values).all():
            raise Malformed("behavior: expected finite numbers, a row for each time, got others")
        return Parsed(ticks, np.empty(0, np.str_), values, sync, seq)
    return Parsed(ticks, _unit_names(message.get("units"), len(ticks)), None, sync, seq)


def sequence_number(message: dict[str, Any]) -> int | None:
    """The sender's number of a message; None where it has none.

    Raises:
        Malformed: it is no number.
    """
    seq: Any = message.get("seq")
    if seq is None or (type(seq) is int and 0 <= seq < 1 << 63):
        return seq
    raise Malformed("seq: expected a whole number that goes up by one, got another value")


def _unit_names(units: Any, n: int) -> npt.NDArray[np.str_]:
    names = [units] if isinstance(units, str) else units
    if not isinstance(names, list):
        raise Malformed('units: expected names, like ["ch1"], got none; send "units"')
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise Malformed(
            f"units: expected names (text), got {wrong[0]!r:.40}; send the units' names, not "
            f"their rows"
        )
    if len(names) != n:
        raise Malformed(f"units: expected one for each of {n} times, got {len(names)}")
    if any(len(name) > 256 for name in names):
        raise Malformed("units: expected names of at most 256 characters, got a longer one")
    return np.array(names, dtype=np.str_)


def first_no_count(counts: npt.NDArray[Any]) -> int | None:
    """The first channel of counts (C,) whose number can be no number of spikes."""
    whole = counts.dtype.kind in "iu" and len(counts)  # the usual case, which costs little:
    if whole and counts.min() >= 0 and counts.max() <= MOST_IN_BIN:  # one comes each millisecond
        return None
    values = np.asarray(counts, np.float64)
    wrong = ~(np.isfinite(values) & (values >= 0) & (values <= MOST_IN_BIN))
    wrong |= np.nan_to_num(values) % 1 != 0
    return int(np.flatnonzero(wrong)[0]) if wrong.any() else None


def spread_counts(
    counts: npt.NDArray[Any], end_tick: int, bin_ticks: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Spikes of a bin of counts, evenly over the bin: ticks (N,) and channel numbers (N,).

    Args:
        counts: (C,) numbers of spikes in ``[end_tick - bin_ticks, end_tick)``.
        end_tick: end of the bin.
        bin_ticks: its length.
    """
    counts = counts.astype(np.int64) if counts.dtype.kind in "iu" else np.nan_to_num(counts)
    fired = np.flatnonzero(counts > 0)
    whole = np.minimum(counts[fired], MOST_IN_BIN).astype(np.int64)
    if not len(fired) or whole.max() == 1:  # the usual case: none has to be put beside another
        channels, n = fired[whole > 0], whole[whole > 0]
        place = np.full(len(channels), 0.5)
    else:
        channels, n = np.repeat(fired, whole), np.repeat(whole, whole)
        place = np.arange(len(channels)) - np.repeat(np.cumsum(whole) - whole, whole) + 0.5
    offset = (place / n * bin_ticks).astype(np.int64)
    return end_tick - int(np.ceil(bin_ticks)) + offset, channels


def times_of(message: dict[str, Any], rate: float) -> npt.NDArray[np.int64]:
    """Ticks (N,) of a message that has ``ticks``, or ``t`` in seconds.

    Raises:
        Malformed: it has neither, or they cannot be.
        ValueError, TypeError, OverflowError: they are no numbers.
    """
    exact = "ticks" in message
    if not exact and "t" not in message:
        raise Malformed('expected times, "t" in seconds or "ticks", got neither')
    given = message.get("ticks" if exact else "t")
    array = np.atleast_1d(np.asarray(given))
    if not array.size and given == []:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in ("iu" if exact else "iuf"):
        if exact and array.size and array.dtype.kind == "f":
            raise Malformed(
                f"ticks: expected whole numbers of the device's counter, got {array.flat[0]!s}; "
                f'send seconds as "t"'
            )
        raise Malformed("times: expected numbers, got others")
    if len(array) > MOST_SPIKES:
        raise Malformed(f"times: expected at most {MOST_SPIKES}, got {len(array)}")
    if exact:
        if (np.abs(array.astype(np.float64)) > MOST_TICKS).any():
            raise Malformed("ticks: expected at most 2^62, got more")
        ticks = array.astype(np.int64)
        _require_one_rate(message.get("t"), ticks, rate)
        return ticks
    seconds = array.astype(np.float64)
    if not (np.isfinite(seconds).all() and (np.abs(seconds) < MOST_TICKS / rate).all()):
        raise Malformed(f"t: expected seconds below {MOST_TICKS / rate:.3g}, got others")
    return _to_ticks(seconds, rate)


def _require_one_rate(t: Any, ticks: npt.NDArray[np.int64], rate: float) -> None:
    """Times that are given twice must say the same: their spans are compared."""
    if t is None:
        return
    seconds = np.atleast_1d(np.asarray(t, np.float64))
    if seconds.shape != ticks.shape or not np.isfinite(seconds).all():
        raise Malformed("expected as many t as ticks, got others; send one of the two")
    span, passed = int(ticks.max() - ticks.min()), float(np.ptp(seconds))
    if abs(span - passed * rate) > 2 + 0.01 * span:
        raise Malformed(
            f"ticks: expected {rate:g} for each second of t, got {span / passed if passed else 0:g}"
            f"; state the rate of the counter in the address (?rate=), or send one of the two"
        )


def _to_ticks(seconds: npt.NDArray[np.float64], rate: float) -> npt.NDArray[np.int64]:
    """Whole seconds and the rest apart, so that nothing is lost at high rates."""
    whole = np.floor(seconds)
    if float(rate).is_integer():
        rest = np.rint((seconds - whole) * rate).astype(np.int64)
        return np.asarray(whole.astype(np.int64) * np.int64(rate) + rest)
    return np.rint(seconds * rate).astype(np.int64)
