"""Recordings that any torch_brain, temporaldata or brainsets wrote, read leniently.

``poyo_edge.recording`` reads the layout of today. Older files name units and session otherwise,
carry split masks beside their series, nest groups, or keep times in float32 or unsorted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.converting.clocks import with_rows
from poyo_edge.converting.source import (
    NO_INTERVALS,
    NO_ROWS,
    NO_SPIKES,
    LeftOut,
    Series,
    Source,
    not_behavior,
)
from poyo_edge.converting.trial_table import known_as, with_table
from poyo_edge.recording.access import check_not_held
from poyo_edge.recording.other_files import refuse_other
from poyo_edge.recording.rules import INDEX_1S, refuse

DAMAGED = (OSError, RuntimeError, KeyError)
"""What h5py raises for a truncated or damaged file."""
_UNIT_NAMES = ("id", "unit_name", "name", "unit_id")
_NO_BEHAVIOR = ("spikes", "units", "session", "subject", "brainset", "device")
_SPLITS = ("train", "valid", "test")


def is_hdf5(path: Path) -> bool:
    """Whether a path is an HDF5 file."""
    return path.is_file() and bool(h5py.is_hdf5(path))


def is_torch_brain(path: Path) -> bool:
    """Whether a path is an HDF5 file that may be in a layout of torch_brain.

    Raises:
        RecordingError: it is of another kind, which nothing here reads.
    """
    if not is_hdf5(path):
        return False
    refuse_other(path, but_readable=True)
    return True


@contextmanager
def open_torch_brain(path: Path) -> Iterator[Source]:
    """Open an HDF5 file in a layout of torch_brain.

    Raises:
        RecordingError: damaged, or no ``spikes/timestamps`` with ``spikes/unit_index``.
    """
    with contextlib.ExitStack() as stack:
        try:
            source = _source(path, stack.enter_context(h5py.File(path, "r")))
        except DAMAGED as error:
            check_not_held(path, error)
            got = f"a truncated or damaged one ({error})"
            refuse(path, "file", "a complete HDF5 file", got, "copy it again from its source")
        yield source


def _source(path: Path, file: Any) -> Source:
    for name in ("spikes/timestamps", "spikes/unit_index"):
        if not isinstance(file.get(name), h5py.Dataset):
            held = ", ".join(sorted(file)) or "(none)"
            do = "convert an NWB file or a recording that torch_brain wrote"
            refuse(path, name, "a dataset", f"a file that holds {held}", do)
    times = np.asarray(file["spikes/timestamps"][()], dtype=np.float64).ravel()
    rows = np.asarray(file["spikes/unit_index"][()]).ravel()
    notes = []
    if len(times) != len(rows):
        got = f"{len(rows)} for {len(times)} timestamps"
        refuse(path, "spikes/unit_index", "one for each timestamp", got, "export the file again")
    if file["spikes/timestamps"].dtype == np.float32:
        notes.append("spike times were stored in float32: they are exact to 1e-7 of their size")
    domains = _domains(file)
    source = Source(
        path=path,
        format="torch_brain HDF5",
        session_id=_text(file, "session", path.stem),
        subject_id=_text(file, "subject", "unknown"),
        unit_ids=_unit_ids(path, file, rows),
        spike_times=NO_SPIKES,
        spike_units=NO_ROWS,
        series=tuple(_series(path, file)),
        observed=domains.get("all", NO_INTERVALS),
        trials=NO_INTERVALS,
        domains=domains,
        notes=tuple(notes),
        left_out=tuple(_links(file)),
    )
    return with_rows(with_table(source, _trials(file.get("trials"))), times, rows)


def _text(file: Any, group: str, otherwise: str) -> str:
    """The id of the session or subject: an attribute or a dataset, by its old names too."""
    for holder in (file.get(group), file):
        names = ("id", f"{group}_id") if holder is not file else (f"{group}_id",)
        for name in names if holder is not None else ():
            value: Any = holder.attrs.get(name)
            if value is None and isinstance(holder, h5py.Group) and name in holder:
                value = holder[name][()]
            if isinstance(value, bytes):
                value = value.decode(errors="replace")
            if isinstance(value, str) and value:
                return value
    return otherwise


def _unit_ids(path: Path, file: Any, rows: npt.NDArray[Any]) -> tuple[str, ...]:
    units = file.get("units")
    for name in _UNIT_NAMES if isinstance(units, h5py.Group) else ():
        if isinstance(units.get(name), h5py.Dataset) and units[name].ndim == 1:
            values = units[name][()]
            return tuple(
                v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values
            )
    if not len(rows):
        refuse(path, "units", f"names as one of {_UNIT_NAMES}", "none", "name the units")
    session = _text(file, "session", path.stem)
    return tuple(f"{session}/unit_{i}" for i in range(int(rows.max()) + 1))


def _domains(file: Any) -> dict[str, Float64]:
    """Splits by their own groups; else by the masks that older files keep beside the trials."""
    found = {}
    for name in file:
        if name == "domain" or name.endswith("_domain"):
            intervals = _interval(file[name])
            if len(intervals):
                found["all" if name == "domain" else name.removesuffix("_domain")] = intervals
    trials = file.get("trials")
    if not set(_SPLITS) & set(found) and isinstance(trials, h5py.Group):
        for split in _SPLITS:
            mask = trials.get(f"{split}_mask")
            intervals = _interval(trials, keep=None if mask is None else mask[()].astype(bool))
            if mask is not None and len(intervals):
                found[split] = intervals
    return found


def _trials(group: Any) -> dict[str, npt.NDArray[Any]]:
    """Datasets of the group of trials that say something of each."""
    if not isinstance(group, h5py.Group):
        return {}
    own = {name: group.get(name) for name in group if known_as(name) and _is_own(group, name)}
    return {name: one[()] for name, one in own.items() if isinstance(one, h5py.Dataset)}


def _interval(group: Any, keep: Any = None) -> Float64:
    if not isinstance(group, h5py.Group) or not {"start", "end"} <= set(group):
        return NO_INTERVALS
    both = np.stack([group["start"][()], group["end"][()]], axis=-1).astype(np.float64)
    both = both.reshape(-1, 2) if keep is None else both.reshape(-1, 2)[keep]
    both = both[np.isfinite(both).all(1) & (both[:, 1] > both[:, 0])]
    return np.asarray(both[np.argsort(both[:, 0], kind="stable")])


def _series(path: Path, file: Any) -> Iterator[Series]:
    groups: list[tuple[str, Any]] = []
    file.visititems(lambda name, item: groups.append((name, item)))
    for name, group in groups:
        if name.split("/")[0] in _NO_BEHAVIOR or not isinstance(group, h5py.Group):
            continue
        regular = "timestamps" not in group and "sampling_rate" in group.attrs
        if not regular and "timestamps" not in group and "start" in group:
            continue  # intervals, which are no series
        for key in group:
            item = group.get(key) if _is_own(group, key) else None
            if isinstance(item, h5py.Dataset) and _may_be_behavior(key, item):
                yield Series(
                    key=f"{name.replace('/', '_')}.{key}",
                    where=f"{name}/{key}",
                    n_samples=len(item),
                    n_dims=1 if item.ndim == 1 else int(item.shape[1]),
                    left_out=_why_not(group, item, regular),
                    read=_reader(path, group, item, regular),
                )


def _links(file: Any) -> Iterator[LeftOut]:
    """What is not in the file itself."""
    groups = [file]
    file.visititems(lambda _, item: groups.append(item) if isinstance(item, h5py.Group) else None)
    for group in groups:
        for key in group:
            if not _is_own(group, key):
                link = group.get(key, getlink=True)
                where = f"{group.name}/{key}".strip("/")
                there = f" in {link.filename}" if isinstance(link, h5py.ExternalLink) else ""
                yield LeftOut(where, f"a link to {link.path}{there}; copy it into the file")


def _is_own(group: Any, key: str) -> bool:
    link = group.get(key, getlink=True)
    if isinstance(link, h5py.SoftLink):
        with contextlib.suppress(KeyError, OSError):  # it leads to nothing
            return bool(group[key].file.filename == group.file.filename)
    return isinstance(link, h5py.HardLink)


def _may_be_behavior(key: str, item: Any) -> bool:
    """Whether a dataset is a column of samples and not of times or masks."""
    known = key in ("timestamps", "start", "end", INDEX_1S) or key.endswith("_mask")
    return not known and item.ndim > 0


def _why_not(group: Any, item: Any, regular: bool) -> str:
    if not regular and "timestamps" not in group:
        return "no timestamps beside it, and no sampling rate"
    why = not_behavior(item.shape, item.dtype)
    if not why and not regular and len(item) != len(group["timestamps"]):
        why = f"{len(item)} samples for {len(group['timestamps'])} timestamps"
    return why


def _reader(path: Path, group: Any, item: Any, regular: bool) -> Any:
    def read() -> tuple[Float64, npt.NDArray[np.generic]]:
        values = np.asarray(item[()])
        if not regular and "timestamps" not in group:
            got = "no timestamps beside it, and no sampling rate"
            refuse(path, item.name, "times for each sample", got, "write the group again")
        if not regular:
            return np.asarray(group["timestamps"][()], dtype=np.float64), values
        rate = float(group.attrs["sampling_rate"])
        spans = _interval(group.get("domain"))
        if not 0 < rate < np.inf or not len(spans):
            got = f"{rate} Hz and {len(spans)} intervals"
            refuse(path, group.name, "a rate > 0 Hz and a domain", got, "export the file again")
        times = spans[0, 0] + np.arange(len(values)) / rate
        if len(spans) == 1:
            return times, values
        edges = np.rint((spans - spans[0, 0]) * rate).astype(int)
        measured = np.zeros(len(values), dtype=bool)
        for first, last in edges:
            measured[first:last] = True
        return times[measured], values[measured]

    return read
