"""Looks at an ONNX file before any library does, and refuses what our graphs never hold.

ONNX Runtime and TensorRT parse files in native code, follow paths to external data, load operators
of other domains and allocate whatever a shape asks for. So the bytes are walked here first, in
plain Python: the protobuf wire format (``files.wire``), with field numbers from ``onnx.proto3``.
Tensors are skipped, not copied. Whatever occurs twice is looked at twice, since parsers merge
repeated messages.

It bounds what a file can say, not what a graph can compute: a graph of allowed operators may still
ask for more memory than there is. That is why artifacts can be signed.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from poyo_edge.errors import ArtifactError
from poyo_edge.files import wire

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
OWN_DOMAIN = "poyo_edge"
OWN_OPERATORS: Mapping[str, frozenset[str]] = {
    "SpikeAttention": frozenset(),
    "LatentAttention": frozenset({"heads"}),
    "FeedForward": frozenset(),
    "QueryAttention": frozenset({"heads"}),
    "SpikeAttentionGradient": frozenset(),
    "LatentAttentionGradient": frozenset({"heads"}),
    "FeedForwardGradient": frozenset(),
}
"""The operators of ``runtime/native/kernels`` → the attributes that each may have."""
EXTRA_DOMAINS: Mapping[str, frozenset[str]] = {
    "core.ort-cpu.onnx": frozenset({"com.microsoft"}),
    "adapt.ort-cpu.onnx": frozenset({"com.microsoft"}),
    "core.cpu.onnx": frozenset({OWN_DOMAIN}),
    "adapt.cpu.onnx": frozenset({OWN_DOMAIN}),
}
"""File name → domains that it may use beyond the standard ones."""
REFUSED_OPERATORS = frozenset({
    "EPContext", "PyOp", "Loop", "If", "Scan", "SequenceMap", "RandomNormal", "RandomUniform",
    "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial",
})  # fmt: skip
"""They load files, run code, hold graphs of their own, or give other values each time."""
MOST_BYTES = 1 << 30
MOST_NODES = 20_000
"""Six times as many as the largest published model's ``adapt.onnx`` has."""
MOST_TENSORS = 20_000
MOST_AXES = 8
MOST_ELEMENTS = 1 << 28
MOST_FIELDS = 1_000_000

_SHAPE_INPUT = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Tile": 1, "Pad": 1, "OneHot": 1}
"""Operator → its input that says how large the result becomes."""
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""TensorProto.DataType → bytes of an element in ``raw_data``."""
_INT32, _INT64 = 6, 7
_SMALL = 16
"""A constant of at most as many integers may be a shape."""
_ORT_FORMAT = b"ORTM"
"""ONNX Runtime takes bytes with this mark for another format, which holds compiled graphs."""
_DO = "do not use this file; copy the artifact again from where it was exported"
Value = int | memoryview


class _RefusedError(Exception):
    def __init__(self, field: str, expected: str, got: str) -> None:
        super().__init__(field)
        self.field, self.expected, self.got = field, expected, got


def require_plain_onnx(
    data: bytes, path: str | Path, domains: frozenset[str] | None = None
) -> None:
    """Refuse an ONNX file that is not self-contained, standard and of sensible size.

    Args:
        data: the bytes of the file.
        path: where they came from.
        domains: that it may use beyond the standard ones; None lets the file's name say it.

    Raises:
        ArtifactError: external data, a foreign domain, functions, graphs inside nodes, too many
            nodes or tensors, shapes beyond all sense, too large, or no ONNX at all.
    """
    if len(data) > MOST_BYTES:
        problem = _RefusedError("size", f"at most {MOST_BYTES} bytes", f"{len(data)}")
    elif data[4:8] == _ORT_FORMAT:
        problem = _RefusedError("contents", "an ONNX model", "ONNX Runtime's own format")
    else:
        if domains is None:
            domains = EXTRA_DOMAINS.get(Path(path).name, frozenset())
        try:
            _Model(STANDARD_DOMAINS | domains).walk(memoryview(data))
            return
        except _RefusedError as refused:
            problem = refused
    raise ArtifactError(
        path, problem.field, expected=problem.expected, got=problem.got, do=_DO
    ) from None


@dataclasses.dataclass(slots=True)
class _Tensor:
    """What a TensorProto says about itself."""

    name: str = ""
    kind: int = 0
    dims: list[int] = dataclasses.field(default_factory=list)
    n_raw: int | None = None
    n_typed: int = 0
    """Bytes of values that are not raw: at least one for each, or for two of four bits."""
    small: list[int] = dataclasses.field(default_factory=list)
    """Its values, when they are few integers."""


class _Model:
    """Walks one ModelProto; counts across all parts of it."""

    def __init__(self, domains: frozenset[str]) -> None:
        self.domains = domains
        self.n_nodes = self.n_tensors = self.n_fields = self.n_graphs = 0
        self.constants: dict[str, list[int]] = {}

    def walk(self, data: memoryview) -> None:
        """ModelProto."""
        graphs = list[memoryview]()
        for number, value in self.fields(data):
            if number == 7:
                graphs.append(_message(value, "graph"))
            elif number == 8:
                self.opset(_message(value, "opset_import"))
            elif number == 20:
                raise _RefusedError("training_info", "none", "training steps in the file")
            elif number == 25:
                raise _RefusedError("functions", "none", "operators defined in the file")
        if not graphs:
            raise _RefusedError("contents", "an ONNX model", f"{len(data)} bytes without a graph")
        for graph in graphs:
            self.graph(graph)

    def opset(self, data: memoryview) -> None:
        """OperatorSetIdProto."""
        for number, value in self.fields(data):
            if number == 1:
                self.domain(_text(value, "opset_import"), "opset_import")

    def domain(self, domain: str, where: str) -> None:
        if domain not in self.domains:
            allowed = ", ".join(repr(name) for name in sorted(self.domains))
            raise _RefusedError(where, f"operators of the domains {allowed}", f"{domain!r:.80}")

    def graph(self, data: memoryview) -> None:
        """GraphProto."""
        nodes = list[memoryview]()
        for number, value in self.fields(data):
            if number == 1:
                nodes.append(_message(value, "node"))
                self.count_node()
            elif number == 5:
                tensor = self.tensor(_message(value, "initializer"))
                if tensor.name in self.constants:
                    raise _RefusedError("initializer", "names that differ", f"{tensor.name!r:.80}")
                self.constants[tensor.name] = tensor.small
            elif number == 15:
                raise _RefusedError("sparse_initializer", "none", "sparse tensors")
            elif number in (11, 12, 13):
                self.value_info(_message(value, "value_info"))
        for node in nodes:
            self.node(node)

    def count_node(self) -> None:
        self.n_nodes += 1
        if self.n_nodes > MOST_NODES:
            raise _RefusedError("node", f"at most {MOST_NODES} nodes", "more")

    def node(self, data: memoryview) -> None:
        """NodeProto."""
        inputs, outputs, operators = list[str](), list[str](), list[str]()
        attributes, domains = list[memoryview](), set[str]()
        for number, value in self.fields(data):
            if number == 1:
                inputs.append(_text(value, "input"))
            elif number == 2:
                outputs.append(_text(value, "output"))
            elif number == 4:
                operators.append(_text(value, "op_type"))
            elif number == 5:
                attributes.append(_message(value, "attribute"))
            elif number == 7:
                domains.add(_text(value, "domain"))
                self.domain(_text(value, "domain"), f"node {_label(outputs, operators)}")
        if OWN_DOMAIN in domains:
            self.own_operator(operators, attributes)
        for attribute in attributes:
            constant = self.attribute(attribute)
            if outputs and "Constant" in operators:
                self.constants[outputs[0]] = constant
        for operator in operators:
            if operator in REFUSED_OPERATORS:
                raise _RefusedError("op_type", "operators that only compute", repr(operator))
            place = _SHAPE_INPUT.get(operator)
            if place is not None and place < len(inputs):
                self.sensible_shape(operator, self.constants.get(inputs[place], []))

    def own_operator(self, operators: list[str], attributes: list[memoryview]) -> None:
        """One of ours, with no attribute but those that it has."""
        fields = (field for attribute in attributes for field in self.fields(attribute))
        names = {_text(value, "attribute") for number, value in fields if number == 1}
        for operator in operators or ["none"]:
            known = OWN_OPERATORS.get(operator)
            if known is None:
                expected = f"one of {', '.join(OWN_OPERATORS)}"
                raise _RefusedError("op_type", expected, repr(operator)[:80])
            if names - known:
                expected = f"{', '.join(known) or 'no attribute'} of {operator}"
                raise _RefusedError("attribute", expected, repr(min(names - known))[:80])

    def sensible_shape(self, operator: str, values: list[int]) -> None:
        """Whether a constant that sizes the result of an operator makes sense."""
        size = 1
        for value in values:
            size *= max(1, abs(value))
        if size > MOST_ELEMENTS:
            expected = f"a result of at most {MOST_ELEMENTS} elements"
            raise _RefusedError(operator, expected, f"the shape {values!s:.80}")

    def attribute(self, data: memoryview) -> list[int]:
        """AttributeProto; gives its integers when they are few."""
        integers = list[int]()
        for number, value in self.fields(data):
            if number in (6, 11):
                raise _RefusedError("attribute", "no graph inside a node", "a graph")
            if number in (22, 23):
                raise _RefusedError("attribute", "no sparse tensor", "a sparse tensor")
            if number in (5, 10):
                integers += self.tensor(_message(value, "attribute")).small
            elif number in (3, 8):
                integers += self.integers(value) if _length(value) <= _SMALL * 10 else []
        return integers

    def tensor(self, data: memoryview) -> _Tensor:
        """TensorProto: in the file, of a shape that its bytes fill."""
        self.n_tensors += 1
        if self.n_tensors > MOST_TENSORS:
            raise _RefusedError("initializer", f"at most {MOST_TENSORS} tensors", "more")
        tensor, raw = _Tensor(), memoryview(b"")
        for number, value in self.fields(data):
            if number == 13 or (number == 14 and value != 0):
                raise _RefusedError("external_data", "all data in the file", "a path to more")
            if number == 1:
                tensor.dims += self.integers(value)
            elif number == 2 and isinstance(value, int):
                tensor.kind = value
            elif number in (4, 5, 6, 7, 10, 11):
                tensor.n_typed += _length(value)
            if number in (5, 7):
                tensor.small += self.integers(value) if _length(value) <= _SMALL * 10 else []
            elif number == 8:
                tensor.name = _text(value, "name")
            elif number == 9:
                raw = _message(value, "raw_data")
                tensor.n_raw = len(raw)
        self.sensible_tensor(tensor)
        if tensor.kind in (_INT32, _INT64) and len(raw) <= _SMALL * 8:
            form = {_INT32: "i", _INT64: "q"}[tensor.kind]
            tensor.small += struct.unpack(f"<{len(raw) // struct.calcsize(form)}{form}", raw)
        return tensor

    def sensible_tensor(self, tensor: _Tensor) -> None:
        """Whether the shape makes sense and the bytes are as many as it says."""
        size = _size(tensor.dims, f"tensor {tensor.name!r:.80}")
        item = _ITEM_BYTES.get(tensor.kind)
        if tensor.n_raw is None and size > 2 * tensor.n_typed:
            raise _RefusedError(
                f"tensor {tensor.name!r:.80}",
                f"values for the shape {tensor.dims}",
                f"{tensor.n_typed} bytes of them",
            )
        if tensor.n_raw is not None and item is not None and tensor.n_raw != size * item:
            raise _RefusedError(
                f"tensor {tensor.name!r:.80}",
                f"{size * item} bytes for the shape {tensor.dims}",
                f"{tensor.n_raw}",
            )

    def value_info(self, data: memoryview) -> None:
        """ValueInfoProto → TypeProto → Tensor → TensorShapeProto → Dimension."""
        dims = list[int]()
        for number, kind in self.fields(data):
            if number != 2:
                continue
            for tensor_type in self.inside(_message(kind, "type"), 1):
                for shape in self.inside(tensor_type, 2):
                    for dim in self.inside(shape, 1):
                        fields = self.fields(dim)
                        dims += [_signed(v) for n, v in fields if n == 1 and isinstance(v, int)]
        _size(dims, "value_info")

    def inside(self, data: memoryview, wanted: int) -> Iterator[memoryview]:
        for number, value in self.fields(data):
            if number == wanted:
                yield _message(value, "value_info")

    def integers(self, value: Value) -> list[int]:
        """A repeated integer field, packed or not."""
        if isinstance(value, int):
            return [_signed(value)]
        found, at = list[int](), 0
        while at < len(value):
            integer, at = self.varint(value, at)
            found.append(_signed(integer))
            if len(found) > MOST_TENSORS:
                raise _RefusedError("dims", f"at most {MOST_AXES} axes", "more")
        return found

    def varint(self, data: memoryview, at: int) -> tuple[int, int]:
        try:
            return wire.read_varint(data, at)
        except wire.WireError as problem:
            raise _damaged(str(problem)) from None

    def fields(self, data: memoryview) -> Iterator[tuple[int, Value]]:
        """``(number, value)`` of each field of a message; a value is an integer or bytes."""
        try:
            for field in wire.fields(data):
                self.n_fields += 1
                if self.n_fields > MOST_FIELDS:
                    raise _RefusedError("contents", f"at most {MOST_FIELDS} fields", "more")
                yield field.number, field.value
        except wire.WireError as problem:
            raise _damaged(str(problem)) from None


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _size(dims: list[int], field: str) -> int:
    size = 1
    for dim in dims:
        size *= max(dim, 1) if dim else 0
        if dim < 0 or dim > MOST_ELEMENTS or size > MOST_ELEMENTS:
            expected = f"at most {MOST_ELEMENTS} elements"
            raise _RefusedError(field, expected, f"the shape {dims!s:.80}")
    if len(dims) > MOST_AXES:
        raise _RefusedError(field, f"at most {MOST_AXES} axes", f"{len(dims)}")
    return size


def _length(value: Value) -> int:
    return 1 if isinstance(value, int) else len(value)


def _message(value: Value, field: str) -> memoryview:
    if isinstance(value, int):
        raise _damaged(f"a number where {field} should be")
    return value


def _text(value: Value, field: str) -> str:
    try:
        return str(_message(value, field), "utf-8")
    except UnicodeDecodeError:
        raise _damaged(f"a {field} that is no text") from None


def _label(outputs: list[str], operators: list[str]) -> str:
    return repr((outputs or operators or ["without a name"])[0])[:80]


def _damaged(got: str) -> _RefusedError:
    return _RefusedError("contents", "an ONNX model", f"{got}: damaged, or of another format")
