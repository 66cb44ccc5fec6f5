"""The day a GPU is lent: everything about it in a few minutes, with torch and what else is there.

Each part runs if what it needs is there, and says why not otherwise: the functions of ``cuda.py``
on the machine's own CUDA; what FP16 attention loses on the GPU beside both emulations; ONNX
Runtime's CUDA provider in FP32 and mixed FP16; torch_brain eager and compiled; a step of
calibration. On a Jetson, engines: ``poyo-edge build`` and ``bench``. Weights are random, of the
1.3M size.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from parts import gpu_sides as sides
from parts.environment import describe, environment
from parts.latency_peers import Setup
from parts.oracle import torch_brain_model
from parts.script import run, say, write_json

from poyo_edge.errors import PoyoEdgeError
from poyo_edge.export.graph.adapt import build_adapt
from poyo_edge.export.graph.tensorrt_fusion import fuse_for_tensorrt
from poyo_edge.export.precision.islands import ISLANDS
from poyo_edge.export.precision.mixed import mixed_precision
from poyo_edge.runtime.backends.machine import this_machine
from poyo_edge.runtime.backends.trt.cuda import Cuda
from poyo_edge.runtime.constants import session_constants
from poyo_edge.spec import POYO_1_3M

N_UNITS = 100
Parts = dict[str, Callable[[], sides.Figures]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--on", choices=("cuda", "cpu"), default="cuda",
        help="cpu: the same code on the processor's memory, to see that it runs",
    )  # fmt: skip
    parser.add_argument("--times", type=int, default=200, help="repetitions of each timing")
    parser.add_argument("--minutes", type=float, default=9.0, help="no part begins after that")
    parser.add_argument("--json", type=Path, help="also write a results file")
    words = parser.parse_args()
    machine = this_machine()
    found = dict(measure(parts(words.on, words.times), words.minutes))
    here = environment(threads=1)
    print(f"GPU: {machine.gpu or 'none'}, SM {machine.sm or '-'}, CUDA {machine.driver or '-'}")
    print(describe(here))
    asked = {"on": words.on, "machine": machine.to_json()}
    write_json(words.json, {**here, **asked, "parts": found})


def measure(wanted: Parts, minutes: float) -> Any:
    """Name and figures of each part, printed as they come; a part that fails says why."""
    ends = time.monotonic() + 60 * minutes
    for name, part in wanted.items():
        say(name)
        if time.monotonic() > ends:
            figures: sides.Figures = {"skipped": f"{minutes:g} minutes are over"}
        else:
            try:
                figures = part()
            except (PoyoEdgeError, ImportError, RuntimeError) as problem:
                figures = {"skipped": str(problem)[:300]}
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
        yield name, figures


def parts(device: str, times: int) -> Parts:
    """What can be asked, by name."""
    model = torch_brain_model(POYO_1_3M)
    model.unit_emb.initialize_vocab([f"s/{i}" for i in range(N_UNITS)])
    model.session_emb.initialize_vocab(["s"])
    setup = Setup(spec=POYO_1_3M, model=model, threads=1)
    core, folded = setup.core()
    mixed = mixed_precision(fuse_for_tensorrt(core, POYO_1_3M), ISLANDS)
    weights = setup.weights()
    constants = session_constants(
        POYO_1_3M, folded.session, weights["unit_emb.weight"][1 : N_UNITS + 1],
        weights["session_emb.weight"][1],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    batch = {
        "spike_unit": rng.integers(0, N_UNITS, (16, 500)).astype(np.int32),
        "spike_time": rng.random((16, 500), np.float32),
        "spike_mask": np.ones((16, 500), np.bool_),
        "query_time": rng.random((16, 20), np.float32),
        "target": rng.normal(size=(16, 20, POYO_1_3M.dim_out)).astype(np.float32),
        "target_weight": np.ones((16, 20), np.float32),
        "unit_embedding": weights["unit_emb.weight"][1 : N_UNITS + 1],
        "session_embedding": weights["session_emb.weight"][1],
    }
    data = core.SerializeToString()
    compiled = importlib.util.find_spec("triton") is not None
    return {
        "functions of cuda.py": lambda: sides.cuda_functions(Cuda.open(), times),
        "attention in FP16": lambda: sides.fp16_numerics(device),
        "onnxruntime": lambda: sides.onnxruntime_cuda(
            data, mixed, POYO_1_3M, constants, device, times
        ),
        "a step of calibration": lambda: sides.calibration_steps(
            build_adapt(folded).SerializeToString(), batch, device, max(times // 10, 1)
        ),
        "torch_brain": lambda: sides.torch_brain(
            POYO_1_3M, model, device, times, compiled=compiled
        ),
        "engines": engines,
    }


def engines() -> sides.Figures:
    """On a Jetson, what to type there: engines need an artifact, and a build takes minutes."""
    if this_machine().jetson:
        return {"type": "poyo-edge build model.poyo --report report.json, then poyo-edge bench"}
    return {"skipped": "this is no Jetson"}


if __name__ == "__main__":
    run(main)
