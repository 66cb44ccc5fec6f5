"""Recordings: spikes and behaviour of one session, in the HDF5 layout of torch_brain.

Groups: ``spikes/{timestamps,unit_index}``, ``units/id``, behaviour as ``GROUP/{timestamps,KEY}``,
``NAME_domain/{start,end}`` and ``session`` with the attribute ``id``. Files are read and written
with h5py alone. Times are float64 seconds on the clock of the recording.

Legend: M spikes, U units, S behaviour samples, D behaviour dimensions, K intervals.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.errors import RecordingError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_INDEX_1S = "timestamp_indices_1s"


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
                behaviors=_behavior_names(file),
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
            values = np.asarray(dataset[()], dtype=np.float64)
            mask = _sample_mask(group, len(dataset))
        _check_ascending(self.path, f"{key} timestamps", times)
        if len(values) != len(times):
            raise RecordingError(
                self.path,
                key,
                expected=f"one value for each of {len(times)} timestamps",
                got=f"{len(values)} values",
                do="write the group again",
            )
        behavior = Behavior(times[mask], values.reshape(len(values), -1)[mask])
        _check_finite(self.path, key, behavior, allow_nan)
        return behavior

    def intervals(self, split: str) -> FloatArray:
        """(K, 2) float64 seconds: start and end of the intervals of a split, like "train".

        Raises:
            RecordingError: the recording has no such split.
        """
        if split not in self.domains:
            raise RecordingError(
                self.path,
                f"{split}_domain",
                expected=f"one of the splits {_listing(self.domains)}",
                got=repr(split),
                do="choose one of them or add the split to the recording",
            )
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


def write_recording(
    path: str | Path,
    *,
    session_id: str,
    subject_id: str,
    unit_ids: Sequence[str],
    spike_times: npt.ArrayLike,
    spike_units: npt.ArrayLike,
    behaviors: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
    domains: Mapping[str, npt.ArrayLike],
) -> Path:
    """Write a recording that poyo-edge and torch_brain open, whole or not at all.

    Args:
        path: the file to write; an existing one is replaced.
        session_id: name of the session.
        subject_id: name of the subject.
        unit_ids: (U,) unique ASCII names.
        spike_times: (M,) float64 seconds, ascending.
        spike_units: (M,) integer rows of ``unit_ids``.
        behaviors: "GROUP.KEY" → ``(times, values)``: (S,) float64 seconds, ascending, and (S,)
            or (S, D) numbers. Keys of one group share their times.
        domains: split → (K, 2) float64 seconds. Without "all", the domain of the recording
            spans everything that is written.

    Raises:
        RecordingError: the arrays break the layout; nothing is written.
    """
    path = Path(path)
    ids = _checked_unit_ids(path, list(unit_ids), ascii_only=True)
    times, units = np.asarray(spike_times, dtype=np.float64), np.asarray(spike_units)
    _check_spikes(path, times, units, len(ids))
    groups = _grouped_behaviors(path, behaviors)
    intervals = {k: _checked_intervals(path, k, np.asarray(v)) for k, v in domains.items()}
    series_times = [times, *(group["timestamps"] for group in groups.values())]
    whole = intervals.pop("all", None)
    if whole is None:
        whole = _span(series_times, list(intervals.values()))
    with replacing_file(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"object": "Data", "absolute_start": 0.0})
        for name, identifier in (("session", session_id), ("subject", subject_id)):
            attrs = {"object": "Data", "absolute_start": 0.0, "id": identifier}
            file.create_group(name).attrs.update(attrs)
        _write_units(file.create_group("units"), ids)
        _write_series(
            file.create_group("spikes"),
            {"timestamps": times, "unit_index": units.astype(np.int64)},
            whole,
        )
        for name, arrays in groups.items():
            _write_series(file.create_group(name), arrays, whole)
        for split, value in intervals.items():
            _write_intervals(file.create_group(f"{split}_domain"), value)
        _write_intervals(file.create_group("domain"), whole)
    return path


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced to disk and renamed.

    When the body raises, the temporary file is removed and ``path`` is as it was.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise RecordingError(
            path, "file", expected="an HDF5 recording", got=got, do="check the path"
        )
    if not h5py.is_hdf5(path):
        raise RecordingError(
            path,
            "file",
            expected="an HDF5 recording",
            got="a file of another format",
            do="give the *.h5 file of the session",
        )
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise RecordingError(
            path,
            "file",
            expected="a complete HDF5 file",
            got=f"a truncated or damaged one ({error})",
            do="copy it again from its source",
        ) from error


def _dataset(path: Path, file: Any, name: str) -> Any:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        parent = name.rpartition("/")[0]
        inside = isinstance(file.get(parent), h5py.Group)
        where = f"group {parent}" if inside else "file"
        raise RecordingError(
            path,
            name,
            expected="a dataset",
            got=f"a {where} that holds only {_listing(file[parent] if inside else file)}",
            do="convert the recording to the torch_brain layout",
        )
    return dataset


def _read_session_id(path: Path, file: Any) -> str:
    value = file["session"].attrs.get("id") if "session" in file else None
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str) or not text:
        raise RecordingError(
            path,
            "session",
            expected="a group with the attribute 'id'",
            got="no such group" if "session" not in file else f"id {value!r}",
            do="convert the recording to the torch_brain layout",
        )
    return text


def _read_unit_ids(path: Path, file: Any) -> tuple[str, ...]:
    values = _dataset(path, file, "units/id")[()]
    if values.ndim != 1 or values.dtype.kind not in "SO":
        raise RecordingError(
            path,
            "units/id",
            expected="a list of names",
            got=f"shape {values.shape}, dtype {values.dtype}",
            do="convert the ids to strings",
        )
    names = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    return _checked_unit_ids(path, names, ascii_only=False)


def _checked_unit_ids(path: Path, ids: list[str], *, ascii_only: bool) -> tuple[str, ...]:
    repeated = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
    unusable = [i for i in ids if not i or (ascii_only and not i.isascii()) or "\0" in i]
    if not ids or repeated or unusable:
        got = f"{repeated[0]!r} twice" if repeated else repr(unusable[0]) if unusable else "none"
        raise RecordingError(
            path,
            "units/id",
            expected="at least one unit, all with different names"
            + (" in ASCII" if ascii_only else ""),
            got=got,
            do="name the units, for example SESSION/unit_000",
        )
    return tuple(ids)


def _read_spikes(path: Path, file: Any, n_units: int) -> tuple[FloatArray, IntArray]:
    times = _dataset(path, file, "spikes/timestamps")[()]
    units = _dataset(path, file, "spikes/unit_index")[()]
    _check_spikes(path, times, units, n_units)
    return times.astype(np.float64, copy=False), units.astype(np.int64, copy=False)


def _check_spikes(path: Path, times: Any, units: Any, n_units: int) -> None:
    if times.ndim != 1 or times.shape != units.shape:
        raise RecordingError(
            path,
            "spikes",
            expected="as many unit indices as timestamps, in one dimension",
            got=f"shapes {times.shape} and {units.shape}",
            do="write the group again",
        )
    if not len(times):
        raise RecordingError(
            path,
            "spikes/timestamps",
            expected="at least one spike",
            got="none",
            do="leave this recording out",
        )
    _check_ascending(path, "spikes/timestamps", times)
    if units.dtype.kind not in "iu":
        raise RecordingError(
            path,
            "spikes/unit_index",
            expected="integers",
            got=f"dtype {units.dtype}",
            do="convert the indices to int64",
        )
    if int(units.min()) < 0 or int(units.max()) >= n_units:
        wrong = units.min() if int(units.min()) < 0 else units.max()
        raise RecordingError(
            path,
            "spikes/unit_index",
            expected=f"rows 0 to {n_units - 1} of units/id",
            got=int(wrong),
            do="write the units and their spikes from the same table",
        )


def _check_ascending(path: Path, field: str, times: Any) -> None:
    if times.ndim != 1 or times.dtype.kind != "f":
        got = f"shape {times.shape}, dtype {times.dtype}"
        raise RecordingError(
            path, field, expected="a list of float64 seconds", got=got, do="convert the times"
        )
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        got = f"{len(bad)} NaN or infinite, the first at index {bad[0]}"
        raise RecordingError(
            path, field, expected="finite seconds", got=got, do="remove these samples"
        )
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        got = f"{times[back[0] + 1]:.6f} s after {times[back[0]]:.6f} s at index {back[0] + 1}"
        raise RecordingError(
            path, field, expected="ascending seconds", got=got, do="sort the samples by time"
        )


def _read_domains(path: Path, file: Any) -> dict[str, FloatArray]:
    domains = {}
    for name in file:
        if name != "domain" and not name.endswith("_domain"):
            continue
        split = "all" if name == "domain" else name.removesuffix("_domain")
        start, end = (_dataset(path, file, f"{name}/{edge}")[()] for edge in ("start", "end"))
        if start.shape != end.shape or start.ndim != 1:
            raise RecordingError(
                path,
                name,
                expected="one end for each start",
                got=f"shapes {start.shape} and {end.shape}",
                do="write the intervals again",
            )
        domains[split] = _checked_intervals(path, split, np.stack([start, end], axis=-1))
    return domains


def _checked_intervals(path: Path, split: str, intervals: Any) -> FloatArray:
    field = "domain" if split == "all" else f"{split}_domain"
    if intervals.shape[1:] != (2,) or intervals.dtype.kind not in "iuf":
        raise RecordingError(
            path,
            field,
            expected="intervals of shape (K, 2) in seconds",
            got=f"shape {intervals.shape}, dtype {intervals.dtype}",
            do="give a start and an end for each interval",
        )
    bad = np.flatnonzero(~(intervals[:, 1] > intervals[:, 0]) | ~np.isfinite(intervals).all(1))
    if len(bad):
        start, end = intervals[bad[0]]
        raise RecordingError(
            path,
            field,
            expected="finite intervals that end after they start",
            got=f"{start} to {end} s at index {bad[0]}",
            do="correct or remove the interval",
        )
    return np.asarray(intervals, dtype=np.float64)


def _behavior_names(file: Any) -> tuple[str, ...]:
    return tuple(
        f"{name}.{key}"
        for name, group in file.items()
        if name not in ("spikes", "units") and isinstance(group, h5py.Group)
        for key, dataset in group.items()
        if _is_behavior(group, key, dataset) and len(dataset) == _n_samples(group, len(dataset))
    )


def _is_behavior(group: Any, key: str, dataset: Any) -> bool:
    return (
        isinstance(dataset, h5py.Dataset)
        and ("timestamps" in group or group.attrs.get("object") == "RegularTimeSeries")
        and key not in ("timestamps", _INDEX_1S)
        and dataset.dtype.kind in "biuf"
        and dataset.ndim in (1, 2)
    )


def _n_samples(group: Any, length: int) -> int:
    return len(group["timestamps"]) if "timestamps" in group else length


def _find_behavior(path: Path, file: Any, key: str, known: Sequence[str]) -> tuple[Any, Any]:
    name, _, dataset_name = key.partition(".")
    group = file.get(name) if name and dataset_name else None
    dataset = group.get(dataset_name) if isinstance(group, h5py.Group) else None
    if name in ("spikes", "units") or not _is_behavior(group, dataset_name, dataset):
        raise RecordingError(
            path,
            key,
            expected=f"one of the behaviours {_listing(known)}",
            got="a name that the recording does not have",
            do="choose one of them",
        )
    return group, dataset


def _sample_times(path: Path, group: Any, length: int) -> FloatArray:
    if "timestamps" in group:
        times: FloatArray = group["timestamps"][()]
        return times.astype(np.float64) if times.dtype.kind == "f" else times
    starts = _dataset(path, group, "domain/start")[()]
    rate = float(group.attrs.get("sampling_rate", np.nan))
    if not len(starts) or not 0 < rate < np.inf:
        raise RecordingError(
            path,
            group.name,
            expected="a start and a sampling rate > 0 Hz",
            got=f"{len(starts)} starts, {rate} Hz",
            do="write the group again",
        )
    return float(starts[0]) + np.arange(length, dtype=np.float64) / rate


def _sample_mask(group: Any, length: int) -> npt.NDArray[np.bool_]:
    """True for measured samples; torch_brain ``RegularTimeSeries.index_mask``."""
    if "timestamps" in group or len(group["domain/start"]) == 1:
        return np.ones(_n_samples(group, length), dtype=bool)
    rate, origin = float(group.attrs["sampling_rate"]), group["domain/start"][0]
    edges = [
        np.rint((group[f"domain/{e}"][()] - origin) * rate).astype(int) for e in ("start", "end")
    ]
    mask = np.zeros(length, dtype=bool)
    for first, last in zip(*edges, strict=True):
        mask[first:last] = True
    return mask


def _check_finite(path: Path, key: str, behavior: Behavior, allow_nan: bool) -> None:
    wrong = np.isinf(behavior.values) if allow_nan else ~np.isfinite(behavior.values)
    bad = np.flatnonzero(wrong.any(axis=1))
    if len(bad):
        raise RecordingError(
            path,
            key,
            expected="finite values",
            got=f"{len(bad)} NaN or infinite samples, the first at {behavior.times[bad[0]]:.6f} s",
            do="remove or interpolate these samples",
        )


def _grouped_behaviors(
    path: Path, behaviors: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]
) -> dict[str, dict[str, npt.NDArray[Any]]]:
    groups: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for key, (times, values) in behaviors.items():
        name, _, dataset = key.partition(".")
        seconds = np.asarray(times, dtype=np.float64)
        arrays = groups.setdefault(name, {"timestamps": seconds})
        arrays[dataset] = np.asarray(values)
        _check_ascending(path, f"{key} timestamps", seconds)
        if not dataset or dataset == "timestamps" or name in ("spikes", "units", "domain"):
            raise RecordingError(
                path,
                key,
                expected="a name of the form GROUP.KEY",
                got=repr(key),
                do="name it, for example, cursor.vel",
            )
        same_times = np.array_equal(arrays["timestamps"], seconds)
        if not same_times or arrays[dataset].shape[:1] != arrays["timestamps"].shape:
            raise RecordingError(
                path,
                key,
                expected=f"one value for each of {len(arrays['timestamps'])} timestamps of {name}",
                got=f"shape {arrays[dataset].shape}" if same_times else "other timestamps",
                do="write it under a group of its own",
            )
    return groups


def _span(times: Sequence[FloatArray], intervals: Sequence[FloatArray]) -> FloatArray:
    edges = np.concatenate([np.ravel(x) for x in (*times, *intervals)])
    return np.array([[edges.min(), np.nextafter(edges.max(), np.inf)]])


def _write_units(group: Any, ids: Sequence[str]) -> None:
    group.create_dataset("id", data=np.array(ids, dtype="S"))
    group.attrs.update({"object": "ArrayDict", "_unicode_keys": np.array(["id"], dtype="S")})


def _write_series(group: Any, arrays: Mapping[str, npt.NDArray[Any]], domain: FloatArray) -> None:
    for key, value in arrays.items():
        group.create_dataset(key, data=value)
    grid = np.arange(domain[0, 0], domain[-1, 1] + 1.0, 1.0)
    group.create_dataset(_INDEX_1S, data=np.searchsorted(arrays["timestamps"], grid))
    _write_intervals(group.create_group("domain"), domain)
    _write_attributes(group, "IrregularTimeSeries", ["timestamps"])


def _write_intervals(group: Any, intervals: FloatArray) -> None:
    group.create_dataset("start", data=intervals[:, 0])
    group.create_dataset("end", data=intervals[:, 1])
    _write_attributes(group, "Interval", ["start", "end"])


def _write_attributes(group: Any, kind: str, timekeys: Sequence[str]) -> None:
    attrs = {"_unicode_keys": np.array([], dtype="S"), "timekeys": np.array(timekeys, dtype="S")}
    group.attrs.update({"object": kind, **attrs})


def _listing(names: Any) -> str:
    return ", ".join(sorted(names)) or "(none)"
