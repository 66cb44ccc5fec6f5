"""Packets are used as they arrive, and all comes out as if they were used when a window is due."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.journals import require_same_bits
from helpers.waiting import wait_until

from poyo_edge.journal import JournalHeader, JournalWriter
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.loop import DecodeLoop
from poyo_edge.runtime.rig.settings import LoopSettings
from poyo_edge.trials import NOW, TrialUpdate

if TYPE_CHECKING:
    from conftest import Rig

S, BEGIN = 1_000_000_000, 100 * 1_000_000_000
Event = tuple[int, Callable[[DecodeLoop], None]]


class Timeline:
    """A host's clock at which things happen at set times, each within whatever waits then."""

    def __init__(self, events: list[Event], end_ns: int) -> None:
        self.ns, self.end_ns = BEGIN, end_ns
        self.loop: DecodeLoop | None = None
        self._events = sorted(events, key=lambda event: event[0])
        self.met = 0

    def now_ns(self) -> int:
        return self.ns

    def wait_until(self, ns: int, stop: threading.Event) -> None:
        while not stop.is_set() and self._events and self._events[0][0] <= ns:
            self._happen()
        self.ns = self.ns if stop.is_set() else max(self.ns, ns)
        assert self.loop is not None
        if self.ns >= self.end_ns:
            self.loop.stop()

    def pass_until(self, ns: int) -> None:
        """All until then happens, and nobody wakes."""
        while self._events and self._events[0][0] <= ns:
            self._happen()
        self.ns = max(self.ns, ns)

    def _happen(self) -> None:
        at, event = self._events.pop(0)
        self.ns = max(self.ns, at)
        assert self.loop is not None
        event(self.loop)
        self.met += 1


def feed(ticks: Any, units: Any, at: int, **more: Any) -> Event:
    return at, lambda loop: loop.feed(ticks, units, host_ns=at, **more)


def happenings(rig: Rig, seconds: float) -> list[Event]:
    """A lively morning: packets of each few ms, late ones, strangers, a task, and a new clock."""
    rng, rate = np.random.default_rng(3), rig.grid_hz
    ids = np.array([*rig.a.header.unit_ids, "nobody"])
    events, at, last = list[Event](), 0, 0
    while at < (seconds - 0.1) * S:
        step = int(rng.integers(1, 9)) * S // 1000
        at, delay = at + step, int(rng.integers(0, 3_000_000))
        silent = 2.0 * S < at < 2.4 * S or 6.0 * S < at < 7.3 * S
        shift = 0 if at < 4.5 * S else 1_000_000
        tick = int(at * rate / S) + shift
        if tick > last + 1 and not silent:
            ticks = np.sort(rng.integers(last, tick, int(rng.integers(1, 9))))
            if rng.random() < 0.05:
                ticks = ticks - rate // 20
            units = ids[rng.integers(0, len(ids) - (rng.random() < 0.9), len(ticks))]
            sync = {"at": at} if rng.random() < 0.3 else None
            events.append(feed(ticks, units, BEGIN + at + delay, sync=sync))
        last = tick
    for second in range(1, int(seconds)):
        now = BEGIN + second * S + 1_234_567
        tick = int((now - BEGIN) * rate / S) + (1_000_000 if second > 4 else 0) - 40
        told = TrialUpdate(second, {"start": NOW, "target": (8.0, float(second)), "radius": 1.2})
        calls: list[tuple[Callable[..., None], Any, dict[str, Any]]] = [
            (DecodeLoop.feed_trial, (told,), {}),
            (DecodeLoop.feed_cursor, (None, [[1.0, second]]), {}),
            (DecodeLoop.feed_labels, ([tick], [[1.0, 2.0]]), {}),
            (DecodeLoop.feed_labels, ([tick], [[1.0]]), {}),
            (DecodeLoop.feed, ([[1]], ["x"]), {}),
            (DecodeLoop.note_loss, (2,), {}),
        ]
        for call, words, more in calls:
            more["host_ns"] = now
            events.append((now, functools.partial(_call, call, words, more)))
        events.append((now + 7, lambda loop: loop.note_problem("expected, got")))
        events.append((now + 9, lambda loop: _command(loop)))
    return events


def _call(call: Callable[..., None], words: Any, more: Any, loop: DecodeLoop) -> None:
    call(loop, *words, **more)


def _command(loop: DecodeLoop) -> None:
    loop.command("mark", "here")


@dataclasses.dataclass
class Ran:
    """What a run left."""

    out: list[LoopResult]
    journal: bytes
    figures: dict[str, Any]
    met: int


def run(rig: Rig, path: Path, *, by_arrival: bool, rate_hz: float = 50.0) -> Ran:
    seconds = 9.0
    host = Timeline(happenings(rig, seconds), BEGIN + int(seconds * S))
    header = JournalHeader(
        session_id="a", unit_ids=rig.a.header.unit_ids, tick_rate_hz=rig.grid_hz, created="then"
    )
    journal, out = JournalWriter(path, header), list[LoopResult]()
    loop = host.loop = DecodeLoop(
        rig.decoder(tick_rate_hz=rig.grid_hz), DeviceClock(rig.grid_hz), [out.append],
        settings=LoopSettings(rate_hz=rate_hz, settle_ms=2.0), journal=journal, host=host,
    )  # fmt: skip
    if by_arrival:
        loop.run()
    else:
        while host.now_ns() < host.end_ns:
            host.pass_until(loop.step())
    figures = loop.stats()
    journal.close()
    for taken in (figures["decoder"], figures):
        taken.pop("latency_ms", None)  # of the processor, which has a clock of its own
    del figures["realtime"], figures["journal"]["path"]
    return Ran(out, path.read_bytes(), figures, host.met)


@pytest.mark.slow
@pytest.mark.parametrize("rate_hz", [50.0, 100.0])
def test_taking_on_arrival_changes_no_value_status_counter_or_byte_of_the_journal(
    rig: Rig, tmp_path: Path, rate_hz: float
) -> None:
    one = run(rig, tmp_path / "one", by_arrival=True, rate_hz=rate_hz)
    two = run(rig, tmp_path / "two", by_arrival=False, rate_hz=rate_hz)
    assert one.met > 1000
    assert len(one.out) == len(two.out) > 5 * rate_hz
    for ours, theirs in zip(one.out, two.out, strict=True):
        assert np.array_equal(ours.result.value, theirs.result.value)
        assert said(ours) == said(theirs)
    assert one.figures == two.figures
    assert one.journal == two.journal
    counted = one.figures["loop"]
    assert counted["packets"] > 1000 and counted["stalls"] == 1
    assert counted["trials"] > 5 and counted["cursor"] > 5 and counted["bad_packets"] > 5
    assert one.figures["clock"]["discontinuities"] == 1
    assert one.figures["decoder"]["counters"]["unknown_unit"] > 0
    assert one.figures["decoder"]["counters"]["delayed"] > 0
    assert len({value.result.status for value in one.out}) > 3
    assert require_same_bits(tmp_path / "one", rig.decoder(tick_rate_hz=rig.grid_hz)) > 0


def said(value: LoopResult) -> dict[str, Any]:
    """All that a value says but the time that decoding took."""
    result = dataclasses.replace(value.result, value=None, latency_ns=0)  # type: ignore[arg-type]
    return {**dataclasses.asdict(value), "result": dataclasses.asdict(result)}


def test_packets_are_used_before_the_next_window_is_due_and_at_once_when_it_nearly_is(
    rig: Rig,
) -> None:
    used, due = list[int](), list[int]()
    events = [feed([i], [0], BEGIN + 1 + i * S // 1000) for i in range(200)]
    host = Timeline(events, BEGIN + S // 2)

    def note(*_: Any) -> None:
        used.append(host.ns)
        due.append(loop.due_ns)

    loop = host.loop = DecodeLoop(
        rig.decoder(tick_rate_hz=1000), DeviceClock(1000), host=host, on_spikes=note
    )
    arrived = np.array([at for at, _ in events])
    loop.run()
    waited, left = np.array(used) - arrived, np.array(due) - arrived
    known = left > 0
    assert known.sum() > 150
    assert (np.array(used) <= np.array(due))[known].all()
    assert (waited <= S // 500).all()
    nearly = known & (left < 1_400_000)
    assert nearly.sum() > 5
    assert (waited[nearly] == 0).all()
    assert waited.max() > 0, "the others gather"


def test_a_packet_wakes_the_loop_and_so_does_the_end(rig: Rig) -> None:
    used = threading.Event()
    loop = DecodeLoop(
        rig.decoder(tick_rate_hz=1000), DeviceClock(1000), settings=LoopSettings(rate_hz=1),
        on_spikes=lambda *_: used.set(),
    )  # fmt: skip
    loop.start()
    wait_until(lambda: loop.heartbeat_ns)
    began = time.monotonic()
    loop.feed([1], [0])
    assert used.wait(0.5), "long before the second's end"
    loop.stop()
    assert time.monotonic() - began < 0.5


def test_who_waits_for_a_value_wakes_when_it_has_left(rig: Rig) -> None:
    out = list[LoopResult]()
    loop = DecodeLoop(rig.decoder(tick_rate_hz=1000), DeviceClock(1000), [out.append])
    assert not loop.wait_for_value(0.01), "nothing runs"
    loop.start()
    try:
        loop.feed([1], [0])
        assert loop.wait_for_value(10.0)
        assert out
    finally:
        loop.stop()
