"""Recordings: spikes and behaviour of one session, in the HDF5 layout of torch_brain.

Groups: ``spikes/{timestamps,unit_index}``, ``units/id``, behaviour as ``GROUP/{timestamps,KEY}``,
``NAME_domain/{start,end}`` and ``session`` with the attribute ``id``. Files are read and written
with h5py alone. Times are float64 seconds on the clock of the recording.

Legend: M spikes, U units, S behaviour samples, D behaviour dimensions, K intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.errors import RecordingError
from poyo_edge.files import atomic_path

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_INDEX_1S = "timestamp_indices_1s"
_NOT_KEYS = ("", "timestamps", _INDEX_1S)
_NOT_GROUPS = ("spikes", "units", "session", "subject")
_CONVERT = "convert the recording to the torch_brain layout"

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
            expected = f"one value for each of {len(times)} timestamps"
            _refuse(self.path, key, expected, f"{len(values)} values", "write the group again")
        behavior = Behavior(times[mask], values.reshape(len(values), -1)[mask])
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
            _refuse(self.path, f"{split}_domain", expected, repr(split), do)
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
        RecordingError: the arrays break the layout, or the folder is absent; nothing is written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        _refuse(path, "folder", "one that exists", "none", f"create {path.parent}")
    ids = _checked_unit_ids(path, list(unit_ids), ascii_only=True)
    times, units = np.asarray(spike_times, dtype=np.float64), np.asarray(spike_units)
    _check_spikes(path, times, units, len(ids))
    groups = _grouped_behaviors(path, behaviors)
    intervals = {k: _checked_intervals(path, k, np.asarray(v)) for k, v in domains.items()}
    series_times = [times, *(group["timestamps"] for group in groups.values())]
    whole = intervals.pop("all", None)
    if whole is None:
        whole = _span(series_times, list(intervals.values()))
    _check_covered(path, whole, series_times)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
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
def _reading(path: Path) -> Iterator[Any]:
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        _refuse(path, "file", "an HDF5 recording", got, "check the path")
    if not h5py.is_hdf5(path):
        do = "give the *.h5 file of the session"
        _refuse(path, "file", "an HDF5 recording", "a file of another format", do)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        got = f"a truncated or damaged one ({error})"
        _refuse(path, "file", "a complete HDF5 file", got, "copy it again from its source")


def _refuse(path: Path, field: str, expected: str, got: object, do: str) -> NoReturn:
    raise RecordingError(path, field, expected=expected, got=got, do=do)


def _dataset(path: Path, file: Any, name: str) -> Any:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        parent = name.rpartition("/")[0]
        inside = isinstance(file.get(parent), h5py.Group)
        where = f"group {parent}" if inside else "file"
        got = f"a {where} that holds only {_listing(file[parent] if inside else file)}"
        _refuse(path, name, "a dataset", got, _CONVERT)
    return dataset


def _read_session_id(path: Path, file: Any) -> str:
    value = file["session"].attrs.get("id") if "session" in file else None
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str) or not text:
        got = "no such group" if "session" not in file else f"id {value!r}"
        _refuse(path, "session", "a group with the attribute 'id'", got, _CONVERT)
    return text


def _read_unit_ids(path: Path, file: Any) -> tuple[str, ...]:
    values = _dataset(path, file, "units/id")[()]
    if values.ndim != 1 or values.dtype.kind not in "SO":
        got = f"shape {values.shape}, dtype {values.dtype}"
        _refuse(path, "units/id", "a list of names", got, "convert the ids to strings")
    names = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    return _checked_unit_ids(path, names, ascii_only=False)


def _checked_unit_ids(path: Path, ids: list[str], *, ascii_only: bool) -> tuple[str, ...]:
    repeated = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
    unusable = [i for i in ids if not i or (ascii_only and not i.isascii()) or "\0" in i]
    if not ids or repeated or unusable:
        got = f"{repeated[0]!r} twice" if repeated else repr(unusable[0]) if unusable else "none"
        expected = "at least one unit, all with different names" + " in ASCII" * ascii_only
        _refuse(path, "units/id", expected, got, "name the units, for example SESSION/unit_000")
    return tuple(ids)


def _read_spikes(path: Path, file: Any, n_units: int) -> tuple[FloatArray, IntArray]:
    times = _dataset(path, file, "spikes/timestamps")[()]
    units = _dataset(path, file, "spikes/unit_index")[()]
    _check_spikes(path, times, units, n_units)
    return times.astype(np.float64, copy=False), units.astype(np.int64, copy=False)


def _check_spikes(path: Path, times: Any, units: Any, n_units: int) -> None:
    if times.ndim != 1 or times.shape != units.shape:
        expected = "as many unit indices as timestamps, in one dimension"
        got = f"shapes {times.shape} and {units.shape}"
        _refuse(path, "spikes", expected, got, "write the group again")
    if not len(times):
        _refuse(path, "spikes/timestamps", "at least one spike", "none", "leave this recording out")
    _check_ascending(path, "spikes/timestamps", times)
    if units.dtype.kind not in "iu":
        do = "convert the indices to int64"
        _refuse(path, "spikes/unit_index", "integers", f"dtype {units.dtype}", do)
    lowest, highest = int(units.min()), int(units.max())
    if lowest < 0 or highest >= n_units:
        wrong, do = lowest if lowest < 0 else highest, "write units and spikes from one table"
        _refuse(path, "spikes/unit_index", f"rows 0 to {n_units - 1} of units/id", wrong, do)


def _check_ascending(path: Path, field: str, times: Any) -> None:
    if times.ndim != 1 or times.dtype.kind != "f":
        got = f"shape {times.shape}, dtype {times.dtype}"
        _refuse(path, field, "a list of float64 seconds", got, "convert the times")
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        got = f"{len(bad)} NaN or infinite, the first at index {bad[0]}"
        _refuse(path, field, "finite seconds", got, "remove these samples")
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        got = f"{times[back[0] + 1]:.6f} s after {times[back[0]]:.6f} s at index {back[0] + 1}"
        _refuse(path, field, "ascending seconds", got, "sort the samples by time")


def _read_domains(path: Path, file: Any) -> dict[str, FloatArray]:
    domains = {}
    for name in file:
        if name != "domain" and not name.endswith("_domain"):
            continue
        split = "all" if name == "domain" else name.removesuffix("_domain")
        start, end = (_dataset(path, file, f"{name}/{edge}")[()] for edge in ("start", "end"))
        if start.shape != end.shape or start.ndim != 1:
            got = f"shapes {start.shape} and {end.shape}"
            _refuse(path, name, "one end for each start", got, "write the intervals again")
        domains[split] = _checked_intervals(path, split, np.stack([start, end], axis=-1))
    return domains


def _checked_intervals(path: Path, split: str, intervals: Any) -> FloatArray:
    field = "domain" if split == "all" else f"{split}_domain"
    if intervals.shape[1:] != (2,) or intervals.dtype.kind not in "iuf":
        got = f"shape {intervals.shape}, dtype {intervals.dtype}"
        do = "give a start and an end for each interval"
        _refuse(path, field, "intervals of shape (K, 2) in seconds", got, do)
    bad = np.flatnonzero(~(intervals[:, 1] > intervals[:, 0]) | ~np.isfinite(intervals).all(1))
    if len(bad):
        got = f"{intervals[bad[0], 0]} to {intervals[bad[0], 1]} s at index {bad[0]}"
        do = "correct or remove the interval"
        _refuse(path, field, "finite intervals that end after they start", got, do)
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
        and key not in _NOT_KEYS
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
        expected, got = f"one of the behaviours {_listing(known)}", "a name that is not there"
        _refuse(path, key, expected, got, "choose one of them")
    return group, dataset


def _sample_times(path: Path, group: Any, length: int) -> FloatArray:
    if "timestamps" in group:
        times: FloatArray = group["timestamps"][()]
        return times.astype(np.float64) if times.dtype.kind == "f" else times
    starts = _dataset(path, group, "domain/start")[()]
    rate = float(group.attrs.get("sampling_rate", np.nan))
    if not len(starts) or not 0 < rate < np.inf:
        expected, got = "a start and a sampling rate > 0 Hz", f"{len(starts)} starts, {rate} Hz"
        _refuse(path, group.name, expected, got, "write the group again")
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
        first = behavior.times[bad[0]]
        got = f"{len(bad)} NaN or infinite samples, the first at {first:.6f} s"
        _refuse(path, key, "finite values", got, "remove or interpolate these samples")


def _grouped_behaviors(
    path: Path, behaviors: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]
) -> dict[str, dict[str, npt.NDArray[Any]]]:
    groups: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for key, (times, values) in behaviors.items():
        name, _, dataset = key.partition(".")
        if not name or dataset in _NOT_KEYS or name in _NOT_GROUPS or name.endswith("domain"):
            do = "name it, for example, cursor.vel"
            _refuse(path, key, "a name of the form GROUP.KEY", repr(key), do)
        seconds = np.asarray(times, dtype=np.float64)
        _check_ascending(path, f"{key} timestamps", seconds)
        arrays = groups.setdefault(name, {"timestamps": seconds})
        arrays[dataset] = np.asarray(values)
        same_times = np.array_equal(arrays["timestamps"], seconds)
        if not same_times or arrays[dataset].shape[:1] != seconds.shape:
            expected = f"one value for each of {len(arrays['timestamps'])} timestamps of {name}"
            got = f"shape {arrays[dataset].shape}" if same_times else "other timestamps"
            _refuse(path, key, expected, got, "write it under a group of its own")
    return groups


def _check_covered(path: Path, domain: FloatArray, times: Sequence[FloatArray]) -> None:
    """torch_brain finds samples through an index that spans the domain: none may lie outside."""
    found = [edge for t in times if len(t) for edge in (t[0], t[-1])]
    if not len(domain) or min(found) < domain[0, 0] or max(found) > domain[-1, 1]:
        expected = f"a domain that holds {min(found)} to {max(found)} s"
        _refuse(path, "domain", expected, f"{domain.tolist()}", "widen it or leave out 'all'")


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
    return ", ".join(sorted(map(str, names))) or "(none)"
