"""The FP32 core → a strongly typed graph of mixed precision, as a named pass.

Every node that computes becomes FP16 (or BF16), except those on an island. Nodes that only move
data follow what they move. Casts stand where the two meet, each once. Inputs and outputs keep
their types, so one runtime feeds both graphs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.export.precision.operators import check_operators
from poyo_edge.records import JsonRecord

MOVES = frozenset(
    ("Concat", "Gather", "Neg", "Pad", "Reshape", "Slice", "Split", "Transpose", "Unsqueeze")
)
"""Operators that change no value (``Neg`` changes no rounding)."""
PRECISIONS = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
METADATA = "poyo_edge.precision"
_FLOAT = ir.DataType.FLOAT
_NUMPY = {ir.DataType.FLOAT16: np.float16, ir.DataType.BFLOAT16: ml_dtypes.bfloat16}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Island(JsonRecord):
    """Nodes, or inputs of the graph, that stay in FP32."""

    name: str
    patterns: tuple[str, ...]
    """Shell patterns of names."""
    why: str

    def holds(self, name: str) -> bool:
        """Whether a node or input of that name belongs to it."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


def mixed_precision(
    proto: onnx.ModelProto, islands: Sequence[Island], precision: str = "fp16"
) -> onnx.ModelProto:
    """A graph of mixed precision that computes what ``proto`` does.

    Args:
        proto: the FP32 core.
        islands: what stays in FP32; nothing gives the naive graph, all in low precision.
        precision: "fp16" or "bf16".

    Raises:
        UsageError: unknown precision, or a graph that is not plain FP32.
        CheckFailedError: a weight has no finite value in FP16, or the result is not strongly
            typed (a bug).
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision: expected one of {list(PRECISIONS)}, got {precision!r}")
    try:
        typed = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
        model = ir.serde.deserialize_model(typed)
        MixedPrecision(islands, PRECISIONS[precision])(model)
    except ir.passes.PreconditionError as error:
        raise UsageError(f"mixed precision: {_cause(error)}") from error
    except ir.passes.PostconditionError as error:
        raise CheckFailedError(f"mixed precision: {_cause(error)}") from error
    model.metadata_props[METADATA] = precision
    return _without_types(model)


class MixedPrecision(ir.passes.InPlacePass):
    """The pass. Before: plain FP32 with inferred types. After: strongly typed, islands kept."""

    def __init__(self, islands: Sequence[Island], low: ir.DataType) -> None:
        super().__init__()
        self.islands = tuple(islands)
        self.low = low
        self._versions: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._floats: set[ir.Value] = set()
        self._signature: list[tuple[str | None, ir.DataType | None]] = []

    def requires(self, model: ir.Model) -> None:
        """Types known, floats all FP32, names unique."""
        values = list(_values(model.graph))
        untyped = [value.name for value in values if value.dtype is None]
        other = {value.dtype for value in values if value.dtype and value.dtype.is_floating_point()}
        names = [node.name for node in model.graph]
        if untyped:
            raise ir.passes.PreconditionError(f"expected known types, got none for {untyped[:3]}")
        if other - {_FLOAT}:
            got = sorted(kind.name for kind in other)
            raise ir.passes.PreconditionError(f"expected a graph of FLOAT alone, got {got}")
        if len(set(names)) < len(names):
            raise ir.passes.PreconditionError("expected a name of its own for each node")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Retype node after node, in order."""
        graph = model.graph
        self._signature = _signature(graph)
        self._versions.clear()
        self._floats = {value for value in _values(graph) if value.dtype == _FLOAT}
        for node in list(graph):
            if any(value in self._floats for value in node.outputs):
                self._retype(graph, node)
        for i, value in enumerate(graph.outputs):
            if value in self._floats and value.dtype != _FLOAT:
                graph.outputs[i] = self._output(graph, value)
        used = {value for node in graph for value in node.inputs}
        for name in [name for name, value in graph.initializers.items() if value not in used]:
            del graph.initializers[name]
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """Inputs and outputs as before, every node of the type that was meant, types strong."""
        if _signature(model.graph) != self._signature:
            raise ir.passes.PostconditionError("expected unchanged inputs and outputs")
        proto = _without_types(model)
        problems = check_operators(proto, "10.3")
        if problems:
            raise ir.passes.PostconditionError(f"expected strong types, got {problems[0]}")
        inferred = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
        for node in inferred.graph:
            if node.op_type in MOVES or node.op_type in ("Cast", "Shape"):
                continue
            want = _FLOAT if self.on_island(node.name or "") else self.low
            got = node.outputs[0].dtype
            if got != want:
                raise ir.passes.PostconditionError(
                    f"expected {node.name!r} in {want.name}, got {got}"
                )

    def on_island(self, name: str) -> bool:
        """Whether a node or input stays in FP32."""
        return any(island.holds(name) for island in self.islands)

    def _retype(self, graph: ir.Graph, node: ir.Node) -> None:
        want = self._wanted(node)
        for i, value in enumerate(node.inputs):
            if value is not None and value in self._floats:
                node.replace_input_with(i, self._version(graph, node, value, want))
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", want.value)
        for value in node.outputs:
            value.dtype = want

    def _wanted(self, node: ir.Node) -> ir.DataType:
        if node.op_type not in MOVES:
            return _FLOAT if self.on_island(node.name or "") else self.low
        moved = [value for value in node.inputs if value in self._floats]
        return _FLOAT if any(self._arrives(value) == _FLOAT for value in moved) else self.low

    def _arrives(self, value: ir.Value | None) -> ir.DataType | None:
        """The type in which a value is at hand: constants and session inputs come in low."""
        if value is None or value.is_initializer():
            return self.low
        if value.is_graph_input():
            return _FLOAT if self.on_island(value.name or "") else self.low
        return value.dtype

    def _version(
        self, graph: ir.Graph, user: ir.Node, value: ir.Value, want: ir.DataType
    ) -> ir.Value:
        """``value`` in the type wanted, cast just before its first user."""
        if value.dtype == want:
            return value
        if (value, want) not in self._versions:
            name = f"{value.name}.{_short(want)}"
            if value.is_initializer():
                version = _constant(graph, value, name, want)
            else:
                cast = _cast(value, name, want)
                graph.insert_before(user, cast)
                version = cast.outputs[0]
            self._versions[value, want] = version
        return self._versions[value, want]

    def _output(self, graph: ir.Graph, value: ir.Value) -> ir.Value:
        name = value.name
        value.name = f"{name}.{_short(self.low)}"
        cast = _cast(value, name or "", _FLOAT)
        cast.name = f"{name}.out"
        cast.outputs[0].shape = value.shape
        graph.append(cast)
        return cast.outputs[0]


def _cast(value: ir.Value, name: str, want: ir.DataType) -> ir.Node:
    output = ir.Value(name=name, type=ir.TensorType(want))
    return ir.node("Cast", [value], {"to": want.value}, outputs=[output], name=name)


def _constant(graph: ir.Graph, value: ir.Value, name: str, want: ir.DataType) -> ir.Value:
    assert value.const_value is not None
    exact = value.const_value.numpy()
    with np.errstate(over="ignore"):
        rounded = exact.astype(_NUMPY[want])
    if not np.isfinite(rounded.astype(np.float32)).all():
        raise CheckFailedError(
            f"mixed precision: expected weights below 65504, got {np.abs(exact).max():.3g} in "
            f"{value.name!r}; build with --precision fp32 or bf16"
        )
    tensor = ir.tensor(rounded, name=name)
    version = ir.Value(
        name=name, type=ir.TensorType(want), shape=ir.Shape(rounded.shape), const_value=tensor
    )
    graph.register_initializer(version)
    return version


def _without_types(model: ir.Model) -> onnx.ModelProto:
    """The model as a file: inputs and outputs are typed, what is between is inferred anew."""
    proto = ir.serde.serialize_model(model)
    del proto.graph.value_info[:]
    return proto


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _signature(graph: ir.Graph) -> list[tuple[str | None, ir.DataType | None]]:
    return [(value.name, value.dtype) for value in (*graph.inputs, *graph.outputs)]


def _short(kind: ir.DataType) -> str:
    names = {low: name for name, low in PRECISIONS.items()}
    return names.get(kind, "fp32")


def _cause(error: BaseException) -> str:
    return str(error.__cause__ or error)
