"""Tables of trials as labs write them → what a recording keeps of trials.

Columns are found by their names, without regard to case, underscores and a leading "trial". What
cannot be used is left out with a note; nothing is guessed.

Legend: K rows, D coordinates.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Bool, Float64
from poyo_edge.converting.source import NO_INTERVALS, Source
from poyo_edge.trials import MOST_DIMS, Trials

Columns = Mapping[str, npt.NDArray[Any]]
"""Name → (K,) or (K, D)."""
NAMES = {
    "start": ("start", "starttime", "starttimestamp"),
    "end": ("end", "endtime", "stop", "stoptime"),
    "go_time": ("gotime", "gocue", "gocuetime", "gocueonset"),
    "target": ("target", "targetpos", "targetposition", "targetcenter", "targetxy"),
    "target_x": ("targetx", "targetposx"),
    "target_y": ("targety", "targetposy"),
    "target_corners": ("targetcorners",),
    "success": ("success", "successful", "correct", "iscorrect", "result", "outcome"),
    "radius": ("radius", "targetradius"),
    "judged": ("judged",),
}
"""What is known of a trial → names of its column."""
_YES = ("r", "reward", "rewarded", "success", "successful", "s", "correct", "hit", "true", "1")
_NO = (
    "f", "fail", "failure", "failed", "a", "abort", "aborted", "i", "incomplete", "incorrect",
    "miss", "error", "timeout", "false", "0",
)  # fmt: skip
_ROUNDING_S = 1e-3
"""Trials that follow on each other may overlap by what their times were rounded to."""


def known_as(name: str) -> str:
    """What a column of this name says of a trial; "" if nothing that is kept."""
    short = re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("trial")
    return next((field for field, names in NAMES.items() if short in names), "")


def from_columns(columns: Columns) -> tuple[Float64, dict[str, npt.NDArray[Any]], tuple[str, ...]]:
    """Starts and ends (K, 2) of a table, what else it says of each, and notes.

    Rows without an end after their start are left out; the others keep their order, for the clock
    may begin anew among them.

    Args:
        columns: of the table, of one length.
    """
    notes, found = list[str](), dict[str, npt.NDArray[Any]]()
    for name, column in columns.items():
        field = known_as(name)
        if field and field not in found:
            found[field] = np.asarray(column)
    start, end = (_numbers(found.pop(name, None)) for name in ("start", "end"))
    if start is None or end is None or start.ndim != 1 or start.shape != end.shape:
        return NO_INTERVALS, {}, ()
    both = np.stack([start, end], axis=-1)
    fields = _fields(found, len(both), notes)
    sound = np.isfinite(both).all(1) & (both[:, 1] > both[:, 0])
    if not sound.all():
        rows = int((~sound).sum())
        notes.append(f"left out {rows} of {len(both)} trials: no end after their start")
    return both[sound], {name: one[sound] for name, one in fields.items()}, tuple(notes)


def as_trials(source: Source) -> tuple[Trials | None, tuple[str, ...]]:
    """The trials of a source as a recording keeps them, and notes on what was left out."""
    if not len(source.trials):
        return None, ()
    notes = list[str]()
    order = np.argsort(source.trials[:, 0], kind="stable")
    both = source.trials[order]
    if both.shape[0] > 1:
        over = both[:-1, 1] - both[1:, 0]
        slight: Bool = (over > 0) & (over <= _ROUNDING_S) & (both[1:, 0] > both[:-1, 0])
        if slight.any():
            both[:-1, 1] = np.where(slight, both[1:, 0], both[:-1, 1])
            notes.append(f"{int(slight.sum())} trials ended up to 1 ms into the next: cut there")
    kept, end = np.ones(len(both), np.bool_), -np.inf
    for row, (first, last) in enumerate(both.tolist()):
        kept[row] = first >= end
        end = last if kept[row] else end
    if not kept.all():
        first = float(both[~kept][0, 0])
        notes.append(
            f"left out {int((~kept).sum())} of {len(both)} trials: they begin before the one "
            f"before has ended, the first at {first:.3f} s"
        )
    told = {name: one[order][kept] for name, one in source.trial_fields.items()}
    both = both[kept]
    _clear(told, "go_time", both, notes)
    return Trials.of(both[:, 0], both[:, 1], **told), tuple(notes)


def with_table(source: Source, columns: Columns) -> Source:
    """The source with the trials of a table, and notes on what of it was left out."""
    trials, fields, notes = from_columns(columns)
    return dataclasses.replace(
        source, trials=trials, trial_fields=fields, notes=(*source.notes, *notes)
    )


def _clear(told: dict[str, npt.NDArray[Any]], name: str, both: Float64, notes: list[str]) -> None:
    times = told.get(name)
    if times is None:
        return
    outside = ~np.isnan(times) & ~((times >= both[:, 0]) & (times <= both[:, 1]))
    if outside.any():
        notes.append(f"{name} of {int(outside.sum())} trials lies outside of them: left out")
        told[name] = np.where(outside, np.nan, times)


def _fields(found: dict[str, npt.NDArray[Any]], n: int, notes: list[str]) -> dict[str, Any]:
    """What is known of each row, of those fields that can be used."""
    fields = dict[str, Any]()
    x, y = (_numbers(found.pop(name, None)) for name in ("target_x", "target_y"))
    if "target" not in found and x is not None and y is not None and x.shape == y.shape == (n,):
        found["target"] = np.stack([x, y], axis=-1)
    corners = _numbers(found.pop("target_corners", None))
    if "target" not in found and corners is not None and corners.shape == (n, 4):
        found["target"] = (corners[:, :2] + corners[:, 2:]) / 2
    for name in ("go_time", "radius"):
        numbers = _numbers(found.get(name))
        if name in found and (numbers is None or numbers.shape != (n,)):
            notes.append(f"left out {name} of trials: expected {n} numbers")
        elif numbers is not None:
            fields[name] = numbers
    if "radius" in fields:
        wrong = ~(np.isfinite(fields["radius"]) & (fields["radius"] > 0))
        fields["radius"] = np.where(wrong, np.nan, fields["radius"])
    if "target" in found:
        _add_target(fields, _numbers(found["target"]), n, notes)
    if "success" in found:
        _add_success(fields, found["success"], found.get("judged"), n, notes)
    return fields


def _add_target(fields: dict[str, Any], target: Float64 | None, n: int, notes: list[str]) -> None:
    if target is not None and target.ndim == 1:
        target = target[:, None]
    if target is None or target.ndim != 2 or len(target) != n or target.shape[1] > MOST_DIMS:
        got = "others" if target is None else f"shape {target.shape}"
        notes.append(f"left out targets of trials: expected coordinates in each row, got {got}")
        return
    whole: Bool = np.asarray(np.isfinite(target).all(1))
    half = int((~whole & ~np.isnan(target).all(1)).sum())
    if half:
        notes.append(f"targets of {half} trials lack a coordinate: left out")
    fields["target"] = np.where(whole[:, None], target, np.nan)


def _add_success(
    fields: dict[str, Any],
    column: npt.NDArray[Any],
    judged: npt.NDArray[Any] | None,
    n: int,
    notes: list[str],
) -> None:
    if column.shape != (n,):
        notes.append(f"left out results of trials: expected {n}, got shape {column.shape}")
        return
    words = [_word(one) for one in column.tolist()]
    success: Bool = np.array([word in _YES for word in words], np.bool_)
    told: Bool = success | np.array([word in _NO for word in words], np.bool_)
    known = told.tolist()
    odd = sorted({word for word, one in zip(words, known, strict=True) if word and not one})
    if odd:
        some = ", ".join(repr(word[:20]) for word in odd[:4])
        notes.append(f"results of trials that say neither success nor failure: {some}")
    if judged is not None and judged.shape == (n,) and judged.dtype.kind in "biu":
        told &= judged.astype(np.bool_)
    fields |= {"success": success & told, "judged": told}


def _word(value: Any) -> str:
    """A result as one of the words; numbers by their value."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if isinstance(value, float) and math.isnan(value) else str(value).strip().lower()


def _numbers(column: Sequence[Any] | npt.NDArray[Any] | None) -> Float64 | None:
    if column is None or np.asarray(column).dtype.kind not in "biuf":
        return None
    return np.asarray(column, np.float64)
