"""``adapt.onnx`` as a file: its inputs and outputs, operators and bytes."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch_brain.models")

import onnx_ir as ir  # noqa: E402
from helpers.models.adapt_oracle import SPECS, frozen  # noqa: E402
from helpers.models.graphs import signature  # noqa: E402

from poyo_edge.errors import CheckFailedError  # noqa: E402
from poyo_edge.export.graph.adapt import build_adapt  # noqa: E402
from poyo_edge.export.graph.core import OPSET, checked_model  # noqa: E402

ENCODER = {
    "token_type": [3, 24],
    "context_norm.weight": [24],
    "context_norm.bias": [24],
    "to_kv": [64, 24],
}


def test_graph_keeps_the_contract_of_its_inputs_and_outputs() -> None:
    graph = frozen("odd").proto.graph
    assert signature(graph.input) == {
        "spike_unit": ("INT32", ["batch", "n_spikes"]),
        "spike_time": ("FLOAT", ["batch", "n_spikes"]),
        "spike_mask": ("BOOL", ["batch", "n_spikes"]),
        "query_time": ("FLOAT", ["batch", "n_queries"]),
        "target": ("FLOAT", ["batch", "n_queries", 3]),
        "target_weight": ("FLOAT", ["batch", "n_queries"]),
        "unit_embedding": ("FLOAT", ["n_units", 24]),
        "session_embedding": ("FLOAT", [24]),
        **{f"encoder.{name}": ("FLOAT", shape) for name, shape in ENCODER.items()},
    }
    assert signature(graph.output) == {
        "loss": ("FLOAT", []),
        "unit_embedding_gradient": ("FLOAT", ["n_units", 24]),
        "session_embedding_gradient": ("FLOAT", [24]),
        **{f"encoder.{name}_gradient": ("FLOAT", shape) for name, shape in ENCODER.items()},
    }
    defaults = {tensor.name for tensor in graph.initializer}
    assert defaults >= {f"encoder.{name}" for name in ENCODER}  # nobody has to give them


@pytest.mark.parametrize("spec", SPECS)
def test_graph_is_one_plain_file_that_old_runtimes_open(spec: str) -> None:
    proto = frozen(spec).proto
    assert proto.ir_version == 8
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 18)]
    assert OPSET == 18
    assert not any(node.domain for node in proto.graph.node)
    assert not proto.functions
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    onnx.checker.check_model(proto, full_check=True)


@pytest.mark.parametrize("spec", SPECS)
def test_no_node_scatters(spec: str) -> None:
    nodes = frozen(spec).proto.graph.node
    assert not any(a.type == onnx.AttributeProto.GRAPH for node in nodes for a in node.attribute)
    operators = {node.op_type for node in nodes}
    assert {"MatMul", "OneHot"} <= operators
    assert not any("Scatter" in name or name == "GatherND" for name in operators)


def test_building_twice_gives_the_same_bytes() -> None:
    built = frozen("odd")
    assert build_adapt(built.folded).SerializeToString() == built.proto.SerializeToString()


def test_an_invalid_graph_is_refused_by_the_name_of_its_file() -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.Node("", "NoSuchOperator", [x])
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", x.type, x.shape
    graph = ir.Graph([x], [y], nodes=[node], opset_imports={"": OPSET}, name="invalid")
    message = r"^adapt\.onnx: expected a valid graph, got: .*NoSuchOperator"
    with pytest.raises(CheckFailedError, match=message):
        checked_model(graph, "adapt.onnx")
