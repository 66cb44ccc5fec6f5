"""What a low precision graph computes on a GPU, emulated on ONNX Runtime's CPU.

CPU providers compute FP16 in FP32 without saying so; running the graph itself proves nothing.
Here every node computes in FP32 on rounded inputs and its result is rounded by a pair of casts,
as a tensor core with FP32 accumulation does. What it does not show: the order of a GPU's sums,
and sums that a GPU keeps in FP16, which ``accumulation.py`` adds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from poyo_edge.errors import BackendError, UsageError
from poyo_edge.export.precision.mixed import METADATA, MOVES, PRECISIONS
from poyo_edge.runtime.backends import Backend, Feeds

Emulate = Callable[[onnx.ModelProto], onnx.ModelProto]
EXACT = ".exact"
"""Behind the name of a value before it is rounded."""
_FLOAT = ir.DataType.FLOAT


def emulated(mixed: onnx.ModelProto) -> onnx.ModelProto:
    """An FP32 graph that rounds wherever ``mixed`` computes in low precision.

    Values keep their names; what a node computed before rounding is called ``NAME.exact``.

    Raises:
        UsageError: the graph did not come from ``mixed_precision``.
    """
    precision = {entry.key: entry.value for entry in mixed.metadata_props}.get(METADATA)
    if precision not in PRECISIONS:
        raise UsageError(
            f"emulation: expected a graph of mixed precision, got one marked {precision!r}"
        )
    low = PRECISIONS[precision]
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(mixed))
    graph = model.graph
    for value in graph.initializers.values():
        if value.dtype == low and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32))
            value.dtype = _FLOAT
    for node in list(graph):
        _emulate(graph, node, low)
    proto = ir.serde.serialize_model(model)
    del proto.graph.value_info[:]
    return proto


class EmulatedBackend(Backend):
    """Runs the emulation as any backend; for measurements, not for decoding."""

    def __init__(self, mixed: onnx.ModelProto, emulate: Emulate = emulated) -> None:
        """``emulate`` is ``emulated``, or ``accumulated`` for sums in FP16."""
        self.name = "emulated"
        self._session = open_session(emulate(mixed), ["prediction"])

    def run(self, feeds: Feeds) -> npt.NDArray[np.float32]:
        """(B, Q, O) float32 predictions in the model's scale.

        Raises:
            BackendError: ONNX Runtime failed.
        """
        try:
            (prediction,) = self._session.run(["prediction"], dict(feeds))
        except Exception as problem:
            raise BackendError(f"emulated: {problem}") from problem
        return np.asarray(prediction, np.float32)


def open_session(
    proto: onnx.ModelProto, outputs: list[str], threads: int = 1
) -> onnxruntime.InferenceSession:
    """The graph with these values as its outputs, and not one cast optimised away.

    Args:
        proto: a float32 graph.
        outputs: names of values, float32 each.
        threads: threads for one run.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    known = {value.name for value in watched.graph.output}
    for name in outputs:
        if name not in known:
            watched.graph.output.add(name=name).type.tensor_type.elem_type = _FLOAT.value
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def rounded_values(mixed: onnx.ModelProto) -> list[str]:
    """Names of the values that the emulation rounds because a node computed them."""
    exact = {name for node in emulated(mixed).graph.node for name in node.output}
    return [name.removesuffix(EXACT) for name in sorted(exact) if name.endswith(EXACT)]


def _emulate(graph: ir.Graph, node: ir.Node, low: ir.DataType) -> None:
    kinds = [value.dtype for value in node.outputs]
    for value in node.outputs:
        if value.dtype == low:
            value.dtype = _FLOAT
    if node.op_type == "Cast":
        source = node.inputs[0]
        if kinds[0] == low and source is not None and source.dtype == _FLOAT:
            _round(graph, node, node.outputs[0], low)
        node.attributes["to"] = ir.AttrInt64("to", _FLOAT.value)
    elif node.op_type not in MOVES and kinds[0] == low:
        _round(graph, node, node.outputs[0], low)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value, low: ir.DataType) -> None:
    """Make ``node`` compute ``NAME.exact`` and let two casts make NAME of it."""
    name = value.name or ""
    value.name = name + EXACT
    down = ir.node("Cast", [value], {"to": low.value}, name=f"{name}.down")
    down.outputs[0].name = f"{name}.rounded"
    up = ir.node("Cast", down.outputs, {"to": _FLOAT.value}, name=f"{name}.up")
    rounded = up.outputs[0]
    rounded.name, rounded.dtype, rounded.shape = name, _FLOAT, value.shape
    value.replace_all_uses_with(rounded, replace_graph_outputs=True)
    down.replace_input_with(0, value)
    graph.insert_after(node, [down, up])
