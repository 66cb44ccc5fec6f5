"""Recordings that stay in their files: checked in pieces, then read a window at a time.

torch_brain's lazy ``Data.slice`` takes several milliseconds for a window, most of them for
attributes that nobody asked for. Here every 1024th time is kept in memory, so that a window is
four short reads; transforms, samplers and batches are torch_brain's all the same.

Legend: U units, M spikes, S behaviour samples, O outputs, K intervals.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import RecordingError
from poyo_edge.recording.access import check_not_held, child, values
from poyo_edge.recording.plausible import SpikeSummary, behavior_doubts, check_plausible
from poyo_edge.recording.reading import (
    behavior_names,
    dataset_of,
    read_accepted,
    read_behavior_units,
    read_domains,
    read_session_id,
    read_subject_id,
    read_unit_ids,
    reading,
    sample_mask,
    sample_times,
)
from poyo_edge.recording.recording import read_behavior, within
from poyo_edge.recording.rules import check_spikes, refuse

STRIDE = 1024
"""One of so many times is kept in memory."""
CHUNK = 1 << 20
"""Spikes that are checked at once."""


class Cut(NamedTuple):
    """What a window of a recording holds; times in seconds on the clock of the recording."""

    spike_times: Float64
    spike_units: Int64
    times: Float64
    """(S,) of the behaviour."""
    values: Float64
    """(S, O)."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Opened:
    """Datasets of an open file, found once."""

    process: int
    spike_times: Any
    spike_units: Any
    n_spikes: int
    times: Any
    """Of the behaviour; None when it is sampled regularly."""
    values: Any
    n_samples: int
    grid: tuple[Float64, npt.NDArray[np.bool_]] | None
    """Times of regular samples, and which of them were measured."""


@dataclass(eq=False, kw_only=True)
class LazyRecording:
    """One session in its file, with the behaviour to decode."""

    path: Path
    session_id: str
    subject_id: str
    unit_ids: tuple[str, ...]
    """(U,), each beginning with the session id, so that no two sessions share one."""
    domains: dict[str, Float64]
    behavior: str
    spike_counts: Int64
    """(U,)."""
    spike_index: Float64
    sample_index: Float64
    weights: dict[str, tuple[Float64, float]]
    """Interval → its (K, 2) seconds and the weight of samples in it."""
    behavior_unit: str = ""
    """Of the values; "" where the file does not say it."""
    in_memory: bool = False
    """Whether spikes and behaviour are read whole when the first window is cut."""
    _file: _Opened | None = field(default=None, repr=False)

    @classmethod
    def open(
        cls, path: Path, behavior: str, weights: Mapping[str, float], prefix: str = ""
    ) -> LazyRecording:
        """Check a recording from end to end, a piece at a time.

        Args:
            path: the file.
            behavior: GROUP.KEY.
            weights: interval of the recording, like "movement_phases.reach_period" → weight.
            prefix: put before the session id.

        Raises:
            RecordingError: the file is absent, unreadable, or breaks the layout; the behaviour or
                an interval is absent; a value is not finite; or times can hardly be meant.
        """
        with reading(path) as file:
            session_id = prefix + read_session_id(path, file)
            names = read_unit_ids(path, file)
            spikes, spike_index = _checked_spikes(path, file, len(names))
            accepted = read_accepted(path, file)
            domains, behaviors = read_domains(path, file), behavior_names(path, file)
            units = read_behavior_units(path, file, behaviors)
            subject = read_subject_id(path, file)
            intervals = {name: (_intervals(path, file, name), w) for name, w in weights.items()}
        check_plausible(path, spikes.doubts(), accepted)
        times = read_behavior(path, behavior, behaviors).times
        check_plausible(path, behavior_doubts(behavior, spikes, times), accepted)
        return cls(
            path=path,
            session_id=session_id,
            subject_id=subject,
            unit_ids=tuple(unit_name(session_id, prefix, name) for name in names),
            domains=domains,
            behavior=behavior,
            behavior_unit=units.get(behavior, ""),
            spike_counts=spikes.counts,
            spike_index=spike_index,
            sample_index=times[::STRIDE].copy(),
            weights=intervals,
        )

    def samples(self, split: Float64) -> tuple[Float64, Float64]:
        """All behaviour in the intervals (K, 2): times (S,) seconds and values (S, O)."""
        with reading(self.path) as file:
            known = behavior_names(self.path, file)
        found = read_behavior(self.path, self.behavior, known)
        inside = within(found.times, split)
        return found.times[inside], found.values[inside]

    def cut(self, start: float, end: float) -> Cut:
        """Spikes and behaviour in [start, end), read from the file."""
        opened = self._opened()
        first, last = _rows(self.spike_index, opened.n_spikes, start, end)
        times = opened.spike_times[first:last]
        lo, hi = np.searchsorted(times, [start, end])
        units = opened.spike_units[first + lo : first + hi].astype(np.int64, copy=False)
        return Cut(times[lo:hi], units, *self._behavior(opened, start, end))

    def sample_weights(self, times: Float64) -> npt.NDArray[np.float32]:
        """Weight of behaviour samples at the times (S,), (S,) float32."""
        weights = np.ones(len(times), dtype=np.float32)
        for intervals, weight in self.weights.values():
            weights[within(times, intervals)] *= weight
        return weights

    def _behavior(self, opened: _Opened, start: float, end: float) -> tuple[Float64, Float64]:
        if opened.grid is None:
            first, last = _rows(self.sample_index, opened.n_samples, start, end)
            times = opened.times[first:last]
            keep = np.ones(len(times), dtype=bool)
        else:
            first, last = np.searchsorted(opened.grid[0], [start, end])
            times, keep = (part[first:last] for part in opened.grid)
        keep = keep & (times >= start) & (times < end)
        found = opened.values[first:last].astype(np.float64)
        found = found.reshape(len(found), *found.shape[1:2] or (1,))
        return times[keep].astype(np.float64), found[keep]

    def _file_of_this_process(self) -> Any:
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            check_not_held(self.path, error)
            raise

    def _opened(self) -> _Opened:
        """The file, opened by this very process: workers must not share a handle."""
        if self._file is None or self._file.process != os.getpid():
            file = self._file_of_this_process()
            name, _, key = self.behavior.partition(".")
            group, spikes = file[name], file["spikes"]
            regular = "timestamps" not in group
            n_samples = len(group[key])
            held = _read if self.in_memory else _left
            self._file = _Opened(
                process=os.getpid(),
                spike_times=held(spikes["timestamps"]),
                spike_units=held(spikes["unit_index"]),
                n_spikes=len(spikes["timestamps"]),
                times=None if regular else held(group["timestamps"]),
                values=held(group[key]),
                n_samples=n_samples,
                grid=(
                    sample_times(self.path, group, n_samples),
                    sample_mask(self.path, group, n_samples),
                )
                if regular
                else None,
            )
        return self._file

    def _grid(self, group: Any, n_samples: int) -> tuple[Float64, npt.NDArray[np.bool_]]:
        path = self.path
        return sample_times(path, group, n_samples), sample_mask(path, group, n_samples)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def _read(dataset: Any) -> Any:
    """All of a dataset; unit rows in four bytes."""
    found = dataset[()]
    return found.astype(np.int32) if found.dtype.kind in "iu" and found.itemsize > 4 else found


def _left(dataset: Any) -> Any:
    return dataset


def unit_name(session_id: str, prefix: str, name: str) -> str:
    """A unit's name with its session before it, once."""
    own = prefix + name
    return own if own.startswith(f"{session_id}/") else f"{session_id}/{name}"


def unit_names(recording: LazyRecording, known: Container[str]) -> list[str]:
    """The recording's units as a model names them: with the session before them, or without."""
    names = list(recording.unit_ids)
    if any(name in known for name in names):
        return names
    return [name.removeprefix(f"{recording.session_id}/") for name in names]


def _checked_spikes(path: Path, file: Any, n_units: int) -> tuple[SpikeSummary, Float64]:
    """What is asked of spikes, and every ``STRIDE``th time."""
    times, units = (dataset_of(path, file, f"spikes/{x}") for x in ("timestamps", "unit_index"))
    spikes, index, previous = SpikeSummary(n_units), [], -np.inf
    if times.shape != units.shape or not len(times):
        check_spikes(path, times[()], units[()], n_units)
    for first in range(0, len(times), CHUNK):
        piece, rows = times[first : first + CHUNK], units[first : first + CHUNK]
        check_spikes(path, piece, rows, n_units)
        if piece[0] < previous:
            got = f"{piece[0]:.6f} s after {previous:.6f} s at index {first}"
            refuse(path, "spikes/timestamps", "ascending seconds", got, "sort the spikes by time")
        previous = float(piece[-1])
        spikes.add(piece, rows)
        index.append(piece[::STRIDE].astype(np.float64))
    return spikes, np.concatenate(index)


def _intervals(path: Path, file: Any, name: str) -> Float64:
    group = child(path, file, name.replace(".", "/"))
    if not isinstance(group, h5py.Group) or not {"start", "end"} <= set(group):
        raise RecordingError(
            path,
            f"weights.{name}",
            expected="an interval of the recording with start and end",
            got="none of that name",
            do="correct the recipe's weights for this source",
        )
    return np.stack([values(path, group[edge]) for edge in ("start", "end")], axis=-1).astype(
        np.float64
    )


def _rows(index: Float64, length: int, start: float, end: float) -> tuple[int, int]:
    """Rows that surely hold all times in [start, end), found through every ``STRIDE``th time."""
    first = max(0, int(np.searchsorted(index, start)) - 1) * STRIDE
    return first, min(length, int(np.searchsorted(index, end)) * STRIDE)
