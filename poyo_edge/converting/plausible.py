"""A source in seconds, on one clock, as people say; and what can hardly be meant of it.

The doubts themselves are shared with all that reads recordings: ``poyo_edge.recording.plausible``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.converting.source import NO_INTERVALS, Series, Source, merged
from poyo_edge.errors import UsageError
from poyo_edge.recording.plausible import (
    DOUBTS,
    Doubt,
    SpikeSummary,
    behavior_doubts,
)

_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6}
LEAST_INSIDE = 0.5
"""Of trials between the first spike and the last, and of spikes in the observed time."""


def per_second(words: str, option: str) -> float:
    """How many of a unit of time are a second, from words like "ms" or "samples:30000".

    Raises:
        UsageError: no such unit.
    """
    unit, _, rate = words.partition(":")
    try:
        found = float(rate) if unit == "samples" else _PER_SECOND[words]
        if found > 0 and math.isfinite(found):
            return found
    except (KeyError, ValueError):
        pass
    raise UsageError(f"{option}: expected s, ms, us or samples:RATE like samples:30000, "
                     f"got {words!r}")  # fmt: skip


def checked_doubts(names: Collection[str]) -> tuple[str, ...]:
    """Names that ``--accept`` takes.

    Raises:
        UsageError: one is unknown.
    """
    for name in names:
        if name not in DOUBTS:
            raise UsageError(f"accept: expected one of {', '.join(DOUBTS)}, got {name!r}")
    return tuple(names)


def in_seconds(source: Source, time_unit: str, behavior_time_unit: str, shift_s: float) -> Source:
    """The source with its times in seconds, and its behaviour on the clock of the spikes.

    Args:
        source: as its reader found it.
        time_unit: of spikes; of the observed time and splits too where the spikes lie in them.
        behavior_time_unit: of the series.
        shift_s: seconds to add to the times of the series, in seconds by then.

    Raises:
        UsageError: no such unit, or a shift that is no number.
    """
    ticks = per_second(time_unit, "time-unit")
    own = per_second(behavior_time_unit, "behavior-time-unit")
    if not math.isfinite(shift_s):
        raise UsageError(f"shift-behavior: expected a number of seconds, got {shift_s!r}")
    if ticks != 1:
        source = _spikes_in_seconds(source, ticks)
    if own == 1 and shift_s == 0:
        return source
    series = tuple(_retimed(one, own, shift_s) for one in source.series)
    return dataclasses.replace(source, series=series)


def _spikes_in_seconds(source: Source, ticks: float) -> Source:
    """Intervals are in the unit of the spikes if these lie in them; else they stay, with a note."""
    found = [one for one in (source.observed, *source.domains.values()) if len(one)]
    spikes = dataclasses.replace(source, spike_times=source.spike_times / ticks)
    if not found or not len(source.spike_times):
        return spikes
    if _share_inside(source.spike_times, np.concatenate(found)) < LEAST_INSIDE:
        note = "the observed time and splits were taken as seconds: they do not hold the spikes as "
        return dataclasses.replace(spikes, notes=(*source.notes, f"{note}the file has them"))
    return dataclasses.replace(
        spikes,
        observed=source.observed / ticks,
        domains={name: one / ticks for name, one in source.domains.items()},
    )


def without_other_trials(source: Source, spikes: SpikeSummary) -> Source:
    """The source without its trials where these lie elsewhere than its spikes, and a note."""
    if not len(source.trials) or not spikes.n:
        return source
    beside = (source.trials[:, 1] > spikes.first) & (source.trials[:, 0] < spikes.last)
    if beside.mean() >= LEAST_INSIDE:
        return source
    note = (
        f"left out {len(source.trials)} trials: {int(beside.sum())} of them lie between the first "
        f"spike and the last, {spikes.first:.3f} to {spikes.last:.3f} s; they begin at "
        f"{source.trials[:, 0].min():.3f} s"
    )
    return dataclasses.replace(
        source, trials=NO_INTERVALS, trial_fields={}, notes=(*source.notes, note)
    )


def source_doubts(source: Source, spikes: SpikeSummary) -> list[Doubt]:
    """What can hardly be meant of the spikes and the time in which they were observed."""
    found = list(spikes.doubts())
    if len(source.observed) and spikes.n:
        inside = _share_inside(source.spike_times, source.observed)
        if inside < LEAST_INSIDE:
            first, last = source.observed[0, 0], source.observed[-1, 1]
            found.append(
                Doubt(
                    name="overlap",
                    field="observed time",
                    expected=f"spikes in it, which are at {spikes.first:.3f} to "
                    f"{spikes.last:.3f} s",
                    got=f"{first:.3f} to {last:.3f} s with {inside:.0%} of the spikes",
                    do="write the intervals in the unit of the spikes, or take them as they are "
                    "with --accept overlap",
                )
            )
    return found


def series_doubts(
    name: str, series: Series, samples: tuple[Float64, npt.NDArray[Any]], spikes: SpikeSummary
) -> list[Doubt]:
    """What can hardly be meant of a series beside these spikes."""
    times, values = samples
    if not series.parts:
        return list(behavior_doubts(name, spikes, times, values, series.offset))
    ends = np.cumsum([one.n_dims for one in series.parts])
    pieces = np.split(values, ends[:-1], axis=1)
    found = {  # what is doubted of the times they share is one doubt
        (doubt.name, doubt.got): doubt
        for one, own in zip(series.parts, pieces, strict=True)
        for doubt in behavior_doubts(name, spikes, times, own, one.offset)
    }
    return list(found.values())


def _share_inside(times: Float64, intervals: Float64) -> float:
    """Share of times (M,), ascending, that lie in intervals (K, 2)."""
    first, last = np.searchsorted(times, merged(intervals).T)
    return float((last - first).sum()) / len(times)


def _retimed(series: Series, ticks: float, shift_s: float) -> Series:
    def read() -> tuple[Float64, npt.NDArray[np.generic]]:
        times, values = series.read()
        return np.asarray(times, np.float64) / ticks + shift_s, values

    return dataclasses.replace(series, read=read)
