"""Latencies of millions of decodes in a few kilobytes."""

from __future__ import annotations

import math

import numpy as np

_LOWEST_NS = 1_000
_BINS_PER_DECADE = 200
_N_BINS = 7 * _BINS_PER_DECADE


class LatencyHistogram:
    """Counts on a logarithmic scale from 1 µs to 10 s; bins are 1.2 % wide."""

    def __init__(self) -> None:
        self.counts = np.zeros(_N_BINS, np.int64)
        self.max_ns = 0

    def add(self, latency_ns: int) -> None:
        """Count one latency in nanoseconds."""
        place = int(math.log10(max(latency_ns, _LOWEST_NS) / _LOWEST_NS) * _BINS_PER_DECADE)
        self.counts[min(place, _N_BINS - 1)] += 1
        self.max_ns = max(self.max_ns, latency_ns)

    @staticmethod
    def edges_ms() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Edges of the bins in milliseconds, one more than there are bins."""
        decades = np.arange(_N_BINS + 1) / _BINS_PER_DECADE
        return np.asarray(_LOWEST_NS * 10.0**decades / 1e6)

    def percentile_ms(self, percent: float) -> float:
        """The latency that ``percent`` of all decodes stay below, to 1.2 %; 0 without any."""
        total = int(self.counts.sum())
        if not total:
            return 0.0
        place = int(np.searchsorted(self.counts.cumsum(), math.ceil(total * percent / 100)))
        return min(float(self.edges_ms()[place + 1]), self.max_ns / 1e6)

    def summary_ms(self) -> dict[str, float]:
        """p50, p90, p99, p999 and max in milliseconds."""
        names = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}
        summary = {name: round(self.percentile_ms(p), 4) for name, p in names.items()}
        return summary | {"max": round(self.max_ns / 1e6, 4)}
