"""NWB files through pynwb: units, behaviour, trials, observation intervals."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.converting.clocks import with_spikes
from poyo_edge.converting.readers.nwb_series import find_series, find_units, links_to_nowhere
from poyo_edge.converting.source import (
    NO_INTERVALS,
    NO_ROWS,
    NO_SPIKES,
    Series,
    Source,
    merged,
    plain,
    unique_keys,
)
from poyo_edge.converting.torch_brain_file import DAMAGED, is_hdf5
from poyo_edge.converting.trial_table import known_as, with_table
from poyo_edge.errors import RecordingError
from poyo_edge.recording.rules import refuse


def is_nwb(path: Path) -> bool:
    """Whether a path is an HDF5 file that names its version of NWB; a damaged one is not."""
    if not is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return "nwb_version" in file.attrs
    except DAMAGED:
        return False


@contextmanager
def open_nwb(path: Path) -> Iterator[Source]:
    """Open an NWB file (2.x, HDF5).

    Raises:
        RecordingError: damaged, or no units with spike times.
    """
    import pynwb

    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # pynwb tells about cached namespaces and old files
        try:
            io = stack.enter_context(pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True))
            source = _source(path, io.read())
        except RecordingError:
            raise
        except Exception as error:  # hdmf raises whatever a broken file leads it to.
            got = f"one that pynwb cannot read ({type(error).__name__}: {error!s:.120})"
            do = "run pynwb-validate on it, or copy it again from its source"
            refuse(path, "file", "an NWB file", got, do)
        yield source


def _source(path: Path, nwb: Any) -> Source:
    units, elsewhere = find_units(path, nwb)
    if units is None or "spike_times" not in units.colnames:
        got = "no units table" if units is None else f"columns {list(units.colnames)}"
        do = "convert sorted data; raw voltages hold no units"
        refuse(path, "units", "a table with the column spike_times", got, do)
    trains = _ragged(path, units, "spike_times")
    session_id = str(nwb.session_id or nwb.identifier or path.stem)
    found = sorted(find_series(nwb), key=lambda one: one.why_not != "")
    keys = unique_keys([one.parts for one in found if not one.why_not])
    keys += [f"{'_'.join(map(plain, one.parts))}.value" for one in found[len(keys) :]]
    source = Source(
        path=path,
        format="NWB",
        session_id=session_id,
        subject_id=str((nwb.subject and nwb.subject.subject_id) or "unknown"),
        unit_ids=_unit_ids(units, session_id),
        prefixed=True,
        spike_times=NO_SPIKES,
        spike_units=NO_ROWS,
        series=tuple(
            dataclasses.replace(_series(path, key, one.parts, one.series), left_out=one.why_not)
            for key, one in zip(keys, found, strict=True)
        ),
        observed=_observed(path, units),
        trials=NO_INTERVALS,
        notes=_notes(path, units) + ((f"units are those of {elsewhere}",) if elsewhere else ()),
        left_out=tuple(links_to_nowhere(path)),
    )
    return with_spikes(with_table(source, _trials(nwb.trials)), trains)


def _ragged(path: Path, units: Any, column: str) -> list[npt.NDArray[Any]]:
    """One array for each unit, from two reads of the file.

    Raises:
        RecordingError: the ends of units do not ascend from 0 to the number of values.
    """
    index = units[column]
    ends = np.asarray(index.data[:], dtype=np.int64)
    values = np.asarray(index.target.data[:])
    expected = f"ends that ascend to {len(values)}, as there are values of {column}"
    do = "write the units table again with pynwb: spikes would be of other units"
    back = np.flatnonzero(np.diff(ends, prepend=0) < 0)
    if len(back):
        got = f"{ends[back[0]]} after {ends[back[0] - 1] if back[0] else 0} in row {back[0]}"
        refuse(path, f"units/{column}_index", expected, got, do)
    if (ends[-1] if len(ends) else 0) != len(values):
        got = f"{ends[-1] if len(ends) else 'none'} in the last row"
        refuse(path, f"units/{column}_index", expected, got, do)
    return np.split(values, ends[:-1])


def _unit_ids(units: Any, session_id: str) -> tuple[str, ...]:
    """From the column ``unit_name`` where it tells all units apart, else from the table's ids."""
    if "unit_name" in units.colnames:
        names = [str(name) for name in units["unit_name"].data[:]]
        if len(set(names)) == len(names) and all(names):
            return tuple(f"{session_id}/{name}" for name in names)
    return tuple(f"{session_id}/unit_{number}" for number in units.id[:])


def _observed(path: Path, units: Any) -> Float64:
    """When any unit was observed."""
    if "obs_intervals" not in units.colnames:
        return NO_INTERVALS
    pieces = [
        np.asarray(one, np.float64).reshape(-1, 2) for one in _ragged(path, units, "obs_intervals")
    ]
    return merged(np.concatenate(pieces)) if pieces else NO_INTERVALS


def _notes(path: Path, units: Any) -> tuple[str, ...]:
    if "obs_intervals" not in units.colnames:
        return ()
    seconds = [
        float(np.diff(np.asarray(one, np.float64).reshape(-1, 2), axis=1).sum())
        for one in _ragged(path, units, "obs_intervals")
    ]
    short = sum(one < max(seconds) - 1e-6 for one in seconds)
    if not short:
        return ()
    return (f"{short} of {len(seconds)} units were not observed all the time that others were",)


def _trials(table: Any) -> dict[str, npt.NDArray[Any]]:
    """Columns of the table of trials with a value, or several coordinates, in each row."""
    if table is None or not len(table):
        return {}
    plain_columns = {
        name: np.asarray(table[name].data[:])
        for name in table.colnames
        if known_as(name) and not hasattr(table[name], "target")  # ragged
    }
    return {name: one for name, one in plain_columns.items() if len(one) == len(table)}


def _series(path: Path, key: str, parts: tuple[str, ...], series: Any) -> Series:
    shape = getattr(series.data, "shape", None) or np.shape(series.data)
    scale, offset = float(series.conversion), float(series.offset or 0.0)

    def read() -> tuple[Float64, npt.NDArray[np.generic]]:
        values = np.asarray(series.data[:])
        if not np.isfinite([scale, offset]).all() or scale == 0:
            got, do = f"{scale} and {offset}", "correct them in the file"
            refuse(path, "/".join(parts), "a conversion and an offset that are numbers", got, do)
        if scale != 1.0 or offset != 0.0:
            values = values * scale + offset
        if series.timestamps is not None:
            times = np.asarray(series.timestamps[:], dtype=np.float64)
        elif series.rate:
            start = float(series.starting_time or 0.0)
            times = start + np.arange(len(values)) / float(series.rate)
        else:
            got, do = "neither", "add them to the series"
            refuse(path, "/".join(parts), "timestamps or a rate", got, do)
        if len(times) != len(values):
            got = f"{len(times)} timestamps for {len(values)} samples"
            refuse(path, "/".join(parts), "one timestamp for each sample", got, "correct the file")
        return times, values

    return Series(
        key=key,
        where="/".join(parts),
        n_samples=int(shape[0]) if len(shape) else 0,
        n_dims=1 if len(shape) < 2 else int(shape[1]),
        unit=str(series.unit or ""),
        offset=offset,
        read=read,
    )
