"""What any file is read into before it becomes a recording.

Legend: M spikes, U units, S behaviour samples, D dimensions, K intervals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64
from poyo_edge.recording.rules import refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One behaviour that a file holds. ``read`` gives (S,) float64 seconds and (S, D) values."""

    key: str
    """Where it goes unless told otherwise, as GROUP.KEY."""
    where: str
    """Where it lies in the file."""
    n_samples: int
    n_dims: int
    unit: str = ""
    offset: float = 0.0
    """What ``read`` added to the values because the file says so."""
    left_out: str = ""
    """Why it is taken only when it is asked for, if at all."""
    parts: tuple[Series, ...] = ()
    """Those whose columns it joins, side by side."""
    read: Callable[[], tuple[Float64, npt.NDArray[np.generic]]]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of a file that is not offered, and why, in words that name what to do if any."""

    where: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """One session as a file holds it. Series can be read while the file is open."""

    path: Path
    format: str
    session_id: str
    subject_id: str
    unit_ids: tuple[str, ...]
    """(U,) as the file names them."""
    spike_times: Float64
    """(M,) float64 seconds, ascending."""
    spike_units: Int64
    """(M,) int64 rows of ``unit_ids``."""
    series: tuple[Series, ...]
    observed: Float64
    """(K, 2) float64 seconds in which spikes were recorded; empty: from first to last event."""
    trials: Float64
    """(K, 2) float64 seconds; may be empty."""
    trial_fields: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """What else is known of each of them: ``go_time``, ``target``, ``success``, ``judged`` and
    ``radius``, as ``Trials`` has them."""
    domains: dict[str, Float64] = field(default_factory=dict)
    """Splits that the file holds already; "all" is the recording's own domain."""
    prefixed: bool = False
    """Unit ids are ``session_id/NAME`` because the file's own names hold for one session alone."""
    notes: tuple[str, ...] = ()
    segments: tuple[Source, ...] = ()
    """Stretches of which each has a clock of its own; empty for one clock."""
    again: str = ""
    """Where the clock begins anew: then only the segments can be converted."""
    left_out: tuple[LeftOut, ...] = ()
    """What might have been behaviour."""


Recogniser = Callable[[Path], bool]
"""Whether a file or folder is of a format, by what is in it and without any library but h5py.

It may raise ``RecordingError`` for what no reader should open.
"""
Reader = Callable[[Path], AbstractContextManager[Source]]
"""Opens a path that its format has recognised; the source can be read inside the block.

It raises ``RecordingError`` for what is damaged or holds no spikes, in one sentence. A library of
its own it imports when it is called: then that library is known to be installed.
"""
BehaviorReader = Callable[[Path], list[Series]]
"""Reads at least one series from a file that holds no spikes, or raises ``RecordingError``."""
LATE_S = 0.1
"""Networks and buffers deliver spikes late by milliseconds; a clock that begins anew goes back by
as much as was recorded."""
MOST_SEGMENTS = 64
"""Times that fall back more often have no order to be divided by."""
MOST_DIMS = 64
"""A series of more columns is no behaviour but a recording of something."""
NO_INTERVALS: Float64 = np.empty((0, 2))
NO_SPIKES: Float64 = np.empty(0)
NO_ROWS: Int64 = np.empty(0, np.int64)


class UnknownFormatError(Exception):
    """A reader of many formats knows nothing of this one: ``open_source`` says which there are."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(expected, got)
        self.expected = expected
        self.got = got


def finite(path: Path, times: Sequence[npt.ArrayLike]) -> list[Float64]:
    """For each unit, its (M_u,) float64 seconds in the order of the file.

    Raises:
        RecordingError: NaN or infinite times.
    """
    arrays = [np.asarray(one, dtype=np.float64).ravel() for one in times]
    for row, one in enumerate(arrays):
        bad = np.flatnonzero(~np.isfinite(one))
        if len(bad):
            got = f"{len(bad)} NaN or infinite in unit {row}, the first at index {bad[0]}"
            refuse(path, "spike times", "finite seconds", got, "remove these spikes")
    return arrays


def sorted_spikes(arrays: Sequence[Float64]) -> tuple[Float64, Int64]:
    """The spikes of all units sorted by time: (M,) seconds and (M,) int64 rows."""
    seconds = np.concatenate([np.empty(0), *arrays])
    rows = np.repeat(np.arange(len(arrays), dtype=np.int64), [len(one) for one in arrays])
    order = np.argsort(seconds, kind="stable")
    return seconds[order], rows[order]


def restarts(times: Float64) -> list[int]:
    """Indices of times (M,) at which a clock begins anew, at most ``MOST_SEGMENTS``."""
    found, first = list[int](), 0
    while len(found) < MOST_SEGMENTS:
        rest = times[first:]
        behind = np.flatnonzero(np.maximum.accumulate(rest) - rest > LATE_S)
        if not len(behind):
            break
        first += int(behind[0])
        found.append(first)
    return found


def falls_back(times: Float64, index: int) -> str:
    """Where times (M,) fall back, in words."""
    return f"{times[index]:.6f} s after {times[index - 1]:.6f} s at index {index}"


def merged(intervals: Float64) -> Float64:
    """Sorted intervals (K, 2), joined where they touch or overlap."""
    joined: list[list[float]] = []
    for start, end in sorted(intervals.tolist()):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return np.array(joined, dtype=np.float64).reshape(-1, 2)


def not_behavior(shape: Sequence[int], dtype: np.dtype[Any]) -> str:
    """Why values of a shape and type are no behaviour; "" where they may be."""
    if dtype.kind not in "biuf":
        return f"{'text' if dtype.kind in 'SUO' else f'dtype {dtype}'}, where numbers are decoded"
    if len(shape) not in (1, 2):
        do = "; save each value as a column of its own, as .npz" if len(shape) > 2 else ""
        return f"{len(shape)}-D, shape {tuple(shape)}, where behaviour is samples and columns{do}"
    if not shape[0]:
        return "no samples"
    if len(shape) == 2 and not 0 < shape[1] <= MOST_DIMS:
        return f"{shape[1]} columns, where behaviour has 1 to {MOST_DIMS}"
    return ""


def plain(name: str) -> str:
    """A name that can be a group or dataset of a recording."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "series"


def unique_keys(names: Sequence[Sequence[str]]) -> list[str]:
    """A key for each series, from the end of its path in the file: ``cursor.value``.

    The folder above joins the name where two series would share one.

    Args:
        names: for each series the parts of its path, outermost first.
    """
    depth = [1] * len(names)
    while True:
        groups = ["_".join(map(plain, parts[-d:])) for parts, d in zip(names, depth, strict=True)]
        again = [
            i for i, group in enumerate(groups)
            if groups.count(group) > 1 and depth[i] < len(names[i])
        ]  # fmt: skip
        if not again:
            break
        for i in again:
            depth[i] += 1
    seen: dict[str, int] = {}
    for i, group in enumerate(groups):
        seen[group] = seen.get(group, 0) + 1
        groups[i] = group if seen[group] == 1 else f"{group}_{seen[group]}"
    return [f"{group}.value" for group in groups]
