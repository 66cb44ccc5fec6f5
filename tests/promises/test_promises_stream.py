"""Promises about what comes in: packets, spikes, clocks, bursts, silence."""

from __future__ import annotations

import dataclasses
import json
import struct
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from poyo_edge.artifact import Session
from poyo_edge.runtime import DecoderSettings, Status
from poyo_edge.runtime.backends import Backend
from poyo_edge.runtime.core import Core
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.feeds.blackrock import parse_event
from poyo_edge.runtime.feeds.brand import parse_bin
from poyo_edge.runtime.feeds.intan import MAGIC, IntanParser
from poyo_edge.runtime.feeds.open_ephys import parse_spike
from poyo_edge.runtime.feeds.sockets import LineBuffer
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.parsing import parse_json
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.loop import DecodeLoop
from poyo_edge.runtime.rig.settings import LoopSettings

if TYPE_CHECKING:
    from conftest import Rig

S = 1_000_000_000
T = 1.0
ENDS = [0.5 + i / 4 for i in range(19)]
STATM = Path("/proc/self/statm")


class Counting(Backend):
    """A backend that remembers how many spikes it was given."""

    name = "counting"

    def __init__(self, core: Core) -> None:
        self._backend, self.given = core.backend, list[int]()

    def run(self, feeds: Any) -> Any:
        self.given.append(feeds["spike_time"].shape[1])
        return self._backend.run(feeds)


class Idle(Backend):
    """A backend that answers zero at once."""

    name = "idle"

    def run(self, feeds: Any) -> Any:
        return np.zeros((1, 1, 2), np.float32)


class HandClock:
    """A host's clock that only the test moves."""

    ns = 100 * S

    def now_ns(self) -> int:
        return self.ns

    def wait_until(self, ns: int, stop: threading.Event) -> None:
        self.ns = max(self.ns, ns)


def counters(decoder: Decoder) -> dict[str, int]:
    found: dict[str, int] = decoder.stats()["counters"]
    return found


def test_R01_malformed_packets_are_counted_and_dropped(rig: Rig) -> None:
    rng = np.random.default_rng(1)
    lines, intan = LineBuffer(), IntanParser()
    spike = {"event_type": "spike", "electrode": "T1", "sample_number": 5}

    def event(data: bytes) -> Any:
        chid, kind, at = struct.unpack("<iiq", data[:16].ljust(16, b"\0"))
        return parse_event(types.SimpleNamespace(chid=chid, type=kind, time=at), True)

    parsers: list[tuple[bytes, Any]] = [
        (b'{"t": [1.5, 2.0], "units": ["a", "b"]}', lambda data: parse_json(data, 30_000.0)),
        (b'{"t": 1}\n', lines.add),
        (struct.pack("<I5sIB", MAGIC, b"A-001", 77, 1) * 3, intan.add),
        (json.dumps(spike).encode(), parse_spike),
        (bytes(192), lambda data: parse_bin({b"crossings": data, b"ts": data[:8]})),
        (bytes(range(16)), event),
    ]
    for good, parse in parsers:
        parse(good)
        for case in range(400):
            data = bytearray(rng.bytes(int(rng.integers(0, 80))) if case % 2 else good)
            for _ in range(1 + case % 5):
                if data:
                    data[rng.integers(len(data))] = rng.integers(256)
            parse(bytes(data[: rng.integers(len(data) + 1)]))
    loop = DecodeLoop(rig.decoder(tick_rate_hz=4096), DeviceClock(4096), host=HandClock())
    arrays: list[tuple[Any, Any]] = [
        ([[1]], [[0]]), ([1.5], [0]), ([1, 2], [0]), ([1], [2.5]), ([1], [None]),
        ([[1], [2, 3]], [0]), ([1 << 62], [0]), ([-(1 << 63)], [0]),
    ]  # fmt: skip
    for ticks, units in arrays * 2:  # what comes twice may be a clock that began anew
        loop.feed(ticks, units)
    for labels in ([[1.0], [1.0, 2.0]], ["x"], np.zeros((1, 1 << 16)), np.zeros((1, 2, 2)), []):
        loop.feed_labels([1], labels)
    loop.step()
    assert loop.counters.bad_packets == 2 * 7 + 5, "of these only [None] may be a name"


def test_R02_the_order_of_spikes_within_a_window_changes_nothing(rig: Rig) -> None:
    times, rows = rig.stream(500, T)
    expected = rig.batch(times, rows, T)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(500)
        decoder = rig.decoder()
        for part in np.array_split(order, 7):
            decoder.push(times[part], rows[part])
        assert np.array_equal(decoder.decode(T).value, expected)


def test_R03_each_bad_spike_meets_its_rule_and_its_counter(rig: Rig) -> None:
    decoder = rig.decoder()
    decoder.push([9.75], [0])
    decoder.decode(10.0)
    rules = {
        "late": (8.875, 0),
        "future": (71.0, 0),
        "duplicate": (9.75, 0),
        "unknown_unit": (9.875, 12),
        "not_finite": (float("nan"), 0),
        "delayed": (9.5, 1),
    }
    for counter, (time, row) in rules.items():
        before = counters(decoder)
        decoder.push([time], [row])
        after = counters(decoder)
        changed = {name for name in after if after[name] != before[name]}
        kept = {"accepted"} if counter == "delayed" else set()
        assert changed == {"received", counter} | kept, counter
    assert decoder.decode(10.25).n_spikes == 2


def test_R04_a_clock_that_jumps_or_wraps_resets_once_and_leaves_no_stale_spike(rig: Rig) -> None:
    times, rows = rig.stream(600, 2.0)
    for jump in (-9000.0, -0.125, 2.0, 9000.0):
        decoder, origin = rig.decoder(), 10_000.0
        rig.run(decoder, origin + times, rows, [origin + 2.0])
        start = origin + 2.0 + jump
        first = decoder.decode(start)
        assert first.flags == ("clock_reset", "warmup", "unverified", "silent"), jump
        assert first.n_spikes == 0
        after = rig.run(decoder, start + times, rows, [start + 0.5, start + 1.0])
        assert [one.status for one in after] == [Status.WARMUP, Status.VALID]
        assert np.array_equal(after[-1].value, rig.batch(times, rows, 1.0))
        assert counters(decoder)["clock_resets"] == 1
    clock, wrap = DeviceClock(30_000, bits=32), 2**32
    placed = [
        clock.place(np.array([(wrap - 900 + 300 * i) % wrap]), i * S // 100) for i in range(9)
    ]
    assert np.diff(np.concatenate(placed)).tolist() == [300] * 8
    assert (clock.counters.wraps, clock.epoch) == (1, 0)


def test_R06_a_tenfold_burst_is_cut_to_the_newest_and_costs_no_more(rig: Rig) -> None:
    backend = Counting(rig.core)
    decoder = Decoder(dataclasses.replace(rig.core, backend=backend), rig.a)
    budget = rig.core.artifact.manifest.max_spikes
    quiet, burst = rig.stream(400, T), rig.stream(4000, T, seed=1)
    decoder.push([-0.5], [0])
    times = np.concatenate([quiet[0], burst[0] + 1, quiet[0] + 2])
    rows = np.concatenate([quiet[1], burst[1], quiet[1]])
    decoded = rig.run(decoder, times, rows, [1.0, 2.0, 3.0])
    assert [one.status for one in decoded] == [Status.VALID, Status.DEGRADED, Status.VALID]
    assert decoded[1].flags == ("unverified", "over_budget")
    newest = (burst[0][-budget:].astype(np.float32), burst[1][-budget:])
    assert np.array_equal(decoded[1].value, rig.window(*newest))
    assert counters(decoder)["over_budget"] == 4000 - budget
    assert max(backend.given) == budget == 600


def test_R07_windows_that_are_past_are_skipped_and_never_queued(rig: Rig) -> None:
    host, ends, ages = HandClock(), list[int](), list[float]()
    slow_after = 20

    def sink(one: LoopResult) -> None:
        ends.append(int(one.result.t))
        ages.append((host.ns - 100 * S) / S - one.result.t / 4096)
        if one.seq == slow_after:
            host.ns += 10 * S // 64

    loop = DecodeLoop(
        rig.decoder(tick_rate_hz=4096), DeviceClock(4096), [sink],
        settings=LoopSettings(rate_hz=64), host=host,
    )  # fmt: skip
    for end in range(1, 80):
        if 100 * S + end * S // 64 >= host.ns:
            host.ns = 100 * S + end * S // 64
            loop.feed([64 * end - 1], [0])
            loop.step()
    assert loop.counters.skipped == 9
    assert sorted(np.diff(ends))[-2:] == [64, 640]
    assert max(ages) < 2 / 64


def test_R08_silence_and_dead_units_are_decoded_flagged_and_overcome(rig: Rig) -> None:
    times, rows = rig.stream(2000, 5.0)
    whole = rig.run(rig.decoder(), times, rows, ENDS)[6::6]
    for n_dead in (1, 6, 12):
        dead = (rows < n_dead) & (times >= 2) & (times < 3.5)
        decoder = rig.decoder()
        lossy = rig.run(decoder, times[~dead], rows[~dead], ENDS)[6::6]
        assert np.isfinite(lossy[1].value).all()
        assert lossy[1].n_spikes == int((~dead & (times >= 2.5) & (times < 3.5)).sum())
        silent = n_dead == 12
        assert lossy[1].flags == (
            ("stream_lost", "unverified", "silent") if silent else ("unverified",)
        )
        assert lossy[1].status is (Status.INVALID if silent else Status.VALID)
        assert not silent or (lossy[1].value == 0).all()
        assert np.array_equal(lossy[2].value, whole[2].value)
        assert lossy[2].status is Status.VALID


def test_R09_unknown_units_are_ignored_until_a_session_knows_them(rig: Rig) -> None:
    times, rows = rig.stream(300, T)
    decoder = rig.decoder()
    decoder.push(times, rows)
    decoder.push([0.5], ["new_unit"])
    assert np.array_equal(decoder.decode(T).value, rig.batch(times, rows, T))
    assert counters(decoder)["unknown_unit"] == 1
    header = dataclasses.replace(rig.a.header, unit_ids=(*rig.a.header.unit_ids, "new_unit"))
    table = np.concatenate([rig.a.unit_embedding, rig.b.unit_embedding[:1]])
    wider = Session(header=header, unit_embedding=table, session_embedding=rig.a.session_embedding)
    decoder.swap_session(wider)
    decoder.push([1.25], ["new_unit"])
    result = decoder.decode(1.5)
    expected = rig.batch(np.append(times, 1.25), np.append(rows, 12).astype(np.int32), 1.5, wider)
    assert np.array_equal(result.value, expected)
    assert counters(decoder)["unknown_unit"] == 1


def test_R24_a_spike_on_the_border_of_two_windows_counts_once(rig: Rig) -> None:
    for border, counted in ((1.0, (0, 1)), (np.nextafter(1.0, 0), (1, 0)), (0.0, (1, 0))):
        decoder = rig.decoder()
        decoder.push([border], [0])
        assert tuple(decoder.decode(t).n_spikes for t in (1.0, 2.0)) == counted
    decoder = rig.decoder(tick_rate_hz=30_000)
    decoder.push([0, 29_999, 30_000, 59_999, 60_000], [0, 1, 2, 3, 4])
    assert [decoder.decode(t).n_spikes for t in (30_000, 60_000, 90_000)] == [2, 2, 1]


@pytest.mark.skipif(not STATM.exists(), reason="reads its memory from /proc")
def test_R21_memory_does_not_grow_with_windows_or_spikes(rig: Rig) -> None:
    """A short one; a million windows are in ``benchmarks/soak.py``."""
    core = dataclasses.replace(rig.core, backend=Idle())
    decoder = Decoder(core, rig.a, settings=DecoderSettings(capacity=1 << 12))
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 13, 200).astype(np.int32)
    offsets = np.sort(rng.uniform(0, 0.25, 200))

    def hear(first: int, last: int) -> int:
        for chunk in range(first, last):
            decoder.push(chunk / 4 + offsets, rows)
            decoder.decode((chunk + 1) / 4)
        return int(STATM.read_text().split()[1]) * 4096

    before = hear(0, 500)
    after = hear(500, 3500)
    assert counters(decoder)["received"] == 200 * 3500
    assert decoder.stats()["buffered_spikes"] <= 1 << 12
    assert after - before < 2 << 20
