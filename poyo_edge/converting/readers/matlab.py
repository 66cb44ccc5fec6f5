"""MATLAB files as labs write them: a cell of spike times for each unit, and samples of behaviour.

The variables lie in the file itself or in its only struct, as in ``xds`` files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.converting.clocks import with_spikes
from poyo_edge.converting.readers import mat5, mat73
from poyo_edge.converting.readers.matlab_values import COMPLEX, Value, is_vector
from poyo_edge.converting.source import (
    NO_INTERVALS,
    NO_ROWS,
    NO_SPIKES,
    LeftOut,
    Series,
    Source,
    not_behavior,
    plain,
)
from poyo_edge.converting.trial_table import known_as, with_table
from poyo_edge.errors import RecordingError
from poyo_edge.recording.access import check_not_held
from poyo_edge.recording.rules import refuse

_STARTS = (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")
_SPIKES = ("spikes", "spiketimes")
_UNITS = ("unit", "units", "spikeunits", "cluster", "clusters")
_NAMES = ("unitnames", "unitids", "channames", "channelnames")
_TIMES = ("t", "time", "times", "timeframe", "timestamps")
_COUNTS = ("spikecounts", "counts")
_DO = (
    "save spikes, a cell with the seconds of each unit, and time_frame, the seconds of the samples "
    "of behaviour, under these names"
)


def is_mat(path: Path) -> bool:
    """Whether a path is a MATLAB file of version 5 or 7.3."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_STARTS[0])) in _STARTS


class _Held(NamedTuple):
    """Variables by their names, and where they lie in the file: "" or "xds."."""

    values: dict[str, Value]
    where: str

    def find(self, names: tuple[str, ...]) -> str | None:
        """The first variable of one of these names, without regard to case and underscores."""
        by_name = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in self.values}
        return next((by_name[name] for name in names if name in by_name), None)


@contextmanager
def open_mat(path: Path) -> Iterator[Source]:
    """Open a MATLAB file.

    Raises:
        RecordingError: damaged, or its variables are not as the head of this module says.
    """
    with path.open("rb") as file:
        version_5 = file.read(len(_STARTS[0])) == _STARTS[0]
    with contextlib.ExitStack() as stack:
        with _complete(path):
            if version_5:
                variables = mat5.variables(path.read_bytes())
            else:
                variables = mat73.variables(stack.enter_context(h5py.File(path, "r")))
            source = _source(path, variables)
        yield source


@contextmanager
def _complete(path: Path) -> Iterator[None]:
    """Whatever reading a damaged file leads to is one sentence."""
    try:
        yield
    except RecordingError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        check_not_held(path, error)
        got = f"a truncated or damaged one ({error})"
        refuse(path, "file", "a complete MATLAB file", got, "copy it again from its source")


def _source(path: Path, variables: dict[str, Value]) -> Source:
    held = _with_spikes(path, variables)
    names, trains, notes = _trains(path, held)
    clock = held.find(_TIMES)
    at = _vector(held.values[clock]) if clock and is_vector(held.values[clock]) else np.empty(0)
    series, left_out = _series(path, held, clock, at)
    source = Source(
        path=path,
        format="MATLAB",
        session_id=path.stem,
        subject_id="unknown",
        unit_ids=tuple(f"{path.stem}/{name}" for name in names),
        prefixed=True,
        spike_times=NO_SPIKES,
        spike_units=NO_ROWS,
        series=tuple(series),
        observed=NO_INTERVALS,
        trials=NO_INTERVALS,
        notes=tuple(notes),
        left_out=tuple(left_out),
    )
    return with_spikes(with_table(source, _trials(held)), trains)


def _with_spikes(path: Path, variables: dict[str, Value]) -> _Held:
    top = _Held(variables, "")
    inside = [
        _Held(value.read(), f"{name}.") for name, value in variables.items()
        if value.kind == "struct"
    ]  # fmt: skip
    found = [one for one in (top, *inside) if one.find(_SPIKES)]
    if len(found) != 1:
        listed = ", ".join(f"{name} ({value})" for name, value in variables.items()) or "nothing"
        got = f"{len(found)} in {listed:.400}"
        refuse(path, "spikes", "one variable spikes or spike_times", got, _DO)
    return found[0]


def _trains(path: Path, held: _Held) -> tuple[list[str], list[Float64], list[str]]:
    """Names and seconds of the units, and what to say about them."""
    name = held.find(_SPIKES)
    spikes = held.values[str(name)]
    where = f"{held.where}{name}"
    if spikes.kind == "cell":
        return _of_cells(path, where, spikes, held)
    owner = held.find(_UNITS)
    if not is_vector(spikes) or owner is None or not is_vector(held.values[owner]):
        refuse(path, where, "a cell with the seconds of each unit", str(spikes), _DO)
    times, units = _vector(spikes), _vector(held.values[owner])
    if len(times) != len(units):
        got = f"{len(units)} for {len(times)} spikes"
        refuse(path, f"{held.where}{owner}", "a unit for each spike", got, _DO)
    ids = np.unique(units)
    return [f"unit_{one:g}" for one in ids], [times[units == one] for one in ids], []


def _of_cells(
    path: Path, where: str, spikes: Value, held: _Held
) -> tuple[list[str], list[Float64], list[str]]:
    cells: list[Value] = spikes.read()
    odd = [i for i, one in enumerate(cells) if not is_vector(one)]
    if odd:
        got = f"{cells[odd[0]]} in cell {odd[0] + 1}"
        refuse(path, where, "seconds in one row or column in each cell", got, _DO)
    trains = [_vector(one) for one in cells]
    given = held.find(_NAMES)
    texts = _texts(held.values[given]) if given else []
    if min(spikes.shape, default=0) <= 1:
        if len(set(texts)) == len(trains) and all(texts):
            return texts, trains, []
        return [f"unit_{i + 1}" for i in range(len(trains))], trains, []
    n_rows = spikes.shape[0]
    rows = texts if len(set(texts)) == n_rows else [f"ch_{i + 1}" for i in range(n_rows)]
    names = [f"{rows[i % n_rows]}_{i // n_rows + 1}" for i in range(len(trains))]
    kept = [i for i, one in enumerate(trains) if len(one)]
    note = f"{len(kept)} of {len(trains)} cells hold spikes; units are ROW_COLUMN of {where}"
    return [names[i] for i in kept], [trains[i] for i in kept], [note]


def _texts(value: Value) -> list[str]:
    if value.kind != "cell":
        return []
    return [str(one.read()).strip() if one.kind == "text" else "" for one in value.read()]


def _vector(value: Value) -> Float64:
    return np.asarray(value.read(), np.float64).ravel()


def _series(
    path: Path, held: _Held, clock: str | None, times: Float64
) -> tuple[list[Series], list[LeftOut]]:
    """Numbers that have a sample for each time."""
    series, left_out = list[Series](), list[LeftOut]()
    known = {held.find(_SPIKES), held.find(_UNITS), held.find(_NAMES), clock}
    for name, value in _named(held.values):
        if value.kind == COMPLEX:
            left_out.append(LeftOut(f"{held.where}{name}", value.about))
        if name in known or value.kind != "number" or max(value.shape, default=0) <= 1:
            continue
        if _of_trials(name):
            continue
        where = f"{held.where}{name}"
        why = _why_not(name, value, clock, len(times))
        if why:
            left_out.append(LeftOut(where, why))
        else:
            series.append(_one(path, plain(name), where, value, times))
    return series, left_out


def _named(values: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """Variables, and those of structs among them."""
    for name, value in values.items():
        if value.kind == "struct":
            yield from ((f"{name}.{key}", one) for key, one in value.read().items())
        else:
            yield name, value


def _of_trials(name: str) -> bool:
    """Whether a variable says something of each trial: ``trial_result``, or ``trials.result``."""
    return name.lower().startswith("trial") and bool(known_as(name.rpartition(".")[2]))


def _trials(held: _Held) -> dict[str, Any]:
    """Columns of what is known of trials."""
    columns = dict[str, Any]()
    for name, value in _named(held.values):
        if not _of_trials(name):
            continue
        if value.kind == "number":
            column = np.asarray(value.read())
            columns[name.rpartition(".")[2]] = column.ravel() if is_vector(value) else column
        elif value.kind == "cell":
            columns[name.rpartition(".")[2]] = np.array(_texts(value), np.str_)
    return columns


def _why_not(name: str, value: Value, clock: str | None, n: int) -> str:
    if re.sub(r"[^a-z0-9]", "", name.lower()) in _COUNTS:
        return "counts of the spikes"
    if clock is None:
        return "no time_frame with the seconds of its samples"
    fits = [side == n for side in value.shape]
    if len(value.shape) != 2:
        return not_behavior(value.shape, np.dtype(np.float64))
    if sum(fits) != 1:
        size = "x".join(map(str, value.shape))
        return f"{size} for the {n} times of {clock}" + "; samples or columns?" * all(fits)
    return not_behavior(value.shape if fits[0] else value.shape[::-1], np.dtype(np.float64))


def _one(path: Path, name: str, where: str, value: Value, times: Float64) -> Series:
    turned = value.shape[0] != len(times)

    def read() -> tuple[Float64, Any]:
        with _complete(path):
            values = np.asarray(value.read())
        return times, values.T if turned else values

    return dataclasses.replace(
        Series(key=f"{name}.value", where=where, n_samples=len(times), n_dims=1, read=read),
        n_dims=int(value.shape[0] if turned else value.shape[1]),
    )
