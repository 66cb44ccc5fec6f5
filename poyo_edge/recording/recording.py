"""Recordings: spikes and behaviour of one session, in the HDF5 layout of torch_brain.

Groups: ``spikes/{timestamps,unit_index}``, ``units/id``, behaviour as ``GROUP/{timestamps,KEY}``,
``NAME_domain/{start,end}``, ``trials/{start,end,go_time,target,success,radius}`` where there are
trials, and ``session`` with the attribute ``id``. Files are read and written with h5py alone. Times
are float64 seconds on the clock of the recording.

Legend: M spikes, U units, S behaviour samples, D behaviour dimensions, K intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64
from poyo_edge.recording.access import values
from poyo_edge.recording.reading import (
    behavior_names,
    find_behavior,
    listing,
    read_accepted,
    read_behavior_units,
    read_domains,
    read_session_id,
    read_spikes,
    read_subject_id,
    read_unit_ids,
    reading,
    sample_mask,
    sample_times,
)
from poyo_edge.recording.rules import check_ascending, refuse
from poyo_edge.recording.trials import read_trials
from poyo_edge.recording.writing import write_recording
from poyo_edge.trials import Trials

__all__ = ["Behavior", "Recording", "write_recording"]


@dataclass(frozen=True, slots=True, eq=False)
class Behavior:
    """One behaviour: ``times`` (S,) float64 seconds, ascending, and ``values`` (S, D) float64."""

    times: Float64
    values: Float64


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Recording:
    """One session. Spikes and domains are in memory; behaviour is read when asked for."""

    path: Path
    session_id: str
    unit_ids: tuple[str, ...]
    """(U,) names of the units; row i of ``spike_units`` is ``unit_ids[i]``."""
    spike_times: Float64
    """(M,) float64 seconds, ascending."""
    spike_units: Int64
    """(M,) int64 rows of ``unit_ids``."""
    domains: dict[str, Float64]
    """Split → (K, 2) float64 seconds, start and end; the recording's own domain is "all"."""
    behaviors: tuple[str, ...]
    """Names of the behaviours, like "cursor.vel"."""
    behavior_units: dict[str, str] = field(default_factory=dict)
    """Behaviour → the unit of its values, where the file says it."""
    accepted: tuple[str, ...] = ()
    """Names of ``plausible.DOUBTS`` that were looked into when it was written."""
    subject_id: str = ""
    """The animal or person, where the file says it."""

    @classmethod
    def open(cls, path: str | Path) -> Recording:
        """Read and check a recording.

        Raises:
            RecordingError: the file is absent, unreadable, or breaks the layout.
        """
        path = Path(path)
        with reading(path) as file:
            unit_ids = read_unit_ids(path, file)
            times, units = read_spikes(path, file, len(unit_ids))
            behaviors = behavior_names(path, file)
            return cls(
                path=path,
                session_id=read_session_id(path, file),
                unit_ids=unit_ids,
                spike_times=times,
                spike_units=units,
                domains=read_domains(path, file),
                behaviors=behaviors,
                behavior_units=read_behavior_units(path, file, behaviors),
                accepted=read_accepted(path, file),
                subject_id=read_subject_id(path, file),
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
        return read_behavior(self.path, key, self.behaviors, allow_nan=allow_nan)

    def trials(self) -> Trials | None:
        """Read the trials; None where the recording has none.

        Raises:
            RecordingError: they overlap, end before they begin, have a go_time outside, or targets
                of another width than ``cursor.pos``.
        """
        return read_trials(self.path)

    def intervals(self, split: str) -> Float64:
        """(K, 2) float64 seconds: start and end of the intervals of a split, like "train".

        Raises:
            RecordingError: the recording has no such split.
        """
        if split not in self.domains:
            expected = f"one of the splits {listing(self.domains)}"
            do = "choose one of them or add the split to the recording"
            refuse(self.path, f"{split}_domain", expected, repr(split), do)
        return self.domains[split]

    def within(self, times: Float64, split: str) -> npt.NDArray[np.bool_]:
        """Which times lie in a split: ``start <= t < end`` of any of its intervals.

        Args:
            times: (S,) float64 seconds.
            split: name of a split.

        Returns:
            (S,) bool.
        """
        return within(times, self.intervals(split))


def within(times: Float64, intervals: Float64) -> npt.NDArray[np.bool_]:
    """Which times (S,) lie in one of the intervals (K, 2), ends left out: (S,) bool."""
    inside = np.zeros(len(times), dtype=bool)
    for start, end in intervals:
        inside |= (times >= start) & (times < end)
    return inside


def first_seconds(intervals: Float64, seconds: float | None) -> Float64:
    """Intervals (K, 2), cut after so many seconds of them; None takes all."""
    if seconds is None:
        return intervals
    lengths = np.diff(intervals, axis=1)[:, 0]
    left = np.maximum(seconds - (lengths.cumsum() - lengths), 0.0)
    cut = np.column_stack([intervals[:, 0], intervals[:, 0] + np.minimum(lengths, left)])
    return np.asarray(cut[left > 0])


def read_behavior(
    path: Path, key: str, known: Sequence[str], *, allow_nan: bool = False
) -> Behavior:
    """Read one behaviour of a file that holds the behaviours ``known``; see Recording.behavior."""
    with reading(path) as file:
        group, dataset = find_behavior(path, file, key, known)
        times = sample_times(path, group, len(dataset))
        samples = values(path, dataset).astype(np.float64)
        mask = sample_mask(path, group, len(dataset))
    check_ascending(path, f"{key} timestamps", times)
    if len(samples) != len(times):
        expected = f"one value for each of {len(times)} timestamps"
        refuse(path, key, expected, f"{len(samples)} values", "write the group again")
    behavior = Behavior(times[mask], samples.reshape(len(samples), -1)[mask])
    _check_finite(path, key, behavior, allow_nan)
    return behavior


def _check_finite(path: Path, key: str, behavior: Behavior, allow_nan: bool) -> None:
    wrong = np.isinf(behavior.values) if allow_nan else ~np.isfinite(behavior.values)
    bad = np.flatnonzero(wrong.any(axis=1))
    if len(bad):
        first = behavior.times[bad[0]]
        got = f"{len(bad)} NaN or infinite samples, the first at {first:.6f} s"
        refuse(path, key, "finite values", got, "remove or interpolate these samples")
