"""The graph of a frozen session: a core whose inputs but the spikes are constants.

The core's file is taken apart at protobuf's wire level, and its nodes and weights are kept. Session
constants, query time, output scale and offset become constants of the graph, a filter that the
session mixes in becomes nodes, and the mask follows from the spikes.

Legend: N spikes, U units, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from poyo_edge.arrays import Array, Float32
from poyo_edge.core_inputs import INPUTS
from poyo_edge.errors import ArtifactError
from poyo_edge.files import wire
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.filters.wiener import BIN_S

_GRAPH, _METADATA = 7, 14
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
_FLOAT, _INT32, _INT64 = 1, 6, 7
_TYPES = {
    np.dtype(np.float32): _FLOAT,
    np.dtype(np.int32): _INT32,
    np.dtype(np.int64): _INT64,
}
_OWN = "frozen_"
"""Begins the names that are added to the core's."""
_CHECKED = {"spike_unit": _OWN + "unit", "spike_time": _OWN + "time"}
"""Input → what the core reads instead."""


def frozen_graph(
    core: bytes,
    path: Path,
    constants: Mapping[str, Array],
    scale: Float32,
    offset: Float32,
    wiener: MixedFilter | None = None,
) -> bytes:
    """A core whose inputs but ``spike_unit`` and ``spike_time`` are constants, as a ModelProto.

    Args:
        core: the bytes of a core's ONNX file, already checked.
        path: where they came from.
        constants: name → value of each input that is not one of spikes.
        scale, offset: (O,) of what is decoded.
        wiener: a filter that is mixed with it.

    Raises:
        ArtifactError: the graph has other inputs than a core.
    """
    model = list[bytes | memoryview]()
    graphs = list[memoryview]()
    for field in wire.fields(memoryview(core)):
        if field.number == _GRAPH and isinstance(field.value, memoryview):
            graphs.append(field.value)
        elif field.number != _METADATA:
            model.append(field.whole)
    if len(graphs) != 1:
        raise ArtifactError(
            path, "graph", expected="one", got=len(graphs), do="export the checkpoint again"
        )
    graph = _graph(graphs[0], path, constants, scale, offset, wiener)
    return b"".join([*model, wire.block(_GRAPH, graph)])


def _graph(
    core: memoryview,
    path: Path,
    constants: Mapping[str, Array],
    scale: Float32,
    offset: Float32,
    wiener: MixedFilter | None,
) -> list[bytes]:
    inputs, nodes, rest = list[str](), list[bytes](), list[bytes]()
    for field in wire.fields(core):
        if field.number == _INPUT and isinstance(field.value, memoryview):
            inputs.append(_name(field.value))
        elif field.number == _NODE and isinstance(field.value, memoryview):
            nodes.append(_reading(field.value, _CHECKED))
        elif field.number not in (_OUTPUT, _VALUE_INFO):  # shapes are others now, and inferred
            rest.append(bytes(field.whole))
    if sorted(inputs) != sorted(INPUTS):
        raise ArtifactError(
            path, "inputs", expected=", ".join(INPUTS), got=", ".join(inputs),
            do="export the checkpoint again",
        )  # fmt: skip
    named = {**constants, _OWN + "scale": scale, _OWN + "offset": offset, **_limits(constants)}
    product, decoded = _OWN + "product", "value" if wiener is None else _OWN + "decoded"
    if wiener is not None:
        named |= _of_filter(wiener)
    return [
        *_left_out(),
        *nodes,
        _node("Mul", ["prediction", _OWN + "scale"], product),
        _node("Add", [product, _OWN + "offset"], decoded),
        *([] if wiener is None else _mixed(decoded)),
        *rest,
        *(wire.block(_INITIALIZER, _tensor(name, array)) for name, array in named.items()),
        _value_info(_INPUT, "spike_unit", _INT32, [1, "n_spikes"]),
        _value_info(_INPUT, "spike_time", _FLOAT, [1, "n_spikes"]),
        _value_info(_OUTPUT, "value", _FLOAT, [1, 1, len(scale)]),
    ]


def _limits(constants: Mapping[str, Array]) -> dict[str, Array]:
    """What rows and times have to lie between."""
    return {
        _OWN + "first_unit": np.array(0, np.int32),
        _OWN + "n_units": np.array(len(constants["unit_kv"]), np.int32),
        _OWN + "start": np.array(0, np.float32),
        _OWN + "end": constants["query_time"].reshape(()),
    }


def _left_out() -> list[bytes]:
    """Nodes that leave out spikes of no unit or outside the window: padding, as the core has it.

    ONNX counts negative rows from the end, and one NaN would take the whole window.
    """
    tests = {
        "unit_low": ("GreaterOrEqual", "spike_unit", "first_unit"),
        "unit_high": ("Less", "spike_unit", "n_units"),
        "time_low": ("GreaterOrEqual", "spike_time", "start"),
        "time_high": ("Less", "spike_time", "end"),
    }
    nodes = [
        _node(operator, [name, _OWN + limit], _OWN + test)
        for test, (operator, name, limit) in tests.items()
    ]
    low, high, early, late = (_OWN + test for test in tests)
    return [
        *nodes,
        _node("And", [low, high], _OWN + "of_units"),
        _node("And", [early, late], _OWN + "in_time"),
        _node("And", [_OWN + "of_units", _OWN + "in_time"], "spike_mask"),
        _node("Where", ["spike_mask", "spike_unit", _OWN + "first_unit"], _CHECKED["spike_unit"]),
        _node("Where", ["spike_mask", "spike_time", _OWN + "start"], _CHECKED["spike_time"]),
    ]


def _of_filter(wiener: MixedFilter) -> dict[str, Array]:
    """Constants of ``_mixed``. A row of zeros behind the weights is that of spikes too old."""
    n_units, bins, n_outputs = wiener.weights.shape
    share = np.float32(wiener.share)
    rows = np.append(wiener.weights.reshape(-1, n_outputs), np.zeros((1, n_outputs)), 0)
    return {
        _OWN + "bin_s": np.array(BIN_S, np.float32),
        _OWN + "bins": np.array(bins, np.float32),
        _OWN + "bins_of_unit": np.array(bins, np.int32),
        _OWN + "no_row": np.array(n_units * bins, np.int32),
        _OWN + "weights": (share * rows).astype(np.float32),
        _OWN + "bias": share * wiener.bias,
        _OWN + "rest": np.array(1.0 - wiener.share, np.float32),
        _OWN + "spikes_axis": np.array([1], np.int64),
    }


def _mixed(decoded: str) -> list[bytes]:
    """Nodes that mix a filter with what was decoded (``filters.mixed``)."""
    steps = [
        ("Sub", ["end", "time"], "age"),
        ("Div", ["age", "bin_s"], "ages"),
        ("Ceil", ["ages"], "bins_ago"),
        ("LessOrEqual", ["bins_ago", "bins"], "in_reach"),
        ("Sub", ["bins", "bins_ago"], "bin"),
    ]
    nodes = [_node(op, [_OWN + name for name in names], _OWN + out) for op, names, out in steps]
    later = [
        ("Mul", [_CHECKED["spike_unit"], _OWN + "bins_of_unit"], "first_bin"),
        ("Add", [_OWN + "first_bin", _OWN + "bin_row"], "any_row"),
        ("And", [_OWN + "in_reach", "spike_mask"], "counts"),
        ("Where", [_OWN + "counts", _OWN + "any_row", _OWN + "no_row"], "row"),
        ("Gather", [_OWN + "weights", _OWN + "row"], "each"),
        ("ReduceSum", [_OWN + "each", _OWN + "spikes_axis"], "filtered"),
        ("Mul", [decoded, _OWN + "rest"], "models"),
        ("Add", [_OWN + "models", _OWN + "filtered"], "both"),
    ]
    return [
        *nodes,
        _node("Cast", [_OWN + "bin"], _OWN + "bin_row", to=_INT32),
        *(_node(op, names, _OWN + out) for op, names, out in later),
        _node("Add", [_OWN + "both", _OWN + "bias"], "value"),
    ]


def _reading(node: memoryview, renamed: Mapping[str, str]) -> bytes:
    """A node of the core, with its field, that reads its inputs under other names."""
    parts = list[bytes]()
    for field in wire.fields(node):
        name = ""
        if field.number == 1 and isinstance(field.value, memoryview):
            name = str(field.value, "utf-8")
        parts.append(wire.block(1, renamed[name]) if name in renamed else bytes(field.whole))
    return wire.block(_NODE, parts)


def _node(operator: str, inputs: Sequence[str], output: str, *, to: int | None = None) -> bytes:
    """NodeProto; ``to`` is the type that Cast makes."""
    names = [wire.block(1, name) for name in inputs]
    own = [wire.block(2, output), wire.block(3, output), wire.block(4, operator)]
    if to is not None:
        attribute = [wire.block(1, "to"), wire.integer(3, to), wire.integer(20, 2)]  # 2: INT
        own.append(wire.block(5, attribute))
    return wire.block(_NODE, [*names, *own])


def _tensor(name: str, array: Array) -> bytes:
    """TensorProto."""
    little = array.dtype.newbyteorder("<")
    return b"".join([
        *(wire.integer(1, size) for size in array.shape),
        wire.integer(2, _TYPES[array.dtype]),
        wire.block(8, name),
        wire.block(9, np.ascontiguousarray(array, little).tobytes()),
    ])  # fmt: skip


def _value_info(number: int, name: str, kind: int, axes: Sequence[int | str]) -> bytes:
    """ValueInfoProto of a tensor; an axis is its size or its name."""
    dims = [
        wire.block(1, wire.block(2, a) if isinstance(a, str) else wire.integer(1, a)) for a in axes
    ]
    tensor = [wire.integer(1, kind), wire.block(2, dims)]
    return wire.block(number, [wire.block(1, name), wire.block(2, wire.block(1, tensor))])


def _name(value_info: memoryview) -> str:
    for field in wire.fields(value_info):
        if field.number == 1 and isinstance(field.value, memoryview):
            return str(field.value, "utf-8")
    return ""
