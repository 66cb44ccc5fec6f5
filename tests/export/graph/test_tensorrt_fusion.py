"""The graph for TensorRT says what the core says, and has attentions that fuse."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
import onnx_ir as ir  # noqa: E402
from helpers.models.cores import SMALL, SPECS, RandomCore, random_core  # noqa: E402
from helpers.models.tiny_windows import tiny_windows  # noqa: E402
from helpers.paths import DATA, TINY  # noqa: E402

from poyo_edge.artifact import CORE, Artifact  # noqa: E402
from poyo_edge.errors import CheckFailedError  # noqa: E402
from poyo_edge.export.graph.tensorrt_fusion import (  # noqa: E402
    ALIGNMENT,
    FuseForTensorRT,
    fuse_for_tensorrt,
    n_attentions,
)
from poyo_edge.export.parity.windows import feeds, synthetic_windows  # noqa: E402
from poyo_edge.export.precision.operators import require_operators  # noqa: E402
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend  # noqa: E402
from poyo_edge.spec import ModelSpec  # noqa: E402

LIMIT = 2e-6
"""Largest error of outputs of about 0.5; measured worst case 2.4e-7."""


@pytest.fixture(params=list(SPECS))
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return SPECS[request.param]


def fused(random: RandomCore) -> OrtCpuBackend:
    return OrtCpuBackend(
        fuse_for_tensorrt(random.proto, random.spec).SerializeToString(), threads=1
    )


def test_it_agrees_with_the_core_alone_and_in_padded_batches(spec: ModelSpec) -> None:
    random = random_core(spec)
    plain, other = OrtCpuBackend(random.data, threads=1), fused(random)
    windows = synthetic_windows(spec, 12, (0, 1, 7, 300))
    together = dict(feeds(random.constants, windows))
    together["query_time"] = np.random.default_rng(0).random((4, 3), np.float32)
    want, got = plain.run(together), other.run(together)
    assert got.shape == (4, 3, spec.dim_out)
    assert np.abs(got - want).max() <= LIMIT
    assert np.ptp(want, axis=1).max() > 100 * LIMIT  # the queries differ
    for i, window in enumerate(windows):
        alone = dict(feeds(random.constants, [window]))
        alone["query_time"] = together["query_time"][i : i + 1]
        assert np.abs(other.run(alone)[0] - want[i]).max() <= LIMIT
    together["spike_mask"][3, :150] = False  # the comparison above can see a mask
    assert np.abs(other.run(together)[3] - want[3]).max() > 100 * LIMIT


@pytest.mark.parametrize("artifact", [TINY, DATA / "0.1.0" / "tiny.poyo"], ids=["now", "0.1.0"])
def test_it_agrees_with_the_core_of_artifacts_old_and_new(artifact: Path) -> None:
    core = (artifact / CORE).read_bytes()
    made = fuse_for_tensorrt(onnx.load_from_string(core), Artifact.open(artifact).manifest.spec)
    windows = tiny_windows(artifact, (0, 40, 90))
    want = OrtCpuBackend(core, threads=1).run(windows)
    got = OrtCpuBackend(made.SerializeToString(), threads=1).run(windows)
    assert np.abs(got - want).max() <= LIMIT


def test_head_sizes_are_aligned_and_each_softmax_is_read_by_one_product(spec: ModelSpec) -> None:
    made = fuse_for_tensorrt(random_core(spec).proto, spec)
    graph = onnx.shape_inference.infer_shapes(made).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    attentions = [node for node in graph.node if node.op_type == "Softmax"]
    assert len(attentions) == n_attentions(spec) == spec.depth + 2
    for softmax in attentions:
        (product,) = [node for node in graph.node if softmax.output[0] in node.input]
        (score,) = [node for node in graph.node if softmax.input[0] in node.output]
        assert product.op_type == score.op_type == "MatMul"
        head_sizes = {shapes[score.input[0]][-1], shapes[product.input[1]][-1]}
        assert not any(size % ALIGNMENT for size in head_sizes), (softmax.name, head_sizes)


def test_the_core_itself_would_not_pass_and_is_left_alone() -> None:
    random = random_core()
    before = random.data
    fuse_for_tensorrt(random.proto, SMALL)
    assert random.data == before
    check = FuseForTensorRT(SMALL)
    model = ir.serde.deserialize_model(random.proto)
    check.requires(model)
    with pytest.raises(ir.passes.PostconditionError, match="expected unchanged inputs"):
        check.ensures(model)
    check._signature = [str(value) for value in (*model.graph.inputs, *model.graph.outputs)]
    with pytest.raises(
        ir.passes.PostconditionError, match=r"one product after 'encoder\.attention\.weight', got"
    ):
        check.ensures(model)


def test_it_stays_one_plain_file_of_standard_operators() -> None:
    random = random_core()
    made = fuse_for_tensorrt(random.proto, SMALL)
    require_operators(made)
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names)
    used = {name for node in made.graph.node for name in node.input}
    assert not {tensor.name for tensor in made.graph.initializer} - used
    assert made.graph.input == random.proto.graph.input
    assert made.graph.output == random.proto.graph.output


def test_another_graph_is_refused() -> None:
    proto = random_core().proto
    for node in proto.graph.node:
        if node.output[0] == "encoder.attention.minus_lse_column":
            node.output[0] = "elsewhere"
    with pytest.raises(CheckFailedError, match=r"expected a core, got a graph without encoder\.at"):
        fuse_for_tensorrt(proto, SMALL)
    with pytest.raises(CheckFailedError, match=r"expected 5 attentions, got 4"):
        fuse_for_tensorrt(random_core().proto, dataclasses.replace(SMALL, depth=3))
