"""How long do loss and gradients of a window take, by each graph that calibration can run?

Beside them a forward pass, with which a fit is judged. Random weights; a run has two windows of 800
spikes, 96 units and 20 labels, as a fit's have. All take turns. With ``--threads 2`` two such runs
are under way at once, as in a fit on two cores; a window costs half of the time of both.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from intake import random_artifact
from latency import CLOCKS, SIZES
from parts.environment import describe, environment
from parts.script import markdown, run, say, write_json

from poyo_edge.artifact import ADAPT_ORT_CPU, CORE_CPU, CORE_ORT_CPU, Artifact
from poyo_edge.export.engines.native import gradient_graph
from poyo_edge.runtime.backends import open_ort_cpu
from poyo_edge.runtime.backends.kernel_library import compile_library, find_library
from poyo_edge.runtime.backends.native_record import ADAPT_GRAPH
from poyo_edge.runtime.constants import constant_shapes, session_constants

WINDOWS, SPIKES, UNITS, LABELS = 2, 800, 96, 20
GRADIENTS = ["loss", "unit_embedding_gradient", "session_embedding_gradient"]
_WARM_UPS = 2


def main() -> None:
    """Time the graphs of each size, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    if find_library() is None:
        compile_library()
    rows = list[dict[str, Any]]()
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            say(f"{size}: making a model")
            path = random_artifact(Path(folder), UNITS, SIZES[size])
            runs = runs_of(Artifact.open(path))
        for threads in options.threads:
            taken = timed(runs, threads, options.repeats, CLOCKS[options.clock])
            rows += [{"model": size, "threads": threads, **row} for row in taken]
    header = ["model", "threads", "graph", "median ms a window", "p10", "p90"]
    table = [
        [row["model"], row["threads"], row["graph"],
         *(f"{row[key]:.2f}" for key in ("median_ms", "p10_ms", "p90_ms"))]
        for row in rows
    ]  # fmt: skip
    where = environment(max(options.threads))
    print(f"{describe(where)}\n\n{markdown(header, table)}")
    write_json(options.json, {**where, "clock": options.clock, "graphs": rows})


def runs_of(artifact: Artifact) -> dict[str, Callable[[], object]]:
    """File name → what runs that graph once."""
    rng, spec = np.random.default_rng(0), artifact.manifest.spec
    library = find_library()
    assert library is not None
    normal = rng.standard_normal
    tables = {
        "unit_embedding": normal((UNITS, spec.dim)).astype(np.float32),
        "session_embedding": normal(spec.dim).astype(np.float32),
    }
    times = {
        name: rng.uniform(0, spec.window_seconds, (WINDOWS, n)).astype(np.float32)
        for name, n in (("spike_time", SPIKES), ("query_time", LABELS))
    }
    window = {
        "spike_unit": rng.integers(0, UNITS, (WINDOWS, SPIKES)).astype(np.int32),
        "spike_mask": np.ones((WINDOWS, SPIKES), np.bool_),
        **times,
    }
    labels = {
        "target": normal((WINDOWS, LABELS, spec.dim_out)).astype(np.float32),
        "target_weight": np.ones((WINDOWS, LABELS), np.float32),
    }
    weights = artifact.weights(constant_shapes(spec))
    constants = session_constants(spec, weights, *tables.values()).feeds()
    forward = {**window, "query_time": window["query_time"][:, :1], **constants}
    both = {**window, **labels, **tables}
    graphs: Mapping[str, tuple[bytes, dict[str, Any], list[str]]] = {
        ADAPT_ORT_CPU: (artifact.read(ADAPT_ORT_CPU), both, GRADIENTS),
        ADAPT_GRAPH: (gradient_graph(artifact), both, GRADIENTS),
        CORE_ORT_CPU: (artifact.read(CORE_ORT_CPU), forward, ["prediction"]),
        CORE_CPU: (artifact.read(CORE_CPU), forward, ["prediction"]),
    }
    runs = dict[str, Callable[[], object]]()
    for name, (graph, feeds, outputs) in graphs.items():
        operators = str(library.path) if name in (ADAPT_GRAPH, CORE_CPU) else ""
        session = open_ort_cpu(graph, threads=1, what=name, operators=operators)
        runs[name] = functools.partial(session.run, outputs, feeds)
    return runs


def timed(
    runs: Mapping[str, Callable[[], object]],
    threads: int,
    repeats: int,
    now_ns: Callable[[], int] = time.perf_counter_ns,
) -> list[dict[str, Any]]:
    """Milliseconds a window of each graph; they take turns."""
    taken = np.empty((_WARM_UPS + repeats, len(runs)))
    with ThreadPoolExecutor(threads) as pool:
        for one in taken:
            for i, work in enumerate(runs.values()):
                started = now_ns()
                for done in [pool.submit(work) for _ in range(threads)]:
                    done.result()
                one[i] = (now_ns() - started) / 1e6 / threads / WINDOWS
    figures = np.percentile(taken[_WARM_UPS:], [50, 10, 90], axis=0).T
    return [
        {"graph": name, "median_ms": a, "p10_ms": b, "p90_ms": c}
        for name, (a, b, c) in zip(runs, figures.round(3).tolist(), strict=True)
    ]


if __name__ == "__main__":
    run(main)
