"""MATLAB 5 files, which ``save`` writes unless told otherwise.

After the documented format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
Classes of MATLAB's own objects, sparse matrices and functions are named and not read.
"""

from __future__ import annotations

import functools
import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from poyo_edge.converting.readers.matlab_values import COMPLEX, COMPLEX_NUMBERS, Shape, Value

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8",
          13: "u8", 16: "u1", 17: "u2", 18: "u4"}  # fmt: skip
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = range(6, 16)
_COMPLEX = 0x0800
"""The flag of an array that has an imaginary part."""
_OTHERS = {3: "object", 5: "sparse matrix", 16: "function", 17: "object"}
_MOST_TIMES_LARGER = 1032
"""Than its compressed bytes; https://zlib.net/zlib_tech.html."""


def variables(data: bytes) -> dict[str, Value]:
    """Name → variable of a whole file.

    Raises:
        ValueError: it is damaged, or not in this format.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("no mark of the order of bytes")
    found = {}
    try:
        for kind, body in _elements(data[128:], order):
            if kind == _COMPRESSED:
                kind, body = next(_elements(_unpacked(body), order))
            if kind == _MATRIX and (one := _matrix(body, order)) and one[0]:
                found[one[0]] = one[1]
    except (struct.error, zlib.error, StopIteration, IndexError, KeyError) as error:
        raise ValueError(f"damaged after {len(found)} variables ({error!r:.80})") from error
    return found


def _unpacked(body: bytes) -> bytes:
    return zlib.decompressobj().decompress(body, _MOST_TIMES_LARGER * len(body) + 1024)


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each element, as long as there are any."""
    at = 0
    while at + 8 <= len(data):
        kind, n = struct.unpack_from(order + "II", data, at)
        if kind >> 16:  # up to four bytes lie in the tag itself
            yield kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]
            at += 8
            continue
        if at + 8 + n > len(data):
            raise ValueError(f"an element of {n} bytes where {len(data) - at - 8} are left")
        yield kind, data[at + 8 : at + 8 + n]
        at += 8 + n + (-n % 8 if kind != _COMPRESSED else 0)


def _matrix(body: bytes, order: str) -> tuple[str, Value]:
    if not body:
        return "", Value("number", (0, 0), lambda: np.empty((0, 0)))
    parts = _elements(body, order)
    flags = struct.unpack_from(order + "I", next(parts)[1])[0]
    shape: Shape = tuple(int(n) for n in np.frombuffer(next(parts)[1], order + "i4"))
    if any(n < 0 for n in shape):
        raise ValueError(f"a variable of shape {shape}")
    name = next(parts)[1].rstrip(b"\0").decode("ascii", "replace")
    kind = flags & 0xFF
    if kind in _NUMBERS and flags & _COMPLEX:
        return name, Value(COMPLEX, shape, lambda: None, COMPLEX_NUMBERS)
    if kind in _NUMBERS:
        element = next(parts, (1, b""))
        return name, Value("number", shape, functools.partial(_numbers, element, shape, order))
    if kind == _CHAR:
        codes = _array(next(parts, (4, b"")), order)
        return name, Value("text", shape, lambda: "".join(map(chr, codes.tolist())))
    if kind == _CELL:
        items = [_matrix(one, order)[1] for _, one in parts]
        _check(len(items), math.prod(shape))
        return name, Value("cell", shape, lambda: items)
    if kind == _STRUCT:
        return name, _struct(parts, shape, order)
    what = _OTHERS.get(kind, "variable of an unknown class")
    return name, Value("other", shape, lambda: None, what)


def _struct(parts: Iterator[tuple[int, bytes]], shape: Shape, order: str) -> Value:
    length = struct.unpack_from(order + "i", next(parts)[1])[0]
    text = next(parts)[1]
    names = [
        text[at : at + length].split(b"\0")[0].decode("ascii", "replace")
        for at in range(0, len(text), max(length, 1))
    ]
    items = [_matrix(one, order)[1] for _, one in parts]
    _check(len(items), math.prod(shape) * len(names))
    if math.prod(shape) != 1:
        size = "x".join(map(str, shape))
        return Value("other", shape, lambda: None, f"{size} structs of {', '.join(names)}")
    return Value("struct", shape, lambda: dict(zip(names, items, strict=True)))


def _numbers(element: tuple[int, bytes], shape: Shape, order: str) -> npt.NDArray[np.generic]:
    values = _array(element, order)
    _check(len(values), math.prod(shape))
    return values.reshape(shape, order="F")


def _array(element: tuple[int, bytes], order: str) -> npt.NDArray[np.generic]:
    kind, body = element
    values: npt.NDArray[np.generic] = np.frombuffer(body, order + _TYPES[kind])
    return values.astype(values.dtype.newbyteorder("="))


def _check(n: int, expected: int) -> None:
    if n != expected:
        raise ValueError(f"{n} values where {expected} belong")
