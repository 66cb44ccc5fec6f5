"""Sums in FP16, emulated: what each loop computes, and what it costs trained models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.paths import SHARED

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from helpers.models.cores import SMALL, RandomCore, random_core  # noqa: E402

from poyo_edge.artifact import CORE, Artifact  # noqa: E402
from poyo_edge.errors import UsageError  # noqa: E402
from poyo_edge.export.graph.tensorrt_fusion import fuse_for_tensorrt, n_attentions  # noqa: E402
from poyo_edge.export.parity.windows import (  # noqa: E402
    causal_windows,
    feeds,
    predict,
    synthetic_windows,
)
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint  # noqa: E402
from poyo_edge.export.precision.accumulation import TILE, accumulated  # noqa: E402
from poyo_edge.export.precision.emulation import (  # noqa: E402
    EXACT,
    EmulatedBackend,
    emulated,
    open_session,
)
from poyo_edge.export.precision.islands import ISLANDS, Rounding, find_islands  # noqa: E402
from poyo_edge.export.precision.mixed import Island, mixed_precision  # noqa: E402
from poyo_edge.export.precision.rounding import layer_errors  # noqa: E402
from poyo_edge.metrics import r2_per_dim  # noqa: E402
from poyo_edge.recording import Recording  # noqa: E402
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend  # noqa: E402
from poyo_edge.runtime.core import Core  # noqa: E402
from poyo_edge.spec import POYO_1_3M  # noqa: E402

Halves = npt.NDArray[np.float16]
CHECKPOINT = SHARED / "checkpoints" / "wf5_v0.1.0.ckpt"
RECORDING = SHARED / "data" / "motor" / "spike_20120904.h5"
R2_LIMIT = 0.001
WORST_SD = 5e-3
"""Largest error in sd of the output on windows of 8000 spikes, random weights of the 1.3M size;
measured 1.3e-3, and 0.2e-3 with sums in FP32."""


def mixed_of(core: RandomCore) -> Any:
    return mixed_precision(fuse_for_tensorrt(core.proto, core.spec), ISLANDS)


def values_of(proto: Any, core: RandomCore, names: list[str], n_spikes: int) -> list[
    npt.NDArray[np.float32]
]:  # fmt: skip
    (window,) = synthetic_windows(core.spec, 12, [n_spikes])
    inputs = dict(feeds(core.constants, [window]))
    got: list[npt.NDArray[np.float32]] = open_session(proto, names).run(names, inputs)
    return got


def tiled_product(a: Halves, b: Halves) -> Halves:
    """``a @ b`` in numpy: tiles of 8 terms in FP32, their sum in FP16."""
    total = np.zeros((len(a), b.shape[1]), np.float16)
    for at in range(0, a.shape[1], TILE):
        rows, columns = a[:, at : at + TILE], b[at : at + TILE]
        exact = rows.astype(np.float32) @ columns.astype(np.float32)
        total = (total.astype(np.float32) + exact).astype(np.float16)
    return total


def running_attention(score: Halves, value: Halves, keys: int = 64) -> npt.NDArray[np.float32]:
    """(rows, W) before the last rounding: blocks of keys with a running maximum."""
    n, rows = score.shape[1], len(score)
    low = np.full((rows, 1), -np.inf, np.float32)
    weights = np.zeros((rows, 1), np.float32)
    total = np.zeros((rows, value.shape[1]), np.float16)
    for at in range(0, n, keys):
        block = score[:, at : at + keys].astype(np.float32)
        new = np.maximum(low, block.max(1, keepdims=True))
        weight, rescale = np.exp(block - new).astype(np.float16), np.exp(low - new)
        weights = weights * rescale + weight.astype(np.float32).sum(1, keepdims=True)
        total = (total.astype(np.float32) * rescale).astype(np.float16)
        for tile in range(0, weight.shape[1], TILE):
            rows_, columns = weight[:, tile : tile + TILE], value[at + tile : at + tile + TILE]
            exact = rows_.astype(np.float32) @ columns.astype(np.float32)
            total = (total.astype(np.float32) + exact).astype(np.float16)
        low = new
    return total.astype(np.float32) / weights


@pytest.fixture(scope="module")
def small() -> RandomCore:
    return random_core()


def test_a_product_is_what_tiles_with_a_sum_in_fp16_give(small: RandomCore) -> None:
    name = "layer0.feed_forward.out"
    mixed = mixed_of(small)
    x, got = values_of(accumulated(mixed), small, ["layer0.feed_forward.hidden", name], 50)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in mixed.graph.initializer}
    product = tiled_product(x.astype(np.float16), weights[f"{name}.w.fp16"])
    want = (product.astype(np.float32) + weights[f"{name}.b.fp16"]).astype(np.float16)
    assert np.array_equal(got, want.astype(np.float32))
    exact = x @ weights[f"{name}.w.fp16"].astype(np.float32) + weights[f"{name}.b.fp16"]
    assert not np.array_equal(got, exact.astype(np.float16).astype(np.float32))  # it is not FP32


def test_attention_is_what_a_running_maximum_with_sums_in_fp16_gives(small: RandomCore) -> None:
    scope = "encoder.attention"
    names = [f"{scope}.score", f"{scope}.value_and_share", f"{scope}.spike_value"]
    score, value, got = values_of(accumulated(mixed_of(small)), small, names, 300)
    for head in range(small.spec.cross_heads):
        want = running_attention(
            score[head, 0].astype(np.float16), value[head, 0].astype(np.float16)
        ).astype(np.float16)
        # Exponentials differ in their last bit between libraries.
        assert np.abs(got[head, 0] - want.astype(np.float32)).max() < 4e-3 * np.abs(want).max()
    (plain,) = values_of(emulated(mixed_of(small)), small, names[2:], 300)
    assert np.abs(got - plain).max() > 0


def test_every_attention_is_a_loop_and_no_softmax_is_left(small: RandomCore) -> None:
    proto = accumulated(mixed_of(small))
    kinds = [node.op_type for node in proto.graph.node]
    assert "Softmax" not in kinds
    blocks = [node for node in proto.graph.node if node.name.endswith(".blocks")]
    assert len(blocks) == n_attentions(SMALL)
    low = {n.name for n in mixed_of(small).graph.node if n.op_type in ("MatMul", "Gemm")}
    plain = {
        node.name
        for node in proto.graph.node
        if node.op_type in ("MatMul", "Gemm") and not node.name.endswith(".zero")
    }
    assert plain == {"readout"} < low  # an island


def test_a_softmax_in_fp32_is_not_fused_but_its_product_is_summed_in_fp16() -> None:
    core = random_core()
    exact = Island(name="softmax", patterns=("*attention.weight",), why="for this test")
    fused = fuse_for_tensorrt(core.proto, core.spec)
    proto = accumulated(mixed_precision(fused, [*ISLANDS, exact]))
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("Softmax") == n_attentions(SMALL)
    assert not [node for node in proto.graph.node if node.name.endswith(".blocks")]
    (window,) = synthetic_windows(core.spec, 12, [70])
    inputs = dict(feeds(core.constants, [window]))
    want = OrtCpuBackend(core.data, threads=1).run(inputs)
    (got,) = open_session(proto, ["prediction"]).run(["prediction"], inputs)
    assert 0 < np.abs(got - want).max() < 0.02 * want.std() + 0.01


def test_padded_batches_say_what_windows_alone_say(small: RandomCore) -> None:
    backend = EmulatedBackend(mixed_of(small), accumulated)
    windows = synthetic_windows(SMALL, 12, (0, 1, 63, 64, 200))
    together = predict(backend, small.constants, windows, batch=5)
    alone = predict(backend, small.constants, windows, batch=1)
    assert np.abs(together - alone).max() < 5e-3 * together.std()  # other blocks, other sums


def test_head_sizes_that_are_no_multiple_of_a_tile_are_filled_up() -> None:
    spec = dataclasses.replace(SMALL, dim=20, dim_head=12)
    core = random_core(spec)
    windows = synthetic_windows(spec, 12, (5, 100))
    want = predict(OrtCpuBackend(core.data, threads=1), core.constants, windows)
    got = predict(EmulatedBackend(mixed_of(core), accumulated), core.constants, windows)
    assert 0 < np.abs(got - want).max() < 0.05 * want.std()


def test_bf16_has_no_such_sums(small: RandomCore) -> None:
    mixed = mixed_precision(small.proto, ISLANDS, "bf16")
    with pytest.raises(UsageError, match=r"^accumulation: expected a graph in fp16, got 'bf16'$"):
        accumulated(mixed)


def test_islands_are_chosen_and_layers_told_under_it_too(small: RandomCore) -> None:
    fused = fuse_for_tensorrt(small.proto, SMALL)
    windows = synthetic_windows(SMALL, 12, (50, 300))
    rounding = Rounding(
        proto=fused,
        constants=small.constants,
        windows=windows,
        reference=predict(OrtCpuBackend(small.data, threads=1), small.constants, windows),
        emulate=accumulated,
    )
    islands, error = find_islands(rounding, 0.03, ISLANDS)
    assert islands == ISLANDS
    assert error < 0.03 < rounding.error(())  # the naive graph fails
    layers = layer_errors(fused, mixed_of(small), "fp16", small.constants, windows, accumulated)
    plain = layer_errors(fused, mixed_of(small), "fp16", small.constants, windows)
    assert [layer.layer for layer in layers] == [layer.layer for layer in plain]
    assert sum(layer.error for layer in layers) > sum(layer.error for layer in plain)
    assert not [name for name in (layer.worst_node for layer in layers) if name.endswith(EXACT)]


@pytest.mark.slow
def test_the_published_size_errs_little_on_the_largest_windows() -> None:
    core = random_core(POYO_1_3M)
    windows = synthetic_windows(POYO_1_3M, 12, (1000, 8000))
    want = predict(OrtCpuBackend(core.data, threads=1), core.constants, windows, batch=1)
    spread = want.reshape(-1, want.shape[-1]).std()
    for emulate, least, most in ((emulated, 0.0, WORST_SD), (accumulated, 1e-5, WORST_SD)):
        got = predict(EmulatedBackend(mixed_of(core), emulate), core.constants, windows, batch=1)
        assert least < np.abs(got - want).max() / spread < most


@pytest.mark.skipif(not CHECKPOINT.is_file(), reason="no trained checkpoint here")
@pytest.mark.skipif(not RECORDING.is_file(), reason="no real recording here")
def test_a_trained_model_decodes_as_well_and_the_naive_graph_does_not(
    tmp_path: Path,
) -> None:
    """One recording, few samples; ``benchmarks/precision.py --sums fp16`` takes all of them."""
    path = tmp_path / "wf5.poyo"
    export_checkpoint(CHECKPOINT, path, ExportOptions())
    artifact = Artifact.open(path)
    recording = Recording.open(RECORDING)
    session = artifact.session("spike_20120904")
    core = Core.open(artifact, backend="ort-cpu")
    constants = core.constants(session.unit_embedding, session.session_embedding)
    rows = np.arange(len(recording.unit_ids), dtype=np.int32)
    assert tuple(recording.unit_ids) == session.header.unit_ids
    spec = artifact.manifest.spec
    windows, truth = causal_windows(recording, rows, "cursor.vel", spec, split="test", most=60)
    rounding = Rounding(
        proto=fuse_for_tensorrt(onnx.load_from_string(artifact.read(CORE)), spec),
        constants=constants,
        windows=windows,
        reference=predict(core.backend, constants, windows),
        emulate=accumulated,
    )
    scale, offset = artifact.manifest.output.arrays(spec.dim_out)

    def r2(prediction: npt.NDArray[np.float32]) -> float:
        return float(r2_per_dim(truth, prediction[:, 0].astype(np.float64) * scale + offset).mean())

    exact = r2(rounding.reference)
    assert exact - r2(rounding.predict(ISLANDS)) <= R2_LIMIT
    assert exact - r2(rounding.predict(())) > 100 * R2_LIMIT
