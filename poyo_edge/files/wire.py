"""Protobuf's wire format: enough of it to read an ONNX file field by field, and to write fields.

Source: https://protobuf.dev/programming-guides/encoding. A message is a run of fields, each a tag
(number and wire type) and a value; values of fields inside a message are messages, text, arrays or
numbers, which only the schema tells apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10
_MOST = 0xFFFF_FFFF_FFFF_FFFF


class WireError(ValueError):
    """Bytes that are no message; ``str`` says what is wrong with them."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    value: int | memoryview
    """An integer of a varint; otherwise the bytes of the value, without their length."""
    whole: memoryview
    """Tag, length and value, as they stand in the message."""


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of a message in their order; nothing is copied.

    Raises:
        WireError: a number without an end, a field that reaches beyond the message, or a wire type
            that nobody writes any more.
    """
    at = 0
    while at < len(data):
        begin = at
        tag, at = read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = read_varint(data, at)
            yield Field(number, value, data[begin:at])
            continue
        if wire == BYTES:
            length, at = read_varint(data, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise WireError(f"the wire type {wire}")
        if number == 0 or length > len(data) - at:
            raise WireError("a field that reaches beyond its end")
        yield Field(number, data[at : at + length], data[begin : at + length])
        at += length


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at a place, below 2**64, and the place behind it.

    Raises:
        WireError: it has no end.
    """
    value = 0
    for i in range(min(LONGEST_VARINT, len(data) - at)):
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value & _MOST, at + i + 1
    raise WireError("a number without an end")


def varint(value: int) -> bytes:
    """A number from 0 to 2**64 - 1."""
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number: int, value: int) -> bytes:
    """A field that holds a number from 0 to 2**64 - 1."""
    return varint(number << 3 | VARINT) + varint(value)


def block(number: int, value: bytes | str | Iterable[bytes]) -> bytes:
    """A field that holds bytes, text in UTF-8, or a message of fields."""
    if isinstance(value, str):
        value = value.encode()
    data = value if isinstance(value, bytes) else b"".join(value)
    return varint(number << 3 | BYTES) + varint(len(data)) + data
