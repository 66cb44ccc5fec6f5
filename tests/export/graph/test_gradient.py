"""Rules of gradients on small graphs, against difference quotients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx_ir as ir  # noqa: E402
from helpers.models.graphs import open_graph  # noqa: E402

from poyo_edge.export.graph.core import IR_VERSION, OPSET  # noqa: E402
from poyo_edge.export.graph.gradient import GradientWriter  # noqa: E402

Array = npt.NDArray[np.float32]
Build = Callable[..., ir.Value]
"""From the writer and the inputs, by name, to the output."""

BATCH = 5
"""An axis of this length is called "batch" in graphs with dynamic axes; no other axis has it."""
LIMIT = 1e-5  # 2.7e-7
"""Largest error relative to the largest gradient; the measured worst case is beside it."""

WEIGHT = np.random.default_rng(7).normal(size=(3, 4)).astype(np.float32)
BIAS = np.random.default_rng(8).normal(size=4).astype(np.float32)


def gemm(w: GradientWriter, x: ir.Value) -> ir.Value:
    return w.op("Gemm", [x, w.constant(WEIGHT, "weight"), w.constant(BIAS, "bias")], "out")


def add(w: GradientWriter, x: ir.Value, y: ir.Value) -> ir.Value:
    return w.op("Add", [x, y], "out")


def mul(w: GradientWriter, x: ir.Value, y: ir.Value) -> ir.Value:
    return w.op("Mul", [x, y], "out")


def matmul(w: GradientWriter, x: ir.Value, y: ir.Value) -> ir.Value:
    return w.op("MatMul", [x, y], "out")


def transpose(w: GradientWriter, x: ir.Value) -> ir.Value:
    return w.transpose(x, [1, 2, 0], "out")


def reshape(w: GradientWriter, x: ir.Value) -> ir.Value:
    return w.reshape(x, [-1, 2, 3], "out")


def concat(w: GradientWriter, x: ir.Value, y: ir.Value) -> ir.Value:
    return w.concat([x, w.constant(np.ones((1, 2), np.float32), "ones"), y], 1, "out")


def split(w: GradientWriter, x: ir.Value) -> ir.Value:
    first, second, third = w.split(x, -1, [1, 0, 3, 3], "parts")
    product = w.op("Mul", [second, third], "product")
    return w.op("Add", [product, first], "out")


def split_whole(w: GradientWriter, x: ir.Value) -> ir.Value:
    (whole,) = w.split(x, 1, [0, 4], "parts")
    return w.op("Mul", [whole, whole], "out")


def one_value_used_thrice(w: GradientWriter, x: ir.Value) -> ir.Value:
    square = w.op("Mul", [x, x], "square")
    return w.op("Add", [square, x], "out")


def one_result_used_twice(w: GradientWriter, x: ir.Value, y: ir.Value) -> ir.Value:
    total = w.op("Add", [x, y], "total")
    turned = w.transpose(total, [1, 0], "turned")
    return w.op("MatMul", [turned, total], "out")


def composite(w: GradientWriter, x: ir.Value, y: ir.Value) -> ir.Value:
    with w.composite([x, y]) as step:
        difference = w.op("Sub", [x, y], "difference")
        out = w.op("Mul", [difference, difference], "out")

        def rule(grads: list[ir.Value]) -> list[ir.Value]:
            slope = w.op("Mul", [difference, w.scalar(2.0)], "slope")
            right = w.op("Mul", [grads[0], slope], "right")
            return [right, w.op("Neg", [right], "left")]

        step([out], rule)
    return w.op("Add", [out, x], "and_more")


def composite_of_two_results(w: GradientWriter, x: ir.Value) -> ir.Value:
    with w.composite([x]) as step:
        half, minus = w.op("Mul", [x, w.scalar(0.5)], "half"), w.op("Neg", [x], "minus")

        def rule(grads: list[ir.Value]) -> list[ir.Value]:
            first = w.op("Mul", [grads[0], w.scalar(0.5)], "first")
            return [w.op("Sub", [first, grads[1]], "both")]

        step([half, minus], rule)
    return w.op("Mul", [half, minus], "out")


def chain(w: GradientWriter, x: ir.Value) -> ir.Value:
    rows = w.reshape(gemm(w, x), [-1, 2, 2, 1], "rows")
    heads = w.transpose(rows, [1, 0, 3, 2], "heads")
    left, right = w.split(heads, 0, [1, 1], "parts")
    score = w.op("MatMul", [left, w.swapped(right, 4, "right_swapped")], "score")
    return w.concat([score, left], -1, "all")


# Name → how to write it, and the shapes of its inputs, all of which vary.
# Nothing is steeper than a square in any one input, so central differences are exact.
CASES: dict[str, tuple[Build, dict[str, tuple[int, ...]]]] = {
    "add": (add, {"x": (BATCH, 3), "y": (BATCH, 3)}),
    "add, axis of length 1": (add, {"x": (BATCH, 1, 3), "y": (BATCH, 4, 3)}),
    "add, batch of length 1": (add, {"x": (BATCH, 4, 3), "y": (1, 4, 3)}),
    "add, missing axes": (add, {"x": (3,), "y": (BATCH, 4, 3)}),
    "add, missing axes and length 1": (add, {"x": (BATCH, 4, 3), "y": (4, 1)}),
    "add, length 1 that stays 1": (add, {"x": (BATCH, 1), "y": (BATCH, 1)}),
    "mul": (mul, {"x": (BATCH, 3), "y": (BATCH, 3)}),
    "mul, axis of length 1": (mul, {"x": (BATCH, 1, 3), "y": (BATCH, 4, 3)}),
    "mul, both broadcast": (mul, {"x": (1, 4, 1), "y": (BATCH, 1, 3)}),
    "mul, missing axes": (mul, {"x": (BATCH, 4, 3), "y": (3,)}),
    "mul, missing axes and length 1": (mul, {"x": (4, 1), "y": (BATCH, 4, 3)}),
    "mul, a scalar": (mul, {"x": (), "y": (BATCH, 3)}),
    "matmul": (matmul, {"x": (BATCH, 3), "y": (3, 4)}),
    "matmul, inner length 1": (matmul, {"x": (BATCH, 4, 1), "y": (BATCH, 1, 3)}),
    "matmul, outer lengths 1": (matmul, {"x": (BATCH, 1, 4), "y": (BATCH, 4, 1)}),
    "matmul, one row": (matmul, {"x": (1, 3), "y": (3, 4)}),
    "matmul, batch": (matmul, {"x": (BATCH, 2, 3), "y": (BATCH, 3, 4)}),
    "matmul, right without batch": (matmul, {"x": (BATCH, 2, 3), "y": (3, 4)}),
    "matmul, left without batch": (matmul, {"x": (2, 3), "y": (BATCH, 3, 4)}),
    "matmul, left batch of length 1": (matmul, {"x": (1, 2, 3), "y": (BATCH, 3, 4)}),
    "matmul, both broadcast": (matmul, {"x": (2, 1, 2, 3), "y": (1, BATCH, 3, 4)}),
    "gemm": (gemm, {"x": (BATCH, 3)}),
    "transpose": (transpose, {"x": (BATCH, 2, 3)}),
    "reshape": (reshape, {"x": (BATCH, 6)}),
    "concat": (concat, {"x": (1, 3), "y": (1, 4)}),
    "split": (split, {"x": (BATCH, 7)}),
    "split into one": (split_whole, {"x": (BATCH, 4)}),
    "one value used thrice": (one_value_used_thrice, {"x": (BATCH, 3)}),
    "one result used twice": (one_result_used_twice, {"x": (BATCH, 3), "y": (BATCH, 3)}),
    "composite": (composite, {"x": (BATCH, 3), "y": (BATCH, 3)}),
    "composite of two results": (composite_of_two_results, {"x": (BATCH, 3)}),
    "chain": (chain, {"x": (BATCH, 3)}),
}


class Written:
    """A graph of an output and of the gradients of ``sum(output * seed)``, opened."""

    def __init__(
        self,
        build: Build,
        arrays: Mapping[str, Array],
        variables: Sequence[str] | None = None,
        *,
        dynamic: bool = False,
    ) -> None:
        self.feeds = dict(arrays)
        self.variables = list(arrays if variables is None else variables)
        self.seed = np.ones((), np.float32)
        # The output's shape is only known once the graph without gradients has run.
        shape = self._open(build, dynamic, []).run(["output"], self.feeds)[0].shape
        self.seed = np.random.default_rng(9).normal(size=shape).astype(np.float32)
        self.session = self._open(build, dynamic, self.variables)

    def gradients(self) -> dict[str, Array]:
        names = [f"{name}_gradient" for name in self.variables]
        return dict(zip(self.variables, self.session.run(names, self.feeds), strict=True))

    def quotients(self) -> dict[str, Array]:
        """Central differences with step 1."""
        return {name: self._quotient(name) for name in self.variables}

    def _quotient(self, name: str) -> Array:
        out = np.zeros_like(self.feeds[name])
        for index in np.ndindex(out.shape):
            ahead, behind = self.feeds[name].copy(), self.feeds[name].copy()
            ahead[index] += 1
            behind[index] -= 1
            out[index] = (self._total({name: ahead}) - self._total({name: behind})) / 2
        return out

    def _total(self, changed: Mapping[str, Array]) -> float:
        (output,) = self.session.run(["output"], {**self.feeds, **changed})
        return float(np.sum(output.astype(np.float64) * self.seed))

    def _open(self, build: Build, dynamic: bool, variables: Sequence[str]) -> Any:
        w = GradientWriter()
        inputs = {name: _input(name, array.shape, dynamic) for name, array in self.feeds.items()}
        wanted = [w.variable(inputs[name]) for name in variables]
        results = {"output": build(w, **inputs)}
        if wanted:
            seed = w.constant(self.seed, "seed")
            found = w.gradients(results["output"], seed, wanted, list(inputs.values()))
            results |= {f"{v.name}_gradient": g for v, g in zip(wanted, found, strict=True)}
        outputs = [w.op("Identity", [value], name) for name, value in results.items()]
        for value in outputs:
            value.dtype = ir.DataType.FLOAT
        self.nodes = [node.name for node in w.tape.nodes]
        self.operators = {node.op_type for node in w.tape.nodes}
        return _open(w.graph(list(inputs.values()), outputs, opset=OPSET, name="test"))


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_difference_quotients(case: str, dynamic: bool) -> None:
    build, shapes = CASES[case]
    written = Written(build, draw(shapes), dynamic=dynamic)
    got, want = written.gradients(), written.quotients()
    for name in shapes:
        assert got[name].shape == want[name].shape, name
        assert largest_error(got[name], want[name]) <= LIMIT, name


def test_a_wrong_rule_would_be_seen() -> None:
    def lose_a_term(w: GradientWriter, x: ir.Value) -> ir.Value:
        with w.composite([x]) as step:
            out = w.op("Mul", [x, x], "out")
            step([out], lambda grads: [w.op("Mul", [grads[0], x], "half_of_it")])
        return out

    written = Written(lose_a_term, draw({"x": (2, 3)}))
    assert largest_error(written.gradients()["x"], written.quotients()["x"]) > 0.4


@pytest.mark.parametrize("varying", ["x", "y"])
@pytest.mark.parametrize(
    "case", ["add, missing axes", "mul, missing axes", "matmul, batch", "concat"]
)
def test_a_constant_input_gets_no_gradient(case: str, varying: str) -> None:
    build, shapes = CASES[case]
    written = Written(build, draw(shapes), [varying])
    assert largest_error(written.gradients()[varying], written.quotients()[varying]) <= LIMIT
    constant = {"x": 0, "y": 1}[varying] ^ 1
    assert f"out.grad{constant}" not in written.nodes


def test_nodes_of_constants_are_written_as_without_gradients() -> None:
    w = GradientWriter()
    x = _input("x", (2,), dynamic=False)
    assert not w.varies(w.op("Sigmoid", [x], "no_rule_is_needed"))
    assert not any(w.varies(part) for part in w.split(x, 0, [1, 1], "parts"))
    assert w.varies(w.op("Add", [w.variable(_input("y", (2,), dynamic=False)), x], "sum"))


def test_unrecorded_nodes_leave_no_gradient() -> None:
    def build(w: GradientWriter, x: ir.Value) -> ir.Value:
        with w.unrecorded():
            exponential = w.op("Exp", [x], "exponential")
            first, _ = w.split(x, 1, [1, 2], "parts")
        assert not w.varies(exponential) and not w.varies(first)
        return w.op("Mul", [w.op("Mul", [x, exponential], "product"), first], "out")

    arrays = draw({"x": (2, 3)})
    written = Written(build, arrays)
    x = arrays["x"]
    want = written.seed * np.exp(x) * x[:, :1]
    assert largest_error(written.gradients()["x"], want) <= LIMIT


def test_recording_goes_on_after_an_error_in_unrecorded_nodes() -> None:
    w = GradientWriter()
    x = w.variable(_input("x", (2,), dynamic=False))
    with pytest.raises(KeyError), w.unrecorded():
        raise KeyError
    assert w.varies(w.op("Add", [x, x], "sum"))


def test_a_composites_rule_is_the_one_that_counts() -> None:
    def build(w: GradientWriter, x: ir.Value) -> ir.Value:
        with w.composite([x]) as step:
            out = w.op("Mul", [w.op("Exp", [x], "no_rule_is_needed"), x], "out")
            step([out], lambda grads: [w.op("Mul", [grads[0], w.scalar(7.0)], "seven")])
        return out

    written = Written(build, draw({"x": (2, 3)}))
    assert largest_error(written.gradients()["x"], 7 * written.seed) <= LIMIT


def test_nodes_that_the_output_does_not_depend_on_change_nothing() -> None:
    def build(w: GradientWriter, x: ir.Value) -> ir.Value:
        out = w.op("Mul", [x, x], "out")
        w.op("Add", [out, x], "aside")
        return out

    written = Written(build, draw({"x": (2, 3)}))
    assert largest_error(written.gradients()["x"], written.quotients()["x"]) <= LIMIT


@pytest.mark.parametrize("operator", ["Sigmoid", "Sub", "Gather", "Softmax"])
def test_an_operator_without_a_rule_is_named(operator: str) -> None:
    w = GradientWriter()
    x = w.variable(_input("x", (2, 2), dynamic=False))
    with pytest.raises(NotImplementedError, match=f"^here: there is no rule for {operator}$"):
        w.op(operator, [x, x] if operator in ("Sub", "Gather") else [x], "here")


def test_joined_parts_need_lengths_that_are_known() -> None:
    def build(w: GradientWriter, x: ir.Value, y: ir.Value) -> ir.Value:
        return w.concat([x, y], 0, "rows")

    arrays = draw({"x": (BATCH, 3), "y": (2, 3)})
    Written(build, arrays)
    with pytest.raises(ValueError, match="x: the length of axis 0 is not known"):
        Written(build, arrays, dynamic=True)


def test_no_gradient_scatters() -> None:
    for build, shapes in CASES.values():
        operators = Written(build, draw(shapes)).operators
        assert not any("Scatter" in operator or operator == "GatherND" for operator in operators)


def draw(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def largest_error(got: Array, want: Array) -> float:
    """Relative to the largest gradient; NaN when anything is."""
    return float(np.abs(got - want).max() / np.abs(want).max())


def _input(name: str, shape: tuple[int, ...], dynamic: bool) -> ir.Value:
    dims = ["batch" if dynamic and n == BATCH else n for n in shape]
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(dims))


def _open(graph: ir.Graph) -> Any:
    proto = ir.serde.serialize_model(ir.Model(graph, ir_version=IR_VERSION))
    return open_graph(proto.SerializeToString())
