"""MATLAB 7.3 files, which are HDF5."""

from __future__ import annotations

import functools
from typing import Any

import h5py
import numpy as np

from poyo_edge.converting.readers.matlab_values import COMPLEX, COMPLEX_NUMBERS, Shape, Value


def variables(group: Any) -> dict[str, Value]:
    """Name → variable of an open file, or field of a struct in it."""
    return {
        str(name): _value(group[name])
        for name in group
        if not name.startswith("#") and isinstance(group.get(name, getlink=True), h5py.HardLink)
    }


def _value(item: Any) -> Value:
    if isinstance(item, h5py.Group):
        return _struct(item)
    kind = _class(item)
    shape: Shape = tuple(int(n) for n in item.shape[::-1]) if item.shape else ()
    if "MATLAB_empty" in item.attrs:  # what is stored is the shape
        empty = "cell" if kind == "cell" else "number"
        return Value(empty, (0, 0), lambda: [] if empty == "cell" else np.empty((0, 0)))
    if h5py.check_ref_dtype(item.dtype) is not None:
        return Value("cell", shape, functools.partial(_cells, item))
    if kind == "char":
        return Value("text", shape, lambda: "".join(map(chr, item[()].ravel().tolist())))
    if item.dtype.kind in "biuf" and item.ndim:
        return Value("number", shape, lambda: np.asarray(item[()]).T)
    if {"real", "imag"} <= set(item.dtype.names or ()):
        return Value(COMPLEX, shape, lambda: None, COMPLEX_NUMBERS)
    return Value("other", shape, lambda: None, kind or str(item.dtype))


def _class(item: Any) -> str:
    found = item.attrs.get("MATLAB_class", b"")
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


def _cells(item: Any) -> list[Value]:
    """Column by column: HDF5 holds the columns as rows."""
    return [_value(item.file[ref]) if ref else _nothing() for ref in item[()].ravel()]


def _nothing() -> Value:
    return Value("number", (0, 0), lambda: np.empty((0, 0)))


def _struct(group: Any) -> Value:
    fields = [group[name] for name in group]
    many = [
        one for one in fields
        if isinstance(one, h5py.Dataset)
        and h5py.check_ref_dtype(one.dtype) is not None
        and _class(one) != "cell"
    ]  # fmt: skip
    if many:  # an array of structs: each field holds a reference for each of them
        size = "x".join(map(str, many[0].shape[::-1]))
        about = f"{size} structs of {', '.join(map(str, group))}"
        return Value("other", many[0].shape[::-1], lambda: None, about)
    return Value("struct", (1, 1), lambda: variables(group))
