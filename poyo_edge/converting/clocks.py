"""Clocks that begin anew inside a file: kept apart, never laid over each other.

A recorder that was started twice, files that were joined, and devices that synchronise leave spike
times that fall back. Sorted, two recordings would become one that nobody made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.converting.source import (
    MOST_SEGMENTS,
    NO_INTERVALS,
    Series,
    Source,
    falls_back,
    finite,
    restarts,
    sorted_spikes,
)
from poyo_edge.errors import UsageError
from poyo_edge.recording.rules import check_rows, refuse

Trains = Sequence[npt.NDArray[Any]]
"""For each unit its (M_u,) seconds as the file holds them."""


def with_spikes(source: Source, trains: Trains) -> Source:
    """A source with these spikes; stretches of several clocks become its ``segments``.

    Spikes that lie up to ``LATE_S`` behind are sorted, and a note counts them.

    Args:
        source: all but the spikes.
        trains: of its units.

    Raises:
        RecordingError: NaN or infinite times; or a clock that begins anew where units do not agree
            how often.
    """
    arrays = finite(source.path, trains)
    breaks = [restarts(one) for one in arrays]
    if not any(breaks):
        return _sorted(source, arrays)
    row = next(row for row, one in enumerate(breaks) if one)
    again = f"{source.unit_ids[row]}: {falls_back(arrays[row], breaks[row][0])}"
    often = {len(found) for found, one in zip(breaks, arrays, strict=True) if len(one)}
    if len(often) > 1 or max(often) >= MOST_SEGMENTS:
        counts = f"{again}; units fall back {min(often)} to {max(often)} times"
        do = (
            "export each stretch by itself, or sort the spikes by time if they are of one clock: "
            "units that differ cannot be divided here"
        )
        refuse(source.path, "spike times", "one clock, ascending in each unit", counts, do)
    return together(_divided(source, arrays, breaks), again)


def with_rows(source: Source, times: npt.NDArray[Any], rows: npt.NDArray[Any]) -> Source:
    """As ``with_spikes``, for spikes in the order of the file: one unit after another, or mixed.

    Args:
        source: all but the spikes.
        times: (M,) seconds.
        rows: (M,) integer rows of its units.

    Raises:
        RecordingError: see ``with_spikes``; or rows of no unit.
    """
    seconds, units = np.asarray(times, np.float64), np.asarray(rows).astype(np.int64)
    steps, notes = np.diff(seconds), source.notes
    descending = len(steps) > 0 and bool((steps <= 0).all()) and bool((steps < 0).any())
    if descending:
        seconds, units = seconds[::-1], units[::-1]
        notes += ("spikes were stored from last to first; they have been turned round",)
    source = dataclasses.replace(source, spike_times=seconds, spike_units=units, notes=notes)
    if descending or bool((steps >= 0).all()) or not np.isfinite(seconds).all():
        return source
    check_rows(source.path, units, len(source.unit_ids))
    notes += ("spikes were not in the order of time; they have been sorted",)
    by_unit = np.argsort(units, kind="stable")
    ends = np.cumsum(np.bincount(units, minlength=len(source.unit_ids)))
    trains = np.split(seconds[by_unit], ends[:-1])
    return with_spikes(dataclasses.replace(source, notes=notes), trains)


def together(segments: Sequence[Source], again: str) -> Source:
    """What a file of several clocks holds, to be listed; only its segments can be converted."""
    first = segments[0]
    rows = {unit_id: row for row, unit_id in enumerate(_all_units(segments))}
    units = [np.array([rows[u] for u in one.unit_ids], np.int64) for one in segments]
    series = {one.key: one for segment in segments for one in segment.series}
    return dataclasses.replace(
        first,
        unit_ids=tuple(rows),
        spike_times=np.concatenate([one.spike_times for one in segments]),
        spike_units=np.concatenate(
            [own[one.spike_units] for own, one in zip(units, segments, strict=True)]
        ),
        series=tuple(series.values()),
        observed=NO_INTERVALS,
        trials=NO_INTERVALS,
        trial_fields={},
        notes=tuple(dict.fromkeys(note for one in segments for note in one.notes)),
        left_out=tuple(dict.fromkeys(what for one in segments for what in one.left_out)),
        segments=tuple(segments),
        again=again,
    )


def chosen(source: Source, segment: int | None) -> Source:
    """The source of one clock: the file's only one, or the segment that was asked for.

    Args:
        source: of a file.
        segment: counted from 1; None where the file has one clock.

    Raises:
        RecordingError: there are several, and none was chosen.
        UsageError: there is no such segment.
    """
    n = len(source.segments) or 1
    if segment is None and source.again:
        do = f"take one of its {n} segments with --segment 1 to {n}; --list shows them"
        got = f"one that begins anew ({source.again})"
        refuse(source.path, "clock", "one clock from the first spike to the last", got, do)
    if segment is not None and not 1 <= segment <= n:
        expected = f"1 to {n}" if n > 1 else f"1, as {source.path.name} has one clock"
        raise UsageError(f"segment: expected {expected}, got {segment}; --list shows them")
    return source if segment is None or not source.segments else source.segments[segment - 1]


def _sorted(source: Source, arrays: list[Float64]) -> Source:
    behind = [np.maximum.accumulate(one) - one for one in arrays if len(one)]
    late = sum(int((one > 0).sum()) for one in behind)
    notes = source.notes
    if late:
        most = max(float(one.max()) for one in behind)
        notes += (f"{late} spikes lay up to {most * 1000:.3g} ms behind: sorted",)
    seconds, rows = sorted_spikes(arrays)
    return dataclasses.replace(source, spike_times=seconds, spike_units=rows, notes=notes)


def _divided(source: Source, arrays: list[Float64], breaks: list[list[int]]) -> list[Source]:
    pieces = [np.split(one, found) for one, found in zip(arrays, breaks, strict=True)]
    n = max(map(len, pieces))
    cuts = restarts(source.trials[:, 0])
    trials = np.split(source.trials, cuts)
    fields = {name: np.split(one, cuts) for name, one in source.trial_fields.items()}
    left_out = ["splits and observed intervals"] * bool(len(source.observed) or source.domains)
    left_out += ["trials"] * (len(trials) != n and len(source.trials) > 0)
    notes = source.notes
    if left_out:
        notes += (f"left out: {' and '.join(left_out)}, which name no segment",)
    return [
        _sorted(
            dataclasses.replace(
                source,
                series=tuple(_segment_of(source.path, one, k, n) for one in source.series),
                observed=NO_INTERVALS,
                trials=trials[k] if len(trials) == n else NO_INTERVALS,
                trial_fields={name: one[k] for name, one in fields.items() if len(trials) == n},
                domains={},
                notes=notes,
            ),
            [own[k] if len(own) == n else np.empty(0) for own in pieces],
        )
        for k in range(n)
    ]


def _segment_of(path: Path, series: Series, k: int, n: int) -> Series:
    """A series of a segment: its times have to begin anew as often as those of spikes."""

    def read() -> tuple[Float64, npt.NDArray[np.generic]]:
        times, values = series.read()
        breaks = restarts(times)
        if len(breaks) != n - 1:
            got = f"{len(breaks)}; which samples belong to segment {k + 1} is unknown"
            do = "leave this series out, or give behaviour as a file of its own"
            refuse(path, series.where, f"times that begin anew {n - 1} times", got, do)
        return np.split(times, breaks)[k], np.split(values, breaks)[k]

    return dataclasses.replace(series, read=read)


def _all_units(segments: Sequence[Source]) -> list[str]:
    return list(dict.fromkeys(unit for one in segments for unit in one.unit_ids))
