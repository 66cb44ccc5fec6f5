"""A feed that ends or stalls, and a device's clock that stands still, stop the value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from helpers.journals import require_same_bits
from helpers.loops import Bench, S, silent, stream

from poyo_edge.journal import JournalHeader, JournalWriter
from poyo_edge.runtime import Status

if TYPE_CHECKING:
    from conftest import Rig


def test_a_feed_that_has_ended_is_lost_at_once(rig: Rig, tmp_path: Path) -> None:
    ended: list[bool] = []
    unit_ids = rig.decoder().unit_ids
    header = JournalHeader(session_id="s", unit_ids=unit_ids, tick_rate_hz=rig.grid_hz)
    journal = JournalWriter(tmp_path / "a.journal", header)
    bench = Bench(rig, source_ended=lambda: bool(ended), journal=journal)
    times, rows = rig.stream(16, 4.0)  # too few for silence to say anything
    bench.run(times, rows, range(1, 200))
    ended.append(True)
    silent(bench, range(200, 260))
    after = [one.result for one in bench.out if one.result.t > 200 * 64]
    lost = [one for one in after if "stream_lost" in one.flags]
    assert len(after) - len(lost) <= 2
    assert [one.status for one in lost[:2]] == [Status.HELD] * 2
    assert (lost[-1].status, lost[-1].value.tolist()) == (Status.INVALID, [0.0, 0.0])
    journal.close()
    again = require_same_bits(journal.path, rig.decoder(tick_rate_hz=rig.grid_hz))
    assert again == len(bench.out)


def test_a_feed_of_steady_packets_is_lost_when_it_stalls(rig: Rig) -> None:
    bench = Bench(rig)
    times, rows = rig.stream(16, 4.0)
    bench.run(times, rows, range(1, 200))
    silent(bench, range(200, 330))
    lost = [int(one.result.t) // 64 for one in bench.out if "stream_lost" in one.result.flags]
    assert 199 + 64 <= lost[0] <= 199 + 68
    assert lost[-1] - lost[0] == len(lost) - 1, "to the end"
    assert bench.out[-1].result.status is Status.INVALID


def test_a_feed_of_rare_packets_may_be_silent(rig: Rig) -> None:
    bench = Bench(rig)
    for end in range(1, 2000):
        bench.host.ns = 100 * S + end * S // 64
        if end % 50 == 1:
            bench.loop.feed([end * 64 - 1], [0])
        bench.loop.step()
    silent(bench, range(2000, 2200))
    assert bench.loop.stats()["stalled"]
    assert not any("stream_lost" in one.result.flags for one in bench.out)
    assert bench.out[-1].result.flags == ("unverified", "silent")


def test_a_clock_that_stands_still_is_lost_though_packets_come(rig: Rig) -> None:
    bench = Bench(rig)
    times, rows = stream(rig, 3.0)
    bench.run(times, rows, range(1, 129))
    for end in range(129, 192):
        bench.host.ns = 100 * S + end * S // 64
        bench.loop.feed([128 * 64 - 1] * 6, np.arange(6))
        bench.loop.step()
    after = [one.result for one in bench.out if one.result.t > 128 * 64]
    lost = [one for one in after if "stream_lost" in one.flags]
    assert len(after) - len(lost) <= 8
    assert (lost[-1].status, lost[-1].value.tolist()) == (Status.INVALID, [0.0, 0.0])
