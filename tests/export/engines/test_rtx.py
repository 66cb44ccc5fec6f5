"""NVIDIA's own parser and builder on our graphs; TensorRT-RTX compiles without a GPU.

Weights are random: what is tested is that every graph compiles, not what it decodes.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
trt = pytest.importorskip(
    "tensorrt_rtx_bindings",
    reason="NVIDIA's wheels are missing: pip install tensorrt_rtx_cu13_bindings",
)

from helpers.models.cores import RandomCore, random_core  # noqa: E402

from poyo_edge.errors import BackendError  # noqa: E402
from poyo_edge.export.engines.builder import BuildSettings, build_engine  # noqa: E402
from poyo_edge.export.engines.static_shapes import fix_axes  # noqa: E402
from poyo_edge.export.precision.islands import ISLANDS  # noqa: E402
from poyo_edge.export.precision.mixed import mixed_precision  # noqa: E402
from poyo_edge.runtime.backends.buckets import token_buckets  # noqa: E402
from poyo_edge.spec import POYO_1_3M, POYO_11_8M  # noqa: E402
from poyo_edge.targets import RTX_CAPABILITIES  # noqa: E402

SETTINGS = BuildSettings(compute_capabilities=RTX_CAPABILITIES)
BUCKETS = token_buckets(8191)
SMALL = random_core()


def graph(core: RandomCore, precision: str, n_spikes: int = 511) -> bytes:
    data = core.data
    if precision != "fp32":
        data = mixed_precision(core.proto, ISLANDS, precision).SerializeToString()
    axes = {"batch": 1, "n_spikes": n_spikes, "n_units": 128, "n_queries": 1}
    return fix_axes(data, axes)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_every_precision_parses_strongly_typed_and_builds(precision: str) -> None:
    built = build_engine(trt, graph(SMALL, precision), SETTINGS)
    assert len(built.data) > 10_000
    assert built.n_layers > 100
    assert built.warnings == ()


@pytest.fixture(scope="module")
def published() -> dict[str, RandomCore]:
    return {"1.3M": random_core(POYO_1_3M), "11.8M": random_core(POYO_11_8M)}


@pytest.mark.parametrize("n_spikes", BUCKETS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_small_published_size_builds_for_every_bucket(
    published: dict[str, RandomCore], precision: str, n_spikes: int
) -> None:
    assert len(build_engine(trt, graph(published["1.3M"], precision, n_spikes), SETTINGS).data) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "n_spikes"),
    [("fp32", BUCKETS[0]), ("fp32", BUCKETS[-1]), *(("fp16", bucket) for bucket in BUCKETS)],
)
def test_the_large_published_size_builds(
    published: dict[str, RandomCore], precision: str, n_spikes: int
) -> None:
    """In FP32 the ends only; the buckets between them differ in one number."""
    assert len(build_engine(trt, graph(published["11.8M"], precision, n_spikes), SETTINGS).data) > 0


def test_axes_left_open_are_refused_before_the_build() -> None:
    with pytest.raises(BackendError, match=r"expected fixed shapes, got \(-1, -1\) for 'spike_uni"):
        build_engine(trt, SMALL.data, SETTINGS)


def test_a_graph_that_is_not_strongly_typed_is_a_parse_error_with_the_parsers_words() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(mixed_precision(SMALL.proto, ISLANDS))
    for node in proto.graph.node:
        if node.name == "layer0.attention.qkv":
            node.input[0] = "layer0.attention.norm"  # FP32 beside an FP16 weight
    axes = {"batch": 1, "n_spikes": 511, "n_units": 128, "n_queries": 1}
    with pytest.raises(BackendError, match=r"expected a graph that its parser takes, got: .+"):
        build_engine(trt, fix_axes(proto.SerializeToString(), axes), SETTINGS)


def test_rubbish_is_a_parse_error() -> None:
    with pytest.raises(BackendError, match=r"expected a graph that its parser takes"):
        build_engine(trt, b"rubbish", SETTINGS)


def test_turing_has_no_products_in_fp32_and_so_is_no_target() -> None:
    with pytest.raises(BackendError, match=r"Turing \(SM75\): FP32 GEMM is not supported"):
        build_engine(trt, graph(SMALL, "fp32"), BuildSettings(compute_capabilities=("SM75",)))


def test_progress_is_told() -> None:
    told: list[Any] = []
    build_engine(trt, graph(SMALL, "fp16"), SETTINGS, progress=lambda *a: told.append(a))
    assert told
    assert all(isinstance(phase, str) and done >= 0 for phase, done, _ in told)


def test_weak_typing_is_kept_for_one_version_only() -> None:
    with pytest.raises(BackendError, match=r"^weak typing: expected TensorRT 10\.3, .* got 1\.7"):
        build_engine(trt, graph(SMALL, "fp32"), BuildSettings(weak_fp16=True))
