"""The precision pass: what it changes, what it must not, and what stops it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from helpers.models.cores import RandomCore, random_core  # noqa: E402

from poyo_edge.errors import CheckFailedError, UsageError  # noqa: E402
from poyo_edge.export.precision.islands import ISLANDS, KINDS  # noqa: E402
from poyo_edge.export.precision.mixed import MOVES, Island, MixedPrecision, mixed_precision  # noqa: E402
from poyo_edge.export.precision.operator_table import VERSIONS  # noqa: E402
from poyo_edge.export.precision.operators import check_operators  # noqa: E402
from poyo_edge.spec import POYO_1_3M, POYO_11_8M  # noqa: E402

Proto = Any
ALWAYS_FP32 = (
    "encoder.spike_time.angle", "encoder.spike_time.cos", "encoder.spike_time.sin",
    "decoder.attention.query_time.angle", "decoder.attention.query_time.cos",
    "decoder.attention.norm", "layer0.attention.norm", "layer1.feed_forward.norm", "readout",
)  # fmt: skip
ALWAYS_LOW = (
    "encoder.attention.score", "layer0.attention.qkv", "layer1.attention.value",
    "layer0.feed_forward.gate", "layer0.feed_forward.hidden", "layer0.feed_forward.gelu.erf",
    "decoder.attention.key_value",
)  # fmt: skip


@pytest.fixture(scope="module")
def core() -> RandomCore:
    return random_core()


def types(proto: Proto) -> dict[str, str]:
    """Node name → type of its first output, by ONNX's own inference."""
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    name = onnx.TensorProto.DataType.Name
    return {node.name: name(kinds[node.output[0]]) for node in inferred.node}


@pytest.mark.parametrize(("precision", "low"), [("fp16", "FLOAT16"), ("bf16", "BFLOAT16")])
def test_products_are_low_and_times_norms_and_readout_are_not(
    core: RandomCore, precision: str, low: str
) -> None:
    found = types(mixed_precision(core.proto, ISLANDS, precision))
    assert {found[name] for name in ALWAYS_FP32} == {"FLOAT"}
    assert {found[name] for name in ALWAYS_LOW} == {low}


def test_inputs_and_outputs_keep_names_types_and_axes(core: RandomCore) -> None:
    mixed = mixed_precision(core.proto, ISLANDS)
    assert [value.SerializeToString() for value in mixed.graph.input] == [
        value.SerializeToString() for value in core.proto.graph.input
    ]
    assert [value.SerializeToString() for value in mixed.graph.output] == [
        value.SerializeToString() for value in core.proto.graph.output
    ]


def test_without_islands_everything_but_inputs_and_outputs_is_low(core: RandomCore) -> None:
    naive = mixed_precision(core.proto, ())
    kept = {name for name, kind in types(naive).items() if kind == "FLOAT"}
    assert kept == {"prediction.out"}
    assert [value.name for value in naive.graph.output] == ["prediction"]


@pytest.mark.parametrize("islands", [(), ISLANDS, KINDS], ids=["none", "ours", "all"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_graph_is_strongly_typed_for_every_tensorrt(
    core: RandomCore, islands: Sequence[Island], version: str
) -> None:
    assert check_operators(mixed_precision(core.proto, islands), version) == []


@pytest.mark.parametrize("spec", [POYO_1_3M, POYO_11_8M], ids=["1.3M", "11.8M"])
def test_published_sizes_get_half_as_large(spec: Any) -> None:
    core = random_core(spec)
    mixed = mixed_precision(core.proto, ISLANDS)
    assert len(mixed.SerializeToString()) < 0.56 * len(core.data)


def test_all_kinds_together_leave_nothing_low(core: RandomCore) -> None:
    found = types(mixed_precision(core.proto, KINDS))
    low = {name for name, kind in found.items() if kind == "FLOAT16"}
    moving = {node.name for node in core.proto.graph.node if node.op_type in MOVES}
    assert all(name in moving or name.endswith(".fp16") for name in low), low


def test_each_value_is_cast_once(core: RandomCore) -> None:
    mixed = mixed_precision(core.proto, ISLANDS)
    casts = [(node.input[0], node.attribute[0].i) for node in mixed.graph.node
             if node.op_type == "Cast"]  # fmt: skip
    assert len(set(casts)) == len(casts)
    used = {name for node in mixed.graph.node for name in node.input}
    assert all(tensor.name in used for tensor in mixed.graph.initializer)


def test_the_same_core_gives_the_same_bytes(core: RandomCore) -> None:
    first, second = (mixed_precision(core.proto, ISLANDS).SerializeToString() for _ in range(2))
    assert first == second


def test_the_core_itself_is_not_changed(core: RandomCore) -> None:
    before = core.data
    mixed_precision(core.proto, ISLANDS)
    assert core.data == before


def test_a_graph_that_is_mixed_already_is_refused(core: RandomCore) -> None:
    mixed = mixed_precision(core.proto, ISLANDS)
    with pytest.raises(UsageError, match=r"^mixed precision: expected a graph of FLOAT alone, got"):
        mixed_precision(mixed, ISLANDS)


def test_two_nodes_of_one_name_are_refused(core: RandomCore) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(core.proto)
    proto.graph.node[1].name = proto.graph.node[0].name
    with pytest.raises(UsageError, match=r"expected a name of its own for each node"):
        mixed_precision(proto, ISLANDS)


def test_an_unknown_precision_is_refused(core: RandomCore) -> None:
    with pytest.raises(UsageError, match=r"expected one of \['fp16', 'bf16'\], got 'int8'"):
        mixed_precision(core.proto, ISLANDS, "int8")


def test_a_weight_beyond_fp16_is_named(core: RandomCore) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(core.proto)
    tensor = next(t for t in proto.graph.initializer if t.name == "layer0.attention.qkv.w")
    array = onnx.numpy_helper.to_array(tensor).copy()
    array[0, 0] = 7e4
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    with pytest.raises(CheckFailedError, match=r"65504, got 7e\+04 in 'layer0.attention.qkv.w'"):
        mixed_precision(proto, ISLANDS)
    mixed_precision(proto, ISLANDS, "bf16")


def test_the_postcondition_notices_a_node_of_the_wrong_type(
    core: RandomCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = MixedPrecision._wanted

    def forgetful(self: MixedPrecision, node: Any) -> Any:
        if node.name == "layer0.attention.norm":
            return self.low
        return wanted(self, node)

    monkeypatch.setattr(MixedPrecision, "_wanted", forgetful)
    with pytest.raises(CheckFailedError, match=r"expected 'layer0.attention.norm' in FLOAT, got"):
        mixed_precision(core.proto, ISLANDS)


def test_constants_are_rounded_to_nearest(core: RandomCore) -> None:
    mixed = mixed_precision(core.proto, ISLANDS)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in mixed.graph.initializer}
    exact = {t.name: onnx.numpy_helper.to_array(t) for t in core.proto.graph.initializer}
    name = "layer0.feed_forward.gate.w"
    assert np.array_equal(arrays[f"{name}.fp16"], exact[name].astype(np.float16))
    assert name not in arrays
