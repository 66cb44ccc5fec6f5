"""Which kernels does NVIDIA's builder make of our graphs, and of a direct export of torch_brain?

TensorRT-RTX names every fused kernel on a machine without a GPU. Random weights of the published
sizes; nothing is run, so nothing is said about speed or accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from parts.environment import describe, environment
from parts.latency_peers import Setup, export_direct
from parts.oracle import torch_brain_model
from parts.script import markdown, require, run, say, write_json

from poyo_edge.core_inputs import one_window
from poyo_edge.errors import BackendError
from poyo_edge.export.engines.builder import BuildSettings, build_engine
from poyo_edge.export.engines.kernel_plan import KernelPlan, expected_attentions, read_kernel_plan
from poyo_edge.export.engines.static_shapes import fix_axes
from poyo_edge.export.graph.tensorrt_fusion import fuse_for_tensorrt
from poyo_edge.export.precision.islands import ISLANDS
from poyo_edge.export.precision.mixed import mixed_precision
from poyo_edge.runtime.backends.buckets import token_buckets, unit_capacity
from poyo_edge.runtime.backends.trt.opening import import_tensorrt
from poyo_edge.spec import POYO_1_3M, POYO_11_8M
from poyo_edge.targets import RTX_CAPABILITIES

SIZES = {"1.3M": POYO_1_3M, "11.8M": POYO_11_8M}
N_UNITS = 100
KEPT = ("Sin", "Cos", "LayerNormalization")
"""What the direct export keeps in FP32; angles in FP16 mean nothing."""
BEFORE, AFTER = "poyo-edge, core as it is, 2^k spikes", "poyo-edge, 2^k - 1 spikes"
DIRECT = "direct export"
NOTE = """\
The direct export is torch.onnx.export of torch_brain's own POYO, tokens fixed at spikes and two
for each unit. In FP16 it was converted by onnxruntime.transformers.float16, with sines, cosines and
LayerNorm kept in FP32. Copies are kernels that compute nothing; waits are of one stream for
another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--max-spikes", type=int, default=8191)
    parser.add_argument("--json", type=Path, help="also write a results file")
    words = parser.parse_args()
    require("tensorrt_rtx_bindings", "rtx", "asking NVIDIA's builder")
    rows, lines = [], []
    for size in words.sizes:
        for name, precision, n_spikes, graph in graphs(size, token_buckets(words.max_spikes)):
            found = plan(graph)
            counts: dict[str, Any] = {} if isinstance(found, str) else found.counts()
            say(f"{size}: {name}, {precision}, {n_spikes} spikes: {counts or found}")
            lines.append(
                {"size": size, "graph": name, "precision": precision, "n_spikes": n_spikes,
                 "refused": found if isinstance(found, str) else "", **counts}
            )  # fmt: skip
            numbers = [*counts.values()] if counts else [f"refused: {found}", "", "", ""]
            rows.append([size, name, precision, n_spikes, *numbers])
    head = [
        "size",
        "graph",
        "precision",
        "spikes",
        "kernels",
        "fused attentions",
        "copies",
        "waits",
    ]
    found_here = environment(threads=1)
    print(f"{markdown(head, rows)}\n\n{NOTE}\n")
    for size in words.sizes:
        print(f"{size}: {expected_attentions(SIZES[size], 'fp16')} attentions")
    print(describe(found_here))
    write_json(words.json, {**found_here, "lines": lines})


def graphs(size: str, buckets: tuple[int, ...]) -> Iterator[tuple[str, str, int, bytes]]:
    """Name, precision, spikes and fixed graph of everything that is compared."""
    spec = SIZES[size]
    model = torch_brain_model(spec)
    model.unit_emb.initialize_vocab([f"s/{i}" for i in range(N_UNITS)])
    model.session_emb.initialize_vocab(["s"])
    setup = Setup(spec=spec, model=model, threads=1)
    core, _ = setup.core()
    capacity = unit_capacity(N_UNITS)
    before = mixed_precision(core, ISLANDS).SerializeToString()
    after = mixed_precision(fuse_for_tensorrt(core, spec), ISLANDS).SerializeToString()
    for bucket in buckets:
        yield BEFORE, "fp16", bucket + 1, fix_axes(before, one_window(bucket + 1, capacity))
        yield AFTER, "fp16", bucket, fix_axes(after, one_window(bucket, capacity))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "direct.onnx")
        export_direct(setup, path)
        direct = onnx.load(path)
    for bucket in buckets:
        fixed = with_tokens(direct, bucket + 2 * N_UNITS)
        yield DIRECT, "fp32", bucket, fixed.SerializeToString()
        yield DIRECT, "fp16", bucket, in_fp16(fixed).SerializeToString()


def with_tokens(proto: onnx.ModelProto, n_tokens: int) -> onnx.ModelProto:
    """The direct export with its one free axis fixed."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = n_tokens
    return fixed


def in_fp16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same, converted as one would without looking into it."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    converted: onnx.ModelProto = convert_float_to_float16(
        copy, keep_io_types=True, op_block_list=list(KEPT)
    )
    return converted


def plan(graph: bytes) -> KernelPlan | str:
    """What the builder makes of a graph, or why it refuses."""
    try:
        built = build_engine(
            import_tensorrt("tensorrt-rtx"),
            graph,
            BuildSettings(compute_capabilities=RTX_CAPABILITIES),
        )
    except BackendError as problem:
        return str(problem)[:200]
    return read_kernel_plan(built.listing) or "it lists no kernels"


if __name__ == "__main__":
    run(main)
