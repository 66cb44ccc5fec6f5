"""Records: frozen dataclasses that are written to JSON and read back strictly.

One validator holds the values of fields to their type hints. Ranges, and what fields have to do
with each other, are for the class that they are in.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from poyo_edge.errors import UsageError

T = TypeVar("T")
AnyFloat = Annotated[float, "may be NaN or infinite"]
"""A field of this type takes every float; one of type ``float`` takes finite numbers only."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_LETTERS = 1 << 26


class FieldError(UsageError):
    """A value is of another kind than the hint of its field: "NAME: expected KIND, got VALUE"."""

    def __init__(self, place: str, hint: Any, value: object) -> None:
        self.place = place
        """Names of the field and of what it is in, like "files: core.onnx: size"."""
        self.hint = hint
        self.value = value
        self.expected = kind_name(hint)
        self.got = f"{value!r:.80}"
        super().__init__(f"{place}: expected {self.expected}, got {self.got}")


class JsonRecord:
    """Mixin for frozen dataclasses that are written to JSON and read back strictly."""

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict of JSON values (tuples become lists, records dicts)."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {name: _as_json(value) for name, value in fields.items()}

    @classmethod
    def from_json(cls: type[T], values: Mapping[str, Any]) -> T:
        """Build from a mapping. See ``record_from``."""
        return record_from(cls, values)


def record_from(cls: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from JSON values: lists become tuples and objects records where hints say so.

    Raises:
        UsageError: an unknown key, a missing key, or a value that the class refuses.
        FieldError: a value of another kind than its hint.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{cls.__name__}: expected a mapping, got {type(values).__name__}")
    known: Any = cls
    fields = dataclasses.fields(known)
    names = {f.name for f in fields}
    required = {
        f.name
        for f in fields
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    unknown = sorted(set(values) - names)
    missing = sorted(required - set(values))
    if unknown or missing:
        raise UsageError(
            f"{cls.__name__}: unknown keys {unknown}, missing keys {missing}; "
            f"expected keys {sorted(names)}"
        )
    hints = field_hints(known)
    return cls(**{name: checked(hints[name], value, name) for name, value in values.items()})


def require_fields(record: object) -> None:
    """Hold the fields of a dataclass to their hints, for ``__post_init__``.

    Raises:
        FieldError: a value of another kind; a list is no tuple here.
    """
    kind: Any = type(record)
    for name, hint in field_hints(kind).items():
        checked(hint, getattr(record, name), name, json=False)


@functools.cache
def field_hints(cls: type) -> dict[str, Any]:
    """Name → type hint of each field of a dataclass."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def checked(hint: Any, value: Any, place: str, *, json: bool = True) -> Any:
    """A value of the kind that a hint names.

    Text holds no NUL and no half surrogates, a bool is no integer, and an integer is a float too.

    Args:
        hint: ``Any``, ``str``, ``bool``, ``int``, ``float``, ``AnyFloat``, ``Literal``, a
            dataclass, ``tuple``, ``list``, ``dict`` or ``Mapping`` of such; or one of them or None.
        value: the value.
        place: its name, for the error.
        json: whether lists may stand for tuples, and mappings for dataclasses; they are converted.

    Raises:
        FieldError: the value is of another kind.
        UsageError: a dataclass in it refuses it.
        TypeError: no such hint (a bug).
    """
    if hint in _IS:  # first: there may be a million items
        if not _IS[hint](value):
            raise FieldError(place, hint, value)
        return value
    kind, may_be_none = optional(hint)
    if may_be_none:
        return None if value is None else checked(kind, value, place, json=json)
    if dataclasses.is_dataclass(hint):
        return _record(hint, value, place, json)
    origin = get_origin(hint)
    if origin in (tuple, list):
        return _sequence(hint, value, place, json)
    if origin in (dict, Mapping):
        return _mapping(hint, value, place, json)
    if origin is not Literal:
        raise TypeError(f"{place}: expected a hint that is known here, got {hint}")
    if not _is_one_of(get_args(hint), value):
        raise FieldError(place, hint, value)
    return value


def optional(hint: Any) -> tuple[Any, bool]:
    """A hint without None, and whether None was in it."""
    if get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    kinds = [kind for kind in get_args(hint) if kind is not types.NoneType]
    if len(kinds) != 1:
        raise TypeError(f"expected a hint of one kind, or of one and None, got {hint}")
    return kinds[0], True


def kind_name(hint: Any) -> str:
    """A hint as it is written in the source, like "tuple[str, ...]"."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint in _NAMES:
        return _NAMES[hint]
    if origin is Literal:
        return f"one of {list(inner)}"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(kind_name(kind) for kind in inner)
    name = str(getattr(origin or hint, "__name__", hint))
    return f"{name}[{', '.join(map(kind_name, inner))}]" if inner else name


def in_words(hint: Any) -> str:
    """What a hint asks for, for readers who do not know Python."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple and Ellipsis not in inner:
        return f"{len(inner)} values"
    return _WORDS.get(hint) or _WORDS.get(origin) or kind_name(hint)


def is_text(value: object) -> bool:
    """Whether a value is text that any file and terminal can hold: no NUL, no half surrogates."""
    return isinstance(value, str) and "\0" not in value and not _SURROGATE.search(value)


def is_number(value: object) -> bool:
    """Whether a value is a finite number that a float can hold; True and False are none."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def too_long(names: Sequence[str]) -> str:
    """What is wrong with names that would fill the memory, "" when nothing is: numpy keeps them
    in a table in which each takes as much room as the longest."""
    longest = max(map(len, names), default=0)
    much = len(names) * longest > _MOST_LETTERS
    return f"{len(names)} names of up to {longest} letters" if much else ""


def _as_json(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return value


def _record(cls: Any, value: Any, place: str, json: bool) -> Any:
    if isinstance(value, cls):
        return value
    if not json:
        raise FieldError(place, cls, value)
    try:
        return record_from(cls, value)
    except FieldError as problem:
        inner = f"{place}: {problem.place}"
        raise FieldError(inner, problem.hint, problem.value) from None


def _sequence(hint: Any, value: Any, place: str, json: bool) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if not isinstance(value, (list, tuple) if json and origin is tuple else origin):
        raise FieldError(place, hint, value)
    any_length = origin is list or Ellipsis in inner
    kinds = inner[:1] * len(value) if any_length else inner
    if len(kinds) != len(value):
        raise FieldError(place, hint, value)
    items = zip(kinds, value, strict=True)
    return origin(checked(kind, item, place, json=json) for kind, item in items)


def _mapping(hint: Any, value: Any, place: str, json: bool) -> dict[Any, Any]:
    of_keys, of_values = get_args(hint)
    if not isinstance(value, get_origin(hint)):
        raise FieldError(place, hint, value)
    return {
        checked(of_keys, key, place, json=json): checked(
            of_values, item, f"{place}: {key}", json=json
        )
        for key, item in value.items()
    }


def _is_one_of(allowed: tuple[Any, ...], value: object) -> bool:
    return any(type(value) is type(one) and value == one for one in allowed)


_IS: dict[Any, Callable[[Any], bool]] = {
    Any: lambda value: True,
    str: is_text,
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool),
    float: is_number,
    AnyFloat: lambda value: isinstance(value, float) or is_number(value),
}
_NAMES = {float: "finite float", AnyFloat: "float", types.NoneType: "None", Ellipsis: "..."}
_WORDS: dict[Any, str] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    AnyFloat: "a number",
    tuple: "a list",
    list: "a list",
    dict: "a table",
    Mapping: "a table",
}
