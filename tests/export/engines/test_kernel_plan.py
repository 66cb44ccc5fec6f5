"""A builder's list of kernels, read: what is counted, and what is said about it."""

from __future__ import annotations

import dataclasses

import pytest

from poyo_edge.export.engines.kernel_plan import (
    KernelPlan,
    expected_attentions,
    plan_line,
    read_kernel_plan,
)
from poyo_edge.spec import POYO_1_3M, POYO_11_8M


def line(name: str, kind: str, outputs: str = "Half", nodes: tuple[str, ...] = ()) -> str:
    """As TensorRT-RTX 1.7.1 lists a kernel, shortened."""
    made = ", ".join(f"{{ Name: out, Dimensions: [2,64], Datatype: {t}, Format: (Arbitrary) }}"
                     for t in outputs.split())  # fmt: skip
    metadata = "".join(f"[ONNX Layer: {node}]" for node in nodes)
    inputs = "Inputs: [ { Name: in, Dimensions: [2,64], Datatype: Float }], Constants: []"
    return (
        f"Name: {name}, LayerType: {kind}, {inputs}, Outputs: [ {made}], TacticName: x_0xab, "
        f"StreamId: 0, Metadata: {metadata}"
    )


LISTING = "\n".join(
    [
        "Layers:",
        line("__myl_MoveConc_myl0_0", "kgen", nodes=("encoder.score",)),
        line("__myl_CastNegReshConc_myl0_1", "kgen"),
        line("__mye80151_myl0_2", "signal"),
        line("__mye80153_myl0_3", "wait"),
        line("_gemm_mha_v2_myl0_4", "kgen", nodes=("a.score", "a.weight", "a.value", "a.score")),
        line("layer0.attention.qkv_U93_myl0_5", "gemm", nodes=("layer0.attention.qkv",)),
        line("__myl_AddCastMean_myl0_6", "kgen", "Half Float"),
        line("Reformatting CopyNode for Input Tensor 0 to x", "Reformat", "Float"),
        "",
        "I/O Tensors:",
        " Name: spike_unit, IOMode: Input, DataType: Int32, Dimensions: [1,1024]",
    ]
)


@pytest.fixture
def plan() -> KernelPlan:
    found = read_kernel_plan(LISTING)
    assert found is not None
    return found


def test_kernels_copies_and_waits_are_counted_and_signals_are_no_kernels(plan: KernelPlan) -> None:
    assert plan.counts() == {"kernels": 6, "fused_attentions": 1, "copies": 2, "waits": 1}
    assert [layer.kernel for layer in plan.layers] == [
        "__myl_MoveConc", "__myl_CastNegReshConc", "_gemm_mha_v2", "layer0.attention.qkv_U93",
        "__myl_AddCastMean", "Reformatting CopyNode for Input Tensor 0 to x",
    ]  # fmt: skip
    assert [layer.is_copy for layer in plan.layers] == [True, False, False, False, False, True]


def test_each_kernel_says_which_nodes_it_holds_and_what_it_writes(plan: KernelPlan) -> None:
    attention, norm = plan.layers[2], plan.layers[4]
    assert attention.to_json() == {
        "kernel": "_gemm_mha_v2", "nodes": ["a.score", "a.value", "a.weight"], "precision": "fp16",
    }  # fmt: skip
    assert (norm.precision, norm.nodes) == ("fp16+fp32", ())


def test_what_is_not_as_expected_is_said(plan: KernelPlan) -> None:
    assert plan.problems(POYO_1_3M, "fp16") == [
        "fused attentions: expected 8, got 1", "copies: expected 0, got 2",
        "waits: expected 0, got 1",
    ]  # fmt: skip
    good = dataclasses.replace(plan, fused_attentions=8, copies=0, waits=0)
    assert good.problems(POYO_1_3M, "fp16") == []
    assert good.problems(POYO_1_3M, "fp32") == ["fused attentions: expected 0, got 8"]


def test_which_attentions_can_fuse_follows_from_the_head_size() -> None:
    def expected(dim_head: int) -> int:
        spec = dataclasses.replace(POYO_1_3M, dim_head=dim_head, rotating_pairs=4)
        return expected_attentions(spec, "fp16")

    assert expected_attentions(POYO_1_3M, "fp16") == 8
    assert expected_attentions(POYO_11_8M, "bf16") == 26
    assert expected(36) == 1  # the encoder's is filled up to 40
    assert expected(256) == 7  # the encoder's is 264
    assert expected(8) == 1  # the encoder's is 16


def test_a_list_that_says_nothing_is_no_plan() -> None:
    assert read_kernel_plan("") is None
    assert read_kernel_plan("Layers:\nsomething else") is None


def test_one_line_says_it_for_all_buckets(plan: KernelPlan) -> None:
    other = dataclasses.replace(plan, waits=4)
    plans = {"511": plan.to_json(), "1023": plan.counts()}
    assert plan_line(plans, 8) == "6 kernels, 1 of 8 attentions fused, 2 copies, 1 waits"
    plans["1023"] = other.counts()
    assert plan_line(plans, 8).endswith("2 copies, 1 (511), 4 (1023) waits")
    assert plan_line({}, 8) == ""
