"""Fix a graph's dynamic axes without the onnx package, which devices do not have.

An ONNX file is a protocol buffer: fields of a tag and a value, some of them messages of their
own. Only the dimensions of inputs and outputs are rewritten; every other byte is copied. So the
machine that checks a graph and the device that builds it hold the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from poyo_edge.errors import UsageError

_GRAPH, _INPUT, _OUTPUT = 7, 11, 12
_TO_DIMENSION = (2, 1, 2, 1)
"""ValueInfo.type, Type.tensor_type, Tensor.shape, TensorShape.dim."""
_DIM_VALUE, _DIM_PARAM = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fix_axes(model: bytes, axes: Mapping[str, int]) -> bytes:
    """The model with named axes of its inputs and outputs replaced by numbers.

    Args:
        model: a serialized ``ModelProto``.
        axes: axis name → size; every name in the model must be there.

    Raises:
        UsageError: not an ONNX model, an axis without a size, or a size below 1.
    """
    wrong = {name: size for name, size in axes.items() if size < 1}
    if wrong:
        raise UsageError(f"axes: expected sizes >= 1, got {wrong}")

    def dimension(data: bytes) -> bytes:
        for number, _, start, end in _fields(data):
            if number == _DIM_PARAM:
                name = data[start:end].decode()
                if name not in axes:
                    raise UsageError(f"axes: expected a size for {name!r}, got {list(axes)}")
                return bytes([_DIM_VALUE << 3 | _VARINT]) + _varint(axes[name])
        return data

    def graph(data: bytes) -> bytes:
        for value in (_INPUT, _OUTPUT):
            data = _rewrite(data, (value, *_TO_DIMENSION), dimension)
        return data

    try:
        return _rewrite(model, (_GRAPH,), graph)
    except (IndexError, UnicodeDecodeError) as problem:
        raise UsageError(
            f"core: expected an ONNX model, got {len(model)} bytes that are none"
        ) from problem


def _rewrite(data: bytes, path: tuple[int, ...], change: Callable[[bytes], bytes]) -> bytes:
    """``data`` with ``change`` applied to every message at ``path`` (field numbers)."""
    parts = []
    for number, tag, start, end in _fields(data):
        payload = data[start:end]
        if number == path[0]:
            deeper = path[1:]
            payload = _rewrite(payload, deeper, change) if deeper else change(payload)
            parts += [data[tag[0] : tag[1]], _varint(len(payload)), payload]
        else:
            parts.append(data[tag[0] : end])
    return b"".join(parts)


def _fields(data: bytes) -> list[tuple[int, tuple[int, int], int, int]]:
    """Number, extent of the tag, and start and end of the value of each field."""
    fields, at = [], 0
    while at < len(data):
        begin = at
        key, at = _read_varint(data, at)
        tag, kind = (begin, at), key & 7
        start = at
        if kind == _VARINT:
            _, at = _read_varint(data, at)
        elif kind == _BYTES:
            size, start = _read_varint(data, at)
            at = start + size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise IndexError(f"wire type {kind}")
        if at > len(data):
            raise IndexError("a field that ends behind the data")
        fields.append((key >> 3, tag, start, at))
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
