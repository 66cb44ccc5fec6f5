"""Plain arrays: an .npz of spikes and behaviour, or a .csv of each; behaviour also by itself.

npz: ``spike_times`` (M,) seconds, ``spike_units`` (M,) names or rows, optionally ``unit_ids`` (U,),
for each behaviour ``GROUP.KEY`` (S,) or (S, D) with its times ``GROUP.timestamps`` (S,), and
``trials.start``, ``trials.end`` and what else is known of trials.
csv: spikes as the columns ``time,unit``; behaviour as ``time`` and columns ``GROUP.KEY`` or, for
several dimensions, ``GROUP.KEY.NAME``. Behaviour under other names is taken when it is asked for.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64
from poyo_edge.converting.clocks import with_rows
from poyo_edge.converting.source import (
    NO_INTERVALS,
    NO_ROWS,
    NO_SPIKES,
    Series,
    Source,
    not_behavior,
)
from poyo_edge.converting.trial_table import known_as, with_table
from poyo_edge.errors import RecordingError
from poyo_edge.recording.rules import refuse

_INDEX = ("", "Unnamed: 0")
"""How pandas names the numbers of rows, as it writes them and as it reads them again."""
_TIMES = ("time", "times", "t", "timestamp", "timestamps", "time_s", "times_s", "t_s", "seconds")
"""Names of times in seconds, in lower case; another unit in a name has to be said."""
_HEADER = "time,cursor.vel.x,cursor.vel.y"
_SAVE_NPZ = (
    'save it with numpy.savez(path, **{"cursor.vel": velocity, "cursor.timestamps": seconds})'
)
_BEHIND = "if this is behaviour, name the file with the spikes first and this one behind it"
_DECIMAL = re.compile(r"|nan|[+-]?\d*,?\d*(e[+-]?\d+)?", re.IGNORECASE)


@contextmanager
def open_npz(path: Path) -> Iterator[Source]:
    """Open an .npz; nothing in it is unpickled.

    Raises:
        RecordingError: damaged, arrays are missing, of other lengths, or hold objects.
    """
    arrays = _arrays(path)
    for name in ("spike_times", "spike_units"):
        if name not in arrays:
            got = f"a file with {', '.join(sorted(arrays)) or 'nothing'}"
            do = f"save it with numpy.savez under this name; {_BEHIND}"
            refuse(path, name, "an array", got, do)
    times, labels = arrays.pop("spike_times"), arrays.pop("spike_units")
    trials = {
        name.removeprefix("trials."): arrays.pop(name)
        for name in list(arrays)
        if name.startswith("trials.") and known_as(name.removeprefix("trials."))
    }
    if times.ndim != 1 or times.dtype.kind not in "iuf" or labels.shape != times.shape:
        got = f"shapes {times.shape} {times.dtype} and {labels.shape} {labels.dtype}"
        expected = "spike_times and spike_units of one length, times as float64 seconds"
        refuse(path, "spike_times", expected, got, "save both again")
    source = _source(path, "npz", times, labels, arrays.pop("unit_ids", None), _npz(path, arrays))
    yield with_table(source, trials)


@contextmanager
def open_csv(path: Path) -> Iterator[Source]:
    """Open a .csv of spikes.

    Raises:
        RecordingError: it lacks a column, or has a cell that is no number.
    """
    columns, notes = _table(path)
    if set(columns) != {"time", "unit"}:
        got = ", ".join(columns)
        do = f"write a header line with these two names; {_BEHIND}"
        refuse(path, "header", "the columns time,unit", got, do)
    times = _numbers(path, "time", columns["time"])
    labels = np.array(columns["unit"], dtype=np.str_)
    if len(labels) and all(one.isdecimal() and len(one) < 10 for one in set(labels.tolist())):
        labels = labels.astype(np.int64)  # numbers, which mean something within a session alone
    source = _source(path, "csv", times, labels, None, [])
    yield dataclasses.replace(source, notes=(*source.notes, *notes))


def npz_behavior(path: Path, times: str = "") -> list[Series]:
    """Behaviour alone, for spikes that lie in another file.

    Args:
        path: the file.
        times: name of the array of times for those whose names are not ours.

    Raises:
        RecordingError: damaged, without behaviour, or without times.
    """
    arrays = _arrays(path)
    of_spikes = ("spike_times", "spike_units", "unit_ids")
    found = _npz(path, {name: one for name, one in arrays.items() if name not in of_spikes}, times)
    if not found:
        got = f"none, but {', '.join(sorted(arrays)) or 'an empty file'}"
        refuse(path, "file", "at least one behaviour", got, _SAVE_NPZ)
    return found


def csv_behavior(path: Path, times: str = "") -> list[Series]:
    """Behaviour alone, for spikes that lie in another file.

    Columns whose names are not ours are taken when they are asked for.

    Args:
        path: the file.
        times: name of the column of times; "" finds it by its name.

    Raises:
        RecordingError: it lacks the times or behaviour, or has a cell that is no number.
    """
    columns, _ = _table(path)
    clock = _clock(path, list(columns), times)
    if clock is None or len(columns) < 2:
        got = f"the columns {','.join(columns)}" if columns else "nothing"
        do = (
            f"write a header line like {_HEADER}, or say which column holds the times with "
            f"--time-column NAME, and which movement with --behavior cursor.vel=COLUMN,COLUMN"
        )
        refuse(path, "header", "a column time in seconds and at least one behaviour", got, do)
    seconds = _numbers(path, clock, columns.pop(clock))
    groups: dict[str, list[Float64]] = {}
    others = list[Series]()
    for name, cells in columns.items():
        parts = name.split(".")
        if len(parts) in (2, 3) and all(parts):
            own = _numbers(path, name, cells, nan=True)
            groups.setdefault(".".join(parts[:2]), []).append(own)
        elif name:
            others.append(_other_column(path, name, seconds, cells))
        else:
            refuse(path, "header", "a name for each column", "one without", "name it")
    found = [
        _ready(key, f"{path.name}: {key}", seconds, np.stack(values, axis=-1))
        for key, values in groups.items()
    ]
    return found + others


def _other_column(path: Path, name: str, times: Float64, cells: list[str]) -> Series:
    """A column whose name is not ours."""
    try:
        values: npt.NDArray[Any] = _numbers(path, name, cells, nan=True)
    except RecordingError:
        values = np.array(cells, dtype="U")
    return _asked(path, name, times, values)


def _asked(path: Path, name: str, times: Float64, values: npt.NDArray[Any]) -> Series:
    """A series that is taken when it is asked for: nobody said what it is."""
    series = _ready(f"{name}.value", f"{path.name}: {name}", times, values)
    if series.left_out:
        return series
    why = f"a name that says not what it is: take it with --behavior cursor.vel={name}"
    return dataclasses.replace(series, left_out=why, column_of=path)


def _clock(path: Path, names: list[str], wanted: str) -> str | None:
    """Which of the names holds the times in seconds; None where nobody can know.

    Raises:
        RecordingError: the one that was named is not there.
    """
    if wanted:
        if wanted not in names:
            got = ", ".join(names) or "nothing"
            refuse(path, "time-column", f"one of its columns ({got})", repr(wanted), "name it")
        return wanted
    found = [name for name in names if name.lower() in _TIMES]
    return "time" if "time" in found else found[0] if len(found) == 1 else None


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        got = f"one that numpy cannot read ({error})"
        refuse(path, "file", "an .npz of plain arrays", got, "save numbers and strings only")


def _source(
    path: Path, kind: str, times: Any, labels: Any, ids: Any, series: list[Series]
) -> Source:
    unit_ids, rows = _units(path, labels, ids)
    source = Source(
        path=path,
        format=kind,
        session_id=path.stem,
        subject_id="unknown",
        unit_ids=unit_ids,
        spike_times=NO_SPIKES,
        spike_units=NO_ROWS,
        series=tuple(series),
        observed=NO_INTERVALS,
        trials=NO_INTERVALS,
        prefixed=ids is None and labels.dtype.kind in "iu",
    )
    return with_rows(source, times, rows)


def _units(path: Path, labels: Any, ids: Any) -> tuple[tuple[str, ...], Int64]:
    """Names as they are; numbers are rows of ``unit_ids``, or become names themselves."""
    if ids is not None:
        names = tuple(str(name) for name in np.ravel(ids))
        if labels.dtype.kind in "iu":
            return names, labels.astype(np.int64)
        known = {name: row for row, name in enumerate(names)}
        unknown = sorted({str(label) for label in labels} - set(names))
        if unknown:
            got = f"{unknown[0]!r}, which is none of them"
            refuse(path, "spike_units", "names in unit_ids", got, "add it to unit_ids")
        return names, np.array([known[str(label)] for label in labels], dtype=np.int64)
    if labels.dtype.kind not in "iuUS":
        got = f"dtype {labels.dtype}"
        refuse(path, "spike_units", "integers or names", got, "save them as one of these")
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    found, rows = np.unique(labels, return_inverse=True)
    prefix = f"{path.stem}/unit_" if labels.dtype.kind in "iu" else ""
    return tuple(f"{prefix}{name}" for name in found), rows.reshape(-1).astype(np.int64)


def _npz(path: Path, arrays: dict[str, npt.NDArray[Any]], wanted: str = "") -> list[Series]:
    found = []
    plain = {name: one for name, one in arrays.items() if "." not in name}
    for name, values in arrays.items():
        group, _, key = name.partition(".")
        if key == "timestamps" or name in plain:
            continue
        times = arrays.get(f"{group}.timestamps")
        if not key or times is None or values.shape[:1] != times.shape:
            got = "none" if times is None else f"shape {times.shape} for {values.shape}"
            expected = f"the times of {name} as {group}.timestamps"
            refuse(path, name, expected, got, "name behaviour GROUP.KEY and save its times")
        found.append(_ready(name, name, np.asarray(times, np.float64), values))
    return found + (_plain_arrays(path, plain, wanted) if plain else [])


def _plain_arrays(path: Path, arrays: dict[str, npt.NDArray[Any]], wanted: str) -> list[Series]:
    """Arrays whose names are not ours, with the one that holds their times."""
    clock = _clock(path, list(arrays), wanted)
    held = ", ".join(f"{name} {one.shape}" for name, one in arrays.items())
    if clock is None or arrays[clock].ndim != 1 or arrays[clock].dtype.kind not in "iuf":
        do = f"{_SAVE_NPZ}; or say which array holds the times with --time-column NAME"
        refuse(path, "names", "behaviour GROUP.KEY and its times GROUP.timestamps", held, do)
    times = np.asarray(arrays[clock], np.float64)
    found = list[Series]()
    for name, values in arrays.items():
        if name == clock:
            continue
        if values.shape[:1] != times.shape:
            why = f"shape {values.shape} for the {len(times)} times of {clock}"
            found.append(dataclasses.replace(_ready(f"{name}.value", name, times, values),
                                             left_out=why))  # fmt: skip
        else:
            found.append(_asked(path, name, times, values))
    return found


def _ready(key: str, where: str, times: Float64, values: npt.NDArray[Any]) -> Series:
    return Series(
        key=key,
        where=where,
        n_samples=len(values) if values.ndim else 0,
        n_dims=1 if values.ndim < 2 else int(values.shape[1]),
        left_out=not_behavior(values.shape, values.dtype),
        read=lambda: (times, values),
    )


def _table(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Column name → cells, and notes on what a spreadsheet has done to the table."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with an invisible mark
        mark = _separator(path, text)
        head, *rows = [row for row in csv.reader(io.StringIO(text), delimiter=mark) if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        refuse(path, "file", "text with commas", f"one that is not ({error})", "save it as UTF-8")
    names, notes = [name.strip() for name in head], list[str]()
    short = [i for i, row in enumerate(rows) if len(row) != len(names)]
    if short or len(set(names)) != len(names):
        got = f"{len(rows[short[0]])} in row {short[0] + 2}" if short else "a name twice"
        expected = f"{len(names)} cells in each row, and different names"
        refuse(path, "rows", expected, got, "save the table again")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    if mark != ",":
        columns = {name: _with_points(cells) for name, cells in columns.items()}
        notes.append(f"the table is separated by {mark!r}; a comma in a number is its point")
    if names and names[0] in _INDEX:
        _drop_index(path, names[0], columns)
        notes.append("the first column only counts the rows: left out")
    return columns, notes


def _separator(path: Path, text: str) -> str:
    """What separates the names of the head."""
    head = next(iter(text.splitlines()), "")
    marks = [mark for mark in ",;\t" if mark in head]
    if len(marks) > 1:
        got = f"both {marks[0]!r} and {marks[1]!r}"
        refuse(path, "header", "names with commas between them", got, "save it with commas only")
    return marks[0] if marks else ","


def _with_points(cells: list[str]) -> list[str]:
    """Numbers with a decimal point, where a comma in them can be nothing else."""
    if any(_DECIMAL.fullmatch(cell.strip()) is None for cell in cells):
        return cells
    return [cell.replace(",", ".") for cell in cells]


def _drop_index(path: Path, name: str, columns: dict[str, list[str]]) -> None:
    cells = [cell.strip() for cell in columns.pop(name)]
    if cells != [str(i) for i in range(len(cells))]:
        got = f"a first column named {name!r} that does not count the rows"
        refuse(path, "header", "a name for each column", got, "name the column, or remove it")


def _numbers(path: Path, name: str, cells: list[str], *, nan: bool = False) -> Float64:
    """(S,) float64; empty cells are NaN where these are allowed."""
    try:
        values = np.array([cell if cell.strip() or not nan else "nan" for cell in cells], "U")
        numbers = values.astype(np.float64)
    except ValueError as error:
        refuse(path, name, "numbers", str(error), "correct the column")
    return numbers
