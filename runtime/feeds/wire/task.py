"""Messages about a task: a trial, or where the cursor is. They hold the same in every transport.

A trial is an object of ``number`` and any of ``start``, ``go_time``, ``end`` (ticks, or "now"),
``start_s``, ``go_time_s``, ``end_s`` (seconds instead), ``target``, ``radius`` and ``success``.
The cursor is an object of ``pos`` with ``ticks`` or ``t``, or without a time: then it is one
position of now.

Legend: N samples, D dimensions.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poyo_edge.records import is_number
from poyo_edge.runtime.feeds.wire.parsing import (
    MOST_TICKS,
    Malformed,
    Parsed,
    load_json,
    read_packet,
    sequence_number,
    shown,
    times_of,
)
from poyo_edge.trials import MOST_DIMS, NOW, TIMES, TrialUpdate

_SECONDS = {f"{name}_s": name for name in TIMES}
_TRIAL_KEYS = ("number", *TIMES, *_SECONDS, "target", "radius", "success")
_CURSOR_KEYS = ("ticks", "t", "pos")
_LIKE_TRIAL = '{"number": 7, "start": "now", "target": [8.0, 0.0]}'
_LIKE_CURSOR = '{"ticks": [480000], "pos": [[1.5, -3.0]]}'
_MOST_NUMBER = 1 << 62


class CursorAt(NamedTuple):
    """Where the cursor was."""

    ticks: npt.NDArray[np.int64] | None
    """(N,); None is now, of one position."""
    positions: npt.NDArray[np.float64]
    """(N, D) finite."""


class TaskMessage(NamedTuple):
    """One message about a task: either a trial or the cursor."""

    trial: TrialUpdate | None
    cursor: CursorAt | None
    seq: int | None = None


def read_message(data: bytes, rate_hz: float) -> Parsed | TaskMessage:
    """One JSON object: a packet as ``read_packet`` reads it, ``{"trial": {…}}`` or
    ``{"cursor": {…}}``.

    Raises:
        Malformed: it is anything else.
    """
    message = load_json(data)
    if not isinstance(message, dict) or not {"trial", "cursor"} & set(message):
        return read_packet(message, data, rate_hz)
    try:
        others = sorted(set(message) - {"trial", "cursor", "seq"})
        if others or {"trial", "cursor"} <= set(message):
            got = repr(others[0])[:40] if others else "both"
            raise Malformed(f"expected a trial or a cursor, and seq, in one message, got {got}")
        seq = sequence_number(message)
        if "trial" in message:
            return TaskMessage(read_trial(message["trial"], rate_hz), None, seq)
        return TaskMessage(None, read_cursor(message["cursor"], rate_hz), seq)
    except Malformed as error:
        raise Malformed(f"{error}, in {shown(data)}") from None


def read_trial(values: Any, rate_hz: float) -> TrialUpdate:
    """What an object says of a trial.

    Raises:
        Malformed: it lacks its number, has a key that is unknown, or a value that cannot be.
    """
    _require_keys("trial", values, _TRIAL_KEYS, _LIKE_TRIAL)
    number = values.get("number")
    if type(number) is not int or not 0 <= number < _MOST_NUMBER:
        raise Malformed(
            f"trial: expected its number, a whole number that goes up, got {number!r:.40}"
        )
    given = dict[str, Any]()
    for key in values:
        name = _SECONDS.get(key, key)
        if name in given:
            raise Malformed(f"trial: expected {name} in ticks or in seconds, got both")
        if name in TIMES:
            given[name] = _time(key, values[key], rate_hz)
        elif name == "target":
            given[name] = _target(values[key])
        elif name != "number":
            given[name] = _outcome(name, values[key])
    return TrialUpdate(number, given)


def trial_of_text(text: Any, rate_hz: float) -> TrialUpdate:
    """The trial of a JSON text.

    Raises:
        Malformed: no JSON, or as of ``read_trial``.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError, TypeError):
        raise Malformed(
            f"trial: expected JSON like {_LIKE_TRIAL}, got {shown(text)}; send an object"
        ) from None
    return read_trial(values, rate_hz)


def read_cursor(values: Any, rate_hz: float) -> CursorAt:
    """Where an object says the cursor was.

    Raises:
        Malformed: it has no positions, a key that is unknown, or a value that cannot be.
    """
    _require_keys("cursor", values, _CURSOR_KEYS, _LIKE_CURSOR)
    now = {values.get(key, NOW) for key in ("ticks", "t") if _is_text(values.get(key, NOW))}
    timed = [key for key in ("ticks", "t") if key in values and not _is_text(values[key])]
    if now - {NOW} or (timed and NOW in (values.get("ticks"), values.get("t"))):
        raise Malformed('cursor: expected numbers or "now" as its times, got others')
    try:
        ticks = times_of({key: values[key] for key in timed}, rate_hz) if timed else None
        positions = np.asarray(values.get("pos"), dtype=np.float64)
    except Malformed:
        raise
    except (ValueError, TypeError, RecursionError, OverflowError, MemoryError):
        raise Malformed(f"cursor: expected numbers as pos, like {_LIKE_CURSOR}") from None
    n = 1 if ticks is None else len(ticks)
    if positions.ndim == 1 and n == 1:
        positions = positions[None]
    if positions.ndim != 2 or len(positions) != n or not 1 <= positions.shape[1] <= MOST_DIMS:
        raise Malformed(
            f"cursor: expected pos of {n} row(s) with 1 to {MOST_DIMS} numbers, one for each time, "
            f"got shape {positions.shape}"
        )
    if not np.isfinite(positions).all():
        raise Malformed("cursor: expected finite numbers as pos, got others")
    return CursorAt(ticks, positions)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _require_keys(what: str, values: Any, known: tuple[str, ...], like: str) -> None:
    if not isinstance(values, dict):
        raise Malformed(f"{what}: expected an object like {like}, got {values!r:.40}")
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise Malformed(f"{what}: expected keys {', '.join(known)}, got {unknown[0]!r:.40}")


def _time(key: str, value: Any, rate_hz: float) -> int | str | None:
    if value is None or (value == NOW and not key.endswith("_s")):
        return value  # type: ignore[no-any-return]
    if key.endswith("_s"):
        if not is_number(value) or not abs(value) < MOST_TICKS / rate_hz:
            raise Malformed(f"trial: expected {key} in seconds, got {value!r:.40}")
        return int(times_of({"t": [float(value)]}, rate_hz)[0])
    if type(value) is not int or abs(value) > MOST_TICKS:
        raise Malformed(
            f'trial: expected {key} as a whole number of ticks, or "now", got {value!r:.40}; send '
            f"seconds as {key}_s"
        )
    return value


def _target(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_DIMS:
        raise Malformed(
            f"trial: expected target as a list of 1 to {MOST_DIMS} numbers, got {value!r:.40}"
        )
    if not all(is_number(one) for one in value):
        raise Malformed(f"trial: expected finite numbers as target, got {value!r:.40}")
    return tuple(map(float, value))


def _outcome(name: str, value: Any) -> bool | float | None:
    if name == "success":
        if value is None or isinstance(value, bool):
            return value
        raise Malformed(f"trial: expected success as true or false, got {value!r:.40}")
    if value is None or (is_number(value) and value > 0):
        return None if value is None else float(value)
    raise Malformed(f"trial: expected radius as a number > 0, got {value!r:.40}")
