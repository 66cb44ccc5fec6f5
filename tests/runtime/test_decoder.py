"""A stream decodes to what its windows decode to, and wrong arguments are refused whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.errors import UsageError
from poyo_edge.runtime import Decoder, DecoderSettings

if TYPE_CHECKING:
    from conftest import Rig

T = 1.0
TIE_SD = 5e-6  # the order of equal times; measured worst case 8e-7, one last bit of the output


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    n_spikes=st.integers(0, 400),
    cuts=st.lists(st.integers(0, 400), max_size=40),
    ends=st.lists(st.integers(1, 3 * 4096), min_size=1, max_size=8, unique=True).map(sorted),
)
def test_stream_equals_batch_at_every_chunk_size(
    rig: Rig, seed: int, n_spikes: int, cuts: list[int], ends: list[int]
) -> None:
    times, rows = rig.stream(n_spikes, 3.0, seed)
    for result in rig.run(rig.decoder(), times, rows, np.divide(ends, rig.grid_hz), cuts):
        inside = (times >= result.t - T) & (times < result.t)
        assert np.array_equal(result.value, rig.batch(times, rows, result.t))
        assert result.n_spikes == inside.sum()
        assert result.t_last_spike == (times[inside][-1] if inside.any() else None)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 60), max_size=20))
def test_the_size_of_chunks_changes_no_status(rig: Rig, seed: int, cuts: list[int]) -> None:
    times, rows = rig.stream(60, 6.0, seed)
    kept = (times < 2) | (times > 3.5)
    ends = [0.5, *np.arange(16, 6 * 8) / 8]
    whole = rig.run(rig.decoder(), times[kept], rows[kept], ends)
    pieces = rig.run(rig.decoder(), times[kept], rows[kept], ends, cuts)
    assert len({r.flags for r in whole}) > 2
    assert [r.flags for r in pieces] == [r.flags for r in whole]
    assert [r.status for r in pieces] == [r.status for r in whole]


@settings(deadline=None, max_examples=40)
@given(
    order=st.permutations(range(60)),
    size=st.integers(1, 60),
    repeated=st.booleans(),
)
def test_the_order_of_arrival_within_a_window_changes_nothing(
    rig: Rig, order: list[int], size: int, repeated: bool
) -> None:
    times, rows = rig.stream(60, T, seed=5)
    if repeated:  # pairs of units at one time
        times = np.repeat(times[::2], 2)
        rows = np.arange(60, dtype=np.int32)[::-1] % rig.n_units
    decoder = rig.decoder()
    for start in range(0, 60, size):
        chunk = order[start : start + size]
        decoder.push(times[chunk], rows[chunk])
    value, expected = decoder.decode(T).value, rig.batch(times, rows, T)
    if repeated:
        assert value == pytest.approx(expected, abs=TIE_SD * rig.output_sd, rel=0)
    else:
        assert np.array_equal(value, expected)


def test_spikes_that_arrive_after_a_window_count_in_the_next(rig: Rig) -> None:
    times, rows = rig.stream(200, 1.5)
    prompt = (np.arange(200) % 3 != 0) | (times >= 1.25)
    decoder = rig.decoder()
    decoder.push(times[prompt & (times < 1.25)], rows[prompt & (times < 1.25)])
    first = decoder.decode(1.25)
    assert np.array_equal(first.value, rig.batch(times[prompt], rows[prompt], 1.25))
    decoder.push(times[~prompt], rows[~prompt])
    decoder.push(times[times >= 1.25], rows[times >= 1.25])
    assert np.array_equal(decoder.decode(1.5).value, rig.batch(times, rows, 1.5))
    counters = decoder.stats()["counters"]
    delayed = int(((times >= 0.25) & ~prompt).sum())
    assert (counters["delayed"], counters["late"]) == (delayed, int((~prompt).sum()) - delayed)


@pytest.mark.parametrize(
    ("tick", "counted"),
    [(-4097, 0), (-4096, 1), (-4095, 1), (-1, 1), (0, 0), (1, 0)],
)
def test_a_window_holds_its_start_but_not_its_end(rig: Rig, tick: int, counted: int) -> None:
    decoder, t = rig.decoder(), 7.0
    decoder.push([t + tick / rig.grid_hz], [3])
    assert decoder.decode(t).n_spikes == counted


def test_a_spike_on_the_border_of_two_windows_counts_once(rig: Rig) -> None:
    decoder = rig.decoder()
    decoder.push([2.0], [0])
    assert [decoder.decode(t).n_spikes for t in (2.0, 3.0)] == [0, 1]


def test_a_spike_is_in_every_window_for_as_long_as_a_window(rig: Rig) -> None:
    decoder = rig.decoder()
    decoder.push([2.0], [0])
    counts = [decoder.decode(2.0 + i / 8).n_spikes for i in range(12)]
    assert counts == [0, *[1] * 8, 0, 0, 0]


def test_unit_ids_and_rows_mean_the_same(rig: Rig) -> None:
    times, rows = rig.stream(100, T)
    ids = [rig.a.header.unit_ids[row] for row in rows]
    expected = rig.batch(times, rows, T)
    for units in (rows, rows.astype(np.int64), ids, np.array(ids), rig.decoder().rows(ids)):
        decoder = rig.decoder()
        decoder.push(times, units)
        assert np.array_equal(decoder.decode(T).value, expected)


def test_units_of_other_sessions_are_ignored_and_counted(rig: Rig) -> None:
    times, rows = rig.stream(50, T)
    decoder = rig.decoder()
    decoder.push(times, rows)
    decoder.push([0.25, 0.5], ["tiny_b/unit_00", "nobody"])
    assert np.array_equal(decoder.decode(T).value, rig.batch(times, rows, T))
    assert decoder.stats()["counters"]["unknown_unit"] == 2


def test_stats_are_json_with_these_keys(rig: Rig) -> None:
    decoder = rig.decoder()
    rig.run(decoder, *rig.stream(50, 1.0), [0.5, 1.0])
    stats = decoder.stats()
    assert json.loads(json.dumps(stats)) == stats
    assert set(stats) == {
        "backend",
        "session_id",
        "n_decodes",
        "backend_late",
        "statuses",
        "counters",
        "buffered_spikes",
        "latency_ms",
        "health",
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
        "stale_rows",
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


def test_a_result_says_where_it_came_from(rig: Rig) -> None:
    decoder = rig.decoder()
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
def test_a_decoder_opens_with_an_id_a_file_or_a_session(tiny: Path, rig: Rig, how: str) -> None:
    session: Any = {
        "id": "tiny_b",
        "file": tiny / "sessions" / "tiny_b.session",
        "session": rig.b,
    }[how]
    decoder = Decoder.open(tiny, session)
    times, rows = rig.stream(100, T)
    decoder.push(times, rows % 10)
    assert np.array_equal(decoder.decode(T).value, rig.batch(times, rows % 10, T, rig.b))


def test_with_several_sessions_one_has_to_be_named(tiny: Path) -> None:
    with pytest.raises(UsageError, match=r"one of the 2 ids \[tiny_a, tiny_b\], got none named"):
        Decoder.open(tiny)


@pytest.mark.parametrize(
    ("times", "units", "message"),
    [
        (
            np.zeros(2, np.float32),
            [0, 0],
            "times: expected float64 seconds, got float32; float32 seconds have "
            "lost what the model needs, so keep them float64 from their source on",
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
    rig: Rig, times: Any, units: Any, message: str
) -> None:
    decoder = rig.decoder()
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        decoder.push(times, units)
    assert set(decoder.stats()["counters"].values()) == {0}


def test_seconds_are_refused_where_ticks_are_wanted(rig: Rig) -> None:
    decoder = rig.decoder(tick_rate_hz=30_000)
    with pytest.raises(UsageError, match=r"expected integer ticks .* got float64$"):
        decoder.push([1.5], [0])
    for t in (1.5, True, "1", float("nan")):
        message = f"decode: expected integer ticks below 2**62, got {t!r}"
        with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
            decoder.decode(t)  # type: ignore[arg-type]


NO_TIMES = [
    float("nan"),
    float("inf"),
    "1",
    None,
    True,
    np.bool_(True),
    np.float16(1),
    np.float32(1),
    2.0**62,
    2**62,
    -(2**70),
    2**70,
    10**400,
    np.uint64(2**64 - 1),
    np.int64(-(2**63)),
]


@pytest.mark.parametrize("t", NO_TIMES, ids=lambda t: f"{t!r:.30}")
def test_a_time_that_is_none_is_refused_and_no_spike_is_lost(rig: Rig, t: Any) -> None:
    times, rows = rig.stream(100, T)
    decoder, untouched = rig.decoder(), rig.decoder()
    for one in (decoder, untouched):
        one.decode(0.0)
        one.push(times, rows)
    message = f"decode: expected finite float64 seconds, got {t!r}"
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        decoder.decode(t)
    result, expected = decoder.decode(T), untouched.decode(T)
    assert result.n_spikes == 100
    assert (result.flags, result.status) == (expected.flags, expected.status)
    assert np.array_equal(result.value, expected.value)


@pytest.mark.parametrize("t", [*NO_TIMES, 1.0, np.float64(1)], ids=lambda t: f"{t!r:.30}")
def test_a_time_that_is_no_tick_is_refused_and_no_spike_is_lost(rig: Rig, t: Any) -> None:
    times, rows = rig.stream(100, T)
    decoder = rig.decoder(tick_rate_hz=rig.grid_hz)
    decoder.decode(0)
    decoder.push((times * rig.grid_hz).astype(np.int64), rows)
    message = f"decode: expected integer ticks below 2**62, got {t!r}"
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        decoder.decode(t)
    assert np.array_equal(decoder.decode(rig.grid_hz).value, rig.batch(times, rows, T))


@pytest.mark.parametrize("t", [1.0, 1, np.float64(1), np.int64(1), np.uint8(1)], ids=repr)
def test_seconds_are_float64_or_whole_numbers_of_any_kind(rig: Rig, t: Any) -> None:
    times, rows = rig.stream(100, T)
    decoder = rig.decoder()
    decoder.push(times, rows)
    assert np.array_equal(decoder.decode(t).value, rig.batch(times, rows, T))


def test_ticks_that_do_not_fit_into_64_bits_are_refused_whole(rig: Rig) -> None:
    decoder = rig.decoder(tick_rate_hz=30_000)
    message = "times: expected integer ticks (the decoder was opened with tick_rate_hz), got uint64"
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        decoder.push(np.array([5, 2**63], np.uint64), [0, 0])
    assert set(decoder.stats()["counters"].values()) == {0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tick_rate_hz": 0}, "tick_rate_hz: expected a number > 0, got 0"),
        ({"tick_rate_hz": float("nan")}, "tick_rate_hz: expected a number > 0, got nan"),
        ({"tick_rate_hz": float("inf")}, "tick_rate_hz: expected a number > 0, got inf"),
        ({"tick_rate_hz": "30000"}, "tick_rate_hz: expected a number > 0, got '30000'"),
    ],
)
def test_clocks_that_make_no_sense_are_refused(
    rig: Rig, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        rig.decoder(**arguments)


@pytest.mark.parametrize("kind", [int, float, np.int64, np.float64])
def test_a_tick_rate_is_a_number_of_any_kind(rig: Rig, kind: Any) -> None:
    times, rows = rig.stream(100, T)
    decoder = rig.decoder(tick_rate_hz=kind(rig.grid_hz))
    decoder.push((times * rig.grid_hz).astype(np.int64), rows)
    assert np.array_equal(decoder.decode(rig.grid_hz).value, rig.batch(times, rows, T))


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^capacity: expected an integer >= 1, got 0$"):
        DecoderSettings(capacity=0)
    with pytest.raises(UsageError, match=r"^future_limit_s: expected seconds > 0, got nan$"):
        DecoderSettings(future_limit_s=float("nan"))
