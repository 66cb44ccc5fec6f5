"""Values that lack spikes say so: lost on the way, dropped while waiting, windows skipped."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poyo_edge.journal import Journal, JournalHeader, JournalWriter
from poyo_edge.runtime import Status
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.loop import DecodeLoop
from poyo_edge.runtime.rig.settings import LoopSettings

if TYPE_CHECKING:
    from conftest import Rig

S, HZ = 1_000_000_000, 64


class HandClock:
    """A host's clock that moves when told."""

    ns = 100 * S

    def now_ns(self) -> int:
        return self.ns

    def wait_until(self, ns: int, stop: threading.Event) -> None:
        self.ns = max(self.ns, ns)


class Bench:
    """A loop at 64 Hz; each packet brings a spike of two units."""

    def __init__(self, rig: Rig, **arguments: Any) -> None:
        self.host, self.out, self.rate = HandClock(), list[LoopResult](), rig.grid_hz
        arguments.setdefault("settings", LoopSettings(rate_hz=HZ))
        self.loop = DecodeLoop(
            rig.decoder(tick_rate_hz=self.rate),
            DeviceClock(self.rate),
            [self.out.append],
            host=self.host,
            **arguments,
        )

    def run(
        self, ends: range, *, units: Any = (0, 1), packets: int = 1, shift: int = 0
    ) -> list[LoopResult]:
        """Packets that end at each of ``ends`` (in 1/64 s), then a step; what came out of them."""
        before = len(self.out)
        for end in ends:
            self.host.ns = 100 * S + end * S // HZ
            for i in range(packets):
                tick = int(end * self.rate / HZ) - 1 + shift
                self.loop.feed(np.array([tick - 8 - i, tick]), np.array(units))
            self.loop.step()
        return self.out[before:]


def flagged(values: list[LoopResult], flag: str) -> list[bool]:
    assert all(one.result.status is not Status.VALID for one in values if flag in one.result.flags)
    return [flag in one.result.flags for one in values]


def test_windows_that_hold_the_time_of_a_loss_are_degraded(rig: Rig, tmp_path: Path) -> None:
    header = JournalHeader(session_id="a", unit_ids=rig.a.header.unit_ids, tick_rate_hz=rig.grid_hz)
    journal = JournalWriter(tmp_path / "a.journal", header)
    bench = Bench(rig, journal=journal)
    window = round(rig.decoder().artifact.manifest.spec.window_s * HZ)
    assert not any(flagged(bench.run(range(1, 3 * window)), "loss"))
    bench.loop.note_loss(3)
    found = flagged(bench.run(range(3 * window, 5 * window)), "loss")
    assert found == sorted(found, reverse=True), "from the loss on, then no more"
    assert abs(sum(found) - window) <= 1
    assert bench.out[-1].result.status is Status.VALID
    bench.loop.note_problem("expected, got")
    bench.loop.step()
    journal.close()
    events = [entry for entry in Journal(journal.path).entries() if isinstance(entry, dict)]
    assert events == [{"feed": "lost", "n": 3}, {"feed": "problem", "said": "expected, got"}]
    assert bench.loop.counters.packets == 5 * window - 1, "notes are no packets"


def test_a_loss_before_the_clock_begins_anew_is_none_of_the_new_clock(rig: Rig) -> None:
    bench = Bench(rig)
    bench.run(range(1, 150), shift=1 << 30)
    bench.loop.note_loss(1)
    assert flagged(bench.run(range(150, 160), shift=1 << 30), "loss") == [True] * 10
    values = bench.run(range(160, 400))
    assert bench.loop.clock.counters.discontinuities == 1
    assert not any(flagged(values[10:], "loss"))


def test_packets_that_the_loop_dropped_are_a_loss(rig: Rig) -> None:
    bench = Bench(rig, settings=LoopSettings(rate_hz=HZ, most_packets=4))
    assert not any(flagged(bench.run(range(1, 150), packets=4), "loss"))
    (found,) = bench.run(range(150, 151), packets=6)
    assert "loss" in found.result.flags
    assert bench.loop.counters.packets_dropped == 2


def test_the_value_after_skipped_windows_says_so_once(rig: Rig) -> None:
    bench = Bench(rig)
    assert not any(flagged(bench.run(range(1, 150)), "skipped"))
    values = bench.run(range(155, 165))
    assert bench.loop.counters.skipped == 5
    assert flagged(values, "skipped") == [True] + [False] * 9
    assert values[-1].result.status is Status.VALID


def test_the_first_unknown_unit_is_an_event_of_the_journal(rig: Rig, tmp_path: Path) -> None:
    header = JournalHeader(session_id="a", unit_ids=rig.a.header.unit_ids, tick_rate_hz=rig.grid_hz)
    with_journal = JournalWriter(tmp_path / "a.journal", header)
    bench = Bench(rig, journal=with_journal)
    bench.run(range(1, 20), units=("ch5", "ch6"))
    with_journal.close()
    events = [entry for entry in Journal(with_journal.path).entries() if isinstance(entry, dict)]
    (said,) = [one["said"] for one in events if one.get("feed") == "problem"]
    assert "got 'ch5'" in said
