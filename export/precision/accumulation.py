"""What FP16 costs where sums are kept in FP16 too, emulated on ONNX Runtime's CPU.

Fused attention on NVIDIA GPUs may add up in FP16 (kernels with ``hmma_fp16`` in their names; with
FP32 sums only from TensorRT 11.3 on, by its release notes). Here every product in FP16 is a loop
over tiles of 8 terms: a tile is summed exactly and added to a sum that is rounded to FP16, as a
tensor core with FP16 accumulators does. Attention runs over blocks of keys with a running maximum:
weights ``exp(score - maximum)`` in FP16, their sum in FP32, weighted values in FP16 and rescaled
where the maximum moves, divided at the end.

It is a bound and not a forecast: a kernel with FP32 sums, larger tiles, or weights that are
normalised before they meet the values loses less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from poyo_edge.arrays import Array
from poyo_edge.errors import UsageError
from poyo_edge.export.precision.emulation import EXACT, emulated
from poyo_edge.export.precision.mixed import METADATA

TILE = 8
"""Terms that are summed exactly before the sum is rounded."""
KEYS = 64
"""Keys of a block of attention."""
_LOWEST = -1e30
"""Below every score; its exponential is 0."""
_FLOAT, _FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16


def accumulated(mixed: onnx.ModelProto) -> onnx.ModelProto:
    """The emulation of ``mixed`` with sums in FP16; names are those of ``emulated``.

    Raises:
        UsageError: the graph is not FP16 from ``mixed_precision``: no hardware sums in BF16.
    """
    precision = {entry.key: entry.value for entry in mixed.metadata_props}.get(METADATA)
    if precision != "fp16":
        raise UsageError(f"accumulation: expected a graph in fp16, got {precision!r}")
    proto = onnx.shape_inference.infer_shapes(emulated(mixed))
    _Accumulating(proto).rewrite()
    del proto.graph.value_info[:]
    return proto


class _Accumulating:
    """Rewrites the products of one emulation."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        graph = proto.graph
        self.shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for value in (*graph.value_info, *graph.input, *graph.output):
            dims = value.type.tensor_type.shape.dim
            self.shapes[value.name] = tuple(d.dim_value or -1 for d in dims)
        self.makers = {name: node for node in graph.node for name in node.output}
        self.constants: dict[str, TensorProto] = {}

    def rewrite(self) -> None:
        """Put loops in place of products, and drop what fused attention no longer reads."""
        graph, nodes = self.proto.graph, list[onnx.NodeProto]()
        for node in graph.node:
            low = node.op_type in ("MatMul", "Gemm") and node.output[0].endswith(EXACT)
            if not low:
                nodes.append(node)
            elif (softmax := self._softmax(node)) is not None:
                nodes += self._attention(node, softmax.input[0])
            else:
                nodes += self._product(node)
        del graph.node[:]
        graph.node.extend(_needed(nodes, {value.name for value in graph.output}))
        graph.initializer.extend(self.constants.values())

    def _softmax(self, product: onnx.NodeProto) -> onnx.NodeProto | None:
        """The softmax in FP16 whose rounded result the product reads, or None."""
        name = product.input[0]
        maker = self.makers.get(f"{name}{EXACT}")
        return maker if maker is not None and maker.op_type == "Softmax" else None

    def _product(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """``a @ b (+ c)``, tile after tile."""
        a, b, *bias = node.input
        out = node.output[0]
        rank, terms = len(self.shapes[a]), self.shapes[b][-2]
        perm = [*range(len(self.shapes[b]) - 2), len(self.shapes[b]) - 1, len(self.shapes[b]) - 2]
        yield _node("Transpose", [b], f"{out}.columns", perm=perm)
        left, right = a, f"{out}.columns"
        if terms % TILE:
            left, right = f"{out}.left", f"{out}.right"
            yield self._padded(a, rank, -terms % TILE, left)
            yield self._padded(f"{out}.columns", len(perm), -terms % TILE, right)
        yield self._reshape(left, [0] * (rank - 1) + [-1, TILE], f"{out}.left_tiles")
        yield self._reshape(right, [0] * (len(perm) - 1) + [-1, TILE], f"{out}.right_tiles")
        yield from self._zeros(a, b, rank, len(perm), f"{out}.zero")
        total = f"{out}.sum" if bias else out
        yield _node(
            "Scan",
            [f"{out}.zero", f"{out}.left_tiles", f"{out}.right_tiles"],
            total,
            body=_product_body(rank, len(perm)),
            num_scan_inputs=2,
            scan_input_axes=[rank - 1, len(perm) - 1],
        )
        if bias:
            yield _node("Add", [total, bias[0]], out)

    def _attention(self, node: onnx.NodeProto, score: str) -> Iterator[onnx.NodeProto]:
        """Softmax of scores (..., rows, keys) times values (..., keys, W), block after block."""
        value, out = node.input[1], node.output[0]
        rank, width = len(self.shapes[score]), self.shapes[value][-1]
        pads = f"{out}.missing"
        yield _node("Shape", [score], f"{out}.keys", start=rank - 1)
        yield _node("Neg", [f"{out}.keys"], f"{out}.minus_keys")
        keys = self._constant(np.array([KEYS], np.int64), "accumulation.keys")
        yield _node("Mod", [f"{out}.minus_keys", keys], pads)
        yield from self._padded_by(score, rank, rank - 1, pads, _LOWEST, f"{out}.scores")
        yield from self._padded_by(value, rank, rank - 2, pads, 0.0, f"{out}.values")
        yield self._reshape(f"{out}.scores", [0] * (rank - 1) + [-1, KEYS], f"{out}.score_blocks")
        yield self._reshape(
            f"{out}.values", [0] * (rank - 2) + [-1, KEYS, width], f"{out}.value_blocks"
        )
        yield from self._zeros(score, value, rank, rank, f"{out}.zero")
        lowest = self._constant(np.array(_LOWEST, np.float32), "accumulation.lowest")
        yield _node("Add", [f"{out}.zero.left", lowest], f"{out}.lowest")
        states = [f"{out}.lowest", f"{out}.zero.left", f"{out}.zero"]
        yield helper.make_node(
            "Scan",
            [*states, f"{out}.score_blocks", f"{out}.value_blocks"],
            [f"{out}.maximum", f"{out}.weights", f"{out}.sum"],
            f"{out}.blocks",
            body=_attention_body(rank),
            num_scan_inputs=2,
            scan_input_axes=[rank - 1, rank - 2],
        )
        yield _node("Div", [f"{out}.sum", f"{out}.weights"], out)

    def _zeros(
        self, a: str, b: str, rank_a: int, rank_b: int, name: str
    ) -> Iterator[onnx.NodeProto]:
        """``NAME`` in the shape of ``a @ b``, and ``NAME.left`` (..., rows, 1)."""
        zero = self._constant(np.zeros((), np.float32), "accumulation.zero")
        starts, ends = (self._ints([i]) for i in (0, 1))
        yield _node("Slice", [a, starts, ends, self._ints([rank_a - 1])], f"{name}.column")
        yield _node("Mul", [f"{name}.column", zero], f"{name}.left")
        yield _node("Slice", [b, starts, ends, self._ints([rank_b - 2])], f"{name}.row")
        yield _node("MatMul", [f"{name}.left", f"{name}.row"], name)

    def _padded(self, x: str, rank: int, count: int, name: str) -> onnx.NodeProto:
        return _node("Pad", [x, self._ints([0] * (2 * rank - 1) + [count])], name)

    def _padded_by(
        self, x: str, rank: int, axis: int, count: str, fill: float, name: str
    ) -> Iterator[onnx.NodeProto]:
        """``x`` with ``count`` (1,) more along an axis."""
        before, after = self._ints([0] * (rank + axis)), self._ints([0] * (rank - axis - 1))
        parts = [before, count, *([after] if axis < rank - 1 else [])]
        yield _node("Concat", parts, f"{name}.pads", axis=0)
        value = self._constant(np.array(fill, np.float32), f"accumulation.fill_{fill:g}")
        yield _node("Pad", [x, f"{name}.pads", value], name)

    def _reshape(self, x: str, shape: Sequence[int], name: str) -> onnx.NodeProto:
        return _node("Reshape", [x, self._ints(shape)], name)

    def _ints(self, values: Sequence[int]) -> str:
        name = f"accumulation.ints.{'_'.join(map(str, values))}"
        return self._constant(np.array(values, np.int64), name)

    def _constant(self, array: Array, name: str) -> str:
        self.constants[name] = numpy_helper.from_array(array, name)
        return name


def _product_body(rank_a: int, rank_b: int) -> onnx.GraphProto:
    """One step: the sum so far, and a tile of rows (..., R, 8) and columns (..., C, 8)."""
    perm = [*range(rank_b - 2), rank_b - 1, rank_b - 2]
    nodes = [
        _node("Transpose", ["b"], "columns", perm=perm),
        _node("MatMul", ["a", "columns"], "tile"),
        _node("Add", ["sum", "tile"], "exact"),
        *_rounded("exact", "next"),
    ]
    return helper.make_graph(nodes, "tile", [_value("sum"), _value("a"), _value("b")],
                             [_value("next")])  # fmt: skip


def _attention_body(rank: int) -> onnx.GraphProto:
    """One step: maximum, sum of weights and weighted values so far, and a block of keys."""
    last = numpy_helper.from_array(np.array([rank - 1], np.int64), "last")
    bounds = [
        numpy_helper.from_array(np.array([i], np.int64), f"at_{i}")
        for i in range(0, KEYS + 1, TILE)
    ]
    axis = numpy_helper.from_array(np.array([rank - 2], np.int64), "keys")
    nodes = [
        _node("ReduceMax", ["score", "last"], "top", keepdims=1),
        _node("Max", ["maximum", "top"], "new_maximum"),
        _node("Sub", ["score", "new_maximum"], "lowered"),
        _node("Exp", ["lowered"], "exact_weight"),
        *_rounded("exact_weight", "weight"),
        _node("Sub", ["maximum", "new_maximum"], "moved"),
        _node("Exp", ["moved"], "rescale"),
        _node("Mul", ["weights", "rescale"], "kept_weights"),
        _node("ReduceSum", ["weight", "last"], "block_weights", keepdims=1),
        _node("Add", ["kept_weights", "block_weights"], "new_weights"),
        _node("Mul", ["sum", "rescale"], "exact_0"),
        *_rounded("exact_0", "sum_0"),
    ]
    for i in range(KEYS // TILE):
        ends = [f"at_{i * TILE}", f"at_{(i + 1) * TILE}"]
        nodes += [
            _node("Slice", ["weight", *ends, "last"], f"weight_{i}"),
            _node("Slice", ["value", *ends, "keys"], f"value_{i}"),
            _node("MatMul", [f"weight_{i}", f"value_{i}"], f"tile_{i}"),
            _node("Add", [f"sum_{i}", f"tile_{i}"], f"exact_{i + 1}"),
            *_rounded(f"exact_{i + 1}", f"sum_{i + 1}"),
        ]
    inputs = [_value(name) for name in ("maximum", "weights", "sum", "score", "value")]
    outputs = [_value(n) for n in ("new_maximum", "new_weights", f"sum_{KEYS // TILE}")]
    return helper.make_graph(nodes, "block", inputs, outputs, initializer=[last, axis, *bounds])


def _rounded(name: str, result: str) -> list[onnx.NodeProto]:
    return [
        _node("Cast", [name], f"{result}.low", to=_FLOAT16),
        _node("Cast", [f"{result}.low"], result, to=_FLOAT),
    ]


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _FLOAT, None)


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], name=output, **attributes)


def _needed(nodes: Sequence[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes that lead to what is wanted, in order."""
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]
