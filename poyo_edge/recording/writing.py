"""Writes recordings that torch_brain opens, with h5py alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.files.writing import write_bytes
from poyo_edge.recording.rules import (
    INDEX_1S,
    NOT_GROUPS,
    NOT_KEYS,
    check_ascending,
    check_spikes,
    checked_intervals,
    checked_unit_ids,
    refuse,
)
from poyo_edge.recording.trials import GROUP, checked_trials, trial_arrays
from poyo_edge.records import is_text
from poyo_edge.trials import Trials

_MOST_S = 10_000_000
"""A third of a year: the index has an entry for each second."""


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
    trials: Trials | npt.ArrayLike | None = None,
    accepted: Sequence[str] = (),
) -> Path:
    """Write a recording that poyo-edge and torch_brain open, whole or not at all.

    It is made in memory first, which takes up to twice its size.

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
        trials: what is known of each trial; or (J, 2) float64 seconds, start and end alone.
        accepted: names of ``plausible.DOUBTS`` that somebody looked into.

    Raises:
        RecordingError: the arrays break the layout, or the folder is absent; nothing is written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        refuse(path, "folder", "one that exists", "none", f"create {path.parent}")
    ids = checked_unit_ids(path, list(unit_ids), ascii_only=True)
    times, units = np.asarray(spike_times, dtype=np.float64), np.asarray(spike_units)
    check_spikes(path, times, units, len(ids))
    groups = _grouped_behaviors(path, behaviors)
    intervals = {k: checked_intervals(path, k, np.asarray(v)) for k, v in domains.items()}
    told = None if trials is None else trial_arrays(checked_trials(path, trials))
    series_times = [times, *(group["timestamps"] for group in groups.values())]
    whole = intervals.pop("all", None)
    if whole is None:
        whole = _span(series_times, list(intervals.values()))
    _check_covered(path, whole, series_times)
    for name, identifier in (("session", session_id), ("subject", subject_id)):
        if not is_text(identifier) or not identifier:
            refuse(path, name, "an id", f"{identifier!r:.80}", "name it")
    names = {"session": session_id, "subject": subject_id}
    series = {"spikes": {"timestamps": times, "unit_index": units.astype(np.int64)}, **groups}
    intervals = {f"{split}_domain": value for split, value in intervals.items()}
    intervals["domain"] = whole
    write_bytes(path, _image(path, names, ids, series, intervals, told, ",".join(accepted)))
    return path


def _image(
    path: Path,
    names: Mapping[str, str],
    unit_ids: Sequence[str],
    series: Mapping[str, dict[str, npt.NDArray[Any]]],
    intervals: Mapping[str, Float64],
    trials: Mapping[str, npt.NDArray[Any]] | None,
    accepted: str,
) -> bytes:
    """The file's bytes. It is made in memory: HDF5 crashes the program when the disk is full."""
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        file.attrs.update({"object": "Data", "absolute_start": 0.0})
        for name, identifier in names.items():
            attrs = {"object": "Data", "absolute_start": 0.0, "id": identifier}
            file.create_group(name).attrs.update(attrs)
        if accepted:
            file["session"].attrs["accepted"] = accepted
        _write_units(file.create_group("units"), unit_ids)
        for name, arrays in series.items():
            _write_series(file.create_group(name), arrays, intervals["domain"])
        for name, value in intervals.items():
            _write_intervals(file.create_group(name), value)
        if trials is not None:
            _write_trials(file.create_group(GROUP), trials)
        file.flush()
        return bytes(file.id.get_file_image())


def _grouped_behaviors(
    path: Path, behaviors: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]
) -> dict[str, dict[str, npt.NDArray[Any]]]:
    groups: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for key, (times, values) in behaviors.items():
        name, _, dataset = key.partition(".")
        if not name or dataset in NOT_KEYS or name in NOT_GROUPS or name.endswith("domain"):
            do = "name it, for example, cursor.vel"
            refuse(path, key, "a name of the form GROUP.KEY", repr(key), do)
        seconds = np.asarray(times, dtype=np.float64)
        check_ascending(path, f"{key} timestamps", seconds)
        arrays = groups.setdefault(name, {"timestamps": seconds})
        arrays[dataset] = np.asarray(values)
        same_times = np.array_equal(arrays["timestamps"], seconds)
        if not same_times or arrays[dataset].shape[:1] != seconds.shape:
            expected = f"one value for each of {len(arrays['timestamps'])} timestamps of {name}"
            got = f"shape {arrays[dataset].shape}" if same_times else "other timestamps"
            refuse(path, key, expected, got, "write it under a group of its own")
    return groups


def _check_covered(path: Path, domain: Float64, times: Sequence[Float64]) -> None:
    """torch_brain finds samples through an index that spans the domain: none may lie outside."""
    found = [edge for t in times if len(t) for edge in (t[0], t[-1])]
    if not len(domain) or min(found) < domain[0, 0] or max(found) > domain[-1, 1]:
        expected = f"a domain that holds {min(found)} to {max(found)} s"
        refuse(path, "domain", expected, f"{domain.tolist()}", "widen it or leave out 'all'")
    if not domain[-1, 1] - domain[0, 0] <= _MOST_S:
        got = f"{domain[0, 0]} to {domain[-1, 1]} s"
        do = "look for times that cannot be meant, and leave them out"
        refuse(path, "domain", f"at most {_MOST_S} s from first to last", got, do)


def _span(times: Sequence[Float64], intervals: Sequence[Float64]) -> Float64:
    edges = np.concatenate([np.ravel(x) for x in (*times, *intervals)])
    return np.array([[edges.min(), np.nextafter(edges.max(), np.inf)]])


def _write_units(group: Any, ids: Sequence[str]) -> None:
    group.create_dataset("id", data=np.array(ids, dtype="S"))
    group.attrs.update({"object": "ArrayDict", "_unicode_keys": np.array(["id"], dtype="S")})


def _write_series(group: Any, arrays: Mapping[str, npt.NDArray[Any]], domain: Float64) -> None:
    for key, value in arrays.items():
        group.create_dataset(key, data=value)
    grid = np.arange(domain[0, 0], domain[-1, 1] + 1.0, 1.0)
    group.create_dataset(INDEX_1S, data=np.searchsorted(arrays["timestamps"], grid))
    _write_intervals(group.create_group("domain"), domain)
    _write_attributes(group, "IrregularTimeSeries", ["timestamps"])


def _write_intervals(group: Any, intervals: Float64) -> None:
    group.create_dataset("start", data=intervals[:, 0])
    group.create_dataset("end", data=intervals[:, 1])
    _write_attributes(group, "Interval", ["start", "end"])


def _write_trials(group: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    for key, value in arrays.items():
        group.create_dataset(key, data=value)
    times = [name for name in ("start", "end", "go_time") if name in arrays]
    _write_attributes(group, "Interval", times)


def _write_attributes(group: Any, kind: str, timekeys: Sequence[str]) -> None:
    attrs = {"_unicode_keys": np.array([], dtype="S"), "timekeys": np.array(timekeys, dtype="S")}
    group.attrs.update({"object": kind, **attrs})
