"""The decode loop on a clock that only the test moves, and once on the real one."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.journals import require_same_bits
from helpers.loops import Bench, S, stream
from helpers.waiting import wait_until

from poyo_edge.errors import UsageError
from poyo_edge.journal import Journal, JournalHeader, JournalWriter, Labels
from poyo_edge.runtime import Status
from poyo_edge.runtime.feeds.values import LoopResult, Sink
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.loop import DecodeLoop
from poyo_edge.runtime.rig.realtime import GRANTED, NOT_ASKED, RealtimeSettings, realtime
from poyo_edge.runtime.rig.settings import LoopSettings

if TYPE_CHECKING:
    from conftest import Rig


def test_values_equal_a_batch_decode_of_their_window(rig: Rig) -> None:
    bench = Bench(rig)
    times, rows = stream(rig, 3.0)
    bench.run(times, rows, range(1, 180))
    assert len(bench.out) >= 177
    steps = np.diff([one.result.t for one in bench.out])
    assert (steps == 64).all()
    for one in bench.out[::7]:
        expected = rig.batch(times, rows, float(one.result.t) / rig.grid_hz)
        assert np.array_equal(one.result.value, expected)
    assert bench.out[-1].result.status is Status.VALID
    assert bench.loop.counters.skipped == bench.loop.counters.deadline_misses == 0


@pytest.mark.slow
@pytest.mark.parametrize("stated", [0.5, 1.0, 2.0])
def test_a_rate_that_was_stated_wrongly_is_flagged(
    rig: Rig, stated: float, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(rig, DeviceClock(rig.grid_hz * stated))
    bench.run(*stream(rig, 13.0), range(1, 13 * 64))
    flagged = ["clock_rate" in one.result.flags for one in bench.out]
    assert any(flagged) == (stated != 1.0)
    if stated != 1.0:
        assert flagged == sorted(flagged), "to the end"
        assert bench.out[-1].result.status is not Status.VALID
        assert len([one for one in caplog.messages if "state its rate" in one]) == 1


def test_a_slow_sink_skips_windows_and_never_queues_them(rig: Rig) -> None:
    bench = Bench(rig)

    def slow(one: LoopResult) -> None:
        if one.seq == 20:
            bench.host.ns += 10 * S // 64

    bench.loop._sinks.append(slow)
    times, rows = stream(rig, 2.0)
    for end in range(1, 100):
        if 100 * S + end * S // 64 >= bench.host.ns:
            bench.run(times, rows, range(end, end + 1))
    ends = np.array([int(one.result.t) for one in bench.out])
    assert bench.loop.counters.skipped == 9
    assert sorted(np.diff(ends)) == [64] * (len(ends) - 2) + [640]
    for one in bench.out:
        age_s = (one.host_ns - 100 * S) / S - one.t_s
        assert age_s < 2 / 64


@pytest.mark.parametrize(("rate", "settle_ms", "valid_ms"), [(64, 0, 46.875), (500, 4, 20)])
def test_a_value_says_until_when_it_stands(
    rig: Rig, rate: float, settle_ms: float, valid_ms: float
) -> None:
    bench = Bench(rig, settings=LoopSettings(rate_hz=rate, settle_ms=settle_ms))
    times, rows = stream(rig, 1.0)
    bench.run(times, rows, range(1, 20))
    for one in bench.out:
        assert one.valid_until_ns - one.host_ns == valid_ms * 1e6
        assert (one.to_json()["seq"], one.to_json()["valid_for_ms"]) == (one.seq, valid_ms)


def test_a_value_that_is_late_is_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(rig)
    decode = bench.loop.decoder.decode

    def slow(t: int, **_: Any) -> Any:
        bench.host.ns += 2 * S // 64
        return decode(t)

    times, rows = stream(rig, 1.0)
    bench.run(times, rows, range(1, 10))
    monkeypatch.setattr(bench.loop.decoder, "decode", slow)
    bench.run(times, rows, range(10, 11))
    assert bench.loop.counters.deadline_misses == 1


@pytest.mark.parametrize("jump_s", [-2.0, 30.0])
def test_a_clock_that_jumps_resets_the_window_once(rig: Rig, jump_s: float) -> None:
    bench = Bench(rig)
    times, rows = stream(rig, 6.0)
    bench.run(times, rows, range(1, 192))
    before = len(bench.out)
    bench.run(times, rows, range(192, 380), shift=int(jump_s * rig.grid_hz))
    after = bench.out[before:]
    assert {one.epoch for one in after} == {0, 1}
    new = [one for one in after if one.epoch == 1]
    assert new[0].result.status is Status.WARMUP
    assert new[-1].result.status is Status.VALID
    states = [one.result.status for one in new]
    assert states == sorted(states, key=lambda s: s is Status.VALID)
    assert bench.loop.stats()["clock"]["discontinuities"] == 1
    last = new[-1]
    at = float(last.result.t) / rig.grid_hz - jump_s
    assert np.array_equal(last.result.value, rig.batch(times, rows, at))


def test_a_stalled_feed_is_counted_and_decoding_goes_on(rig: Rig) -> None:
    bench = Bench(rig)
    times, rows = stream(rig, 2.0)
    bench.run(times, rows, range(1, 100))
    for step in range(100, 260):
        bench.host.ns = 100 * S + step * S // 64
        bench.loop.step()
    stats = bench.loop.stats()
    assert stats["stalled"] is True
    assert stats["loop"]["stalls"] == 1
    assert bench.out[-1].result.flags == ("stream_lost", "unverified", "silent")
    assert bench.out[-1].result.status is Status.INVALID
    assert (bench.out[-1].result.value == 0).all()
    assert bench.out[-1].result.t == pytest.approx(259 * 64, abs=64)


def test_packets_beyond_the_limit_push_out_the_oldest(rig: Rig) -> None:
    bench = Bench(rig, settings=LoopSettings(rate_hz=64, most_packets=10))
    for i in range(25):
        bench.loop.feed([i], [0])
    bench.loop.step()
    assert bench.loop.counters.packets_dropped == 15
    assert bench.loop.decoder.stats()["counters"]["received"] == 10


@pytest.mark.parametrize(
    ("ticks", "units"),
    [([1.5], [0]), ([[1]], [[0]]), ([1, 2], [0]), ([1], [0.5]), (["x"], [0]), ([None], [0])],
)
def test_packets_that_cannot_be_meant_are_counted(rig: Rig, ticks: Any, units: Any) -> None:
    bench = Bench(rig)
    bench.loop.feed(ticks, units)
    bench.loop.step()
    assert bench.loop.counters.bad_packets == 1
    times, rows = stream(rig, 1.0)
    bench.run(times, rows, range(1, 10))
    assert bench.out


def test_a_sink_that_fails_is_named_and_does_not_stop_the_loop(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: LoopResult) -> None:
        raise ConnectionError("gone")

    sink = Sink("udp://rig:6000", broken, lambda: None)
    bench = Bench(rig, sinks=[sink])
    times, rows = stream(rig, 1.0)
    bench.run(times, rows, range(1, 40))
    assert bench.loop.counters.sink_failures == len(bench.out) > 30
    assert [record.message for record in caplog.records] == [
        "a value could not be sent to udp://rig:6000 (ConnectionError: gone); later failures are "
        "counted"
    ]


def test_sync_of_the_newest_packet_comes_out_again(rig: Rig) -> None:
    bench = Bench(rig)
    for i in range(1, 20):
        bench.host.ns = 100 * S + i * S // 64
        bench.loop.feed([i * 64 - 1], [0], sync={"nsp_idx_1": i})
        bench.loop.step()
    assert bench.out[-1].sync == {"nsp_idx_1": 19}
    assert bench.out[-1].to_json()["sync"] == {"nsp_idx_1": 19}


def test_a_journal_replayed_in_its_order_gives_the_same_bits(rig: Rig, tmp_path: Path) -> None:
    unit_ids = rig.decoder().unit_ids
    header = JournalHeader(session_id="s", unit_ids=unit_ids, tick_rate_hz=rig.grid_hz)
    writer = JournalWriter(tmp_path / "a.journal", header)
    bench = Bench(rig, journal=writer)
    times, rows = stream(rig, 2.0)
    bench.run(times, np.array(unit_ids)[rows], range(1, 120))
    writer.close()
    n = require_same_bits(tmp_path / "a.journal", rig.decoder(tick_rate_hz=rig.grid_hz))
    assert n == len(bench.out)


def test_labels_reach_the_listener_and_a_refusal_is_counted(rig: Rig) -> None:
    heard: list[Any] = []

    def listen(ticks: Any, values: Any) -> None:
        if len(heard) == 2:
            raise UsageError("no more")
        heard.append((ticks.tolist(), values.tolist()))

    bench = Bench(rig, on_labels=listen)
    for i in range(3):
        bench.loop.feed_labels([i], [[1.0, 2.0]])
    bench.loop.feed_labels([1, 2], [[1.0, 2.0]])
    bench.loop.step()
    assert heard == [([0], [[1.0, 2.0]]), ([1], [[1.0, 2.0]])]
    assert bench.loop.counters.label_failures == bench.loop.counters.bad_packets == 1


def test_labels_follow_a_counter_that_wraps(rig: Rig) -> None:
    heard: list[int] = []
    clock = DeviceClock(rig.grid_hz, bits=8)
    bench = Bench(rig, clock, on_labels=lambda ticks, _: heard.extend(ticks.tolist()))
    for tick in (100, 200, 300, 400):
        bench.loop.feed([tick % 256], [0])
        bench.loop.feed_labels([tick % 256], [[1.0, 2.0]])
        bench.loop.step()
    assert heard == [100, 200, 300, 400]


def test_labels_of_another_time_are_bad_packets(rig: Rig) -> None:
    heard: list[int] = []
    bench = Bench(rig, on_labels=lambda ticks, _: heard.extend(ticks.tolist()))
    second = bench.rate
    now = 5000 * second
    bench.loop.feed([now], [0])
    for tick in (now, now - 599 * second, now - 601 * second, now + 2 * second, 10**17, -1):
        bench.loop.feed_labels([tick], [[1.0, 2.0]])
    bench.loop.step()
    assert heard == [now, now - 599 * second]
    assert bench.loop.counters.bad_packets == 4


@pytest.mark.parametrize("width", [0, 1, 3, 70_000])
def test_labels_of_another_width_reach_neither_journal_nor_listener(
    rig: Rig, tmp_path: Path, width: int
) -> None:
    heard: list[Any] = []
    header = JournalHeader(session_id="s", unit_ids=("a",), tick_rate_hz=1000.0)
    journal = JournalWriter(tmp_path / "a.journal", header)
    bench = Bench(rig, journal=journal, on_labels=lambda *labels: heard.append(labels))
    bench.loop.feed_labels([1], np.zeros((1, width)))
    bench.loop.feed_labels([2], [[1.0, 2.0]])
    bench.loop.step()
    journal.close()
    labels = [one for one in Journal(journal.path).entries() if isinstance(one, Labels)]
    assert [one.ticks.tolist() for one in labels] == [[2]]
    assert (len(heard), bench.loop.counters.bad_packets) == (1, 1)


def test_a_thread_decodes_until_it_is_stopped(rig: Rig) -> None:
    seen = threading.Event()
    decoder = rig.decoder(tick_rate_hz=S)
    loop = DecodeLoop(
        decoder, DeviceClock(S), [lambda _: seen.set()], settings=LoopSettings(rate_hz=200)
    )
    loop.feed([0], [0])
    loop.start()
    with pytest.raises(UsageError, match="does not run"):
        loop.start()
    assert seen.wait(20)
    assert loop.running
    assert loop.heartbeat_ns > 0
    loop.stop()
    loop.stop()
    assert not loop.running
    count = loop.counters.decoded
    assert loop.error is None
    seen.clear()
    loop.start()
    assert seen.wait(20)
    loop.stop()
    assert loop.counters.decoded > count


def test_a_loop_that_runs_in_the_callers_thread_ends_with_zero_too(rig: Rig) -> None:
    out, seen = list[LoopResult](), threading.Event()
    loop = DecodeLoop(
        rig.decoder(tick_rate_hz=S), DeviceClock(S), [out.append, lambda _: seen.set()],
        settings=LoopSettings(rate_hz=20),
    )  # fmt: skip
    loop.feed([0], [0])
    caller = threading.Thread(target=loop.run)
    caller.start()
    assert seen.wait(20)
    loop.control.commands.on_halt = lambda: None
    loop.command("zero")
    loop.stop()
    left = len(out)
    caller.join(20)
    assert "zeroed" in out[left - 1].result.flags
    assert all("zeroed" in one.result.flags for one in out[left:])


def test_an_error_of_the_loop_itself_is_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = DecodeLoop(rig.decoder(tick_rate_hz=S), DeviceClock(S))
    monkeypatch.setattr(loop, "step", lambda: 1 / 0)
    loop.start()
    wait_until(lambda: not loop.running)
    assert isinstance(loop.error, ZeroDivisionError)


@pytest.mark.parametrize(
    "wrong", [{"rate_hz": 0.5}, {"rate_hz": 2000}, {"settle_ms": -1}, {"stall_s": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        LoopSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="priority"):
        RealtimeSettings(priority=100)
    with pytest.raises(UsageError, match="cpus"):
        RealtimeSettings(cpus=(-1,))


def test_what_the_system_grants_is_said_and_given_back() -> None:
    cores = os.sched_getaffinity(0)
    with realtime(RealtimeSettings(cpus=(min(cores),), gc_off=True)) as granted:
        assert os.sched_getaffinity(0) == {min(cores)}
        assert not gc.isenabled()
        assert granted == {
            "cpus": GRANTED, "priority": NOT_ASKED, "lock_memory": NOT_ASKED, "gc_off": GRANTED,
            "switch_interval": "0.5 ms",
        }  # fmt: skip
        assert sys.getswitchinterval() == pytest.approx(5e-4)
    assert os.sched_getaffinity(0) == cores
    assert gc.isenabled()


def test_what_is_there_is_left_out_of_collections_while_it_lasts() -> None:
    with realtime(RealtimeSettings()):
        frozen = gc.get_freeze_count()
        assert frozen > 1000
        with realtime(RealtimeSettings()):
            pass
        assert gc.get_freeze_count() >= frozen
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("settings", "name", "call"),
    [
        (RealtimeSettings(cpus=(4095,)), "cpus", None),
        (RealtimeSettings(priority=10), "priority", "os.sched_setscheduler"),
    ],
)
def test_a_refusal_is_reported_and_no_error(
    settings: RealtimeSettings, name: str, call: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    refusal: Callable[..., None] = refuse
    if call is not None:
        monkeypatch.setattr(call, refusal)
    with realtime(settings) as granted:
        assert granted[name].startswith("refused: ")
