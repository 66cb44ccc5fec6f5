"""Every rule for a spike on its way in, with the exact count."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.errors import UsageError
from poyo_edge.runtime.intake import Counters, Intake, UnitTable, as_times
from poyo_edge.runtime.ring import SpikeRing

WINDOW, FUTURE_LIMIT, NOW, N_UNITS = 1.0, 60.0, 100.0, 4
NAN, INF = float("nan"), float("inf")
DROPPED = ("unknown_unit", "late", "future", "duplicate", "not_finite")

Spikes = list[tuple[float, int]]


def an_intake(
    *, decoded_until: float | None = NOW, capacity: int = 64, future_limit: float = FUTURE_LIMIT
) -> Intake:
    intake = Intake(SpikeRing(capacity, np.float64), WINDOW, future_limit)
    intake.decoded_until = decoded_until
    return intake


def add(intake: Intake, spikes: Spikes) -> None:
    times = np.array([time for time, _ in spikes], np.float64)
    intake.add(times, np.array([row for _, row in spikes], np.int32), N_UNITS)


def held(intake: Intake) -> Spikes:
    times, rows = intake.ring.window(-INF, INF)
    return list(zip(times.tolist(), rows.tolist(), strict=True))


def counts(intake: Intake) -> dict[str, int]:
    """The counters that are not 0."""
    return {name: count for name, count in intake.counters.to_json().items() if count}


RULES: dict[str, tuple[Spikes, Spikes, dict[str, int]]] = {
    "nothing": ([], [], {}),
    "good ones": ([(100.0, 0), (100.5, 3)], [(100.0, 0), (100.5, 3)], {"accepted": 2}),
    "as early as a window still to come": (
        [(99.0, 0)],
        [(99.0, 0)],
        {"accepted": 1, "delayed": 1},
    ),
    "just as early among others": (
        [(100.5, 0), (99.0, 1)],
        [(99.0, 1), (100.5, 0)],
        {"accepted": 2, "delayed": 1},
    ),
    "at the last decoded time and before it": (
        [(99.5, 0), (100.0, 1)],
        [(99.5, 0), (100.0, 1)],
        {"accepted": 2, "delayed": 1},
    ),
    "a little older than that": ([(np.nextafter(99.0, 0), 0)], [], {"late": 1}),
    "just before the last decoded time": (
        [(np.nextafter(100.0, 0), 0)],
        [(np.nextafter(100.0, 0), 0)],
        {"accepted": 1, "delayed": 1},
    ),
    "as far ahead as allowed": ([(160.0, 0)], [(160.0, 0)], {"accepted": 1}),
    "further ahead": ([(np.nextafter(160.0, INF), 0)], [], {"future": 1}),
    "the same twice": ([(100.5, 1), (100.5, 1)], [(100.5, 1)], {"accepted": 1, "duplicate": 1}),
    "the same apart": (
        [(100.5, 1), (100.6, 1), (100.5, 1)],
        [(100.5, 1), (100.6, 1)],
        {"accepted": 2, "duplicate": 1},
    ),
    "two units at once": ([(100.5, 1), (100.5, 2)], [(100.5, 1), (100.5, 2)], {"accepted": 2}),
    "a row below 0": ([(100.5, -1)], [], {"unknown_unit": 1}),
    "a row too high": ([(100.5, 4)], [], {"unknown_unit": 1}),
    "the highest row": ([(100.5, 3)], [(100.5, 3)], {"accepted": 1}),
    "an absurd row": ([(100.5, 2**31 - 1), (100.6, -(2**31))], [], {"unknown_unit": 2}),
    "NaN": ([(NAN, 0)], [], {"not_finite": 1}),
    "both infinities": ([(-INF, 0), (INF, 1)], [], {"not_finite": 2}),
    "NaN of an unknown unit counts once": ([(NAN, 9)], [], {"not_finite": 1}),
    "late of an unknown unit counts once": ([(1.0, 9)], [], {"unknown_unit": 1}),
    "NaN between good ones": (
        [(100.1, 0), (NAN, 1), (100.2, 2)],
        [(100.1, 0), (100.2, 2)],
        {"accepted": 2, "not_finite": 1},
    ),
    "one of each": (
        [(100.3, 0), (INF, 0), (98.0, 0), (99.5, 1), (300.0, 2), (100.3, 0), (100.2, 7)],
        [(99.5, 1), (100.3, 0)],
        {
            "accepted": 2,
            "delayed": 1,
            "not_finite": 1,
            "late": 1,
            "future": 1,
            "duplicate": 1,
            "unknown_unit": 1,
        },
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_keeps_and_counts_what_it_says(rule: str) -> None:
    spikes, kept, expected = RULES[rule]
    intake = an_intake()
    add(intake, spikes)
    assert held(intake) == kept
    assert counts(intake) == expected | ({"received": len(spikes)} if spikes else {})


def test_infinity_is_no_time_however_far_ahead_spikes_may_be() -> None:
    intake = an_intake(future_limit=INF)
    add(intake, [(101.0, 0)])
    add(intake, [(INF, 1)])
    assert counts(intake) == {"received": 2, "accepted": 1, "not_finite": 1}


def test_before_the_first_decode_nothing_is_late_or_future() -> None:
    intake = an_intake(decoded_until=None)
    add(intake, [(-1e6, 0), (0.0, 1), (1e6, 2)])
    assert counts(intake) == {"received": 3, "accepted": 3}


def test_a_spike_sent_again_later_is_a_duplicate() -> None:
    intake = an_intake()
    add(intake, [(100.1, 0), (100.2, 1), (100.3, 2)])
    add(intake, [(100.2, 1), (100.4, 1)])
    add(intake, [(100.4, 1)])
    assert counts(intake) == {"received": 6, "accepted": 4, "duplicate": 2}


def test_a_spike_sent_again_after_an_older_one_is_a_duplicate() -> None:
    intake = an_intake()
    for spike in ((100.5, 0), (100.2, 0), (100.5, 0)):
        add(intake, [spike])
    assert counts(intake) == {"received": 3, "accepted": 2, "duplicate": 1}


def test_spikes_pushed_out_of_a_full_ring_are_counted() -> None:
    intake = an_intake(capacity=4)
    add(intake, [(101.0 + i, 0) for i in range(3)])
    add(intake, [(110.0 + i, 0) for i in range(3)])
    assert counts(intake) == {"received": 6, "accepted": 6, "overflow": 2}
    assert held(intake) == [(103.0, 0), (110.0, 0), (111.0, 0), (112.0, 0)]


def test_what_was_heard_is_remembered_until_a_reset() -> None:
    intake = an_intake()
    add(intake, [(101.0, 0), (100.5, 0)])
    assert (intake.covered_since, intake.newest) == (100.5, 101.0)
    intake.reset(200.0)
    assert (intake.covered_since, intake.newest) == (200.0, None)
    assert held(intake) == []
    assert counts(intake) == {"received": 2, "accepted": 2}


spikes_near_now = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([NAN, INF, -INF]),
            st.integers(-40, 40).map(lambda tick: NOW + tick / 16),
            st.integers(-9, 9).map(lambda tick: NOW + FUTURE_LIMIT + tick / 16),
        ),
        st.integers(-1, N_UNITS),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=300)
@given(spikes_near_now)
def test_every_spike_is_accepted_or_counted_under_one_reason(spikes: Spikes) -> None:
    intake = an_intake()
    add(intake, spikes)
    counters = intake.counters.to_json()
    assert counters["received"] == len(spikes)
    assert counters["accepted"] == len(held(intake))
    assert counters["received"] == counters["accepted"] + sum(counters[name] for name in DROPPED)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(spikes_near_now, st.integers(1, 7))
def test_the_size_of_chunks_changes_no_count(spikes: Spikes, size: int) -> None:
    whole, pieces = an_intake(), an_intake()
    add(whole, spikes)
    for start in range(0, len(spikes), size):
        add(pieces, spikes[start : start + size])
    assert pieces.counters == whole.counters
    assert sorted(held(pieces)) == sorted(held(whole))


def test_counters_are_json_integers() -> None:
    intake = an_intake()
    add(intake, RULES["one of each"][0])
    values = intake.counters.to_json()
    assert set(values) == {field.name for field in dataclasses.fields(Counters)}
    assert {type(value) for value in values.values()} == {int}


@pytest.mark.parametrize(
    ("times", "dtype", "message"),
    [
        (np.zeros((2, 2)), np.float64, "times: expected shape (N,), got (2, 2)"),
        (np.float64(1), np.float64, "times: expected shape (N,), got ()"),
        (
            np.zeros(2, np.float32),
            np.float64,
            "times: expected float64 seconds, got float32; float32 seconds have "
            "lost what the model needs, so keep them float64 from their source on",
        ),
        (
            [1, 2],
            np.float64,
            "times: expected float64 seconds, got int64; "
            "open the decoder with tick_rate_hz to push integer ticks",
        ),
        (
            ["a"],
            np.float64,
            "times: expected float64 seconds, got <U1; float32 seconds have "
            "lost what the model needs, so keep them float64 from their source on",
        ),
        (
            np.array([2**63], np.uint64),
            np.int64,
            "times: expected integer ticks (the decoder was opened with tick_rate_hz), got uint64",
        ),
        (
            [1.0, 2.0],
            np.int64,
            "times: expected integer ticks (the decoder was opened with tick_rate_hz), got float64",
        ),
        (np.zeros((1, 0)), np.int64, "times: expected shape (N,), got (1, 0)"),
    ],
)
def test_times_of_the_wrong_kind_are_refused(times: Any, dtype: Any, message: str) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        as_times(times, dtype)


def test_the_largest_tick_of_64_bits_is_taken() -> None:
    largest = 2**63 - 1
    assert as_times(np.array([largest], np.uint64), np.int64).tolist() == [largest]


@pytest.mark.parametrize("dtype", ["i2", "u4", "u8", ">i4", "i8"])
def test_ticks_of_any_integer_width_are_taken(dtype: str) -> None:
    times = as_times(np.array([1, 2], dtype), np.int64)
    assert times.dtype == np.int64
    assert times.tolist() == [1, 2]


def test_an_empty_chunk_has_no_wrong_kind() -> None:
    assert as_times([], np.int64).dtype == np.int64
    assert as_times(np.empty(0, np.int32), np.float64).dtype == np.float64


def test_unknown_ids_have_row_minus_one() -> None:
    table = UnitTable(["b", "c", "a"])
    assert len(table) == 3
    assert table.rows(["a", "b", "c", "d", "", "B"]).tolist() == [2, 0, 1, -1, -1, -1]
    assert table.rows([]).tolist() == []


@pytest.mark.parametrize(
    "units",
    [
        ["a", "zz", "b"],
        np.array(["a", "zz", "b"]),
        np.array(["a", "zz", "b"], object),
        np.array([b"a", b"zz", b"b"]),
        np.array([b"a", b"\xff\xfe", b"b"]),
        [2, 3, 0],
        np.array([2, -1, 0], np.int64),
        np.array([2, 2**40, 0], np.int64),
        np.array([2, 2**32, 0], np.uint64),
        np.array([2, 200, 0], np.uint8),
    ],
    ids=repr,
)
def test_rows_and_ids_of_any_kind_become_rows(units: Any) -> None:
    rows = UnitTable(["b", "c", "a"]).as_rows(units)
    assert rows.dtype == np.int32
    known = (rows >= 0) & (rows < 3)
    assert np.where(known, rows, -1).tolist() == [2, -1, 0]


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([[1, 2]], "units: expected shape (N,), got (1, 2)"),
        (3, "units: expected shape (N,), got ()"),
        ([1.0, 2.0], "units: expected integer rows or string ids, got float64"),
        ([True], "units: expected integer rows or string ids, got bool"),
    ],
)
def test_units_of_the_wrong_kind_are_refused(units: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message) + "$"):
        UnitTable(["a"]).as_rows(units)
