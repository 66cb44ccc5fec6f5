"""Promises about a rig in use: swaps, lost streams, killed writers, floods, hidden losses."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from helpers.feeds import a_name, shared_writer
from helpers.loops import Bench, flooded, hear, reordered, silent, stream
from helpers.waiting import PATIENCE_S, wait_until

from poyo_edge.runtime import Status
from poyo_edge.runtime.feeds.feed import Receiver
from poyo_edge.runtime.feeds.shared_memory import read_shared, read_shared_value
from poyo_edge.runtime.feeds.sockets import UdpFeed
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.intake import SessionRows
from poyo_edge.runtime.rig import Rig as LiveRig
from poyo_edge.runtime.rig import RigSettings

if TYPE_CHECKING:
    from conftest import Rig

HOUR_S = 3600.0


def test_R25_a_swap_carries_names_rows_and_session_together(rig: Rig) -> None:
    order = np.random.default_rng(5).permutation(12)
    other, row_in_other = reordered(rig.a, order), np.argsort(order).astype(np.int32)
    times, rows = stream(rig, 4.0)
    ids = np.array(rig.a.header.unit_ids)
    for said in (rows, ids[rows], np.array([one.rpartition("/")[2] for one in ids])[rows]):
        told = list[Any]()
        bench = Bench(rig, on_spikes=lambda _, found, told=told: told.append(found))
        before = bench.loop.decoder.rows(ids)
        bench.run(times, said, range(1, 65))
        bench.loop.decoder.swap_session(other)
        bench.run(times, said, range(65, 150))
        last = bench.out[-1].result
        assert (last.session_id, last.status) == ("reordered", Status.VALID)
        end = float(last.t) / rig.grid_hz
        assert np.array_equal(last.value, rig.batch(times, row_in_other[rows], end, other))
        assert isinstance(told[-1], SessionRows)
        assert told[-1].table is not None
        assert told[-1].table.unit_ids == other.header.unit_ids, "who learns from them knows whose"
        bench.loop.decoder.revert()
        bench.run(times, said, range(150, 230))
        last = bench.out[-1].result
        end = float(last.t) / rig.grid_hz
        assert np.array_equal(last.value, rig.batch(times, rows, end))
    decoder = rig.decoder()
    decoder.push([-0.5], [0])
    decoder.swap_session(other)
    first = times < 1.0
    decoder.push(times[first], before[rows[first]])
    result = decoder.decode(1.0)
    assert np.array_equal(result.value, rig.batch(times, row_in_other[rows], 1.0, other))
    decoder.push([1.0], [3])
    result = decoder.decode(1.0 + 1 / 64)
    assert (result.status, result.flags) == (Status.DEGRADED, ("stale_rows",))


def test_R26_a_lost_stream_stops_the_cursor(rig: Rig) -> None:
    times, rows = stream(rig, 4.0)
    ended: list[bool] = []
    cuts = {"silent": range(129, 260), "ended": range(129, 260), "clock stands": range(129, 194)}
    for cut, after in cuts.items():
        bench = Bench(rig, source_ended=lambda: bool(ended))
        bench.run(times, rows, range(1, 129))
        assert bench.out[-1].result.status is Status.VALID
        before = len(bench.out)
        ended[:] = [True] * (cut == "ended")
        if cut == "clock stands":
            for end in after:
                bench.host.ns = bench.host_ns(end)
                bench.loop.feed([128 * 64 - 1] * 6, np.arange(6))
                bench.loop.step()
        else:
            silent(bench, after)
        lost = [one.result for one in bench.out[before:]]
        trusted = [one for one in lost if one.status is Status.VALID]
        assert len(trusted) <= (2 if cut == "ended" else 9), cut
        assert {one.status for one in lost[len(trusted) + 8 :]} == {Status.INVALID}, cut
        assert all((one.value == 0).all() for one in lost[60:]), cut
        # At constant speed, hold and decay are two tenths of a second at most.
        speed = max(float(np.abs(one.value).max()) for one in [*trusted, lost[len(trusted)]])
        travel = sum(float(np.abs(one.value).max()) for one in lost) / 64
        assert travel < speed * (len(trusted) / 64 + 0.25), cut


def test_R27_nobody_reads_valid_from_a_killed_writer(rig: Rig) -> None:
    bench = Bench(rig)
    times, rows = stream(rig, 1.5)
    bench.run(times, rows, range(1, 90))
    assert all(0 < (one.valid_for_ms or 0) < 1000 for one in bench.out), "elsewhere too"
    for how in ("killed", "killed while it writes", "hung"):
        with (
            a_name("promise") as name,
            shared_writer(name, valid_for_s=0.5 if how == "hung" else HOUR_S) as writer,
        ):
            writer.put(half=False)
            assert read_shared_value(name).count == 1
            if how != "hung":
                assert read_shared(name)[2] == "VALID"
            if how == "killed while it writes":
                writer.put(half=True)
            os.kill(writer.pid, signal.SIGSTOP if how == "hung" else signal.SIGKILL)
            wait_until(lambda: not read_shared_value(name).stands)
            found = read_shared_value(name)
            assert (found.stands, found.writer_alive) == (False, how == "hung"), how
            assert read_shared(name)[2] == "INVALID", how


def test_R29_a_flood_is_cut_at_the_deadline(rig: Rig) -> None:
    bench = flooded(rig)
    calm = hear(bench, range(1, 129), 8)
    assert calm[-1].result.status is Status.VALID
    flood = hear(bench, range(129, 321), 64)
    assert len(flood) >= 190, "one a period"
    assert bench.loop.counters.skipped <= 1
    assert not any(one.result.status is Status.VALID for one in flood)
    assert bench.loop.counters.packets_dropped > 192 * 64 // 2
    for one in flood[10:]:
        assert int(one.result.t) - (one.result.t_last_spike or 0) <= 4 * 64, "of what is new"
    after = hear(bench, range(321, 400), 8)
    assert after[-1].result.status is Status.VALID
    assert bench.loop.stats()["waiting_packets"] == 0


class Pausing(UdpFeed):
    """A feed of datagrams that reads no further while it is told to wait."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0)
        self.may_read, self.waits = threading.Event(), threading.Event()
        self.may_read.set()

    def _take(self, data: bytes, receiver: Receiver, host_ns: int) -> None:
        if not self.may_read.is_set():
            self.waits.set()
            assert self.may_read.wait(PATIENCE_S)
        super()._take(data, receiver, host_ns)


def test_R30_losses_below_us_are_seen(tiny: Path) -> None:
    """Datagrams that the kernel dropped unnoticed, and those that a sender's numbers lack."""
    out, feed = list[LoopResult](), Pausing()
    live = LiveRig.open(tiny, feed, settings=RigSettings(session="tiny_a"), on_value=out.append)
    unit, numbers = live.decoder.unit_ids[0], iter(range(10, 1 << 20))
    with live, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        assert feed.bound.wait(PATIENCE_S)

        def send(**more: Any) -> None:
            packet = {"t": time.monotonic(), "units": unit, **more}
            peer.sendto(json.dumps(packet).encode(), ("127.0.0.1", feed.port))

        def whole() -> bool:
            send()
            return bool(out) and out[-1].result.status is Status.VALID

        def whole_and_numbered() -> bool:
            send(seq=next(numbers))
            return out[-1].result.status is Status.VALID

        def dropped() -> int:
            send()  # the kernel tells with the next datagram that it keeps
            return feed.details["kernel_drops"]

        def require_flagged(send_one: Callable[[], bool]) -> None:
            seen = len(out)
            while len(out) < seen + 4:
                send_one()
                time.sleep(0.005)
            flagged = ["loss" in one.result.flags for one in out[seen:]]
            assert any(flagged[:4]), "within a few values"
            lossy = [one.result for one in out[seen:] if "loss" in one.result.flags]
            assert Status.VALID not in {one.status for one in lossy}

        wait_until(whole)
        assert out[-1].result.status is Status.VALID
        feed.may_read.clear()
        send()
        assert feed.waits.wait(PATIENCE_S)
        for _ in range(1 + feed.details["receive_buffer_bytes"] // 500):
            peer.sendto(bytes(1000), ("127.0.0.1", feed.port))
        feed.may_read.set()
        wait_until(dropped)
        assert feed.details["kernel_drops"] > 0
        require_flagged(whole)
        wait_until(whole_and_numbered)
        assert out[-1].result.status is Status.VALID, "a window later it is whole again"
        lost = feed.counters.lost
        missing = [next(numbers) for _ in range(4)]
        require_flagged(whole_and_numbered)
        assert feed.counters.lost == lost + len(missing)
