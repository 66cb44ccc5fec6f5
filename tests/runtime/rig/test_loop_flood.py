"""More packets than the loop can take: values keep coming, and say what they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from helpers.loops import PERIOD, S, flooded, hear

from poyo_edge.runtime import Status

if TYPE_CHECKING:
    from conftest import Rig


def test_values_come_at_the_rate_through_a_flood_and_say_what_they_lack(rig: Rig) -> None:
    bench = flooded(rig)
    calm = hear(bench, range(1, 129), 8)
    assert calm[-1].result.status is Status.VALID
    flood = hear(bench, range(129, 385), 64)
    assert len(flood) >= 254
    assert all("flood" in one.result.flags for one in flood)
    assert {one.result.status for one in flood} == {Status.DEGRADED}
    assert bench.loop.counters.skipped <= 1
    assert bench.loop.counters.packets_dropped > 256 * 64 // 2
    for one in flood[10:]:
        assert int(one.result.t) - (one.result.t_last_spike or 0) <= 4 * 64, "recent spikes"
        assert one.result.n_spikes > 400
    after = hear(bench, range(385, 470), 8)
    ends = np.array([int(one.result.t) for one in after if "flood" in one.result.flags])
    assert 60 * 64 <= ends[-1] - 385 * 64 <= 72 * 64, "for a window's length"
    assert after[-1].result.status is Status.VALID
    assert len(bench.loop._waiting) == 0


def test_after_a_pause_nothing_is_dropped(rig: Rig) -> None:
    bench = flooded(rig)
    hear(bench, range(1, 129), 8)
    bench.host.ns += PERIOD * 8  # the thread had no turn
    after = hear(bench, range(129, 220), 8)
    assert bench.loop.counters.packets_dropped == 0
    assert "flood" in after[0].result.flags, "spikes still waited"
    assert after[-1].result.status is Status.VALID


def test_dropped_packets_are_flagged_for_a_window(rig: Rig) -> None:
    bench = flooded(rig)
    hear(bench, range(1, 129), 8)
    bench.loop.counters.packets_dropped += 1
    after = hear(bench, range(129, 220), 8)
    flagged = ["flood" in one.result.flags for one in after]
    assert flagged == sorted(flagged, reverse=True)
    assert sum(flagged) in (64, 65)


def test_labels_outlast_a_flood(rig: Rig) -> None:
    heard: list[int] = []
    bench = flooded(rig, on_labels=lambda ticks, _: heard.extend(ticks.tolist()))
    hear(bench, range(1, 65), 8)
    for step in range(65, 129):
        bench.loop.feed_labels([step * 64 - 64], [[1.0, 2.0]], host_ns=100 * S + step * PERIOD)
        hear(bench, range(step, step + 1), 64)
    hear(bench, range(129, 140), 1)
    assert bench.loop.counters.packets_dropped > 0
    assert heard == [step * 64 - 64 for step in range(65, 129)]
