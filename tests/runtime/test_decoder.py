"""The decoder: a stream decodes to what its windows decode to, whatever the stream does.

Times lie on a grid of 1/4096 s, so that starts and ends of windows are exact; spikes have times
of their own, so that their order is unique and equality can be exact. Tests that need otherwise
say so.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import re
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.artifact import Artifact
from poyo_edge.errors import BackendError, SessionError, UsageError
from poyo_edge.runtime import Decoder, DecoderSettings, FailsafeSettings, Result, Status
from poyo_edge.runtime.core import Core
from poyo_edge.session import Session
from poyo_edge.tokens import cut_window, relative_times

GRID_HZ = 4096
T = 1.0
SCALE = 10.0
N_UNITS = 12
OUTPUT_SD = 1.5
"""Of the tiny model on random windows, in behaviour units."""
TIE_SD = 1e-6  # order of equal times; measured worst case 6e-7
FLOAT32_TIME_SD = 5e-3  # 6e-8 s at 62,832 rad/s; measured worst case 6e-4

Times = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int32]
Value = npt.NDArray[np.float64]

TINY = Path(__file__).parents[1] / "data" / "tiny.poyo"


@dataclasses.dataclass(frozen=True)
class Bench:
    """An opened core with two sessions, and what their windows decode to."""

    core: Core
    a: Session
    b: Session

    def decoder(self, session: Session | None = None, **arguments: Any) -> Decoder:
        return Decoder(self.core, session or self.a, **arguments)

    def window(
        self, time: npt.NDArray[np.float32], rows: Rows, session: Session | None = None
    ) -> Value:
        """What a window of spikes, relative to its start, decodes to."""
        session = session or self.a
        constants = self.core.constants(session.unit_embedding, session.session_embedding)
        prediction = self.core.predict(constants, time, rows, np.array([T], np.float32))[0]
        return prediction.astype(np.float64) * SCALE

    def batch(self, times: Times, rows: Rows, t: float, session: Session | None = None) -> Value:
        """What the window [t - T, t) of a sorted recording decodes to."""
        cut = cut_window(times, rows.astype(np.int64), t - T, T)
        return self.window(*cut, session)


def opened() -> Bench:
    artifact = Artifact.open(TINY)
    core = Core.open(artifact, backend="ort-cpu")
    return Bench(core, artifact.session("tiny_a"), artifact.session("tiny_b"))


@pytest.fixture(scope="module")
def bench() -> Bench:
    return opened()


BENCH = opened()
"""For hypothesis, which needs it before fixtures are made."""


def stream(n_spikes: int, duration_s: float, seed: int = 0) -> tuple[Times, Rows]:
    """Sorted spikes, each at a time of its own on the grid."""
    rng = np.random.default_rng(seed)
    ticks = rng.choice(int(duration_s * GRID_HZ), n_spikes, replace=False)
    return np.sort(ticks) / GRID_HZ, rng.integers(0, N_UNITS, n_spikes).astype(np.int32)


def results(
    decoder: Decoder, times: Times, rows: Rows, ends: Sequence[float], cuts: Sequence[int] = ()
) -> list[Result]:
    """Decode at each end, having pushed what came before it in chunks cut at ``cuts``."""
    decoded, pushed = [], 0
    for t in ends:
        heard = int(np.searchsorted(times, t))
        inner = sorted({cut for cut in cuts if pushed < cut < heard})
        for lo, hi in itertools.pairwise([pushed, *inner, heard]):
            decoder.push(times[lo:hi], rows[lo:hi])
        pushed = heard
        decoded.append(decoder.decode(t))
    return decoded


def same(actual: Value, expected: Value) -> bool:
    return bool(np.array_equal(actual, expected))


# A window is decoded exactly as it would be alone.


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    n_spikes=st.integers(0, 400),
    cuts=st.lists(st.integers(0, 400), max_size=40),
    ends=st.lists(st.integers(1, 3 * GRID_HZ), min_size=1, max_size=8, unique=True).map(sorted),
)
def test_stream_equals_batch_at_every_chunk_size(
    seed: int, n_spikes: int, cuts: list[int], ends: list[int]
) -> None:
    times, rows = stream(n_spikes, 3.0, seed)
    decoded = results(BENCH.decoder(), times, rows, [end / GRID_HZ for end in ends], cuts)
    for result in decoded:
        inside = (times >= result.t - T) & (times < result.t)
        if "clock_reset" not in result.flags and "warmup" not in result.flags:
            assert same(result.value, BENCH.batch(times, rows, float(result.t)))
            assert result.n_spikes == inside.sum()
            assert result.t_last_spike == (times[inside][-1] if inside.any() else None)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 60), max_size=20))
def test_the_size_of_chunks_changes_no_status(seed: int, cuts: list[int]) -> None:
    times, rows = stream(60, 6.0, seed)
    times = times[(times < 2) | (times > 3.5)]
    ends = np.arange(1, 6 * 8) / 8
    whole = results(BENCH.decoder(), times, rows[: len(times)], ends)
    pieces = results(BENCH.decoder(), times, rows[: len(times)], ends, cuts)
    assert [r.flags for r in pieces] == [r.flags for r in whole]
    assert [r.status for r in pieces] == [r.status for r in whole]


@settings(deadline=None, max_examples=40)
@given(
    order=st.permutations(range(60)),
    size=st.integers(1, 60),
    repeated=st.booleans(),
)
def test_the_order_of_arrival_within_a_window_changes_nothing(
    order: list[int], size: int, repeated: bool
) -> None:
    times, rows = stream(60, T, seed=5)
    if repeated:  # pairs of units at one time
        times = np.repeat(times[::2], 2)
        rows = np.arange(60, dtype=np.int32) % N_UNITS
    decoder = BENCH.decoder()
    for start in range(0, 60, size):
        chunk = order[start : start + size]
        decoder.push(times[chunk], rows[chunk])
    value, expected = decoder.decode(T).value, BENCH.batch(times, rows, T)
    if repeated:
        assert value == pytest.approx(expected, abs=TIE_SD * OUTPUT_SD, rel=0)
    else:
        assert same(value, expected)


def test_spikes_that_arrive_after_a_window_count_in_the_next(bench: Bench) -> None:
    times, rows = stream(200, 1.5)
    prompt = (np.arange(200) % 3 != 0) | (times >= 1.25)
    decoder = bench.decoder()
    decoder.push(times[prompt & (times < 1.25)], rows[prompt & (times < 1.25)])
    first = decoder.decode(1.25)
    assert same(first.value, bench.batch(times[prompt], rows[prompt], 1.25))
    decoder.push(times[~prompt], rows[~prompt])
    decoder.push(times[times >= 1.25], rows[times >= 1.25])
    assert same(decoder.decode(1.5).value, bench.batch(times, rows, 1.5))
    counters = decoder.stats()["counters"]
    delayed = int(((times >= 0.25) & ~prompt).sum())
    assert (counters["delayed"], counters["late"]) == (delayed, int((~prompt).sum()) - delayed)


@pytest.mark.parametrize(
    ("tick", "counted"),
    [(-GRID_HZ - 1, 0), (-GRID_HZ, 1), (-GRID_HZ + 1, 1), (-1, 1), (0, 0), (1, 0)],
)
def test_a_window_holds_its_start_but_not_its_end(bench: Bench, tick: int, counted: int) -> None:
    decoder, t = bench.decoder(), 7.0
    decoder.push([t + tick / GRID_HZ], [3])
    assert decoder.decode(t).n_spikes == counted


def test_a_spike_on_the_border_of_two_windows_counts_once(bench: Bench) -> None:
    decoder = bench.decoder()
    decoder.push([2.0], [0])
    assert [decoder.decode(t).n_spikes for t in (2.0, 3.0)] == [0, 1]


def test_a_spike_is_in_every_window_for_as_long_as_a_window(bench: Bench) -> None:
    decoder = bench.decoder()
    decoder.push([2.0], [0])
    counts = [decoder.decode(2.0 + i / 8).n_spikes for i in range(12)]
    assert counts == [0, *[1] * 8, 0, 0, 0]


def test_unit_ids_and_rows_mean_the_same(bench: Bench) -> None:
    times, rows = stream(100, T)
    ids = [bench.a.header.unit_ids[row] for row in rows]
    expected = bench.batch(times, rows, T)
    for units in (rows, rows.astype(np.int64), ids, np.array(ids), bench.decoder().rows(ids)):
        decoder = bench.decoder()
        decoder.push(times, units)
        assert same(decoder.decode(T).value, expected)


def test_units_of_other_sessions_are_ignored_and_counted(bench: Bench) -> None:
    times, rows = stream(50, T)
    decoder = bench.decoder()
    decoder.push(times, rows)
    decoder.push([0.25, 0.5], ["tiny_b/unit_00", "nobody"])
    assert same(decoder.decode(T).value, bench.batch(times, rows, T))
    assert decoder.stats()["counters"]["unknown_unit"] == 2


# Clocks.


def test_ticks_and_seconds_decode_to_the_same_bits(bench: Bench) -> None:
    times, rows = stream(300, 2.0)
    ends = np.arange(8, 17) / 8
    seconds = results(bench.decoder(), times, rows, ends)
    decoder = bench.decoder(tick_rate_hz=GRID_HZ)
    ticks = (times * GRID_HZ).astype(np.int64)
    counted = results(decoder, ticks, rows, (ends * GRID_HZ).astype(int).tolist())  # type: ignore[arg-type]
    for one, other in zip(seconds, counted, strict=True):
        assert same(one.value, other.value)
        assert one.status is other.status


@pytest.mark.parametrize("rate_hz", [30_000.0, 24414.0625, 44_100.0, 1e6])
@pytest.mark.parametrize("start", [0, 3 * 10**9])
def test_ticks_of_any_rate_decode_to_their_window(bench: Bench, rate_hz: float, start: int) -> None:
    rng = np.random.default_rng(1)
    ticks = start + np.sort(rng.choice(int(2 * rate_hz), 300, replace=False)).astype(np.int64)
    rows = rng.integers(0, N_UNITS, 300).astype(np.int32)
    decoder = bench.decoder(tick_rate_hz=rate_hz)
    for step in range(9, 17):
        now = start + int(step / 8 * rate_hz)
        heard = ticks < now
        decoder.push(ticks[heard], rows[heard])
        # Integers and sixteenths: exact.
        inside = heard & (16 * (ticks - now) >= -int(16 * rate_hz * T))
        time = relative_times(ticks[inside], now - rate_hz * T, T, rate_hz)
        result = decoder.decode(now)
        assert result.n_spikes == inside.sum()
        assert same(result.value, bench.window(time, rows[inside]))
        # The same spikes in seconds differ by the rounding of float32 times alone.
        alone = ((ticks[inside] - now) / rate_hz + T).astype(np.float32)
        expected = bench.window(np.clip(alone, 0, None), rows[inside])
        assert result.value == pytest.approx(expected, abs=FLOAT32_TIME_SD * OUTPUT_SD, rel=0)


def test_a_window_that_is_no_whole_number_of_ticks_starts_between_two(bench: Bench) -> None:
    now, rate_hz = 100_000, 24414.0625
    for tick, counted in ((now - 24415, 0), (now - 24414, 1), (now - 1, 1), (now, 0)):
        decoder = bench.decoder(tick_rate_hz=rate_hz)
        decoder.push([tick], [0])
        assert decoder.decode(now).n_spikes == counted


@pytest.mark.parametrize("start", [1e5, 2.0**20])
def test_hours_of_absolute_time_change_no_bit(bench: Bench, start: float) -> None:
    times, rows = stream(400, 2.0)
    ends = np.arange(8, 17) / 8
    near = results(bench.decoder(), times, rows, ends)
    far = results(bench.decoder(), start + times, rows, start + ends)
    for one, other in zip(near, far, strict=True):
        assert same(one.value, other.value)
        assert one.status is other.status


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
def test_a_clock_jump_resets_once_and_leaves_no_stale_spike(bench: Bench, jump: str) -> None:
    origin = 10_000.0
    times, rows = stream(600, 2.0, seed=1)
    decoder = bench.decoder()
    before = results(decoder, origin + times, rows, [origin + i / 8 for i in range(1, 17)])
    assert before[-1].status is Status.VALID

    start = origin + 2.0 + JUMPS[jump]
    times, rows = stream(600, 2.0, seed=2)
    first = decoder.decode(start)
    after = [first, *results(decoder, start + times, rows, [start + i / 8 for i in range(1, 17)])]
    assert resets(after) == 1
    assert first.flags == ("clock_reset", "warmup", "silent")
    assert decoder.stats()["counters"]["clock_resets"] == 1
    assert [result.status for result in after] == [Status.WARMUP] * 8 + [Status.VALID] * 9
    for result in after:
        t = float(result.t) - start
        assert result.n_spikes == ((times >= t - T) & (times < t)).sum()
        assert same(result.value, bench.batch(times, rows, t))


def test_a_counter_that_wraps_is_a_jump_back(bench: Bench) -> None:
    rate, wrap = 30_000, 2**32
    rng = np.random.default_rng(0)
    ticks = wrap - 2 * rate + np.sort(rng.choice(4 * rate, 1200, replace=False)).astype(np.int64)
    rows = rng.integers(0, N_UNITS, 1200).astype(np.int32)
    ends = wrap - 2 * rate + rate // 8 * np.arange(1, 33)
    decoder = bench.decoder(tick_rate_hz=rate)
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
    assert same(decoded[-1].value, bench.window(time, rows[inside]))


def test_a_decoder_that_fell_behind_decodes_the_newest_window(bench: Bench) -> None:
    times, rows = stream(2000, 10.0)
    decoder = bench.decoder()
    assert results(decoder, times, rows, [2.0])[0].status is Status.VALID
    for chunk in np.array_split(np.flatnonzero(times >= 2.0), 50):
        decoder.push(times[chunk], rows[chunk])
    late = decoder.decode(10.0)
    assert same(late.value, bench.batch(times, rows, 10.0))
    assert late.flags == ()


# Too little, too much.


def test_silence_is_decoded_and_flagged(bench: Bench) -> None:
    times, rows = stream(300, 2.0)
    decoder = bench.decoder()
    decoded = results(decoder, times, rows, [2.0, *(2.0 + i / 4 for i in range(1, 9))])
    silent = [result for result in decoded if "silent" in result.flags]
    assert [result.t for result in silent] == [3.0, 3.25, 3.5, 3.75, 4.0]
    nothing = bench.window(np.empty(0, np.float32), np.empty(0, np.int32))
    for result in silent:
        assert result.status is Status.DEGRADED
        assert same(result.value, nothing)
        assert (result.n_spikes, result.t_last_spike) == (0, None)


def test_after_a_gap_windows_are_flagged_until_one_is_whole(bench: Bench) -> None:
    decoder = bench.decoder()
    times = np.concatenate([np.arange(0, 2, 1 / 64), np.arange(3.5, 6, 1 / 64)])
    rows = np.zeros(len(times), np.int32)
    ends = [t / 8 for t in range(8, 48)]
    decoded = results(decoder, times, rows, ends)
    flagged = [result.t for result in decoded if "gap" in result.flags]
    # The window that ends at 4.625 is the first without the silence.
    assert flagged == [t for t in ends if 3.5 < t <= 4.5]
    assert {result.status for result in decoded if "gap" in result.flags} == {Status.DEGRADED}
    assert decoded[-1].status is Status.VALID
    assert decoder.stats()["counters"]["gaps"] == 1


def test_units_that_drop_out_change_the_value_and_it_recovers(bench: Bench) -> None:
    times, rows = stream(900, 3.0)
    dead = (rows < 6) & (times >= 1) & (times < 2)
    whole = results(bench.decoder(), times, rows, [1.0, 2.0, 3.0])
    lossy = results(bench.decoder(), times[~dead], rows[~dead], [1.0, 2.0, 3.0])
    assert [same(a.value, b.value) for a, b in zip(whole, lossy, strict=True)] == [1, 0, 1]
    assert {result.status for result in lossy} == {Status.VALID} | {lossy[0].status}


def test_a_burst_keeps_the_newest_spikes_and_counts_the_rest(bench: Bench) -> None:
    budget = bench.core.artifact.manifest.max_spikes
    times, rows = stream(4000, T)
    decoder = bench.decoder()
    decoder.push([-T], [0])
    decoder.push(times, rows)
    result = decoder.decode(T)
    assert (result.status, result.flags) == (Status.DEGRADED, ("over_budget",))
    assert result.n_spikes == budget == 600
    expected = bench.window(times[-budget:].astype(np.float32), rows[-budget:])
    assert same(result.value, expected)
    assert decoder.stats()["counters"]["over_budget"] == 4000 - budget
    decoder.decode(T)
    assert decoder.stats()["counters"]["over_budget"] == 2 * (4000 - budget)


def test_as_many_spikes_as_the_budget_are_not_too_many(bench: Bench) -> None:
    times, rows = stream(600, T)
    decoder = bench.decoder()
    decoder.push([-T], [0])
    decoder.push(times, rows)
    assert decoder.decode(T).flags == ()


def test_windows_that_lack_spikes_pushed_out_of_the_ring_say_so(bench: Bench) -> None:
    decoder = bench.decoder(settings=DecoderSettings(capacity=100))
    times, rows = stream(500, 1.0)
    decoder.push([-T], [0])
    decoder.push(times, rows)
    decoded = [decoder.decode(1.0 + i / 8) for i in range(9)]
    last_lost = times[-101]
    assert [("overflow" in r.flags) for r in decoded] == [r.t - T <= last_lost for r in decoded]
    assert decoder.stats()["counters"]["overflow"] == 401
    assert same(decoded[0].value, bench.window(times[-100:].astype(np.float32), rows[-100:]))


def test_a_decoder_is_warming_up_until_it_has_heard_a_whole_window(bench: Bench) -> None:
    times, rows = stream(300, 2.0)
    ends = [times[0] + i / 8 for i in range(1, 14)]
    decoded = results(bench.decoder(), times, rows, ends)
    assert [result.status for result in decoded] == [Status.WARMUP] * 7 + [Status.VALID] * 6


def test_a_silent_stream_counts_as_heard_from_the_first_decode(bench: Bench) -> None:
    decoder = bench.decoder()
    statuses = [decoder.decode(5.0 + i / 4).status for i in range(6)]
    assert statuses == [Status.WARMUP] * 4 + [Status.DEGRADED] * 2


def test_reset_begins_anew(bench: Bench) -> None:
    times, rows = stream(300, 2.0)
    decoder = bench.decoder()
    results(decoder, times, rows, [2.0])
    decoder.reset()
    assert decoder.stats()["buffered_spikes"] == 0
    again = results(decoder, times, rows, [0.5])[0]
    assert (again.status, again.flags) == (Status.WARMUP, ("warmup",))
    assert same(again.value, bench.batch(times, rows, 0.5))
    assert decoder.stats()["counters"]["received"] == 300 + int((times < 0.5).sum())


# Failures.


class Stub:
    """A backend that can be told to fail."""

    name = "stub"

    def __init__(self, core: Core) -> None:
        self.backend = core.backend
        self.failure: Callable[[], float] | None = None

    def run(self, feeds: Any) -> npt.NDArray[np.float32]:
        prediction = self.backend.run(feeds)
        if self.failure is not None:
            prediction[..., 1] = self.failure()
        return prediction


def raising(error: Exception) -> Callable[[], float]:
    def fail() -> float:
        raise error

    return fail


FAILURES: dict[str, Callable[[], float]] = {
    "raises": raising(BackendError("no device")),
    "raises something else": raising(RuntimeError("device lost")),
    "gives NaN": lambda: float("nan"),
    "gives Inf": lambda: float("-inf"),
}


def with_stub(bench: Bench, **arguments: Any) -> tuple[Decoder, Stub]:
    stub = Stub(bench.core)
    core = dataclasses.replace(bench.core, backend=stub)
    return Decoder(core, bench.a, **arguments), stub


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_backend_is_held_then_fades_then_is_zero_and_recovers(
    bench: Bench, failure: str
) -> None:
    times, rows = stream(900, 3.0)
    ends = np.round(1.0 + np.arange(64 + 1) / 64, 6)
    decoder, stub = with_stub(bench)
    decoder.push(times, rows)
    last_good = [decoder.decode(t) for t in (0.75, 1.0)][-1]
    stub.failure = FAILURES[failure]
    failing = [decoder.decode(t) for t in ends[1:]]
    for result in failing:
        age = float(result.t) - 1.0
        assert np.isfinite(result.value).all()
        assert "backend" in result.flags
        assert result.status is (Status.HELD if age <= 0.1 else Status.INVALID)
        if age <= 0.1:
            assert same(result.value, last_good.value)
    sizes = [float(np.abs(result.value).max()) for result in failing]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[5] == sizes[0] > sizes[6] > sizes[20] > 0
    assert sizes[-1] == 0
    assert decoder.stats()["counters"]["backend_failures"] == len(failing)
    stub.failure = None
    recovered = decoder.decode(2.5)
    assert (recovered.status, recovered.flags) == (Status.VALID, ())
    assert same(recovered.value, bench.batch(times, rows, 2.5))


def test_a_backend_that_never_worked_gives_zero(bench: Bench) -> None:
    decoder, stub = with_stub(bench)
    stub.failure = FAILURES["raises"]
    result = decoder.decode(1.0)
    assert (result.value.tolist(), result.status) == ([0.0, 0.0], Status.INVALID)


def test_a_value_from_before_a_clock_reset_is_not_held(bench: Bench) -> None:
    decoder, stub = with_stub(bench)
    decoder.decode(100.0)
    stub.failure = FAILURES["gives NaN"]
    result = decoder.decode(0.0)
    assert (result.value.tolist(), result.status) == ([0.0, 0.0], Status.INVALID)


def test_hold_time_can_be_set(bench: Bench) -> None:
    failsafe = FailsafeSettings(hold_s=0.5, decay_s=0.0)
    decoder, stub = with_stub(bench, settings=DecoderSettings(failsafe=failsafe))
    decoder.decode(1.0)
    stub.failure = FAILURES["raises"]
    statuses = [decoder.decode(t).status for t in (1.25, 1.5, 1.75)]
    assert statuses == [Status.HELD, Status.HELD, Status.INVALID]


def test_hold_time_is_counted_in_device_ticks(bench: Bench) -> None:
    decoder, stub = with_stub(bench, tick_rate_hz=30_000)
    decoder.decode(30_000)
    stub.failure = FAILURES["raises"]
    statuses = [decoder.decode(t).status for t in (32_999, 33_001)]
    assert statuses == [Status.HELD, Status.INVALID]


def test_a_caller_that_changes_a_value_does_not_change_what_is_held(bench: Bench) -> None:
    decoder, stub = with_stub(bench)
    good = decoder.decode(1.0)
    expected = good.value.copy()
    good.value[:] = np.nan
    stub.failure = FAILURES["raises"]
    assert same(decoder.decode(1.05).value, expected)


def test_a_failure_is_logged_when_it_begins_and_not_per_window(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    decoder, stub = with_stub(bench)
    with caplog.at_level(logging.INFO):
        for failing in (True, True, True, False, True, True):
            stub.failure = FAILURES["raises"] if failing else None
            decoder.decode(1.0)
    assert len(caplog.records) == 2
    assert "no device" in caplog.messages[0]


# Sessions.


def relabelled(session: Session, name: str, rows: Sequence[int]) -> Session:
    """The same units in another order, with another session embedding."""
    header = dataclasses.replace(
        session.header,
        session_id=name,
        unit_ids=tuple(session.header.unit_ids[row] for row in rows),
    )
    return Session(
        header=header,
        unit_embedding=session.unit_embedding[list(rows)],
        session_embedding=-session.session_embedding,
    )


def shared_rows(bench: Bench) -> Rows:
    """Row in session b of each unit of session a, -1 where there is none."""
    units = bench.b.header.unit_ids
    return np.array(
        [units.index(unit) if unit in units else -1 for unit in bench.a.header.unit_ids], np.int32
    )


def test_a_swapped_session_keeps_the_spikes_of_shared_units(bench: Bench) -> None:
    times, rows = stream(400, T)
    decoder = bench.decoder()
    decoder.push([-T], [1])
    decoder.push(times, rows)
    assert same(decoder.decode(T).value, bench.batch(times, rows, T))
    decoder.swap_session(bench.b)
    new_rows = shared_rows(bench)[rows]
    kept = new_rows >= 0
    assert 0 < kept.sum() < len(kept)
    result = decoder.decode(T)
    assert (result.session_id, result.status) == ("tiny_b", Status.VALID)
    assert same(result.value, bench.batch(times[kept], new_rows[kept], T, bench.b))
    assert decoder.stats()["counters"]["session_change"] == int((~kept).sum())
    assert decoder.unit_ids == bench.b.header.unit_ids


def test_spikes_after_a_swap_are_those_of_the_new_session(bench: Bench) -> None:
    times, rows = stream(200, 2.0)
    rows %= len(bench.b.header.unit_ids)
    decoder = bench.decoder()
    results(decoder, times, rows, [1.0])
    decoder.swap_session(bench.b)
    decoder.reset()
    assert same(
        results(decoder, times, rows, [2.0])[0].value, bench.batch(times, rows, 2.0, bench.b)
    )
    assert same(
        bench.batch(times, rows, 2.0, bench.b), bench.decoder(bench.b).decode(2.0).value
    ) is (len(times[times >= 1]) == 0)


def damaged(session: Session, **changes: Any) -> Session:
    return dataclasses.replace(session, **changes)


def refused_sessions(bench: Bench, folder: Path) -> Iterator[tuple[Any, str]]:
    other_core = dataclasses.replace(bench.b.header, core_hash="0" * 64)
    nan = bench.b.unit_embedding.copy()
    nan[3, 3] = np.nan
    inf = np.full_like(bench.b.session_embedding, np.inf)
    yield damaged(bench.b, header=other_core), "expected one made for core af84037559d2"
    yield damaged(bench.b, unit_embedding=nan), "unit_embedding: expected finite values"
    yield damaged(bench.b, session_embedding=inf), "session_embedding: expected finite values"
    yield damaged(bench.b, unit_embedding=nan[:, :5]), re.escape("expected shape (10, 16)")
    for i, (session, message) in enumerate(
        (
            (damaged(bench.b, header=other_core), "core_hash: expected"),
            (damaged(bench.b, unit_embedding=nan), "unit_embedding: expected finite values, got 1"),
            (damaged(bench.b, session_embedding=inf), "session_embedding: expected finite"),
        )
    ):
        session.save(folder / f"{i}.session")
        yield folder / f"{i}.session", message


def test_a_session_that_cannot_be_used_leaves_the_old_one_in_place(
    bench: Bench, tmp_path: Path
) -> None:
    times, rows = stream(100, T)
    decoder = bench.decoder()
    decoder.push(times, rows)
    expected = decoder.decode(T).value
    for session, message in refused_sessions(bench, tmp_path):
        error = UsageError if isinstance(session, Session) else SessionError
        with pytest.raises(error, match=message):
            decoder.swap_session(session)
        with pytest.raises(error, match=message):
            Decoder.open(TINY, session)
        after = decoder.decode(T)
        assert (after.session_id, after.n_spikes) == ("tiny_a", 100)
        assert same(after.value, expected)


def test_a_swap_under_decoding_threads_is_all_or_nothing(bench: Bench) -> None:
    times, rows = stream(200, T)
    other = relabelled(bench.a, "other", [*range(11, -1, -1)])
    decoder = bench.decoder()
    decoder.push(times, rows)
    expected = {
        "tiny_a": bench.batch(times, rows, T),
        "other": bench.batch(times, 11 - rows, T, other),
    }
    assert np.abs(expected["tiny_a"] - expected["other"]).max() > 0.1
    decoded: list[Result] = []
    stop = threading.Event()

    def decode() -> None:
        while not stop.is_set():
            decoded.append(decoder.decode(T))

    with running(decode, stop=stop):
        for i in range(200):
            decoder.swap_session(bench.a if i % 2 else other)
            time.sleep(0.001)
    assert {result.session_id for result in decoded} == set(expected)
    assert all(same(result.value, expected[result.session_id]) for result in decoded)


# Threads, memory, words.


class running:
    """Run functions in threads until the block ends; their exceptions are raised then."""

    def __init__(self, *functions: Callable[[], None], stop: threading.Event) -> None:
        self.stop, self.errors = stop, list[BaseException]()
        self.threads = [threading.Thread(target=self._run, args=(f,)) for f in functions]

    def _run(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self) -> None:
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def test_pushing_decoding_and_swapping_threads_lose_no_count(bench: Bench) -> None:
    decoder = bench.decoder(settings=DecoderSettings(capacity=2000))
    other = relabelled(bench.a, "other", [*range(11, -1, -1)])
    stop, pushed, decodes = threading.Event(), [0, 0, 0], [0]
    begin = time.perf_counter()

    def now() -> float:
        return 100.0 + time.perf_counter() - begin

    def push(place: int) -> None:
        rng = np.random.default_rng(place)
        while not stop.is_set():
            n = int(rng.integers(0, 40))
            times = now() + rng.choice([0.0, -0.02, -0.5, -3.0, 1e4, np.nan], n)
            times += rng.uniform(0, 0.01, n).round(3)
            decoder.push(times, rng.integers(-1, N_UNITS + 1, n))
            pushed[place] += n
            time.sleep(0.0005)

    def decode() -> None:
        while not stop.is_set():
            result = decoder.decode(now())
            assert np.isfinite(result.value).all()
            json.dumps(decoder.stats())
            decodes[0] += 1

    def swap() -> None:
        for i in itertools.count():
            if stop.is_set():
                return
            decoder.swap_session((bench.a, other, bench.b)[i % 3])
            time.sleep(0.01)

    pushers = [lambda place=place: push(place) for place in range(3)]
    with running(*pushers, decode, swap, stop=stop):
        time.sleep(1.5)
    stats = decoder.stats()
    counters = stats["counters"]
    dropped = ("unknown_unit", "late", "future", "duplicate", "not_finite")
    assert counters["received"] == sum(pushed) > 1000
    assert counters["received"] == counters["accepted"] + sum(counters[name] for name in dropped)
    assert all(counters[name] > 0 for name in (*dropped, "delayed", "session_change"))
    assert stats["n_decodes"] == decodes[0] == decoder.latency.counts.sum() > 10
    assert stats["statuses"]["HELD"] == stats["statuses"]["INVALID"] == 0
    assert counters["backend_failures"] == counters["clock_resets"] == 0


def test_a_million_spikes_take_no_more_memory_than_the_first_thousand(bench: Bench) -> None:
    decoder = bench.decoder(settings=DecoderSettings(capacity=1 << 14))
    rng = np.random.default_rng(0)
    rows = rng.integers(0, N_UNITS, 1000).astype(np.int32)
    offsets = np.sort(rng.uniform(0, 0.2, 1000))

    def hear(first: int, last: int) -> None:
        for chunk in range(first, last):
            start = chunk * 0.2
            decoder.push(start + offsets, rows)
            if chunk % 10 == 9:
                decoder.push(start + offsets[::-1] - 0.1, rows)
                decoder.decode(start + 0.2)

    hear(0, 20)
    tracemalloc.start()
    try:
        hear(20, 30)
        before, _ = tracemalloc.get_traced_memory()
        hear(30, 1000)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    counters = decoder.stats()["counters"]
    assert counters["received"] >= 1_000_000
    assert decoder.stats()["buffered_spikes"] <= 1 << 14
    assert after - before < 20_000
    assert peak - before < 3_000_000


@pytest.mark.parametrize(
    ("times", "units", "message"),
    [
        (
            np.zeros(2, np.float32),
            [0, 0],
            "times: expected float64 seconds, got float32",
        ),
        (
            [1, 2],
            [0, 0],
            "times: expected float64 seconds, got int64; "
            "open the decoder with tick_rate_hz to push integer ticks",
        ),
        (np.zeros((2, 2)), [0, 0], "times: expected shape (N,), got (2, 2)"),
        (0.5, 0, "times: expected shape (N,), got ()"),
        ([0.5], [[0]], "units: expected shape (N,), got (1, 1)"),
        ([0.5], [0.0], "units: expected integer rows or string ids, got float64"),
        ([0.5, 0.6], [0], "push: expected as many units as times (2), got 1"),
        ([], [0], "push: expected as many units as times (0), got 1"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused_whole(
    bench: Bench, times: Any, units: Any, message: str
) -> None:
    decoder = bench.decoder()
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        decoder.push(times, units)
    assert set(decoder.stats()["counters"].values()) == {0}


def test_seconds_are_refused_where_ticks_are_wanted(bench: Bench) -> None:
    decoder = bench.decoder(tick_rate_hz=30_000)
    with pytest.raises(UsageError, match="expected integer ticks .* got float64$"):
        decoder.push([1.5], [0])
    for t in (1.5, True, "1", float("nan")):
        with pytest.raises(
            UsageError, match=re.escape(f"decode: expected integer ticks, got {t!r}")
        ):
            decoder.decode(t)  # type: ignore[arg-type]


@pytest.mark.parametrize("t", [float("nan"), float("inf"), "1", None])
def test_a_time_that_is_none_is_refused(bench: Bench, t: Any) -> None:
    with pytest.raises(UsageError, match=re.escape(f"decode: expected finite seconds, got {t!r}")):
        bench.decoder().decode(t)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tick_rate_hz": 0}, "tick_rate_hz: expected a number > 0, got 0"),
        ({"tick_rate_hz": float("nan")}, "tick_rate_hz: expected a number > 0, got nan"),
    ],
)
def test_clocks_that_make_no_sense_are_refused(
    bench: Bench, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        bench.decoder(**arguments)


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="^capacity: expected an integer >= 1, got 0$"):
        DecoderSettings(capacity=0)
    with pytest.raises(UsageError, match="^future_limit_s: expected seconds > 0, got nan$"):
        DecoderSettings(future_limit_s=float("nan"))


def test_stats_are_json_with_these_keys(bench: Bench) -> None:
    decoder = bench.decoder()
    results(decoder, *stream(50, 1.0), [0.5, 1.0])
    stats = decoder.stats()
    assert json.loads(json.dumps(stats)) == stats
    assert set(stats) == {
        "backend",
        "session_id",
        "n_decodes",
        "statuses",
        "counters",
        "buffered_spikes",
        "latency_ms",
    }
    assert set(stats["latency_ms"]) == {"p50", "p90", "p99", "p999", "max"}
    assert stats["statuses"] == {
        "VALID": 0,
        "WARMUP": 2,
        "DEGRADED": 0,
        "HELD": 0,
        "INVALID": 0,
    }
    assert set(stats["counters"]) == {
        "received",
        "accepted",
        "unknown_unit",
        "late",
        "delayed",
        "future",
        "duplicate",
        "not_finite",
        "overflow",
        "over_budget",
        "session_change",
        "clock_resets",
        "gaps",
        "backend_failures",
    }


def test_a_result_says_where_it_came_from(bench: Bench) -> None:
    decoder = bench.decoder()
    decoder.push([0.25, 0.5], [0, 1])
    result = decoder.decode(0.75)
    assert (result.t, result.n_spikes, result.t_last_spike) == (0.75, 2, 0.5)
    assert (result.session_id, decoder.session_id, decoder.backend) == (
        "tiny_a",
        "tiny_a",
        "ort-cpu",
    )
    assert result.value.dtype == np.float64
    assert result.latency_ns > 0


@pytest.mark.parametrize("how", ["id", "file", "session"])
def test_a_decoder_opens_with_an_id_a_file_or_a_session(tiny: Path, bench: Bench, how: str) -> None:
    session: Any = {
        "id": "tiny_b",
        "file": tiny / "sessions" / "tiny_b.session",
        "session": bench.b,
    }[how]
    decoder = Decoder.open(tiny, session)
    times, rows = stream(100, T)
    decoder.push(times, rows % 10)
    assert same(decoder.decode(T).value, bench.batch(times, rows % 10, T, bench.b))


def test_with_several_sessions_one_has_to_be_named(tiny: Path) -> None:
    with pytest.raises(UsageError, match="one of the 2 ids.*tiny_a, tiny_b.*got none named"):
        Decoder.open(tiny)
