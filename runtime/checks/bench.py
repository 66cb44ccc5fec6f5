"""How long one window takes on this machine, against the number of spikes in it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from poyo_edge.errors import UsageError
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.constants import SessionConstants
from poyo_edge.runtime.core import Core

SPIKE_COUNTS = (0, 250, 1000, 4000, 8000)
MOST_REPEATS = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchLine(JsonRecord):
    """Latency of windows with one number of spikes, in milliseconds."""

    n_spikes: int
    p50: float
    p90: float
    p99: float
    max: float
    n: int


def bench(
    core: Core,
    constants: SessionConstants,
    *,
    spike_counts: Sequence[int] | None = None,
    repeats: int = 50,
    seed: int = 0,
    wiener: MixedFilter | None = None,
) -> list[BenchLine]:
    """Time single windows of random spikes, the counts taking turns.

    Args:
        core: opened on the backend to time.
        constants: of the session to time with.
        spike_counts: numbers of spikes in a window; None for those of ``SPIKE_COUNTS`` that the
            artifact decodes from.
        repeats: windows of each count.
        seed: of the spikes.
        wiener: the session's mixed filter, if it has one; it takes its time too.

    Raises:
        UsageError: a count that the artifact never decodes from, or repeats out of range.
    """
    most = core.artifact.manifest.max_spikes
    if spike_counts is None:
        spike_counts = [n for n in SPIKE_COUNTS if n <= most]
    if not spike_counts or min(spike_counts) < 0 or max(spike_counts) > most:
        raise UsageError(
            f"spikes: expected 0 to {most}, the most that this artifact decodes a window from, "
            f"got {list(spike_counts)}"
        )
    if not 1 <= repeats <= MOST_REPEATS:
        raise UsageError(f"repeats: expected 1 to {MOST_REPEATS}, got {repeats}")
    rng = np.random.default_rng(seed)
    window_s = core.artifact.manifest.spec.window_seconds
    query = np.array([window_s], np.float32)
    spikes = [
        (
            np.sort(rng.uniform(0, window_s, n)).astype(np.float32),
            rng.integers(0, len(constants.unit_kv), n).astype(np.int32),
        )
        for n in spike_counts
    ]
    taken = np.empty((repeats + 2, len(spikes)))
    for row in taken:
        for i, (times, units) in enumerate(spikes):
            started = time.perf_counter_ns()
            value = core.predict(constants, times, units, query)
            if wiener is not None:
                wiener.mixed_with(value.astype(np.float64), units, times, query)
            row[i] = (time.perf_counter_ns() - started) / 1e6
    return [_line(n, column) for n, column in zip(spike_counts, taken[2:].T, strict=True)]


def _line(n_spikes: int, taken_ms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> BenchLine:
    p50, p90, p99, worst = np.percentile(taken_ms, [50, 90, 99, 100]).round(4).tolist()
    return BenchLine(n_spikes=n_spikes, p50=p50, p90=p90, p99=p99, max=worst, n=len(taken_ms))
