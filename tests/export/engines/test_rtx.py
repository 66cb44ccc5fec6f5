"""NVIDIA's own parser and builder on our graphs; TensorRT-RTX compiles without a GPU.

Weights are random: what is tested is that every graph compiles, not what it decodes.
"""

from __future__ import annotations

import os
import signal
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
from poyo_edge.export.engines.kernel_plan import KernelPlan, read_kernel_plan  # noqa: E402
from poyo_edge.export.engines.static_shapes import fix_axes  # noqa: E402
from poyo_edge.export.graph.tensorrt_fusion import fuse_for_tensorrt  # noqa: E402
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
        fused = fuse_for_tensorrt(core.proto, core.spec)
        data = mixed_precision(fused, ISLANDS, precision).SerializeToString()
    axes = {"batch": 1, "n_spikes": n_spikes, "n_units": 128, "n_queries": 1}
    return fix_axes(data, axes)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_every_precision_parses_strongly_typed_and_builds(precision: str) -> None:
    built = build_engine(trt, graph(SMALL, precision), SETTINGS)
    assert len(built.data) > 10_000
    assert built.n_layers > 100
    assert built.warnings == ()


def plan_of(core: RandomCore, precision: str, n_spikes: int) -> KernelPlan:
    """What the builder makes of it; built, and as expected of a core."""
    built = build_engine(trt, graph(core, precision, n_spikes), SETTINGS)
    assert len(built.data) > 0
    plan = read_kernel_plan(built.listing)
    assert plan is not None
    assert plan.problems(core.spec, precision) == []
    return plan


@pytest.fixture(scope="module")
def published() -> dict[str, RandomCore]:
    return {"1.3M": random_core(POYO_1_3M), "11.8M": random_core(POYO_11_8M)}


KERNELS = {"1.3M": 83, "11.8M": 261}
"""10 for each layer, and 23 or 21 around them; a direct export of torch_brain's model has more
(docs/jetson.md)."""


@pytest.mark.slow
@pytest.mark.parametrize("n_spikes", BUCKETS)
def test_every_attention_of_the_small_published_size_is_one_kernel_in_every_bucket(
    published: dict[str, RandomCore], n_spikes: int
) -> None:
    plan = plan_of(published["1.3M"], "fp16", n_spikes)
    assert plan.counts() == {
        "kernels": KERNELS["1.3M"], "fused_attentions": 8, "copies": 0, "waits": 0,
    }  # fmt: skip
    attentions = [layer for layer in plan.layers if layer.is_attention]
    scopes = ["encoder", *(f"layer{i}" for i in range(6)), "decoder"]
    for scope, kernel in zip(scopes, attentions, strict=True):
        last = "spike_value" if scope == "encoder" else "value"
        assert set(kernel.nodes) == {f"{scope}.attention.{n}" for n in ("score", "weight", last)}
        assert kernel.precision == "fp16"


@pytest.mark.slow
@pytest.mark.parametrize("n_spikes", [BUCKETS[0], BUCKETS[-1]])
def test_in_fp32_no_attention_is_fused_and_nothing_is_only_copied(
    published: dict[str, RandomCore], n_spikes: int
) -> None:
    assert plan_of(published["1.3M"], "fp32", n_spikes).kernels <= 101


@pytest.mark.slow
def test_without_the_pass_the_encoder_is_apart_and_even_buckets_cost_copies(
    published: dict[str, RandomCore],
) -> None:
    """What the pass and the odd buckets are for; if this fails, the builder has learnt it."""
    core = published["1.3M"]
    data = mixed_precision(core.proto, ISLANDS).SerializeToString()
    axes = {"batch": 1, "n_spikes": 8192, "n_units": 128, "n_queries": 1}
    plan = read_kernel_plan(build_engine(trt, fix_axes(data, axes), SETTINGS).listing)
    assert plan is not None
    assert plan.problems(core.spec, "fp16") == [
        "fused attentions: expected 8, got 6",
        "copies: expected 0, got 4",
        "waits: expected 0, got 4",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "n_spikes"),
    [("fp32", BUCKETS[-1]), *(("fp16", bucket) for bucket in BUCKETS[::2])],
)
def test_every_attention_of_the_large_published_size_is_one_kernel(
    published: dict[str, RandomCore], precision: str, n_spikes: int
) -> None:
    """In FP32 one end only; the buckets differ in one number."""
    plan = plan_of(published["11.8M"], precision, n_spikes)
    if precision == "fp16":
        assert (plan.kernels, plan.fused_attentions) == (KERNELS["11.8M"], 26)


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


@pytest.mark.parametrize("how", ["raised", "signal"])
def test_ctrl_c_ends_a_build_and_is_no_error_of_the_builder(how: str) -> None:
    told: list[str] = []

    def progress(phase: str, done: int, total: int) -> None:
        told.append(phase)
        if len(told) == 3 and how == "raised":
            raise KeyboardInterrupt
        if len(told) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build_engine(trt, graph(SMALL, "fp16"), SETTINGS, progress=progress)
    assert len(told) <= 3 + (how == "signal")
    assert signal.getsignal(signal.SIGINT) is before


def test_weak_typing_is_kept_for_one_version_only() -> None:
    with pytest.raises(BackendError, match=r"^weak typing: expected TensorRT 10\.3, .* got 1\.7"):
        build_engine(trt, graph(SMALL, "fp32"), BuildSettings(weak_fp16=True))
