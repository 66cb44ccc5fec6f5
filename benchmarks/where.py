"""Where does the time of one window go? By the profiles of ONNX Runtime and of OpenVINO.

Nodes are named after what they compute, so their times add up to parts of the model. A node's time
is the 10th percentile of its runs, since other processes interrupt some of them. Draws a picture of
the shares with ``--png``.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from latency import SIZES, random_model
from parts.environment import describe, environment
from parts.latency_peers import Setup, core_feeds, session_options
from parts.script import markdown, run, say, write_json
from parts.windows import random_window

from poyo_edge.export.graph.fusion import fuse_for_ort_cpu
from poyo_edge.export.graph.native_fusion import fuse_for_native
from poyo_edge.figures import draw_shares
from poyo_edge.runtime.backends import Feeds
from poyo_edge.runtime.backends.kernel_library import find_library
from poyo_edge.runtime.backends.ov.backend import OpenVinoBackend

PARTS = {
    "attention to spikes": r"encoder\.attention\.(fused|score|weight|spike_value|native)",
    "attention between latents": r"layer\d+\.attention\.(fused|native|(score|weight|value).*)",
    "projections": r"layer\d+\.attention\.(qkv|query|key|value|out)",
    "feed-forward": r".*\.feed_forward\.(value|gate|out|gelu.*|hidden|native)",
    "rotation": r".*(turned|turned_back|rotat|\.cos|\.sin).*",
    "LayerNorm": r".*(norm|MVN).*",
}
"""Part of the model → names of its nodes; the first that fits counts, the rest is "rest"."""
REST = "rest"
_OPENVINO_RUNS = 12
_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FullyConnected")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--spikes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--png", type=Path, help="also draw the shares")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    words = parser.parse_args()
    where = environment(1)
    print(describe(where))
    measured: dict[str, dict[str, float]] = {}
    for size in words.sizes:
        spec = SIZES[size]
        setup = Setup(spec=spec, model=random_model(spec, 100, 0), threads=1)
        core, folded = setup.core()
        window = random_window(spec, 100, words.spikes, np.random.default_rng(0))
        feeds = core_feeds(setup, folded, window)
        fused = fuse_for_ort_cpu(core, spec).SerializeToString()
        plain = core.SerializeToString()
        say(f"{size}: profiling")
        measured[f"{size}, core.onnx"] = onnx_runtime(plain, feeds, words.repeats)
        measured[f"{size}, ort-cpu"] = onnx_runtime(fused, feeds, words.repeats)
        if library := find_library():
            own = fuse_for_native(core, spec).SerializeToString()
            name = f"{size}, ort-native ({library.choose()})"
            measured[name] = onnx_runtime(own, feeds, words.repeats, str(library.path))
        for precision in ("fp32", "bf16"):
            name = f"{size}, openvino {precision}"
            measured[name] = openvino(plain, feeds, precision, words.repeats // _OPENVINO_RUNS)
    names = [*PARTS, REST]
    rows = [
        [side, *(f"{parts[name]:.2f}" for name in names), f"{sum(parts.values()):.2f}"]
        for side, parts in measured.items()
    ]
    print(markdown(["milliseconds", *names, "all nodes"], rows))
    write_json(words.json, {**where, "spikes": words.spikes, "milliseconds": measured})
    if words.png:
        draw_shares(words.png, measured, title=f"Where a window of {words.spikes} spikes spends it")


def onnx_runtime(model: bytes, feeds: Feeds, repeats: int, operators: str = "") -> dict[str, float]:
    """Part → milliseconds, of a model on ONNX Runtime with one thread.

    ``operators`` is a library of more of them: an attention of ours holds its projections, rotation
    and LayerNorm, a feed-forward its LayerNorm.
    """
    options = session_options(1)
    options.enable_mem_pattern = False
    options.enable_profiling = True
    if operators:
        options.register_custom_ops_library(operators)
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for _ in range(repeats):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    taken: dict[str, list[float]] = collections.defaultdict(list)
    kinds = {}
    for event in events:
        name = str(event["name"])
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            name = name.removesuffix("_kernel_time")
            taken[name].append(event["dur"] / 1000)
            kinds[name] = event["args"]["op_name"]
    return by_part(taken, kinds)


def openvino(core: bytes, feeds: Feeds, precision: str, starts: int) -> dict[str, float]:
    """Part → milliseconds, of the core on OpenVINO with one thread.

    The plugin's counters are means since it compiled; differences of sums give single runs.
    """
    taken: dict[str, list[float]] = collections.defaultdict(list)
    kinds: dict[str, str] = {}
    for _ in range(max(1, starts)):
        backend = OpenVinoBackend(core, threads=1, precision=precision, counters=True)
        before: Mapping[str, float] = {}
        for i in range(1, _OPENVINO_RUNS + 1):
            backend.run(feeds)
            now = {}
            for at, node in enumerate(backend.counters()):
                name = f"{at} {node.node_name}"
                now[name] = i * node.real_time.total_seconds() * 1000
                kinds[name] = node.node_type
            for name, value in now.items():
                if i > 2 and value >= before[name]:
                    taken[name].append(value - before[name])
            before = now
    return by_part(taken, kinds)


def by_part(taken: Mapping[str, Sequence[float]], kinds: Mapping[str, str]) -> dict[str, float]:
    """Times of all nodes, added up by the part that each belongs to."""
    parts: dict[str, Any] = dict.fromkeys([*PARTS, REST], 0.0)
    for name, values in taken.items():
        plain = (name.partition(" ")[2] or name).partition("/")[0]
        parts[part_of(plain, kinds[name])] += float(np.percentile(values, 10))
    return parts


def part_of(name: str, kind: str) -> str:
    """The part that a node belongs to."""
    if kind in ("LayerNormalization", "MVN"):
        return "LayerNorm"
    if kind in ("RotaryEmbedding", "RoPE"):
        return "rotation"
    for part, pattern in PARTS.items():
        if re.fullmatch(pattern, name) and (part != "projections" or kind in _PRODUCTS):
            return part
    return REST


if __name__ == "__main__":
    run(main)
