"""Gradients of an ONNX graph, as more nodes of the same graph: reverse-mode differentiation.

While the forward nodes are written, each one that depends on a variable leaves a step behind: its
inputs, its outputs and a rule that turns gradients of the outputs into gradients of the inputs.
``gradients`` walks the steps backwards. There are rules for the operators that POYO's core
applies to what varies, and no others. None of them scatters: the gradient of a cut is a
concatenation, and what else is needed is written as a ``composite`` with a rule of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from poyo_edge.export.graph.ops import GraphWriter

Shape = tuple[int | None, ...]
"""Lengths of the axes; None where one is only known at run time."""
Gradients = Sequence[ir.Value | None]
Rule = Callable[[list[ir.Value]], Gradients]
"""From the gradients of a step's outputs to those of its inputs (None: not wanted)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    rule: Rule


class GradientWriter(GraphWriter):
    """Writes a graph and then its gradients. See ``variable``, ``composite``, ``gradients``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._steps: list[_Step] = []
        self._varying: set[ir.Value] = set()
        self._recording = True
        self._shapes: dict[str | None, Shape] = {}
        self._names: dict[str, int] = {}
        self._said: list[ir.Value] = []

    def variable(self, value: ir.Value) -> ir.Value:
        """Declare a value that gradients are wanted for, before it is used."""
        self._varying.add(value)
        return value

    def varies(self, value: ir.Value) -> bool:
        """Whether a value depends on a variable."""
        return value in self._varying

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        name: str,
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        """One node with one output, and its step when an input varies.

        Raises:
            NotImplementedError: an input varies and there is no rule for the operator.
        """
        value = super().op(op_type, inputs, name, attributes, domain=domain)
        if self._needs_step(inputs):
            make = getattr(self, f"_{op_type.lower()}_rule", None)
            if make is None:
                raise NotImplementedError(f"{name}: there is no rule for {op_type}")
            self._record(inputs, [value], make(list(inputs), value, attributes or {}))
        return value

    def split(self, x: ir.Value, axis: int, sizes: Sequence[int], name: str) -> list[ir.Value]:
        """Cut ``x`` along ``axis``; the gradient puts the parts' gradients together again."""
        parts = super().split(x, axis, sizes, name)
        if len(parts) > 1 and self._needs_step([x]):
            self._record([x], parts, lambda grads: [self.concat(grads, axis, f"{name}.grad")])
        return parts

    @contextlib.contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Write nodes that leave no steps behind."""
        before, self._recording = self._recording, False
        try:
            yield
        finally:
            self._recording = before

    @contextlib.contextmanager
    def composite(
        self, inputs: Sequence[ir.Value]
    ) -> Iterator[Callable[[Sequence[ir.Value], Rule], None]]:
        """Write several nodes as one step with a rule of its own.

        Yields a function to call with the step's outputs and its rule.
        """
        done: list[tuple[Sequence[ir.Value], Rule]] = []
        with self.unrecorded():
            yield lambda outputs, rule: done.append((outputs, rule))
        if self._needs_step(inputs):
            ((outputs, rule),) = done
            self._record(inputs, outputs, rule)

    def gradients(
        self,
        output: ir.Value,
        seed: ir.Value,
        variables: Sequence[ir.Value],
        inputs: Sequence[ir.Value],
    ) -> list[ir.Value]:
        """Gradients of ``sum(output * seed)`` with respect to the variables.

        Args:
            output: depends on every variable.
            seed: of the shape of ``output``.
            variables: some of those declared.
            inputs: the graph's inputs, from which shapes are inferred.
        """
        self._shapes = self._inferred_shapes(inputs)
        self._recording = False
        known = {output: seed}
        for step in reversed(self._steps):
            reached = [value in known for value in step.outputs]
            if not any(reached):
                continue  # Nothing that the output depends on.
            if not all(reached):
                unused = step.outputs[reached.index(False)].name
                raise NotImplementedError(f"{unused}: the output does not depend on this part")
            wanted = step.rule([known[value] for value in step.outputs])
            for value, gradient in zip(step.inputs, wanted, strict=True):
                if gradient is None or not self.varies(value):
                    continue
                if value in known:
                    name = self.unique(f"{value.name}.grad.sum")
                    gradient = self.op("Add", [known[value], gradient], name)
                known[value] = gradient
        return [known[variable] for variable in variables]

    def shaped(self, value: ir.Value, shape: Sequence[int | None]) -> None:
        """Say the lengths of a forward float32 value that ONNX's inference cannot know."""
        dims = [n if n is not None else f"{value.name}.{i}" for i, n in enumerate(shape)]
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(dims)
        self._said.append(value)

    def summed_to(self, gradient: ir.Value, like: ir.Value, of: ir.Value) -> ir.Value:
        """A gradient summed over the axes along which ``like`` was broadcast to give ``of``.

        Broadcast are axes that ``like`` lacks, or that have the length 1 there; a length that
        is only known at run time counts as equal.
        """
        have, want = self.shape(of), self.shape(like)
        missing = len(have) - len(want)
        spread = [i for i, n in enumerate(want) if n == 1 and have[i + missing] != 1]
        if missing:
            gradient = self.summed(gradient, list(range(missing)), keep=False)
        return self.summed(gradient, spread) if spread else gradient

    def summed(self, x: ir.Value, axes: Sequence[int], *, keep: bool = True) -> ir.Value:
        """``ReduceSum`` over the axes."""
        attributes, name = {"keepdims": int(keep)}, self.unique(f"{x.name}.summed")
        return self.op("ReduceSum", [x, self.ints(axes)], name, attributes)

    def unique(self, name: str) -> str:
        """The name, with a number behind it when a node has it already."""
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return f"{name}.{count}" if count else name

    def shape(self, value: ir.Value) -> Shape:
        """The inferred shape of a forward value.

        Raises:
            NotImplementedError: not even its number of axes is known.
        """
        if value.name not in self._shapes:
            raise NotImplementedError(f"{value.name}: the number of axes is not known")
        return self._shapes[value.name]

    def length(self, value: ir.Value, axis: int) -> int:
        """The length of an axis of a forward value, which is known before run time."""
        length = self.shape(value)[axis]
        if length is None:
            raise ValueError(f"{value.name}: the length of axis {axis} is not known")
        return length

    def swapped(self, x: ir.Value, rank: int, name: str) -> ir.Value:
        """``x`` with the last two of its ``rank`` axes swapped."""
        return self.transpose(x, [*range(rank - 2), rank - 1, rank - 2], name)

    def _needs_step(self, inputs: Sequence[ir.Value]) -> bool:
        return self._recording and any(self.varies(value) for value in inputs)

    def _record(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], rule: Rule) -> None:
        self._varying.update(outputs)
        self._steps.append(_Step(inputs=tuple(inputs), outputs=tuple(outputs), rule=rule))

    def _inferred_shapes(self, inputs: Sequence[ir.Value]) -> dict[str | None, Shape]:
        """Name → lengths of everything written so far, by ONNX's shape inference.

        Weights go in by type alone, but integers, which are shapes and axes, with their values.
        """
        known = self.tape.initializers
        given = {value.name: value for value in [*inputs, *known]}  # some inputs have a default
        types = [ir.serde.serialize_value(value) for value in given.values()]
        integers = [
            ir.serde.serialize_tensor(value.const_value)
            for value in known
            if value.const_value is not None and value.const_value.dtype == ir.DataType.INT64
        ]
        nodes = [ir.serde.serialize_node(node) for node in self.tape.nodes]
        said = [ir.serde.serialize_value(value) for value in self._said]
        graph = onnx.helper.make_graph(nodes, "forward", types, [], integers, value_info=said)
        domains = {"": 18} | {node.domain: 1 for node in nodes if node.domain}
        opsets = [onnx.helper.make_opsetid(domain, n) for domain, n in domains.items()]
        model = onnx.helper.make_model(graph, opset_imports=opsets)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        infos = [*types, *inferred.graph.value_info]
        return {i.name: _lengths(i) for i in infos if i.type.tensor_type.HasField("shape")}

    def _add_rule(self, x: list[ir.Value], y: ir.Value, _: Mapping[str, Any]) -> Rule:
        def rule(grads: list[ir.Value]) -> Gradients:
            return [self.summed_to(grads[0], v, y) if self.varies(v) else None for v in x]

        return rule

    def _mul_rule(self, x: list[ir.Value], y: ir.Value, _: Mapping[str, Any]) -> Rule:
        def rule(grads: list[ir.Value]) -> Gradients:
            out: list[ir.Value | None] = [None, None]
            for i in (0, 1):
                if self.varies(x[i]):
                    product = self.op("Mul", [grads[0], x[1 - i]], f"{y.name}.grad{i}")
                    out[i] = self.summed_to(product, x[i], y)
            return out

        return rule

    def _matmul_rule(self, x: list[ir.Value], y: ir.Value, _: Mapping[str, Any]) -> Rule:
        def rule(grads: list[ir.Value]) -> Gradients:
            out: list[ir.Value | None] = [None, None]
            for i in (0, 1):
                if self.varies(x[i]):
                    rank = len(self.shape(x[1 - i]))
                    other = self.swapped(x[1 - i], rank, f"{y.name}.grad{i}.other")
                    factors = [grads[0], other] if i == 0 else [other, grads[0]]
                    product = self.op("MatMul", factors, f"{y.name}.grad{i}")
                    out[i] = self.summed_to(product, x[i], y)
            return out

        return rule

    def _gemm_rule(self, x: list[ir.Value], y: ir.Value, attributes: Mapping[str, Any]) -> Rule:
        """Of rows times constant weights plus a constant."""
        if attributes or any(self.varies(value) for value in x[1:]):
            raise NotImplementedError(f"{y.name}: the rule is that of rows times constants")

        def rule(grads: list[ir.Value]) -> Gradients:
            name, across = f"{y.name}.grad", {"transB": 1}
            rows = self.op("Gemm", [grads[0], x[1]], name, across)
            return [rows, *[None] * (len(x) - 1)]

        return rule

    def _concat_rule(self, x: list[ir.Value], y: ir.Value, attributes: Mapping[str, Any]) -> Rule:
        """Of parts whose lengths are known."""

        def rule(grads: list[ir.Value]) -> Gradients:
            axis = attributes["axis"]
            return self.split(grads[0], axis, [self.length(v, axis) for v in x], f"{y.name}.grad")

        return rule

    def _transpose_rule(
        self, x: list[ir.Value], y: ir.Value, attributes: Mapping[str, Any]
    ) -> Rule:
        perm = list(attributes["perm"])
        back = [perm.index(i) for i in range(len(perm))]
        return lambda grads: [self.transpose(grads[0], back, f"{y.name}.grad")]

    def _reshape_rule(self, x: list[ir.Value], y: ir.Value, _: Mapping[str, Any]) -> Rule:
        def rule(grads: list[ir.Value]) -> Gradients:
            shape = self.op("Shape", [x[0]], f"{y.name}.grad.shape")
            return [self.op("Reshape", [grads[0], shape], f"{y.name}.grad"), None]

        return rule


def _lengths(info: onnx.ValueInfoProto) -> Shape:
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
