"""Latencies of millions of decodes in a few kilobytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_LOWEST_NS = 1_000
_BINS_PER_DECADE = 200
_N_BINS = 7 * _BINS_PER_DECADE
_EDGES_MS = (
    _LOWEST_NS * 10.0 ** (np.arange(_N_BINS + 1) / _BINS_PER_DECADE) / 1e6
).tolist()  # fmt: skip
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


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
        return np.array(_EDGES_MS)

    def percentile_ms(self, percent: float) -> float:
        """The latency that ``percent`` of all decodes stay below, to 1.2 %; 0 without any."""
        return self._percentiles_ms([percent])[0]

    def summary_ms(self) -> dict[str, float]:
        """p50, p90, p99, p999 and max in milliseconds."""
        found = zip(_PERCENTILES, self._percentiles_ms([*_PERCENTILES.values()]), strict=True)
        return {name: round(ms, 4) for name, ms in found} | {"max": round(self.max_ns / 1e6, 4)}

    def _percentiles_ms(self, percents: Sequence[float]) -> list[float]:
        counted = self.counts.cumsum()
        total = int(counted[-1])
        if not total:
            return [0.0] * len(percents)
        places = counted.searchsorted([math.ceil(total * percent / 100) for percent in percents])
        return [min(_EDGES_MS[place + 1], self.max_ns / 1e6) for place in places.tolist()]
