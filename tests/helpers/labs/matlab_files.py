"""MATLAB files of version 5, as their format is documented, and of 7.3, from Python's values.

Arrays are numbers, lists are rows of cells, dicts are structs.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_HEAD = b"Platform: GLNXA64"


def mat5_file(path: Path, values: dict[str, Any], *, packed: bool = False) -> Path:
    """What ``save`` writes; ``packed`` as it does by default."""
    body = b"".join(_matrix(name, value) for name, value in values.items())
    if packed:
        parts = [zlib.compress(_matrix(name, value)) for name, value in values.items()]
        body = b"".join(struct.pack("<II", 15, len(part)) + part for part in parts)
    head = b"MATLAB 5.0 MAT-file, " + _HEAD
    path.write_bytes(head.ljust(116) + bytes(8) + b"\x00\x01IM" + body)
    return path


def mat73_file(path: Path, values: dict[str, Any]) -> Path:
    """What ``save -v7.3`` writes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        for name, value in values.items():
            _put(file, refs, name, value)
    with path.open("r+b") as raw:
        raw.write((b"MATLAB 7.3 MAT-file, " + _HEAD).ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


def _element(kind: int, body: bytes) -> bytes:
    if 0 < len(body) <= 4:  # in the tag itself
        return struct.pack("<HH", kind, len(body)) + body.ljust(4, b"\0")
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def _matrix(name: str, value: Any) -> bytes:
    if isinstance(value, dict):
        names = b"".join(key.encode().ljust(32, b"\0") for key in value)
        data = _element(5, struct.pack("<i", 32)) + _element(1, names)
        data += b"".join(_matrix("", one) for one in value.values())
        kind, shape = 2, (1, 1)
    elif isinstance(value, list):
        array = np.array([[None]]) if not value else _cells(value)
        data = b"".join(_matrix("", one) for one in array.ravel(order="F"))
        kind, shape = 1, array.shape
    elif isinstance(value, str):
        data, kind, shape = _element(17, value.encode("utf-16-le")), 4, (1, len(value))
    else:
        array = np.atleast_2d(value)
        number = {"float64": (9, 6), "float32": (7, 7), "int16": (3, 10)}[array.dtype.name]
        data, kind, shape = _element(number[0], array.tobytes(order="F")), number[1], array.shape
    body = _element(6, struct.pack("<II", kind, 0)) + _element(5, np.array(shape, "<i4").tobytes())
    body += _element(1, name.encode()) + data
    return struct.pack("<II", 14, len(body)) + body


def _cells(value: list[Any]) -> Any:
    """Rows of cells, or one row."""
    rows = value if isinstance(value[0], list) else [value]
    array = np.empty((len(rows), len(rows[0])), object)
    for i, row in enumerate(rows):
        for j, one in enumerate(row):
            array[i, j] = one
    return array


def _put(group: Any, refs: Any, name: str, value: Any) -> Any:
    if isinstance(value, dict):
        inner = group.create_group(name)
        for key, one in value.items():
            _put(inner, refs, key, one)
        return inner
    if isinstance(value, list):
        array = _cells(value).T
        item = group.create_dataset(name, array.shape, dtype=h5py.ref_dtype)
        for at in np.ndindex(array.shape):
            item[at] = _put(refs, refs, f"r{len(refs)}", array[at]).ref
        item.attrs["MATLAB_class"] = np.bytes_(b"cell")
    elif isinstance(value, str):
        item = group.create_dataset(name, data=np.array([[ord(c)] for c in value], np.uint16))
        item.attrs["MATLAB_class"] = np.bytes_(b"char")
    else:
        item = group.create_dataset(name, data=np.atleast_2d(value).T)
        item.attrs["MATLAB_class"] = np.bytes_(b"double")
    return item
