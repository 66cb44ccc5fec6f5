"""Records: what each kind of field takes and refuses, and that what is taken survives JSON."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poyo_edge.artifact.artifact import Manifest
from poyo_edge.artifact.session import SessionHeader
from poyo_edge.calibration.fit.judging import Point
from poyo_edge.errors import UsageError
from poyo_edge.export.engines.plan import BuildPlan
from poyo_edge.journal import JournalHeader
from poyo_edge.records import (
    AnyFloat,
    FieldError,
    JsonRecord,
    checked,
    field_hints,
    in_words,
    is_number,
    is_text,
    kind_name,
    require_fields,
    too_long,
)
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.ov.precision import CpuPrecision
from poyo_edge.runtime.backends.trt.engines import EngineRecord

HUGE = 10**400
"""An integer that no float can hold."""
LARGEST = int(sys.float_info.max)
NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Electrode(JsonRecord):
    """A record in a record."""

    name: str
    depth_um: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Array(JsonRecord):
    """One field of each kind."""

    session_id: str
    n_channels: int
    rate_hz: float
    worn: bool
    unit_ids: tuple[str, ...]
    grid: tuple[int, int]
    remarks: list[str]
    gains: dict[str, float]
    electrodes: Mapping[str, Electrode]
    side: Literal["left", "right"]
    first: Electrode
    rows: tuple[tuple[int, ...], ...] = ()
    all_electrodes: tuple[Electrode, ...] = ()
    r2: AnyFloat = 0.0
    impedance_kohm: float | None = None
    about: Any = None


VALUES: dict[str, Any] = {
    "session_id": "monkey_a",
    "n_channels": 96,
    "rate_hz": 30000,
    "worn": False,
    "unit_ids": ["a", "ü"],
    "grid": [10, 10],
    "remarks": ["quiet"],
    "gains": {"left": 0.5, "right": 2},
    "electrodes": {"a": {"name": "a", "depth_um": 1.5}, "b": {"name": "b"}},
    "side": "left",
    "first": {"name": "a"},
    "rows": [[1, 2], []],
    "all_electrodes": [{"name": "a"}],
    "r2": 0.5,
    "impedance_kohm": None,
    "about": {"anything": [1, None]},
}


def test_lists_become_tuples_and_objects_records_where_the_hints_say_so() -> None:
    record = Array.from_json(VALUES)
    assert (record.unit_ids, record.grid, record.rows) == (("a", "ü"), (10, 10), ((1, 2), ()))
    assert record.remarks == ["quiet"]
    assert record.electrodes["a"] == Electrode(name="a", depth_um=1.5)
    assert record.all_electrodes == (record.first,) == (Electrode(name="a"),)
    assert record.about == {"anything": [1, None]}


def test_numbers_stay_as_they_were_written() -> None:
    record = Array.from_json(VALUES)
    assert (type(record.rate_hz), type(record.gains["right"])) == (int, int)


def test_a_record_goes_through_json_and_through_its_own_values() -> None:
    record = Array.from_json(VALUES)
    for values in (record.to_json(), json.loads(json.dumps(record.to_json()))):
        assert Array.from_json(values) == record
    assert record.to_json()["rows"] == [[1, 2], []]
    assert record.to_json()["all_electrodes"] == [{"name": "a", "depth_um": 0.0}]


TEXTS = ["", "a", "ü\n", "𝄞"]
NO_TEXTS: list[Any] = [None, 5, True, ["a"], {}, b"a", "\0", "a\0b", "\ud800", "a\udfff"]
NO_NUMBERS: list[Any] = [None, True, "1", [1.0], {}, 1j, HUGE, -HUGE]
KINDS: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "text": (str, TEXTS, NO_TEXTS),
    "bool": (bool, [True, False], [0, 1, None, "true", [True]]),
    "int": (int, [0, -5, HUGE], [True, 1.0, None, "1", [1]]),
    "float": (float, [0, -5, LARGEST, 1.5, 5e-324], [*NO_NUMBERS, *NOT_FINITE, LARGEST * 10]),
    "any float": (AnyFloat, [0, 1.5, LARGEST, *NOT_FINITE], NO_NUMBERS),
    "anything": (Any, [None, 5, "\0", {"a": [1]}], []),
    "one of": (Literal["left", 1], ["left", 1], ["right", True, 1.0, None, ["left"]]),
    "tuple": (tuple[str, ...], [[], ["a"], ("a", "b")], ["a", {"a": 1}, None, [5], ["\0"], 5]),
    "pair": (tuple[int, float], [[1, 2.5], (1, 2)], [[], [1], [1, 2, 3], [1.5, 2], "12", None]),
    "list": (list[int], [[], [1, 2]], [(1, 2), [1.5], [True], None, {}, 1]),
    "nested": (tuple[tuple[int, ...], ...], [[], [[1], []]], [[1], [[1.5]], [["a"]]]),
    "dict": (dict[str, float], [{}, {"a": 1}], [[], [["a", 1]], {"a": "x"}, {5: 1.0}, {"\0": 1.0}]),
    "mapping": (Mapping[str, str], [{}, {"a": "b"}], [[], "a", {"a": 5}, {"a": "\0"}, None]),
    "record": (Electrode, [{"name": "a"}, Electrode(name="a")], [{"name": 5}]),
    "optional": (float | None, [None, 1.5], ["none", "", True, []]),
    "optional, older": (Optional[str], [None, "a"], [5, "\0"]),  # noqa: UP045
    "optional tuple": (tuple[int, int] | None, [None, [1, 2]], [[1], [], "ab", [1, "a"]]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_hint_takes_what_it_names_and_refuses_the_rest(kind: str) -> None:
    hint, right, wrong = KINDS[kind]
    for value in right:
        checked(hint, value, "x")
    for value in wrong:
        with pytest.raises(FieldError, match=r"^x(: \w+)?: expected "):
            checked(hint, value, "x")


MESSAGES: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"session_id": 5}, "session_id: expected str, got 5"),
    "int": ({"n_channels": True}, "n_channels: expected int, got True"),
    "float": ({"rate_hz": float("nan")}, "rate_hz: expected finite float, got nan"),
    "any float": ({"r2": "x"}, "r2: expected float, got 'x'"),
    "bool": ({"worn": 1}, "worn: expected bool, got 1"),
    "an item": ({"unit_ids": ["a", 5]}, "unit_ids: expected str, got 5"),
    "no list": ({"unit_ids": "ab"}, "unit_ids: expected tuple[str, ...], got 'ab'"),
    "another length": ({"grid": [1]}, "grid: expected tuple[int, int], got [1]"),
    "a value": ({"gains": {"left": "x"}}, "gains: left: expected finite float, got 'x'"),
    "a key": ({"gains": {5: 1.0}}, "gains: expected str, got 5"),
    "no object": ({"gains": []}, "gains: expected dict[str, finite float], got []"),
    "one of": ({"side": "up"}, "side: expected one of ['left', 'right'], got 'up'"),
    "optional": ({"impedance_kohm": "x"}, "impedance_kohm: expected finite float, got 'x'"),
    "a record's field": ({"first": {"name": 5}}, "first: name: expected str, got 5"),
    "in a mapping": (
        {"electrodes": {"core.onnx": {"name": 5}}},
        "electrodes: core.onnx: name: expected str, got 5",
    ),
    "in a tuple": (
        {"all_electrodes": [{"name": None}]},
        "all_electrodes: name: expected str, got None",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_refusal_names_the_place_the_kind_and_the_value(name: str) -> None:
    change, message = MESSAGES[name]
    with pytest.raises(FieldError, match=f"^{re.escape(message)}$") as refused:
        Array.from_json({**VALUES, **change})
    problem = refused.value
    assert message == f"{problem.place}: expected {problem.expected}, got {problem.got}"


def test_a_long_value_is_cut() -> None:
    with pytest.raises(FieldError) as refused:
        checked(int, "a" * 10_000, "x")
    assert str(refused.value) == f"x: expected int, got '{'a' * 79}"


@pytest.mark.parametrize("values", [None, 5, "text", [], [["name", "a"]]])
def test_what_is_no_mapping_is_no_record(values: Any) -> None:
    message = f"^Electrode: expected a mapping, got {type(values).__name__}$"
    with pytest.raises(UsageError, match=message):
        Electrode.from_json(values)
    with pytest.raises(UsageError, match=message):
        Array.from_json({**VALUES, "first": values})


def test_unknown_and_missing_keys_are_named() -> None:
    for values in ({"first": {"depth": 1}}, {"all_electrodes": [{"depth": 1}]}):
        with pytest.raises(UsageError) as refused:
            Array.from_json({**VALUES, **values})
        assert str(refused.value) == (
            "Electrode: unknown keys ['depth'], missing keys ['name']; "
            "expected keys ['depth_um', 'name']"
        )
    assert Electrode.from_json({"name": "a"}).depth_um == 0.0


def test_a_record_that_is_made_by_hand_needs_the_types_themselves() -> None:
    record = Array.from_json(VALUES)
    require_fields(record)
    for change in (
        {"unit_ids": ["a"]},
        {"remarks": ("a",)},
        {"rows": ([1],)},
        {"first": {"name": "a"}},
        {"electrodes": {"a": {"name": "a"}}},
        {"rate_hz": "x"},
    ):
        with pytest.raises(FieldError, match=rf"^{next(iter(change))}(: \w+)?: expected "):
            require_fields(dataclasses.replace(record, **change))


def test_hints_are_resolved_once_for_each_class() -> None:
    assert field_hints(Array) is field_hints(Array)
    assert list(field_hints(Electrode).items()) == [("name", str), ("depth_um", float)]


@pytest.mark.parametrize("hint", [int | str, int | str | None, set[int], complex, tuple])
def test_a_hint_that_nothing_is_known_of_is_a_bug(hint: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a hint (of one kind, or|that is known here)"):
        checked(hint, 5, "x")


@pytest.mark.parametrize(
    ("hint", "name", "words"),
    [
        (str, "str", "a string"),
        (int, "int", "an integer"),
        (float, "finite float", "a number"),
        (AnyFloat, "float", "a number"),
        (bool, "bool", "true or false"),
        (tuple[AnyFloat, ...], "tuple[float, ...]", "a list"),
        (tuple[int, int, int], "tuple[int, int, int]", "3 values"),
        (list[float | None], "list[finite float | None]", "a list"),
        (Mapping[str, Electrode], "Mapping[str, Electrode]", "a table"),
        (Literal["a", "b"], "one of ['a', 'b']", "one of ['a', 'b']"),
        (Electrode, "Electrode", "Electrode"),
    ],
)
def test_kinds_have_names_and_words(hint: Any, name: str, words: str) -> None:
    assert (kind_name(hint), in_words(hint)) == (name, words)


@pytest.mark.parametrize(
    "record",
    [BuildPlan, CpuPrecision, EngineRecord, JournalHeader, Machine, Manifest, Point, SessionHeader],
)
def test_the_validator_knows_every_kind_that_our_files_hold(record: type) -> None:
    for name, hint in field_hints(record).items():
        with pytest.raises(UsageError, match=f"^({name}|[A-Z]\\w+): expected "):
            checked(hint, object(), name)


def test_text_can_be_held_by_any_file_and_terminal() -> None:
    assert all(map(is_text, TEXTS))
    assert not any(map(is_text, NO_TEXTS))


def test_names_that_would_fill_the_memory_are_too_long() -> None:
    assert too_long([]) == too_long(["a"] * 1000) == ""
    assert too_long(["a", "b" * (1 << 26)]) == "2 names of up to 67108864 letters"


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["left", "a", "\0", "\ud800", HUGE]),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["name", "depth_um", "a", "\0"]), inner, max_size=3),
    ),
    max_leaves=6,
)


def same(one: object, other: object) -> bool:
    """Equal, with NaN equal to NaN, and 1 other than True or 1.0."""
    return repr(one) == repr(other)


@given(field=st.sampled_from([*VALUES]), value=JSON)
def test_whatever_a_field_takes_survives_json(field: str, value: Any) -> None:
    try:
        record = Array.from_json({**VALUES, field: value})
    except UsageError as problem:
        assert str(problem).startswith((f"{field}: ", "Electrode: "))
        return
    assert same(Array.from_json(record.to_json()), record)
    assert same(Array.from_json(json.loads(json.dumps(record.to_json()))), record)
    require_fields(record)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
FINITE = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-LARGEST, LARGEST))
ELECTRODES = st.builds(Electrode, name=TEXT, depth_um=FINITE)


@given(
    record=st.builds(
        Array,
        session_id=TEXT,
        n_channels=st.integers(),
        rate_hz=FINITE,
        worn=st.booleans(),
        unit_ids=st.lists(TEXT, max_size=3).map(tuple),
        grid=st.tuples(st.integers(), st.integers()),
        remarks=st.lists(TEXT, max_size=3),
        gains=st.dictionaries(TEXT, FINITE, max_size=3),
        electrodes=st.dictionaries(TEXT, ELECTRODES, max_size=3),
        side=st.sampled_from(["left", "right"]),
        first=ELECTRODES,
        rows=st.lists(st.lists(st.integers(), max_size=2).map(tuple), max_size=2).map(tuple),
        all_electrodes=st.lists(ELECTRODES, max_size=2).map(tuple),
        r2=st.floats(),
        impedance_kohm=st.none() | FINITE,
        about=st.none() | TEXT | st.lists(st.integers(), max_size=2),
    )
)
def test_whatever_a_record_may_hold_survives_json(record: Array) -> None:
    require_fields(record)
    assert same(Array.from_json(record.to_json()), record)
    assert same(Array.from_json(json.loads(json.dumps(record.to_json()))), record)


@given(value=st.one_of(st.integers(), st.floats(), st.sampled_from([HUGE, LARGEST, LARGEST * 2])))
def test_a_number_is_what_a_float_can_hold(value: float) -> None:
    try:
        held = abs(float(value)) < float("inf")
    except OverflowError:
        held = False
    assert is_number(value) == held
