"""Sinks with threads of their own: one that hangs or fails is nobody else's problem."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.feeds import a_value
from helpers.loops import Bench, stream
from helpers.waiting import PATIENCE_S, wait_until

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds.opening import open_sink
from poyo_edge.runtime.feeds.values import LoopResult, Sink
from poyo_edge.runtime.rig import Rig as Opened
from poyo_edge.runtime.rig import RigSettings, outlets
from poyo_edge.runtime.rig.outlets import Outlet, OwnThread, close_all, outlet
from poyo_edge.runtime.rig.settings import LoopCounters

if TYPE_CHECKING:
    from conftest import Rig


class Peer:
    """Takes values while it is ``awake``; without that, the one that it began to take hangs."""

    def __init__(self, address: str = "redis://rig:6379/s") -> None:
        self.got, self.closed = list[int](), threading.Event()
        self.awake, self.busy = threading.Event(), threading.Event()
        self.problem: Exception | None = None
        self.sink = Sink(address, self.take, self.closed.set)

    def take(self, value: LoopResult) -> None:
        self.busy.set()
        assert self.awake.wait(PATIENCE_S)
        if self.problem is not None:
            raise self.problem
        self.got.append(value.seq)


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    """Makes peers, and wakes those that still hang at the end."""
    made = list[Peer]()

    def make(address: str = "redis://rig:6379/s") -> Peer:
        made.append(Peer(address))
        return made[-1]

    yield make
    for one in made:
        one.awake.set()


def test_a_loop_goes_on_while_a_sink_hangs_and_the_others_get_every_value(
    rig: Rig, peers: Callable[..., Peer]
) -> None:
    hung, well = peers(), peers("udp://rig:6000")
    well.awake.set()
    beside = [outlet(hung.sink), outlet(well.sink)]
    bench = Bench(rig, sinks=beside)
    times, rows = stream(rig, 1.0)
    for i in range(1, 40):
        bench.run(times, rows, range(i, i + 1))
        wait_until(lambda: well.got == [one.seq for one in bench.out])
        assert not bench.out or hung.busy.wait(PATIENCE_S)
    everything = [one.seq for one in bench.out]
    n = len(everything)
    assert n > 30
    assert (well.got, hung.got) == (everything, [])
    hung.awake.set()
    close_all(beside)
    assert hung.got == [1, n], "the newest after the one that hung"
    found = [one.to_json() for one in beside]
    assert [one["sent"] for one in found] == [2, n]
    assert [one["superseded"] for one in found] == [n - 2, 0]
    assert hung.closed.is_set()
    assert well.closed.is_set()


def test_how_long_a_sink_is_behind_is_that_of_its_oldest_value(
    peers: Callable[..., Peer],
) -> None:
    hung, now = peers(), [5_000_000]
    out = OwnThread(hung.sink, now_ns=lambda: now[0])
    assert out.to_json() == {"address": "redis://rig:6379/s", "sent": 0, "superseded": 0,
                             "failures": 0, "behind_ms": 0.0, "last_failure": ""}  # fmt: skip
    out(a_value(1))
    assert hung.busy.wait(PATIENCE_S)
    now[0] += 250_000_000
    out(a_value(2))
    now[0] += 500_000_000
    assert out.to_json()["behind_ms"] == 750.0
    hung.problem = ConnectionError("reset")
    hung.awake.set()
    wait_until(lambda: out.to_json()["failures"] == 2)
    found = out.to_json()
    assert (found["behind_ms"], found["last_failure"]) == (750.0, "ConnectionError: reset")
    hung.problem = None
    out(a_value(3))
    wait_until(lambda: out.to_json()["sent"] == 1)
    assert out.to_json()["behind_ms"] == 0.0
    out.close()
    assert hung.got == [3]


def test_failures_are_counted_and_the_first_of_each_sink_is_said(
    peers: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    counters = LoopCounters()
    made, outs = [peers("redis://a:1/s"), peers("zmq://b:2")], list[OwnThread]()
    told = outlets.SinkFailures(counters)
    for one in made:
        one.awake.set()
        one.problem = TimeoutError("no answer")
        outs.append(OwnThread(one.sink))
        outs[-1].on_failure = told

    def send(n: int) -> None:
        for out in outs:
            out(a_value(n))
        wait_until(lambda: counters.sink_failures == 2 * n)

    for n in range(1, 4):
        send(n)
    close_all(outs)
    assert counters.sink_failures == 6
    assert sorted(record.message for record in caplog.records) == [
        f"a value could not be sent to {address} (TimeoutError: no answer); later failures are "
        f"counted" for address in ("redis://a:1/s", "zmq://b:2")
    ]  # fmt: skip


def test_sinks_that_hang_are_left_behind_at_the_end_and_get_nothing_old_when_they_wake(
    peers: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outlets, "CLOSE_S", 0.01)
    made = [peers("redis://a:1/s"), peers("redis://b:1/s")]
    outs = [OwnThread(one.sink) for one in made]
    for one, out in zip(made, outs, strict=True):
        out(a_value(1))
        assert one.busy.wait(PATIENCE_S)
        out(a_value(2))
    close_all(outs)
    close_all(outs)
    assert not any(one.closed.is_set() for one in made)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["redis"] * 2
    behind = [out.to_json()["behind_ms"] for out in outs]
    for one in made:
        one.awake.set()
        assert one.closed.wait(PATIENCE_S)
        assert one.got == [1]
    assert min(behind) > 0
    with pytest.raises(UsageError, match="expected a sink that is open, got one that was closed"):
        outs[0](a_value(3))


def test_a_sink_that_got_no_value_is_closed_once(peers: Callable[..., Peer]) -> None:
    closed = list[int]()
    sink = Sink("udp://x", peers().take, lambda: closed.append(1))
    for n, kind in enumerate((Outlet, OwnThread)):
        out = kind(sink)
        out.close()
        out.close()
        assert len(closed) == n + 1


def test_only_shared_memory_is_written_in_the_loops_thread(tmp_path: Path) -> None:
    for address, kind in ((f"shm:poyo_edge_{tmp_path.name}", Outlet), ("udp://x:1", OwnThread)):
        sink = open_sink(address, 2)
        out = outlet(sink)
        assert type(out) is kind
        out.close()

    def broken(_: LoopResult) -> None:
        raise ConnectionError("gone")

    out = outlet(Sink("shm:x", broken, lambda: None, never_waits=True))
    with pytest.raises(ConnectionError, match="gone"):
        out(a_value())
    assert (out.to_json()["failures"], out.to_json()["sent"]) == (1, 0)


def test_a_rig_says_which_of_its_sinks_hangs(tiny: Path, peers: Callable[..., Peer]) -> None:
    hung, failing = peers(), peers("zmq://b:2")
    failing.awake.set()
    failing.problem = ConnectionError("gone")
    values = list[LoopResult]()
    opened = Opened.open(
        tiny, "udp://127.0.0.1:0", [hung.sink, failing.sink], RigSettings(session="tiny_a"),
        on_value=values.append,
    )  # fmt: skip
    with opened:
        wait_until(lambda: opened.feed.counters.connections)
        names = opened.decoder.unit_ids[:1]

        def spike() -> int:
            opened.loop.feed([1_000_000_000 + 1_000_000 * len(values)], names)
            return len(values)

        wait_until(lambda: spike() > 5 and opened.stats()["sinks"][0]["superseded"] > 2)
        wait_until(lambda: opened.stats()["loop"]["sink_failures"] > 2)
        first, second = opened.stats()["sinks"]
        assert (first["address"], first["sent"], first["failures"]) == (hung.sink.address, 0, 0)
        assert first["superseded"] > 2
        assert first["behind_ms"] > 0
        assert second["last_failure"] == "ConnectionError: gone"
        hung.awake.set()
    assert hung.got == sorted(set(hung.got))
    assert (hung.got[0], hung.got[-1]) == (1, values[-1].seq)
    assert opened.stats()["sinks"][0]["sent"] == len(hung.got)
    assert opened.stats()["loop"]["sink_failures"] == opened.stats()["sinks"][1]["failures"]
