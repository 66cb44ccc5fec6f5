"""How the parts of a recording are found in its HDF5 file; each part that is wrong is one sentence.

Legend: U units, M spikes, S behaviour samples, K intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.recording_rules import (
    NOT_KEYS,
    FloatArray,
    IntArray,
    check_spikes,
    checked_intervals,
    checked_unit_ids,
    refuse,
)

_CONVERT = "convert the recording to the torch_brain layout"


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        refuse(path, "file", "an HDF5 recording", got, "check the path")
    if not h5py.is_hdf5(path):
        do = "give the *.h5 file of the session"
        refuse(path, "file", "an HDF5 recording", "a file of another format", do)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        got = f"a truncated or damaged one ({error})"
        refuse(path, "file", "a complete HDF5 file", got, "copy it again from its source")


def dataset_of(path: Path, file: Any, name: str) -> Any:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        parent = name.rpartition("/")[0]
        inside = isinstance(file.get(parent), h5py.Group)
        where = f"group {parent}" if inside else "file"
        got = f"a {where} that holds only {listing(file[parent] if inside else file)}"
        refuse(path, name, "a dataset", got, _CONVERT)
    return dataset


def read_session_id(path: Path, file: Any) -> str:
    value = file["session"].attrs.get("id") if "session" in file else None
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str) or not text:
        got = "no such group" if "session" not in file else f"id {value!r}"
        refuse(path, "session", "a group with the attribute 'id'", got, _CONVERT)
    return text


def read_unit_ids(path: Path, file: Any) -> tuple[str, ...]:
    values = dataset_of(path, file, "units/id")[()]
    if values.ndim != 1 or values.dtype.kind not in "SO":
        got = f"shape {values.shape}, dtype {values.dtype}"
        refuse(path, "units/id", "a list of names", got, "convert the ids to strings")
    names = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    return checked_unit_ids(path, names, ascii_only=False)


def read_spikes(path: Path, file: Any, n_units: int) -> tuple[FloatArray, IntArray]:
    times = dataset_of(path, file, "spikes/timestamps")[()]
    units = dataset_of(path, file, "spikes/unit_index")[()]
    check_spikes(path, times, units, n_units)
    return times.astype(np.float64, copy=False), units.astype(np.int64, copy=False)


def read_domains(path: Path, file: Any) -> dict[str, FloatArray]:
    domains = {}
    for name in file:
        if name != "domain" and not name.endswith("_domain"):
            continue
        split = "all" if name == "domain" else name.removesuffix("_domain")
        start, end = (dataset_of(path, file, f"{name}/{edge}")[()] for edge in ("start", "end"))
        if start.shape != end.shape or start.ndim != 1:
            got = f"shapes {start.shape} and {end.shape}"
            refuse(path, name, "one end for each start", got, "write the intervals again")
        domains[split] = checked_intervals(path, split, np.stack([start, end], axis=-1))
    return domains


def behavior_names(file: Any) -> tuple[str, ...]:
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
        and key not in NOT_KEYS
        and dataset.dtype.kind in "biuf"
        and dataset.ndim in (1, 2)
    )


def _n_samples(group: Any, length: int) -> int:
    return len(group["timestamps"]) if "timestamps" in group else length


def find_behavior(path: Path, file: Any, key: str, known: Sequence[str]) -> tuple[Any, Any]:
    name, _, dataset_name = key.partition(".")
    group = file.get(name) if name and dataset_name else None
    dataset = group.get(dataset_name) if isinstance(group, h5py.Group) else None
    if name in ("spikes", "units") or not _is_behavior(group, dataset_name, dataset):
        expected, got = f"one of the behaviours {listing(known)}", "a name that is not there"
        refuse(path, key, expected, got, "choose one of them")
    return group, dataset


def sample_times(path: Path, group: Any, length: int) -> FloatArray:
    if "timestamps" in group:
        times: FloatArray = group["timestamps"][()]
        return times.astype(np.float64) if times.dtype.kind == "f" else times
    starts = dataset_of(path, group, "domain/start")[()]
    rate = float(group.attrs.get("sampling_rate", np.nan))
    if not len(starts) or not 0 < rate < np.inf:
        expected, got = "a start and a sampling rate > 0 Hz", f"{len(starts)} starts, {rate} Hz"
        refuse(path, group.name, expected, got, "write the group again")
    return float(starts[0]) + np.arange(length, dtype=np.float64) / rate


def sample_mask(group: Any, length: int) -> npt.NDArray[np.bool_]:
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


def listing(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "(none)"
