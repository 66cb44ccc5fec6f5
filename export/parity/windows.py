"""Windows of spikes to compare models on: random ones, and those of recordings. numpy alone.

Legend: B batch, N spikes, Q queries, S samples of behaviour, O outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32, Float64
from poyo_edge.core_inputs import no_spikes
from poyo_edge.errors import UsageError
from poyo_edge.recording import Recording
from poyo_edge.runtime.backends import Backend, Feeds
from poyo_edge.runtime.constants import SessionConstants
from poyo_edge.spec import ModelSpec
from poyo_edge.tokens import cut_window

SPIKE_COUNTS = (0, 1, 7, 8, 9, 100, 1000, 8000)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """One window of spikes and the times at which it is queried."""

    kind: str
    """"synthetic" or "recorded"."""
    time: Float32
    """(N,) seconds from the start."""
    unit: npt.NDArray[np.int32]
    """(N,) rows of the session's units."""
    query: Float32
    """(Q,) seconds from the start."""


def synthetic_windows(
    spec: ModelSpec, n_units: int, counts: Sequence[int] = SPIKE_COUNTS, *, seed: int = 0
) -> list[Window]:
    """Windows of random spikes, queried at the start, the middle and the end."""
    rng = np.random.default_rng(seed)
    windows = []
    for count in counts:
        rate = rng.gamma(1.0, size=n_units)
        time = np.sort(rng.uniform(0, spec.window_seconds, count)).astype(np.float32)
        unit = rng.choice(n_units, count, p=rate / rate.sum()).astype(np.int32)
        windows.append(_window("synthetic", time, unit, spec))
    return windows


def recorded_windows(recording: Recording, spec: ModelSpec, count: int = 32) -> list[Window]:
    """Windows at equal steps through a recording, whose units are the session's."""
    first, last = recording.spike_times[[0, -1]]
    starts = np.linspace(first, max(first, last - spec.window_seconds), count)
    cuts = [
        cut_window(recording.spike_times, recording.spike_units, start, spec.window_seconds)
        for start in starts
    ]
    return [_window("recorded", time, unit, spec) for time, unit in cuts]


def causal_windows(
    recording: Recording,
    rows: npt.NDArray[np.int32],
    behavior: str,
    spec: ModelSpec,
    *,
    split: str = "test",
    most: int = 512,
) -> tuple[list[Window], Float64]:
    """Windows ``[t - T, t)`` queried at ``t``, at equal steps through the samples of a split.

    Args:
        recording: spikes and behaviour.
        rows: (units of the recording,) int32, row of each in the session; -1 leaves it out.
        behavior: "GROUP.KEY"; samples that are NaN are left out.
        spec: the model's window and outputs.
        split: name of the split.
        most: samples at most.

    Returns:
        The windows, and the behaviour (S, O) float64 at their ends.

    Raises:
        RecordingError: no such behaviour or split.
        UsageError: fewer than two samples, or another number of dimensions than outputs.
    """
    series = recording.behavior(behavior, allow_nan=True)
    keep = recording.within(series.times, split) & np.isfinite(series.values).all(-1)
    times, truth = series.times[keep], series.values[keep]
    if len(times) < 2 or truth.shape[1] != spec.dim_out:
        raise UsageError(
            f"{recording.path}: {behavior}: expected at least 2 samples of {spec.dim_out} "
            f"dimensions in the {split} split, got shape {truth.shape}; name another"
        )
    chosen = np.unique(np.linspace(0, len(times) - 1, min(most, len(times))).astype(int))
    spike_rows = rows.astype(np.int64)[recording.spike_units]
    known = spike_rows >= 0
    spike_times, spike_rows = recording.spike_times[known], spike_rows[known]
    query = np.array([spec.window_seconds], np.float32)
    windows = []
    for t in times[chosen]:
        start = float(t) - spec.window_seconds
        time, unit = cut_window(spike_times, spike_rows, start, spec.window_seconds)
        windows.append(Window(kind="recorded", time=time, unit=unit, query=query))
    return windows, np.asarray(truth[chosen], np.float64)


def predict(
    backend: Backend, constants: SessionConstants, windows: Sequence[Window], *, batch: int = 16
) -> Float32:
    """(windows, Q, O) float32 predictions of windows with equally many queries, padded."""
    parts = [
        backend.run(feeds(constants, windows[i : i + batch])) for i in range(0, len(windows), batch)
    ]
    return np.concatenate(parts)


def feeds(constants: SessionConstants, windows: Sequence[Window]) -> Feeds:
    """The core's inputs for a batch of windows, padded to the longest."""
    return {**padded(windows), **constants.feeds()}


def padded(windows: Sequence[Window]) -> Feeds:
    """Spikes and queries of a batch of windows, padded to the longest."""
    spikes = no_spikes(len(windows), max(len(window.time) for window in windows))
    for i, window in enumerate(windows):
        n = len(window.time)
        spikes["spike_time"][i, :n] = window.time
        spikes["spike_unit"][i, :n] = window.unit
        spikes["spike_mask"][i, :n] = True
    return {**spikes, "query_time": np.stack([window.query for window in windows])}


def _window(kind: str, time: Float32, unit: npt.NDArray[np.int32], spec: ModelSpec) -> Window:
    query = np.array([0.0, 0.5, 1.0], np.float32) * np.float32(spec.window_seconds)
    return Window(kind=kind, time=time, unit=unit, query=query)
