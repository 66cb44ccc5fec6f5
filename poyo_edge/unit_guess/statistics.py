"""What unlabelled activity says about each unit: the same numbers in training and on the device.

Legend: M spikes, U units, K intervals, N bins, F statistics.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import UsageError

BIN_S, SLOW_BINS = 0.05, 10
"""Bins of 50 ms, and of ten of them."""
NAMES = (
    "log_rate",
    "log_sd",
    "log_fano_slow",
    "lag_1",
    "with_population",
    "session_log_rate",
)
"""log(1/s) of the rate; log of the counts' standard deviation; log of variance over mean of counts
in 0.5 s; correlation of neighbouring bins; correlation with all other units in 0.5 s; and the mean
of ``log_rate`` over the session's units."""
LEAST_S = 10.0
"""Seconds below which nothing can be said."""
_RATE_FLOOR, _SD_FLOOR = 0.1, 0.02


def unit_statistics(
    spike_times: Float64,
    spike_units: npt.NDArray[np.integer],
    n_units: int,
    intervals: Iterable[tuple[float, float]] | Float64,
) -> Float64:
    """Statistics of each unit's activity, (U, F) float64, in the order of ``NAMES``.

    Args:
        spike_times: (M,) seconds, ascending.
        spike_units: (M,) rows of the units.
        n_units: U.
        intervals: (K, 2) seconds in which spikes were recorded.

    Raises:
        UsageError: less than ``LEAST_S`` in the intervals.
    """
    pieces = [_binned(spike_times, spike_units, n_units, a, b) for a, b in intervals]
    counts = np.concatenate([np.zeros((0, n_units)), *pieces])
    if len(counts) * BIN_S < LEAST_S:
        raise UsageError(
            f"unit statistics: expected at least {LEAST_S:g} s of spikes, got "
            f"{len(counts) * BIN_S:.2f} s"
        )
    rate, sd = counts.mean(0) / BIN_S, counts.std(0)
    centred = (counts - counts.mean(0)) / np.maximum(sd, _SD_FLOOR)
    whole = len(counts) // SLOW_BINS * SLOW_BINS
    slow = counts[:whole].reshape(-1, SLOW_BINS, n_units).sum(1)
    log_rate = np.log(rate + _RATE_FLOOR)
    return np.stack(
        [
            log_rate,
            np.log(sd + _SD_FLOOR),
            np.log((slow.var(0) + _SD_FLOOR) / (slow.mean(0) + _SD_FLOOR)),
            (centred[1:] * centred[:-1]).mean(0),
            _with_others(slow),
            np.full(n_units, log_rate.mean()),
        ],
        axis=-1,
    )


def _binned(
    times: Float64, units: npt.NDArray[np.integer], n_units: int, start: float, end: float
) -> Float64:
    """Counts (N, U) of whole bins of ``BIN_S`` from ``start`` on."""
    n_bins = int((end - start) / BIN_S + 1e-6)
    first, last = np.searchsorted(times, [start, start + n_bins * BIN_S])
    bins: Int64 = ((times[first:last] - start) / BIN_S).astype(np.int64)
    flat = np.minimum(bins, n_bins - 1) * n_units + units[first:last]
    counts = np.bincount(flat, minlength=n_bins * n_units)
    return counts.reshape(n_bins, n_units).astype(np.float64)


def _with_others(slow: Float64) -> Float64:
    """Correlation of each unit with the standardised sum of all others, (U,)."""
    scaled = (slow - slow.mean(0)) / np.maximum(slow.std(0), _SD_FLOOR)
    others = scaled.sum(1, keepdims=True) - scaled
    size = np.maximum(others.std(0), _SD_FLOOR)
    return np.asarray((scaled * (others - others.mean(0)) / size).mean(0), dtype=np.float64)
