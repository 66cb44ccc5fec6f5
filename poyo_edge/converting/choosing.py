"""Which series somebody means by the words of ``--behavior``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.converting.source import Series, Source, about
from poyo_edge.errors import UsageError
from poyo_edge.recording.rules import refuse
from poyo_edge.recording.suggesting import suggested
from poyo_edge.recording.units import same_unit


def asked_for(source: Source, words: str) -> tuple[str, Series]:
    """The name and series of "KEY", "NEW=KEY" or "NEW=KEY,KEY,...", whose columns are joined.

    A key is what ``--list`` shows, where the series lies in the file, or the end of that where one
    series alone has it.

    Raises:
        UsageError: no such series, or several that could be meant.
    """
    new, _, keys = words.rpartition("=")
    if keys in _by_name(source):  # a name may hold a comma
        series = _by_name(source)[keys]
        return new or series.key, series
    parts = [_one(source, key.strip()) for key in keys.split(",")]
    if len(parts) > 1 and not new:
        raise UsageError(
            f"behavior: expected a name for the columns that are joined, like finger.vel={keys}, "
            f"got {words!r}"
        )
    return new or parts[0].key, _joined(source.path, parts) if len(parts) > 1 else parts[0]


def require_names(series: Sequence[Series]) -> None:
    """Refuse to take all where columns have names that do not say what they are.

    Raises:
        RecordingError: there are such columns; with the words that take the likely ones.
    """
    columns = [one for one in series if one.column_of is not None]
    if columns and columns[0].column_of is not None:
        names = [one.key.removesuffix(".value") for one in columns]
        likely = suggested([about(one) for one in columns]) or f"cursor.vel={','.join(names[:2])}"
        do = (
            f"take what is meant with --behavior {likely}, or name columns like "
            f"time,cursor.vel.x,cursor.vel.y and arrays like cursor.vel with cursor.timestamps"
        )
        expected = "arrays and columns GROUP.KEY or GROUP.KEY.NAME"
        refuse(columns[0].column_of, "names", expected, ", ".join(names), do)


def _by_name(source: Source) -> dict[str, Series]:
    known = {series.key: series for series in source.series}
    return known | {series.where: series for series in source.series}


def _one(source: Source, key: str) -> Series:
    known = _by_name(source)
    if key in known:
        return known[key]
    meant = [one for one in source.series if key in _short(one)]
    meant = [one for one in meant if not one.left_out] or meant
    if len(meant) == 1:
        return meant[0]
    offered = [series.key for series in source.series if not series.left_out]
    listed = ", ".join([one.key for one in meant] or offered[:12]) or "none"
    out = next((one for one in source.left_out if one.where == key), None)
    if out is not None:
        raise UsageError(f"behavior: {key} of {source.path.name} is left out: {out.why}")
    if not meant:
        require_names(source.series)
    raise UsageError(
        f"behavior: expected one of the series of {source.path.name} ({listed}), got "
        f"{key!r}{', which may be any of these' if meant else ''}; --list shows them all"
    )


def _short(series: Series) -> set[str]:
    return {series.key.removesuffix(".value"), series.where.rpartition("/")[2]}


def _joined(path: Path, parts: Sequence[Series]) -> Series:
    alike = all(one.unit and same_unit(one.unit, parts[0].unit) for one in parts)
    return dataclasses.replace(
        parts[0],
        where=",".join(one.where for one in parts),
        n_dims=sum(one.n_dims for one in parts),
        unit=parts[0].unit if alike else "",
        left_out="",
        parts=tuple(parts),
        read=functools.partial(_read, path, parts),
    )


def _read(path: Path, parts: Sequence[Series]) -> tuple[Float64, npt.NDArray[np.generic]]:
    """Columns of several series side by side, if all have the very same times."""
    both = [one.read() for one in parts]
    times = both[0][0]
    for one, (other, _) in zip(parts, both, strict=True):
        if len(other) != len(times):
            got = f"{len(other)} for {len(times)} of {parts[0].where}"
        elif not np.array_equal(other, times):
            at = int(np.flatnonzero(other != times)[0])
            got = f"{other[at]:.6f} s for {times[at]:.6f} s of {parts[0].where} at index {at}"
        else:
            continue
        do = "take them as behaviours of their own, or put them on one clock first"
        refuse(path, one.where, "the same times as the series it is joined with", got, do)
    for one, (_, values) in zip(parts, both, strict=True):
        if _is_mask(values):
            do = "leave it out: a mask is no movement"
            refuse(path, one.where, "movement in each column that is joined", "only 0 and 1", do)
    _require_one_unit(path, parts)
    return times, np.column_stack([values for _, values in both])


def _require_one_unit(path: Path, parts: Sequence[Series]) -> None:
    named = [one for one in parts if one.unit]
    other = next((one for one in named if not same_unit(one.unit, named[0].unit)), None)
    if other is not None:
        got = f"{other.unit} for {named[0].unit} of {named[0].where}"
        do = "take them as behaviours of their own, or give them one unit in the file"
        refuse(path, other.where, "one unit of the columns that are joined", got, do)


def _is_mask(values: npt.NDArray[np.generic]) -> bool:
    """Whether values (S,) or (S, D) say only yes and no."""
    return values.dtype.kind == "b" or bool(np.isin(values, (0, 1)).all())
