"""Emulated rounding: that it is there, that it is right, and what it says about real models."""

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

from helpers.models.cores import RandomCore, random_core  # noqa: E402
from parts.sessions import session_for  # noqa: E402

from poyo_edge.artifact import CORE, Artifact  # noqa: E402
from poyo_edge.errors import BackendError, UsageError  # noqa: E402
from poyo_edge.export.parity.windows import causal_windows, predict, synthetic_windows  # noqa: E402
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint  # noqa: E402
from poyo_edge.export.precision.emulation import (  # noqa: E402
    EmulatedBackend,
    emulated,
    open_session,
    rounded_values,
)
from poyo_edge.export.precision.islands import ISLANDS, KINDS, TIME, Rounding, find_islands, survey  # noqa: E402
from poyo_edge.export.precision.mixed import METADATA, Island, mixed_precision  # noqa: E402
from poyo_edge.export.precision.rounding import layer_errors  # noqa: E402
from poyo_edge.metrics import r2_per_dim  # noqa: E402
from poyo_edge.recording import Recording  # noqa: E402
from poyo_edge.runtime.backends import open_backend  # noqa: E402
from poyo_edge.runtime.core import Core  # noqa: E402
from poyo_edge.simulation.recordings import Simulation, simulate_study  # noqa: E402
from poyo_edge.spec import POYO_1_3M, POYO_11_8M, ModelSpec  # noqa: E402

RECORDINGS = sorted((SHARED / "data" / "wrist_flexion").glob("*.h5"))
CHECKPOINT = SHARED / "checkpoints" / "wf5_v0.1.0.ckpt"
R2_LIMIT = 0.001

# What the error may be, in sd of the output; measured beside it.
LIMIT_SD = {
    "fp16 trained": 3e-3,  # 1.2e-3, the worst of 7 recordings
    "fp16 1.3M random": 2e-2,  # 7.1e-3 (outputs of random weights hardly vary)
    "fp16 11.8M random": 2e-2,  # 8.0e-3
}


def rounding_of(core: RandomCore, counts: tuple[int, ...], precision: str = "fp16") -> Rounding:
    windows = synthetic_windows(core.spec, len(core.constants.unit_kv), counts)
    reference = predict(open_backend("ort-cpu", core.data), core.constants, windows, batch=3)
    return Rounding(
        proto=core.proto,
        constants=core.constants,
        windows=windows,
        reference=reference,
        precision=precision,
    )


@pytest.fixture(scope="module")
def small() -> Rounding:
    return rounding_of(random_core(), (0, 1, 9, 100, 300))


def tiny_graph(op_type: str = "Mul") -> Any:
    """``prediction = a (op) b``, marked as mixed precision after the pass."""
    make, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    node = onnx.helper.make_node(op_type, ["a", "b"], ["prediction"], name="prediction")
    graph = onnx.helper.make_graph(
        [node], "tiny", [make("a", kind, ["n"]), make("b", kind, ["n"])],
        [make("prediction", kind, ["n"])],
    )  # fmt: skip
    opset = onnx.helper.make_opsetid("", 18)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def test_each_result_is_what_half_precision_gives() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4096)).astype(np.float32)
    half = a.astype(np.float16) * b.astype(np.float16)  # numpy rounds the exact product once
    got = EmulatedBackend(mixed_precision(tiny_graph(), ())).run({"a": a, "b": b})
    assert np.array_equal(got, half.astype(np.float32))
    assert not np.array_equal(got, a * b)


def test_no_cast_is_optimised_away() -> None:
    """Whatever the runtime's optimiser thinks of a cast down and up again."""
    graph = emulated(mixed_precision(tiny_graph("Add"), ()))
    third = np.full(4, 1 / 3, np.float32)
    session = open_session(graph, ["prediction.fp16.exact"])
    names = ["prediction", "prediction.fp16.exact"]
    rounded, exact = session.run(names, {"a": third, "b": np.zeros(4, np.float32)})
    assert rounded[0] == np.float32(np.float16(1 / 3))
    assert rounded[0] != third[0]
    assert exact[0] == rounded[0]  # the inputs were rounded, the sum is exact


def test_what_rounds_is_what_computes_and_what_is_cast() -> None:
    names = rounded_values(mixed_precision(tiny_graph(), ()))
    assert names == ["a.fp16", "b.fp16", "prediction.fp16"]


def test_a_graph_that_did_not_come_from_the_pass_is_refused() -> None:
    with pytest.raises(UsageError, match=r"expected a graph of mixed precision, got one marked No"):
        emulated(tiny_graph())
    marked = tiny_graph()
    marked.metadata_props.add(key=METADATA, value="fp8")
    with pytest.raises(UsageError, match=r"got one marked 'fp8'"):
        emulated(marked)


def test_wrong_inputs_are_a_backend_error() -> None:
    with pytest.raises(BackendError, match=r"^emulated: "):
        EmulatedBackend(mixed_precision(tiny_graph(), ())).run({"a": np.zeros(3, np.float32)})


def test_mixed_precision_keeps_the_output_and_the_naive_graph_does_not(small: Rounding) -> None:
    assert 0 < small.error(ISLANDS) < 2e-2
    assert small.error(()) > 10 * small.error(ISLANDS)
    assert small.error(KINDS) < small.error(ISLANDS)


def test_the_search_finds_the_island_that_matters(small: Rounding) -> None:
    limit = small.error([TIME]) * 1.01
    islands, error = find_islands(small, limit)
    assert [island.name for island in islands] == ["time"]
    assert error <= limit


def test_the_search_keeps_what_it_started_with_and_says_when_it_falls_short() -> None:
    start = KINDS[:-2]
    islands, error = find_islands(rounding_of(random_core(), (9,)), 0.0, start)
    assert islands[: len(start)] == start
    assert len(islands) == len(KINDS)
    assert error > 0.0


def test_the_survey_names_the_worst_kind(small: Rounding) -> None:
    lines = survey(small)
    assert max(lines, key=lambda line: line.low_alone).kind == "time"
    assert {line.kind for line in lines if line.island} == {island.name for island in ISLANDS}


def test_bf16_rounds_more_coarsely_than_fp16(small: Rounding) -> None:
    coarse = dataclasses.replace(small, precision="bf16")
    assert 3 * small.error(ISLANDS) < coarse.error(ISLANDS) < 30 * small.error(ISLANDS)


def test_every_layer_has_its_error_and_its_counts(small: Rounding) -> None:
    mixed = mixed_precision(small.proto, ISLANDS)
    lines = layer_errors(small.proto, mixed, "fp16", small.constants, small.windows)
    names = [line.layer for line in lines]
    assert names[:2] == ["encoder.attention", "encoder.feed_forward"]
    assert {"layer0.attention", "layer1.feed_forward", "decoder.attention", "readout"} <= set(names)
    by_name = {line.layer: line for line in lines}
    assert all(0 < by_name[name].error < 0.01 for name in names if name != "inputs")
    assert sum(line.overflows for line in lines) == 0
    assert by_name["encoder.attention"].n_values > 1000
    assert by_name["encoder.attention"].worst_error >= by_name["encoder.attention"].error


def test_overflow_and_underflow_are_counted_where_they_happen() -> None:
    core = random_core()
    proto = onnx.ModelProto()
    proto.CopyFrom(core.proto)
    factors = {"layer0.attention.qkv.w": 1e-6, "layer1.feed_forward.value.w": 3e4}
    for tensor in proto.graph.initializer:
        if tensor.name in factors:
            array = onnx.numpy_helper.to_array(tensor)
            largest = np.abs(array).max()
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(
                    (array / largest * factors[tensor.name]).astype(np.float32), tensor.name
                )
            )
    windows = synthetic_windows(core.spec, 12, (50,))
    mixed = mixed_precision(proto, ISLANDS)
    lines = layer_errors(proto, mixed, "fp16", core.constants, windows)
    by_name = {line.layer: line for line in lines}
    assert by_name["layer0.attention"].subnormals > 0
    assert by_name["layer0.attention"].zeros > 0
    assert by_name["layer0.feed_forward"].overflows == 0
    assert by_name["layer1.feed_forward"].overflows > 0
    reference = predict(open_backend("ort-cpu", proto.SerializeToString()), core.constants, windows)
    rounding = Rounding(proto=proto, constants=core.constants, windows=windows, reference=reference)
    assert rounding.error(ISLANDS) == float("inf")


@pytest.mark.parametrize(
    ("name", "spec"), [("1.3M", POYO_1_3M), ("11.8M", POYO_11_8M)], ids=["1.3M", "11.8M"]
)
def test_published_sizes_with_random_weights(name: str, spec: ModelSpec) -> None:
    rounding = rounding_of(random_core(spec, n_units=60), (0, 9, 300, 600))
    assert rounding.error(ISLANDS) <= LIMIT_SD[f"fp16 {name} random"]
    assert rounding.error(()) > 5 * LIMIT_SD[f"fp16 {name} random"]


def test_simulated_recordings_decode_as_well(tmp_path: Path) -> None:
    pytest.importorskip("torch_brain")
    pytest.importorskip("lightning")
    from poyo_edge.training import load_recipe, train

    simulation = Simulation(duration_s=120.0, n_units=30)
    (path,) = simulate_study(tmp_path, n_sessions=1, simulation=simulation)
    recipe = dataclasses.replace(
        load_recipe("demo"), steps=80, unit_dropout=None, t_min=1e-4
    )  # the fast periods of the papers, whose angles FP16 cannot hold without islands
    checkpoint = train([path], recipe, tmp_path / "sim.ckpt").checkpoint
    export_checkpoint(checkpoint, tmp_path / "sim.poyo", ExportOptions(behavior="cursor.vel"))
    artifact, recording = Artifact.open(tmp_path / "sim.poyo"), Recording.open(path)
    r2, lost, error = r2_and_loss(artifact, recording, ISLANDS)
    assert r2 > 0.2
    assert lost <= R2_LIMIT
    assert error <= LIMIT_SD["fp16 trained"]
    assert r2_and_loss(artifact, recording, ())[2] > 3 * LIMIT_SD["fp16 trained"]


def r2_of(truth: npt.NDArray[np.float64], prediction: npt.NDArray[Any]) -> float:
    return float(r2_per_dim(truth, prediction[:, 0].astype(np.float64)).mean())


@pytest.fixture(scope="module")
def wrist(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The artifact of a model that was trained on the first five recordings."""
    if not CHECKPOINT.is_file() or not RECORDINGS:
        pytest.skip(f"no real recordings or checkpoint in {SHARED}")
    out = tmp_path_factory.mktemp("wrist") / "wf5.poyo"
    export_checkpoint(CHECKPOINT, out, ExportOptions(behavior="cursor.vel"))
    return Artifact.open(out)


@pytest.mark.parametrize("index", range(7))
def test_every_real_recording_decodes_as_well(wrist: Artifact, index: int) -> None:
    recording = Recording.open(RECORDINGS[index])
    _, lost, error = r2_and_loss(wrist, recording, ISLANDS)
    assert lost <= R2_LIMIT
    assert error <= LIMIT_SD["fp16 trained"]


def test_the_naive_graph_fails_the_same_check(wrist: Artifact) -> None:
    _, lost, error = r2_and_loss(wrist, Recording.open(RECORDINGS[0]), ())
    assert lost > 100 * R2_LIMIT
    assert error > 100 * LIMIT_SD["fp16 trained"]


def r2_and_loss(
    artifact: Artifact, recording: Recording, islands: tuple[Island, ...]
) -> tuple[float, float, float]:
    """R², what rounding takes from it, and its error in sd.

    Unseen sessions borrow the embeddings of the same electrodes in the last session known.
    """
    spec = artifact.manifest.spec
    session, rows, _ = session_for(artifact, recording)
    core = Core.open(artifact)
    constants = core.constants(session.unit_embedding, session.session_embedding)
    windows, truth = causal_windows(recording, rows, "cursor.vel", spec, most=200)
    reference = predict(core.backend, constants, windows)
    rounding = Rounding(
        proto=onnx.load_from_string(artifact.read(CORE)),
        constants=constants,
        windows=windows,
        reference=reference,
    )
    scale, offset = artifact.manifest.output.arrays(spec.dim_out)
    got = rounding.predict(islands)
    r2 = [r2_of(truth, out * scale + offset) for out in (reference, got)]
    return r2[0], r2[0] - r2[1], rounding.error(islands)
