"""Messages about a task, one shape in every transport: understood, or refused in a sentence."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.runtime.feeds.task.redis_streams import cursor_of, trial_of
from poyo_edge.runtime.feeds.wire.parsing import Malformed, Parsed
from poyo_edge.runtime.feeds.wire.task import TaskMessage, read_message, trial_of_text


def read(**message: Any) -> TaskMessage:
    found = read_message(json.dumps(message).encode(), 30_000.0)
    assert isinstance(found, TaskMessage)
    return found


def test_a_trial_in_ticks_in_seconds_and_of_now() -> None:
    found = read(
        trial={"number": 7, "start": 480_000, "go_time_s": 16.5, "end": "now", "success": True,
               "target": [8, 0.0], "radius": 1.2},
        seq=3,
    )  # fmt: skip
    assert found.seq == 3
    assert found.trial is not None
    assert found.trial.number == 7
    assert found.trial.given == {
        "start": 480_000, "go_time": 495_000, "end": "now", "success": True, "target": (8.0, 0.0),
        "radius": 1.2,
    }  # fmt: skip


def test_null_says_that_something_is_not_known() -> None:
    found = read(trial={"number": 1, "start": 5, "end": None, "target": None, "success": None})
    assert found.trial is not None
    assert found.trial.given == {"start": 5, "end": None, "target": None, "success": None}


def test_the_cursor_with_times_and_of_now() -> None:
    found = read(cursor={"ticks": [10, 20], "pos": [[1, 2], [3, 4.5]]}).cursor
    assert found is not None
    assert found.ticks is not None
    assert (found.ticks.tolist(), found.positions.tolist()) == ([10, 20], [[1, 2], [3, 4.5]])
    seconds = read(cursor={"t": 2.0, "pos": [1, 2]}).cursor
    assert seconds is not None
    assert seconds.ticks is not None
    assert seconds.ticks.tolist() == [60_000]
    for values in ({"pos": [1, 2]}, {"t": "now", "pos": [[1, 2]]}, {"ticks": "now", "pos": [1, 2]}):
        now = read(cursor=values).cursor
        assert now is not None
        assert (now.ticks, now.positions.tolist()) == (None, [[1, 2]])


def test_packets_are_read_as_ever() -> None:
    found = read_message(b'{"t": [1.5], "units": ["a"]}', 1e9)
    assert isinstance(found, Parsed)
    assert found.ticks.tolist() == [1_500_000_000]


BAD = [
    ({"trial": 3}, "trial: expected an object like"),
    ({"trial": {"start": 5}}, "trial: expected its number"),
    ({"trial": {"number": True, "start": 5}}, "expected its number"),
    ({"trial": {"number": -1, "start": 5}}, "expected its number, a whole number that goes up"),
    ({"trial": {"number": 1, "stop": 5}}, "expected keys number, start, .* got 'stop'"),
    ({"trial": {"number": 1, "start": 1.5}}, "start as a whole number of ticks.*as start_s"),
    ({"trial": {"number": 1, "start": "then"}}, "or \"now\", got 'then'"),
    ({"trial": {"number": 1, "start_s": "now"}}, "expected start_s in seconds"),
    (
        {"trial": {"number": 1, "start": 1, "start_s": 1.0}},
        "start in ticks or in seconds, got both",
    ),
    ({"trial": {"number": 1, "target": [1, "x"]}}, "expected finite numbers as target"),
    ({"trial": {"number": 1, "target": []}}, "target as a list of 1 to 16 numbers"),
    ({"trial": {"number": 1, "radius": 0}}, "radius as a number > 0, got 0"),
    ({"trial": {"number": 1, "success": 1}}, "success as true or false, got 1"),
    ({"trial": {"number": 1}, "cursor": {}}, "in one message, got both"),
    ({"trial": {"number": 1}, "units": ["a"]}, "in one message, got 'units'"),
    ({"trial": {"number": 1}, "seq": "x"}, "seq: expected a whole number"),
    ({"cursor": []}, "cursor: expected an object like"),
    ({"cursor": {"t": 1.0, "pos": [[1, 2]], "vel": 1}}, "expected keys ticks, t, pos, got 'vel'"),
    ({"cursor": {"t": [1.0, 2.0], "pos": [[1, 2]]}}, r"pos of 2 row\(s\) .* got shape \(1, 2\)"),
    ({"cursor": {"t": 1.0}}, "cursor: expected"),
    ({"cursor": {"t": 1.0, "pos": [[1, None]]}}, "cursor: expected finite numbers as pos"),
    ({"cursor": {"ticks": [1.5], "pos": [[1, 2]]}}, "ticks: expected whole numbers"),
    ({"cursor": {"t": "then", "pos": [[1, 2]]}}, 'expected numbers or "now" as its times'),
    ({"cursor": {"t": "now", "ticks": [1], "pos": [[1, 2]]}}, 'numbers or "now" as its times'),
    ({"cursor": {"pos": [[1, 2], [3, 4]]}}, r"pos of 1 row\(s\)"),
    ({"cursor": {"pos": [[1] * 17]}}, "with 1 to 16 numbers"),
]


@pytest.mark.parametrize(("message", "said"), BAD)
def test_what_cannot_be_meant_is_one_sentence(message: dict[str, Any], said: str) -> None:
    with pytest.raises(Malformed, match=said) as caught:
        read_message(json.dumps(message).encode(), 1e9)
    assert "\n" not in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["now", "x"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["number", "start", "start_s", "go_time", "end", "target", "radius", "success", "t", "ticks",
     "pos", "x"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["trial", "cursor"]), st.dictionaries(KEYS, VALUES, max_size=5))
def test_no_object_makes_the_parser_fail(kind: str, values: dict[str, Any]) -> None:
    try:
        found = read_message(json.dumps({kind: values}).encode(), 30_000.0)
    except Malformed:
        return
    assert isinstance(found, TaskMessage)
    if found.cursor is not None:
        assert np.isfinite(found.cursor.positions).all()


def test_an_entry_of_redis_is_a_trial_or_a_position() -> None:
    assert trial_of({b"trial": b'{"number": 2, "start": 9}'}, 1e9).given == {"start": 9}
    raw = np.array([1.5, -3.0], "<f8").tobytes()
    timed = cursor_of({b"pos": raw, b"ts": struct.pack("<Q", 77)})
    assert timed.ticks is not None
    assert (timed.ticks.tolist(), timed.positions.tolist()) == ([77], [[1.5, -3.0]])
    assert cursor_of({b"pos": raw}).ticks is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({b"pos": b"12345"}, "float64 of 1 to 16 coordinates, got 5 bytes"),
        ({b"pos": b"\xff" * 8}, "expected finite numbers"),
        ({b"pos": bytes(8), b"ts": b"1"}, "ts: expected 8 bytes"),
        ({b"pos": bytes(8), b"ts": b"\xff" * 8}, "ticks: expected at most"),
        ({b"x": b""}, "expected an entry with pos, got x; name its stream"),
        ({}, "got no fields"),
    ],
)
def test_other_entries_of_a_cursor_are_refused(fields: dict[bytes, bytes], said: str) -> None:
    with pytest.raises(Malformed, match=said):
        cursor_of(fields)


@pytest.mark.parametrize("text", [b"", b"\xff", b"[1", "{}", None, 3, b"[" * 100_000])
def test_other_texts_of_a_trial_are_refused(text: Any) -> None:
    with pytest.raises(Malformed, match="trial: expected"):
        trial_of_text(text, 1e9)
    with pytest.raises(Malformed):
        trial_of({b"other": b"x"}, 1e9)
