"""Recordings: spikes and behaviour of one session, in the HDF5 layout of torch_brain.

Groups: ``spikes/{timestamps,unit_index}``, ``units/id``, behaviour as ``GROUP/{timestamps,KEY}``,
``NAME_domain/{start,end}`` and ``session`` with the attribute ``id``. Files are read and written
with h5py alone. Times are float64 seconds on the clock of the recording.

Legend: M spikes, U units, S behaviour samples, D behaviour dimensions, K intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.errors import RecordingError
from poyo_edge.recording_access import attribute, child, children, values
from poyo_edge.recording_rules import (
    NOT_KEYS,
    FloatArray,
    IntArray,
    check_ascending,
    check_spikes,
    checked_intervals,
    checked_unit_ids,
    refuse,
)
from poyo_edge.recording_writing import write_recording

__all__ = ["Behavior", "Recording", "write_recording"]


_DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises for files that the HDF5 library or numpy can make nothing of."""
_CONVERT = "convert the recording to the torch_brain layout"


@dataclass(frozen=True, slots=True, eq=False)
class Behavior:
    """One behaviour: ``times`` (S,) float64 seconds, ascending, and ``values`` (S, D) float64."""

    times: FloatArray
    values: FloatArray


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Recording:
    """One session. Spikes and domains are in memory; behaviour is read when asked for."""

    path: Path
    session_id: str
    unit_ids: tuple[str, ...]
    """(U,) names of the units; row i of ``spike_units`` is ``unit_ids[i]``."""
    spike_times: FloatArray
    """(M,) float64 seconds, ascending."""
    spike_units: IntArray
    """(M,) int64 rows of ``unit_ids``."""
    domains: dict[str, FloatArray]
    """Split → (K, 2) float64 seconds, start and end; the recording's own domain is "all"."""
    behaviors: tuple[str, ...]
    """Names of the behaviours, like "cursor.vel"."""

    @classmethod
    def open(cls, path: str | Path) -> Recording:
        """Read and check a recording.

        Raises:
            RecordingError: the file is absent, unreadable, or breaks the layout.
        """
        path = Path(path)
        with _reading(path) as file:
            unit_ids = _read_unit_ids(path, file)
            times, units = _read_spikes(path, file, len(unit_ids))
            return cls(
                path=path,
                session_id=_read_session_id(path, file),
                unit_ids=unit_ids,
                spike_times=times,
                spike_units=units,
                domains=_read_domains(path, file),
                behaviors=_behavior_names(path, file),
            )

    def behavior(self, key: str, *, allow_nan: bool = False) -> Behavior:
        """Read one behaviour, like "cursor.vel".

        Samples that only fill the gaps of a regularly sampled series are left out.

        Args:
            key: "GROUP.KEY", one of ``behaviors``.
            allow_nan: let NaN through (infinities are refused all the same).

        Raises:
            RecordingError: the behaviour is absent, unsorted, of another length than its times,
                or not finite.
        """
        with _reading(self.path) as file:
            group, dataset = _find_behavior(self.path, file, key, self.behaviors)
            times = _sample_times(self.path, group, len(dataset))
            samples = values(self.path, dataset).astype(np.float64)
            mask = _sample_mask(self.path, group, len(dataset))
        check_ascending(self.path, f"{key} timestamps", times)
        if len(samples) != len(times):
            expected = f"one value for each of {len(times)} timestamps"
            refuse(self.path, key, expected, f"{len(samples)} values", "write the group again")
        behavior = Behavior(times[mask], samples.reshape(len(samples), -1)[mask])
        _check_finite(self.path, key, behavior, allow_nan)
        return behavior

    def intervals(self, split: str) -> FloatArray:
        """(K, 2) float64 seconds: start and end of the intervals of a split, like "train".

        Raises:
            RecordingError: the recording has no such split.
        """
        if split not in self.domains:
            expected = f"one of the splits {_listing(self.domains)}"
            do = "choose one of them or add the split to the recording"
            refuse(self.path, f"{split}_domain", expected, repr(split), do)
        return self.domains[split]

    def within(self, times: FloatArray, split: str) -> npt.NDArray[np.bool_]:
        """Which times lie in a split: ``start <= t < end`` of any of its intervals.

        Args:
            times: (S,) float64 seconds.
            split: name of a split.

        Returns:
            (S,) bool.
        """
        inside = np.zeros(len(times), dtype=bool)
        for start, end in self.intervals(split):
            inside |= (times >= start) & (times < end)
        return inside


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        refuse(path, "file", "an HDF5 recording", got, "check the path")
    if not h5py.is_hdf5(path):
        do = "give the *.h5 file of the session"
        refuse(path, "file", "an HDF5 recording", "a file of another format", do)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except RecordingError:
        raise
    except _DAMAGED as error:
        got = f"a truncated or damaged one ({error})"
        refuse(path, "file", "a complete HDF5 file", got, "copy it again from its source")


def _dataset(path: Path, file: Any, name: str) -> Any:
    dataset = child(path, file, name)
    if not isinstance(dataset, h5py.Dataset):
        parent = child(path, file, name.rpartition("/")[0])
        inside = isinstance(parent, h5py.Group)
        where = f"group {name.rpartition('/')[0]}" if inside else "file"
        got = f"a {where} that holds only {_listing(parent if inside else file)}"
        refuse(path, name, "a dataset", got, _CONVERT)
    return dataset


def _read_session_id(path: Path, file: Any) -> str:
    session = child(path, file, "session")
    value = attribute(path, session, "id") if session is not None else None
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not text:
        got = "no such group" if session is None else f"id {value!r:.80}"
        refuse(path, "session", "a group with the attribute 'id'", got, _CONVERT)
    return text


def _read_unit_ids(path: Path, file: Any) -> tuple[str, ...]:
    ids = values(path, _dataset(path, file, "units/id"))
    if ids.ndim != 1 or ids.dtype.kind not in "SO":
        got = f"shape {ids.shape}, dtype {ids.dtype}"
        refuse(path, "units/id", "a list of names", got, "convert the ids to strings")
    names = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in ids]
    return checked_unit_ids(path, names, ascii_only=False)


def _read_spikes(path: Path, file: Any, n_units: int) -> tuple[FloatArray, IntArray]:
    times = values(path, _dataset(path, file, "spikes/timestamps"))
    units = values(path, _dataset(path, file, "spikes/unit_index"))
    check_spikes(path, times, units, n_units)
    return times.astype(np.float64, copy=False), units.astype(np.int64, copy=False)


def _read_domains(path: Path, file: Any) -> dict[str, FloatArray]:
    domains = {}
    for name in map(str, file):
        if name != "domain" and not name.endswith("_domain"):
            continue
        split = "all" if name == "domain" else name.removesuffix("_domain")
        start, end = (values(path, _dataset(path, file, f"{name}/{e}")) for e in ("start", "end"))
        if start.shape != end.shape or start.ndim != 1:
            got = f"shapes {start.shape} and {end.shape}"
            refuse(path, name, "one end for each start", got, "write the intervals again")
        domains[split] = checked_intervals(path, split, np.stack([start, end], axis=-1))
    return domains


def _behavior_names(path: Path, file: Any) -> tuple[str, ...]:
    return tuple(
        f"{name}.{key}"
        for name, group in children(path, file)
        if name not in ("spikes", "units") and isinstance(group, h5py.Group)
        for key, dataset in children(path, group)
        if _is_behavior(path, group, key, dataset)
        and len(dataset) == _n_samples(path, group, len(dataset))
    )


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


def _find_behavior(path: Path, file: Any, key: str, known: Sequence[str]) -> tuple[Any, Any]:
    name, _, dataset_name = key.partition(".")
    group = child(path, file, name) if name and dataset_name else None
    dataset = child(path, group, dataset_name) if isinstance(group, h5py.Group) else None
    if name in ("spikes", "units") or not _is_behavior(path, group, dataset_name, dataset):
        expected, got = f"one of the behaviours {_listing(known)}", "a name that is not there"
        refuse(path, key, expected, got, "choose one of them")
    return group, dataset


def _sample_times(path: Path, group: Any, length: int) -> FloatArray:
    if _has_times(path, group):
        times: FloatArray = values(path, child(path, group, "timestamps"))
        return times.astype(np.float64) if times.dtype.kind == "f" else times
    origin, rate = _grid(path, group)
    return origin + np.arange(length, dtype=np.float64) / rate


def _sample_mask(path: Path, group: Any, length: int) -> npt.NDArray[np.bool_]:
    """True for measured samples; torch_brain ``RegularTimeSeries.index_mask``."""
    if _has_times(path, group):
        return np.ones(_n_samples(path, group, length), dtype=bool)
    origin, rate = _grid(path, group)
    starts, ends = (values(path, _dataset(path, group, f"domain/{e}")) for e in ("start", "end"))
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
    starts = values(path, _dataset(path, group, "domain/start"))
    rate = np.asarray(attribute(path, group, "sampling_rate"))
    sound = (
        starts.ndim == 1 and len(starts) and starts.dtype.kind in "iuf" and np.isfinite(starts[0])
    )
    if not sound or rate.shape != () or rate.dtype.kind not in "iuf" or not 0 < rate < np.inf:
        expected = "a start and a sampling rate > 0 Hz"
        got = f"{starts.size} starts of {starts.dtype}, {rate!s:.40} Hz"
        refuse(path, group.name, expected, got, "write the group again")
    return float(starts[0]), float(rate)


def _check_finite(path: Path, key: str, behavior: Behavior, allow_nan: bool) -> None:
    wrong = np.isinf(behavior.values) if allow_nan else ~np.isfinite(behavior.values)
    bad = np.flatnonzero(wrong.any(axis=1))
    if len(bad):
        first = behavior.times[bad[0]]
        got = f"{len(bad)} NaN or infinite samples, the first at {first:.6f} s"
        refuse(path, key, "finite values", got, "remove or interpolate these samples")


def _listing(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "(none)"
