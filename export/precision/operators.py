"""Would TensorRT take this graph? Every node against the table of operators of one version."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import onnx

from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.export.precision.operator_table import NEWEST_OPSET, OPERATORS, VERSIONS, Operator


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OperatorProblem:
    """One reason why a version of TensorRT would refuse a node."""

    version: str
    node: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"TensorRT {self.version}: {self.operator} {self.node!r}: {self.reason}"


def check_operators(proto: onnx.ModelProto, version: str) -> list[OperatorProblem]:
    """What the table of ``version`` has against a graph; nothing when it passes.

    Types come from ONNX's own inference, which is strict here: a graph that mixes types where
    ONNX does not allow it is a problem of its own.

    Args:
        proto: a graph with the types of its inputs.
        version: one of ``VERSIONS``.

    Raises:
        UsageError: there is no table of that version.
    """
    if version not in VERSIONS:
        raise UsageError(f"version: expected one of {list(VERSIONS)}, got {version!r}")
    problems = [
        OperatorProblem(version=version, node="model", operator="opset", reason=reason)
        for reason in _opset_problems(proto, version)
    ]
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        reason = f"expected types that ONNX allows, got: {error}"
        return [
            *problems,
            OperatorProblem(version=version, node="model", operator="types", reason=reason),
        ]
    types = _types(inferred)
    constants = {tensor.name for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        problems += [
            OperatorProblem(version=version, node=node.name, operator=node.op_type, reason=reason)
            for reason in _node_problems(node, version, types, constants)
        ]
    return problems


def require_operators(proto: onnx.ModelProto, versions: Sequence[str] = VERSIONS) -> None:
    """Raise when a graph does not pass the table of each version.

    Raises:
        CheckFailedError: names the first problems.
    """
    problems = [problem for version in versions for problem in check_operators(proto, version)]
    if problems:
        shown = "; ".join(map(str, problems[:3]))
        raise CheckFailedError(
            f"operators: expected a graph that every TensorRT takes, got {len(problems)} "
            f"problems: {shown}; please report this with the artifact's manifest.json"
        )


def _opset_problems(proto: onnx.ModelProto, version: str) -> Iterator[str]:
    for opset in proto.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            yield f"expected standard operators only, got the domain {opset.domain!r}"
        elif opset.version > NEWEST_OPSET[version]:
            yield f"expected opset {NEWEST_OPSET[version]} at most, got {opset.version}"


def _node_problems(
    node: onnx.NodeProto, version: str, types: dict[str, str], constants: set[str]
) -> Iterator[str]:
    known = OPERATORS.get(node.op_type)
    if node.domain not in ("", "ai.onnx"):
        yield f"expected a standard operator, got one of the domain {node.domain!r}"
        return
    if known is None:
        yield "expected an operator of our table, got one that was never looked at"
        return
    if VERSIONS.index(known.first) > VERSIONS.index(version):
        yield f"expected an operator of {version}, got one that exists from {known.first} on"
        return
    unknown = sorted({attribute.name for attribute in node.attribute} - known.attributes)
    if unknown:
        yield f"expected no attribute but {sorted(known.attributes)}, got {unknown}"
    if known.only_output and any(node.output[1:]):
        yield f"expected the first output alone, got {list(node.output)}"
    for i in known.constants:
        if i < len(node.input) and node.input[i] and node.input[i] not in constants:
            yield f"expected input {i} to be an initializer, got {node.input[i]!r}"
    yield from _type_problems(node, known, types)


def _type_problems(node: onnx.NodeProto, known: Operator, types: dict[str, str]) -> Iterator[str]:
    data = [
        types.get(name, "unknown")
        for i, name in enumerate(node.input)
        if name and i not in known.shape_inputs
    ]
    if node.op_type == "Gather":
        if data[1] not in ("INT32", "INT64"):
            yield f"expected INT32 or INT64 indices, got {data[1]}"
        data = data[:1]
    refused = sorted(set(data) - known.types)
    if refused:
        yield f"expected types {sorted(known.types)}, got {refused}"
    if known.like_types and len(set(data)) > 1:
        yield f"expected like types on all inputs (strong typing), got {data}"


def _types(proto: onnx.ModelProto) -> dict[str, str]:
    graph, name = proto.graph, onnx.TensorProto.DataType.Name
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: name(value.type.tensor_type.elem_type) for value in values}
    return types | {tensor.name: name(tensor.data_type) for tensor in graph.initializer}
