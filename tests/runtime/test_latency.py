"""Percentiles from a few kilobytes of counts."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_edge.runtime.latency import LatencyHistogram


def test_percentiles_are_right_to_two_percent_and_never_too_low() -> None:
    latencies_ns = np.random.default_rng(0).lognormal(np.log(2e6), 0.7, 20_000).astype(np.int64)
    histogram = LatencyHistogram()
    for latency in latencies_ns.tolist():
        histogram.add(latency)
    for percent in (50.0, 90.0, 99.0, 99.9):
        exact = float(np.percentile(latencies_ns, percent, method="inverted_cdf")) / 1e6
        assert exact <= histogram.percentile_ms(percent) <= 1.02 * exact


def test_the_maximum_is_exact() -> None:
    histogram = LatencyHistogram()
    for latency in (1_234_567, 89_123, 7):
        histogram.add(latency)
    assert histogram.summary_ms()["max"] == 1.2346
    assert histogram.percentile_ms(100.0) == 1.234567


def test_no_percentile_exceeds_the_maximum() -> None:
    histogram = LatencyHistogram()
    histogram.add(1_000_000)
    assert set(histogram.summary_ms().values()) == {1.0}


def test_without_decodes_everything_is_zero() -> None:
    assert LatencyHistogram().summary_ms() == {
        "p50": 0.0,
        "p90": 0.0,
        "p99": 0.0,
        "p999": 0.0,
        "max": 0.0,
    }


@pytest.mark.parametrize(
    ("latency_ns", "place"), [(0, 0), (1_000, 0), (10_000, 200), (10**10, -1), (10**13, -1)]
)
def test_latencies_off_the_scale_are_counted_at_its_ends(latency_ns: int, place: int) -> None:
    histogram = LatencyHistogram()
    histogram.add(latency_ns)
    assert histogram.counts[place] == histogram.counts.sum() == 1


def test_bins_have_one_edge_more_than_counts_and_the_decades_are_on_edges() -> None:
    edges = LatencyHistogram.edges_ms()
    assert len(edges) == len(LatencyHistogram().counts) + 1
    assert edges[[0, 200, 1400]] == pytest.approx([1e-3, 1e-2, 1e4])
