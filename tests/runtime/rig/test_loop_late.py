"""What comes late is not VALID, and a clock that was moved is placed anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.loops import Bench, S, stream

from poyo_edge.runtime import Status

if TYPE_CHECKING:
    from conftest import Rig


@pytest.mark.slow
@pytest.mark.parametrize("by_s", [-0.5, -0.25, 0.5])
def test_a_clock_that_is_moved_by_less_than_a_second_is_placed_anew(rig: Rig, by_s: float) -> None:
    bench = Bench(rig)
    times, rows = stream(rig, 9.0)
    bench.run(times, rows, range(1, 192))
    before = len(bench.out)
    bench.run(times, rows, range(192, 500), shift=int(by_s * rig.grid_hz))
    after = [one.result for one in bench.out[before:]]
    valid = [i for i, one in enumerate(after) if one.status is Status.VALID]
    assert len([i for i in valid if i < 64]) <= 10, "the next second"
    assert all("gap" in one.flags or "stream_lost" in one.flags for one in after[12:40])
    assert len([i for i in valid if i >= 192]) > 100, "three seconds later"
    last = bench.out[-1]
    at = float(last.result.t) / rig.grid_hz - by_s
    assert np.array_equal(last.result.value, rig.batch(times, rows, at))


def test_two_senders_a_second_apart_are_flagged(rig: Rig) -> None:
    bench = Bench(rig)
    times, rows = stream(rig, 6.0)
    for end in range(1, 320):
        bench.host.ns = 100 * S + end * S // 64
        for late, units in ((0, rows < 6), (60, rows >= 6)):
            inside = (times >= (end - 1 - late) / 64) & (times < (end - late) / 64) & units
            bench.loop.feed((times[inside] * bench.rate).astype(np.int64), rows[inside])
        bench.loop.step()
    flagged = ["delayed" in one.result.flags for one in bench.out]
    assert all(flagged[128:])
    assert not any(flagged[:60])
    assert {one.result.status for one in bench.out[128:]} == {Status.DEGRADED}


@pytest.mark.slow
def test_a_few_late_spikes_are_no_matter(rig: Rig) -> None:
    bench = Bench(rig)
    times, rows = stream(rig, 6.0)
    delayed = np.random.default_rng(0).random(len(times)) < 0.05
    for end in range(1, 320):
        bench.host.ns = 100 * S + end * S // 64
        for late, which in ((0, ~delayed), (20, delayed)):
            inside = (times >= (end - 1 - late) / 64) & (times < (end - late) / 64) & which
            bench.loop.feed((times[inside] * bench.rate).astype(np.int64), rows[inside])
        bench.loop.step()
    assert not any("delayed" in one.result.flags for one in bench.out)
    assert bench.out[-1].result.status is Status.VALID
