"""How the parts of a recording are found in its HDF5 file; each part that is wrong is one sentence.

Legend: U units, M spikes, S behaviour samples, K intervals.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import RecordingError
from poyo_edge.recording.access import attribute, check_not_held, child, children, values
from poyo_edge.recording.first_bytes import kind_of_bytes
from poyo_edge.recording.other_files import convert_command, refuse_other
from poyo_edge.recording.rules import (
    NOT_KEYS,
    check_spikes,
    checked_intervals,
    checked_unit_ids,
    refuse,
)

_DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises for files that the HDF5 library or numpy can make nothing of."""

_LONGEST_UNIT = 80
"""Characters of a unit's name."""


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    if not h5py.is_hdf5(path):
        refuse_other(path)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        refuse(path, "file", "an HDF5 recording", got, "check the path")
    if not h5py.is_hdf5(path):
        do = "give the *.h5 file of the session"
        got = f"a file of another format ({kind_of_bytes(path)})"
        refuse(path, "file", "an HDF5 recording", got, do)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except RecordingError:
        refuse_other(path)
        raise
    except _DAMAGED as error:
        check_not_held(path, error)
        got = f"a truncated or damaged one ({error})"
        refuse(path, "file", "a complete HDF5 file", got, "copy it again from its source")


def _convert(path: Path) -> str:
    return f"convert the recording to the torch_brain layout: {convert_command(path)}"


def dataset_of(path: Path, file: Any, name: str) -> Any:
    dataset = child(path, file, name)
    if not isinstance(dataset, h5py.Dataset):
        parent = child(path, file, name.rpartition("/")[0])
        inside = isinstance(parent, h5py.Group)
        where = f"group {name.rpartition('/')[0]}" if inside else "file"
        got = f"a {where} that holds only {listing(parent if inside else file)}"
        refuse(path, name, "a dataset", got, _convert(path))
    return dataset


def read_session_id(path: Path, file: Any) -> str:
    session = child(path, file, "session")
    value = attribute(path, session, "id") if session is not None else None
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not text:
        got = "no such group" if session is None else f"id {value!r:.80}"
        refuse(path, "session", "a group with the attribute 'id'", got, _convert(path))
    return text


def read_subject_id(path: Path, file: Any) -> str:
    """Name of the animal or person; "" where the file does not say it."""
    subject = child(path, file, "subject")
    value = (attribute(path, subject, "id") or "") if subject is not None else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def read_accepted(path: Path, file: Any) -> tuple[str, ...]:
    """Doubts that whoever wrote the recording looked into."""
    value = attribute(path, child(path, file, "session"), "accepted")
    return tuple(value.split(",")) if isinstance(value, str) else ()


def read_unit_ids(path: Path, file: Any) -> tuple[str, ...]:
    ids = values(path, dataset_of(path, file, "units/id"))
    if ids.ndim != 1 or ids.dtype.kind not in "SO":
        got = f"shape {ids.shape}, dtype {ids.dtype}"
        refuse(path, "units/id", "a list of names", got, "convert the ids to strings")
    names = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in ids]
    return checked_unit_ids(path, names, ascii_only=False)


def read_spikes(path: Path, file: Any, n_units: int) -> tuple[Float64, Int64]:
    times = values(path, dataset_of(path, file, "spikes/timestamps"))
    units = values(path, dataset_of(path, file, "spikes/unit_index"))
    check_spikes(path, times, units, n_units)
    return times.astype(np.float64, copy=False), units.astype(np.int64, copy=False)


def read_domains(path: Path, file: Any) -> dict[str, Float64]:
    domains = {}
    for name in map(str, file):
        if name != "domain" and not name.endswith("_domain"):
            continue
        split = "all" if name == "domain" else name.removesuffix("_domain")
        start, end = (values(path, dataset_of(path, file, f"{name}/{e}")) for e in ("start", "end"))
        if start.shape != end.shape or start.ndim != 1:
            got = f"shapes {start.shape} and {end.shape}"
            refuse(path, name, "one end for each start", got, "write the intervals again")
        domains[split] = checked_intervals(path, split, np.stack([start, end], axis=-1))
    return domains


def behavior_names(path: Path, file: Any) -> tuple[str, ...]:
    return tuple(
        f"{name}.{key}"
        for name, group in children(path, file)
        if name not in ("spikes", "units") and isinstance(group, h5py.Group)
        for key, dataset in children(path, group)
        if _is_behavior(path, group, key, dataset)
        and len(dataset) == _n_samples(path, group, len(dataset))
    )


def read_behavior_units(path: Path, file: Any, keys: Sequence[str]) -> dict[str, str]:
    """Behaviour → its unit, for those whose unit the file names."""
    found = {}
    for key in keys:
        dataset = child(path, file, key.replace(".", "/", 1))
        unit = attribute(path, dataset, "unit")
        text = unit.decode(errors="replace") if isinstance(unit, bytes) else unit
        if isinstance(text, str) and text.strip():
            found[key] = text.strip()[:_LONGEST_UNIT]
    return found


def _is_behavior(path: Path, group: Any, key: str, dataset: Any) -> bool:
    return (
        isinstance(dataset, h5py.Dataset)
        and (_has_times(path, group) or attribute(path, group, "object") == "RegularTimeSeries")
        and key not in NOT_KEYS
        and dataset.dtype.kind in "biuf"
        and dataset.ndim in (1, 2)
    )


def _has_times(path: Path, group: Any) -> bool:
    times = child(path, group, "timestamps")
    return isinstance(times, h5py.Dataset) and times.ndim == 1


def _n_samples(path: Path, group: Any, length: int) -> int:
    return len(child(path, group, "timestamps")) if _has_times(path, group) else length


def find_behavior(path: Path, file: Any, key: str, known: Sequence[str]) -> tuple[Any, Any]:
    name, _, dataset_name = key.partition(".")
    group = child(path, file, name) if name and dataset_name else None
    dataset = child(path, group, dataset_name) if isinstance(group, h5py.Group) else None
    if name in ("spikes", "units") or not _is_behavior(path, group, dataset_name, dataset):
        if not known:
            command = f"{convert_command(path)} --behavior {key}"
            do = f"convert it with a behaviour file behind it: {_beside(command, path)}"
            refuse(path, key, "a recording with behaviour", "one without any", do)
        expected, got = f"one of the behaviours {listing(known)}", "a name that is not there"
        refuse(path, key, expected, got, "choose one of them")
    return group, dataset


def _beside(command: str, path: Path) -> str:
    """The command with a behaviour file behind the file that it reads."""
    own = shlex.quote(str(path))
    return command.replace(own, f"{own} BEHAVIOR.csv", 1)


def sample_times(path: Path, group: Any, length: int) -> Float64:
    if _has_times(path, group):
        times: Float64 = values(path, child(path, group, "timestamps"))
        return times.astype(np.float64) if times.dtype.kind == "f" else times
    origin, rate = _grid(path, group)
    return origin + np.arange(length, dtype=np.float64) / rate


def sample_mask(path: Path, group: Any, length: int) -> npt.NDArray[np.bool_]:
    """True for measured samples; torch_brain ``RegularTimeSeries.index_mask``."""
    if _has_times(path, group):
        return np.ones(_n_samples(path, group, length), dtype=bool)
    origin, rate = _grid(path, group)
    starts, ends = (values(path, dataset_of(path, group, f"domain/{e}")) for e in ("start", "end"))
    if len(starts) == 1:
        return np.ones(length, dtype=bool)
    if starts.shape != ends.shape or not (np.isfinite(starts) & np.isfinite(ends)).all():
        expected, got = "a finite end for each start", f"shapes {starts.shape} and {ends.shape}"
        refuse(path, f"{group.name}/domain", expected, got, "write the group again")
    edges = [
        np.clip(np.rint((edge - origin) * rate), 0, length).astype(int) for edge in (starts, ends)
    ]
    mask = np.zeros(length, dtype=bool)
    for first, last in zip(*edges, strict=True):
        mask[first:last] = True
    return mask


def _grid(path: Path, group: Any) -> tuple[float, float]:
    """Start in seconds and rate in Hz of a regularly sampled series."""
    starts = values(path, dataset_of(path, group, "domain/start"))
    rate = np.asarray(attribute(path, group, "sampling_rate"))
    sound = (
        starts.ndim == 1 and len(starts) and starts.dtype.kind in "iuf" and np.isfinite(starts[0])
    )
    if not sound or rate.shape != () or rate.dtype.kind not in "iuf" or not 0 < rate < np.inf:
        expected = "a start and a sampling rate > 0 Hz"
        got = f"{starts.size} starts of {starts.dtype}, {rate!s:.40} Hz"
        refuse(path, group.name, expected, got, "write the group again")
    return float(starts[0]), float(rate)


def listing(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "(none)"
