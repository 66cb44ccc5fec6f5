"""Seconds and ticks, hours of them, jumps and wraps."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from poyo_edge.runtime import Result, Status
from poyo_edge.tokens import relative_times

if TYPE_CHECKING:
    from conftest import Rig

T = 1.0
FLOAT32_TIME_SD = 1e-4  # times may round to the next float32; measured worst case 5e-6


def test_ticks_and_seconds_decode_to_the_same_bits(rig: Rig) -> None:
    times, rows = rig.stream(300, 2.0)
    ends = np.arange(8, 17) / 8
    seconds = rig.run(rig.decoder(), times, rows, ends)
    decoder = rig.decoder(tick_rate_hz=rig.grid_hz)
    ticks = (times * rig.grid_hz).astype(np.int64)
    counted = rig.run(decoder, ticks, rows, (ends * rig.grid_hz).astype(int).tolist())
    for one, other in zip(seconds, counted, strict=True):
        assert np.array_equal(one.value, other.value)
        assert one.status is other.status


@pytest.mark.parametrize("rate_hz", [30_000.0, 24414.0625, 44_100.0, 1e6])
@pytest.mark.parametrize("start", [0, 3 * 10**9])
def test_ticks_of_any_rate_decode_to_their_window(rig: Rig, rate_hz: float, start: int) -> None:
    rng = np.random.default_rng(1)
    ticks = start + np.sort(rng.choice(int(2 * rate_hz), 300, replace=False)).astype(np.int64)
    rows = rng.integers(0, rig.n_units, 300).astype(np.int32)
    decoder, seconds = rig.decoder(tick_rate_hz=rate_hz), rig.decoder()
    for step in range(9, 17):
        now = start + int(step / 8 * rate_hz)
        heard = ticks < now
        decoder.push(ticks[heard], rows[heard])
        # Integers and sixteenths: exact.
        inside = heard & (16 * (ticks - now) >= -int(16 * rate_hz * T))
        time = relative_times(ticks[inside], now - rate_hz * T, T, rate_hz)
        result = decoder.decode(now)
        assert result.n_spikes == inside.sum()
        assert np.array_equal(result.value, rig.window(time, rows[inside]))
        seconds.push(ticks[heard] / rate_hz, rows[heard])
        again = seconds.decode(now / rate_hz).value
        assert again == pytest.approx(result.value, abs=FLOAT32_TIME_SD * rig.output_sd, rel=0)


def test_a_window_that_is_no_whole_number_of_ticks_starts_between_two(rig: Rig) -> None:
    now, rate_hz = 100_000, 24414.0625
    for tick, counted in ((now - 24415, 0), (now - 24414, 1), (now - 1, 1), (now, 0)):
        decoder = rig.decoder(tick_rate_hz=rate_hz)
        decoder.push([tick], [0])
        assert decoder.decode(now).n_spikes == counted


@pytest.mark.parametrize("start", [1e5, 2.0**20])
def test_hours_of_absolute_time_change_no_bit(rig: Rig, start: float) -> None:
    times, rows = rig.stream(400, 2.0)
    ends = np.arange(8, 17) / 8
    near = rig.run(rig.decoder(), times, rows, ends)
    far = rig.run(rig.decoder(), start + times, rows, start + ends)
    for one, other in zip(near, far, strict=True):
        assert np.array_equal(one.value, other.value)
        assert one.status is other.status


@pytest.mark.parametrize("start", [0.0, 1e5])
def test_a_spike_just_before_the_end_stays_inside_the_window(start: float) -> None:
    times = np.nextafter(np.array([start + T, start + T]), start)
    assert (relative_times(times, start, T) < T).all()


def resets(decoded: list[Result]) -> int:
    return sum("clock_reset" in result.flags for result in decoded)


JUMPS = {
    "back by a little": -1 / 8,
    "back by hours": -9000.0,
    "back to zero": -10_000.0,
    "ahead by two windows": 2.0 * T,
    "ahead by a minute": 61.0,
    "ahead by hours": 9000.0,
}


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_jump_resets_once_and_leaves_no_stale_spike(rig: Rig, jump: str) -> None:
    origin = 10_000.0
    times, rows = rig.stream(600, 2.0, seed=1)
    decoder = rig.decoder()
    before = rig.run(decoder, origin + times, rows, [origin + i / 8 for i in range(1, 17)])
    assert before[-1].status is Status.VALID

    start = origin + 2.0 + JUMPS[jump]
    times, rows = rig.stream(600, 2.0, seed=2)
    first = decoder.decode(start)
    after = [first, *rig.run(decoder, start + times, rows, [start + i / 8 for i in range(1, 17)])]
    assert resets(after) == 1
    assert first.flags == ("clock_reset", "warmup", "unverified", "silent")
    assert decoder.stats()["counters"]["clock_resets"] == 1
    assert [result.status for result in after] == [Status.WARMUP] * 8 + [Status.VALID] * 9
    for result in after:
        t = float(result.t) - start
        assert result.n_spikes == ((times >= t - T) & (times < t)).sum()
        assert np.array_equal(result.value, rig.batch(times, rows, t))


@pytest.mark.parametrize(("jump", "counter"), [(-9000.0, "late"), (9000.0, "future")])
def test_spikes_that_come_before_the_first_decode_on_a_new_clock_are_counted(
    rig: Rig, jump: float, counter: str
) -> None:
    decoder, origin = rig.decoder(), 10_000.0
    times, rows = rig.stream(600, 2.0, seed=1)
    rig.run(decoder, origin + times, rows, [origin + 2.0])
    start = origin + jump
    after = rig.run(decoder, start + times, rows, [start + i / 8 for i in range(1, 17)])
    first = times < 1 / 8
    assert decoder.stats()["counters"][counter] == first.sum() > 0
    assert resets(after) == resets(after[:1]) == 1
    for result in after:
        t = float(result.t) - start
        assert result.n_spikes == (~first & (times >= t - T) & (times < t)).sum()
    assert after[-1].status is Status.VALID


def test_a_counter_that_wraps_is_a_jump_back(rig: Rig) -> None:
    rate, wrap = 30_000, 2**32
    rng = np.random.default_rng(0)
    ticks = wrap - 2 * rate + np.sort(rng.choice(4 * rate, 1200, replace=False)).astype(np.int64)
    rows = rng.integers(0, rig.n_units, 1200).astype(np.int32)
    ends = wrap - 2 * rate + rate // 8 * np.arange(1, 33)
    decoder = rig.decoder(tick_rate_hz=rate)
    decoded: list[Result] = []
    for last, t in itertools.pairwise([wrap - 2 * rate, *ends.tolist()]):
        chunk = (ticks >= last) & (ticks < t)
        decoder.push((ticks[chunk] % wrap).astype(np.uint32), rows[chunk])
        decoded.append(decoder.decode(t % wrap))
    assert resets(decoded) == 1
    # The window that ends at the wrap is the first on the new clock; its spikes are gone.
    at = next(i for i, result in enumerate(decoded) if "clock_reset" in result.flags)
    assert decoded[at].t == 0
    assert [r.status for r in decoded[at:]] == [Status.WARMUP] * 8 + [Status.VALID] * 9
    inside = (ticks >= wrap + rate) & (ticks < wrap + 2 * rate)
    time = relative_times(ticks[inside] - wrap, rate, T, rate)
    assert np.array_equal(decoded[-1].value, rig.window(time, rows[inside]))


def test_a_decoder_that_fell_behind_decodes_the_newest_window(rig: Rig) -> None:
    times, rows = rig.stream(2000, 10.0)
    decoder = rig.decoder()
    assert rig.run(decoder, times, rows, [2.0])[0].status is Status.VALID
    for chunk in np.array_split(np.flatnonzero(times >= 2.0), 50):
        decoder.push(times[chunk], rows[chunk])
    late = decoder.decode(10.0)
    assert np.array_equal(late.value, rig.batch(times, rows, 10.0))
    assert late.flags == ("unverified",)
