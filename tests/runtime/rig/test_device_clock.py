"""Ticks of devices: wraps, resets, jumps, drift and delays, on made-up arrivals."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_edge.errors import UsageError
from poyo_edge.runtime.rig.device_clock import ClockSettings, DeviceClock

S = 1_000_000_000
RATE = 30_000


def run(
    clock: DeviceClock,
    seconds: float,
    *,
    start_tick: int = 0,
    start_ns: int = 5 * S,
    ppm: float = 0.0,
    delay_ns: object = None,
    bits: int | None = None,
) -> list[int]:
    """One packet each 10 ms; returns the newest unwrapped tick of each."""
    rng = np.random.default_rng(0)
    placed = []
    for i in range(int(seconds * 100)):
        tick = start_tick + round(i * RATE * (1 + ppm / 1e6) / 100)
        delay = int(rng.exponential(2e6)) + 100_000 if delay_ns is None else delay_ns(i)  # type: ignore[operator]
        raw = tick if bits is None else tick % (1 << bits)
        out = clock.place(np.array([raw]), start_ns + i * S // 100 + delay)
        placed += out.tolist()
    return placed


@pytest.mark.parametrize("bits", [16, 32])
def test_a_wrapping_counter_becomes_one_that_never_goes_back(bits: int) -> None:
    clock = DeviceClock(RATE, bits=bits)
    start = (1 << bits) - 5 * RATE // 3
    placed = run(clock, 10.0, start_tick=start, bits=bits)
    assert (np.diff(placed) == RATE // 100).all()
    assert len(placed) == 1000
    assert clock.counters.wraps == (start % (1 << bits) + 999 * 300) // (1 << bits)
    assert (clock.epoch, clock.counters.discontinuities) == (0, 0)


def test_a_packet_across_the_wrap_keeps_its_order() -> None:
    clock = DeviceClock(RATE, bits=32)
    clock.place(np.array([2**32 - 300]), 0)
    ticks = clock.place(np.array([2**32 - 2, 2**32 - 1, 0, 1], np.uint64), S // 100)
    assert np.diff(ticks).tolist() == [1, 1, 1]
    assert clock.counters.wraps == 1


def test_packets_out_of_order_are_placed_where_they_belong() -> None:
    clock = DeviceClock(RATE)
    for i, tick in enumerate((1000, 1600, 1300, 1900)):
        assert clock.place(np.array([tick]), i * S // 100).tolist() == [tick]
    assert clock.counters.out_of_order == 1
    assert clock.newest == 1900


@pytest.mark.parametrize("jump_s", [-100.0, -2.0, 5.0, 3600.0])
def test_a_reset_or_jump_costs_one_packet_and_is_flagged_once(jump_s: float) -> None:
    clock = DeviceClock(RATE)
    start = 200 * RATE
    run(clock, 2.0, start_tick=start)
    before = start + 2 * RATE
    placed = run(clock, 2.0, start_tick=before + int(jump_s * RATE), start_ns=7 * S)
    assert len(placed) == 199
    assert clock.counters.discontinuities == clock.epoch == 1
    assert clock.counters.outliers == 0
    now = clock.device_now(9 * S)
    assert now == pytest.approx(before + int(jump_s * RATE) + 2 * RATE, abs=RATE * 0.005)


@pytest.mark.parametrize("bits", [None, 32])
def test_a_reset_of_a_counter_that_has_turned_starts_at_its_raw_value(bits: int | None) -> None:
    clock = DeviceClock(RATE, bits=bits)
    run(clock, 2.0, start_tick=2**32 - RATE if bits else 10**9, bits=bits)
    placed = run(clock, 1.0, start_tick=2**20, start_ns=7 * S, bits=bits)
    assert placed[0] == 2**20 + 300


def test_one_broken_time_is_dropped_and_changes_nothing() -> None:
    clock = DeviceClock(RATE)
    run(clock, 1.0)
    assert clock.place(np.array([10**12]), 6 * S).tolist() == []
    assert len(run(clock, 1.0, start_tick=RATE, start_ns=6 * S)) == 100
    assert clock.counters.outliers == 1
    assert clock.epoch == 0


def test_a_stalled_feed_that_catches_up_is_no_discontinuity() -> None:
    clock = DeviceClock(RATE)
    placed = run(clock, 10.0, delay_ns=lambda i: max(0, (400 - i) * S // 100) if i > 100 else 0)
    assert len(placed) == 1000
    assert clock.epoch == 0


def test_a_slow_backlog_is_no_discontinuity() -> None:
    clock = DeviceClock(RATE)
    run(clock, 5.0)
    run(clock, 20.0, start_tick=5 * RATE, start_ns=10 * S, delay_ns=lambda i: 4 * S - i * S // 500)
    assert clock.epoch == 0


@pytest.mark.parametrize("bits", [None, 32])
def test_a_counter_that_stood_still_goes_on_as_a_new_clock(bits: int | None) -> None:
    clock = DeviceClock(RATE, bits=bits)
    start = 0 if bits is None else (1 << bits) - 6 * RATE
    run(clock, 5.0, start_tick=start, bits=bits)
    placed = run(clock, 3.0, start_tick=start + 5 * RATE, start_ns=13 * S, bits=bits)
    assert placed == sorted(placed)
    assert len(placed) == 300
    assert (clock.epoch, clock.counters.discontinuities) == (1, 1)
    assert clock.device_now(16 * S) == pytest.approx(start + 8 * RATE, abs=0.02 * RATE)


def test_a_backlog_at_the_start_is_corrected_by_the_first_packet_in_time() -> None:
    clock = DeviceClock(RATE)
    run(clock, 5.0, delay_ns=lambda i: max(0, (300 - i) * S // 100))
    assert clock.device_now(10 * S) == pytest.approx(5 * RATE, abs=3)


@pytest.mark.parametrize("ppm", [-80.0, 0.0, 80.0])
def test_offset_and_rate_are_found_through_jittering_delays(ppm: float) -> None:
    clock = DeviceClock(RATE)
    run(clock, 120.0, ppm=ppm)
    assert clock.rate_ppm == pytest.approx(ppm, abs=3.0)  # measured worst case 0.9
    host = 5 * S + 120 * S
    truth = 120 * RATE * (1 + ppm / 1e6)
    assert clock.device_now(host) == pytest.approx(truth, abs=RATE * 0.5e-3)
    tick = round(truth)
    assert clock.to_monotonic_ns(tick) == pytest.approx(host, abs=0.5e6)
    assert 0.3e6 < clock.uncertainty_ns < 4e6  # the delays' median above their least is 1.4 ms


@pytest.mark.parametrize("ratio", [0.5, 2 / 3, 0.98, 1.02, 2.0])
def test_a_rate_that_is_not_the_stated_one_is_noticed(ratio: float) -> None:
    clock = DeviceClock(RATE)
    run(clock, 9, ppm=(ratio - 1) * 1e6)
    assert clock.wrong_rate_hz is None, "ten seconds are looked at"
    run(clock, 12, ppm=(ratio - 1) * 1e6)
    assert clock.wrong_rate_hz == pytest.approx(ratio * RATE, rel=0.01)


def test_a_rate_that_is_mended_is_believed_again() -> None:
    clock = DeviceClock(RATE)
    run(clock, 12, ppm=3e5)
    assert clock.wrong_rate_hz is not None
    run(clock, 12, start_ns=200 * S)
    assert clock.wrong_rate_hz is None
    assert clock.to_json()["wrong_rate_hz"] is None


def test_delays_and_jumps_are_no_wrong_rate() -> None:
    clock = DeviceClock(RATE)
    run(clock, 30, ppm=400, delay_ns=lambda i: 300_000_000 * (i // 700 % 2) + i % 7 * 1_000_000)
    assert clock.wrong_rate_hz is None
    run(clock, 30, start_tick=10**9, start_ns=50 * S)
    assert clock.wrong_rate_hz is None


def test_a_round_trip_bounds_the_offset() -> None:
    clock = DeviceClock(1e9)
    for i in range(100):  # every packet takes 3 ms
        clock.place(np.array([i * 10_000_000]), 7 * S + i * 10_000_000 + 3_000_000)
    one_way = clock.to_monotonic_ns(500_000_000)
    assert one_way == 7 * S + 500_000_000 + 3_000_000
    clock.probe(990_000_000, 7 * S + 989_900_000, 7 * S + 990_100_000)
    assert clock.to_monotonic_ns(500_000_000) == 7 * S + 500_000_000
    assert clock.uncertainty_ns == 100_000
    clock.probe(999_000_000, 7 * S + 990_000_000, 7 * S + 999_000_000)
    assert clock.uncertainty_ns == 100_000


def test_ticks_stay_exact_after_months() -> None:
    clock = DeviceClock(1e9)
    start = 200 * 86400 * S + 1
    clock.place(np.array([start]), 10**18 + 1)
    assert clock.place(np.array([start + 3]), 10**18 + 4).tolist() == [start + 3]
    assert clock.device_now(10**18 + 1_000_001) == start + 1_000_000


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"rate_hz": 0.0}, "rate_hz"),
        ({"rate_hz": float("nan")}, "rate_hz"),
        ({"rate_hz": 1.0, "bits": 4}, "bits"),
    ],
)
def test_clocks_that_cannot_be_are_refused(arguments: dict[str, float], name: str) -> None:
    with pytest.raises(UsageError, match=name):
        DeviceClock(**arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="back_s"):
        ClockSettings(back_s=0.0)
    with pytest.raises(UsageError, match="placed a packet"):
        DeviceClock(1.0).device_now(0)
