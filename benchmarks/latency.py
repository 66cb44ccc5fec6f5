"""How long does one window take: torch_brain, a direct ONNX export of it, and poyo-edge?

All peers get the same random weights and the same windows in one process, float32 times, their
inputs ready-made; what is timed is the model alone. Repetitions are interleaved: each runs every
window, or batch of windows, on every peer once, in a new random order, so that whatever else the
machine does falls on all of them. Nothing is timed before all peers agree on the outputs.

Legend: N spikes, U units, O outputs.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from parts.environment import describe, environment
from parts.latency_peers import (
    EAGER,
    FOR_SCALE,
    NATIVE,
    OURS,
    PEERS,
    TOLERANCE,
    TOLERANCES,
    USUAL,
    Run,
    Setup,
)
from parts.oracle import torch_brain_model
from parts.script import markdown, run, say, write_json
from parts.windows import random_window

from poyo_edge.errors import BackendError, CheckFailedError, MissingExtraError
from poyo_edge.figures import draw_peers
from poyo_edge.spec import POYO_1_3M, POYO_11_8M, ModelSpec

Taken = npt.NDArray[np.float64]
"""(repetitions,) milliseconds."""
Case = tuple[int, int]
"""``(n_units, n_spikes)`` of a window."""

SIZES = {"1.3M": POYO_1_3M, "11.8M": POYO_11_8M}
CLOCKS = {"wall": time.perf_counter_ns, "cpu": time.process_time_ns}
WARM_UPS = 3
EMBEDDING_STD = 1.0
"""Embeddings as large as trained ones or larger, so that spikes matter to the output."""


def main() -> None:
    """Measure, print the tables, write the results file."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    where = environment(options.threads)
    how = f"{options.clock} time, {options.repeats} repetitions, batch {options.batch}"
    print(f"{describe(where)}\n{how}", flush=True)
    measured = [measure(name, options) for name in options.sizes]
    print(f"\n{latency_table(measured)}\n\n{growth_lines(measured)}\n\n{agreement_lines(measured)}")
    results = [one.to_json() for one in measured]
    rate = product_rate(CLOCKS[options.clock])
    print(f"\nFP32 matrix products of this machine, 1 thread: {rate:.0f} Gflop/s")
    print("\n".join(limit_lines(measured, rate)))
    if options.png:
        draw(options.png, measured[0], options.units[0])
    settings = {"repeats": options.repeats, "clock": options.clock, "batch": options.batch}
    settings |= {"gflops_per_s": rate}
    write_json(options.json, {**where, **settings, "results": results})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--spikes", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--units", type=int, nargs="+", default=[100])
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=[*PEERS, "all"],
        default=list(USUAL),
        help=f"besides {EAGER} and {OURS}; all: those that this machine can run",
    )
    parser.add_argument("--batch", type=int, default=1, help="windows decoded together")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--instructions",
        default="",
        help=f"of {NATIVE}: avx512, avx2, sse2 or neon; default the best",
    )
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time, for one thread on a machine that others use too",
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--png", type=Path, help="also draw the first size's latencies")
    options = parser.parse_args()
    options.all = "all" in options.peers
    if not options.all:
        options.peers = [name for name in PEERS if name in {EAGER, OURS, *options.peers}]
    else:
        options.peers = list(PEERS)
    if options.clock == "cpu" and options.threads > 1:
        parser.error("--clock cpu: expected --threads 1; it would add the time of all threads")
    for name, least in {"spikes": 0, "units": 1, "batch": 1, "threads": 1, "repeats": 2}.items():
        values = np.atleast_1d(getattr(options, name))
        if values.min() < least:
            parser.error(f"--{name}: expected an integer >= {least}, got {values.min()}")
    return options


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """Times of one model size."""

    size: str
    taken: dict[Case, dict[str, Taken]]
    """Case → peer → milliseconds a window in each repetition; same index, same repetition."""
    max_difference: dict[str, float]
    """Peer → largest absolute difference of its outputs to the first peer's."""
    notes: dict[str, str]

    def ratio(self, case: Case, peer: str) -> tuple[float, float, float]:
        """How many times longer than poyo-edge: of medians, and 10 and 90 % of repetitions."""
        return _ratio(self.taken[case][peer], self.taken[case][OURS])

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return {
            "size": self.size,
            "notes": self.notes,
            "max_difference": self.max_difference,
            "cases": [
                {
                    "units": case[0],
                    "spikes": case[1],
                    "peer": peer,
                    **_summary(taken),
                    "ratio_to_poyo_edge": self.ratio(case, peer),
                }
                for case, peers in self.taken.items()
                for peer, taken in peers.items()
            ],
        }


def measure(size: str, options: argparse.Namespace) -> Measured:
    """Open all peers on one model size, check that they agree, and time them.

    Raises:
        CheckFailedError: a peer disagrees with the first one.
        BackendError, MissingExtraError: one that was named cannot be opened here.
    """
    spec = SIZES[size]
    setup = Setup(
        spec=spec,
        model=random_model(spec, max(options.units), options.seed),
        threads=options.threads,
        batch=options.batch,
        instructions=options.instructions,
    )
    peers = {}
    for name in options.peers:
        say(f"{size}: opening {name}")
        try:
            peers[name] = PEERS[name](setup)
        except (BackendError, MissingExtraError) as problem:
            if not options.all or name in (EAGER, OURS):
                raise
            setup.notes[name] = f"left out: {problem}"
    rng = np.random.default_rng(options.seed)
    cases = [(n_units, n_spikes) for n_units in options.units for n_spikes in options.spikes]
    windows = {case: random_window(spec, *case, rng, batch=options.batch) for case in cases}
    runs = {
        (case, name): peer(window)
        for case, window in windows.items()
        for name, peer in peers.items()
    }
    max_difference = check_agreement(size, runs)
    say(f"{size}: timing {len(runs)} windows {options.repeats} times")
    taken = time_interleaved(runs, options.repeats, rng, CLOCKS[options.clock])
    return Measured(
        size=size,
        taken={case: {name: taken[case, name] / options.batch for name in peers} for case in cases},
        max_difference=max_difference,
        notes=setup.notes,
    )


def random_model(spec: ModelSpec, n_units: int, seed: int) -> Any:
    """torch_brain's POYO with random weights and one session of ``n_units`` units."""
    torch.manual_seed(seed)
    model = torch_brain_model(spec, emb_init_scale=EMBEDDING_STD)
    model.unit_emb.initialize_vocab([f"unit_{i:04d}" for i in range(n_units)])
    model.session_emb.initialize_vocab(["session"])
    return model


def check_agreement(size: str, runs: Mapping[tuple[Case, str], Run]) -> dict[str, float]:
    """Run everything once; the largest absolute difference of each peer to the first one.

    Raises:
        CheckFailedError: a peer differs by more than the tolerance.
    """
    names = dict.fromkeys(name for _, name in runs)
    reference, *others = [name for name in names if name not in FOR_SCALE]
    outputs = {key: decode() for key, decode in runs.items()}
    cases = {case for case, _ in runs}
    expected = np.stack([outputs[case, reference] for case in cases])
    rms = float(np.sqrt((expected**2).mean()))
    difference = {
        name: float(np.abs(np.stack([outputs[case, name] for case in cases]) - expected).max())
        for name in others
    }
    for name, apart in difference.items():
        tolerance = TOLERANCES.get(name, TOLERANCE) * rms
        if not apart <= tolerance:
            raise CheckFailedError(
                f"{size}: {name}: expected outputs within {tolerance:.1e} of {reference}, "
                f"got {apart:.1e}; nothing was timed"
            )
    return difference


def time_interleaved(
    runs: Mapping[tuple[Case, str], Run],
    repeats: int,
    rng: np.random.Generator,
    now_ns: Callable[[], int],
) -> dict[tuple[Case, str], Taken]:
    """Milliseconds of each repetition; each runs everything once, in a new random order."""
    keys = list(runs)
    taken = {key: np.empty(WARM_UPS + repeats) for key in keys}
    for i in range(WARM_UPS + repeats):
        for at in rng.permutation(len(keys)):
            decode = runs[keys[at]]
            started = now_ns()
            decode()
            taken[keys[at]][i] = (now_ns() - started) / 1e6
    return {key: values[WARM_UPS:] for key, values in taken.items()}


def latency_table(measured: list[Measured]) -> str:
    """Median, percentiles and ratios of each peer in each case."""
    header = ["model, units, spikes", "peer", "median ms", "p10", "p90", "p99"]
    header += [f"peer / {OURS} [10–90 %]", f"{EAGER} / peer"]
    rows = []
    for one in measured:
        for case, peers in one.taken.items():
            for name, taken in peers.items():
                figures = np.percentile(taken, [50, 10, 90, 99])
                faster = float(np.median(peers[EAGER]) / np.median(taken))
                rows.append(
                    [
                        f"{one.size}, {case[0]}, {case[1]}",
                        name,
                        *(f"{figure:.2f}" for figure in figures),
                        _spread(one.ratio(case, name)),
                        f"{faster:.2f}x",
                    ]
                )
    return markdown(header, rows)


def growth_lines(measured: list[Measured]) -> str:
    """What more spikes and more units cost."""
    lines = []
    for one in measured:
        units = sorted({case[0] for case in one.taken})
        spikes = sorted({case[1] for case in one.taken})
        for n in units if len(spikes) > 1 else []:
            ends = (n, spikes[0]), (n, spikes[-1])
            what = f"{spikes[0]} → {spikes[-1]} spikes, {n} units"
            lines.append(f"{one.size}, {what}: {_growth(one, *ends)}")
        for n in spikes if len(units) > 1 else []:
            ends = (units[0], n), (units[-1], n)
            what = f"{units[0]} → {units[-1]} units, {n} spikes"
            lines.append(f"{one.size}, {what}: {_growth(one, *ends)}")
    return "\n".join(f"Cost growth, {line}" for line in lines)


def agreement_lines(measured: list[Measured]) -> str:
    """How far the peers' outputs were apart, and what each peer is."""
    lines = []
    for one in measured:
        apart = ", ".join(f"{name} {value:.1e}" for name, value in one.max_difference.items())
        lines.append(f"{one.size}: largest difference to {EAGER}: {apart}")
        lines += [f"{one.size}: {name}: {note}" for name, note in one.notes.items()]
    return "\n".join(lines)


def draw(path: Path, one: Measured, n_units: int) -> None:
    """Medians of the peers of one size against spikes; those for scale are left out."""
    cases = sorted(case for case in one.taken if case[0] == n_units)
    peers = [name for name in one.taken[cases[0]] if name not in FOR_SCALE]
    medians = {name: [float(np.median(one.taken[case][name])) for case in cases] for name in peers}
    title = f"One window, {one.size} model, {n_units} units, one thread"
    draw_peers(path, [n_spikes for _, n_spikes in cases], medians, title=title)


def product_rate(now_ns: Callable[[], int], size: int = 768) -> float:
    """Gflop/s of numpy's FP32 matrix product, the best of some; threads as the process has."""
    a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    taken = []
    for _ in range(30):
        started = now_ns()
        a @ a
        taken.append(now_ns() - started)
    return 2 * size**3 / float(np.percentile(taken, 10))


def limit_lines(measured: list[Measured], rate: float) -> list[str]:
    """Arithmetic of each case, and what share of the product rate ours reaches."""
    lines = []
    for one in measured:
        for case, peers in one.taken.items():
            flop = SIZES[one.size].products_flop(case[1])
            reached = [
                f"{name} {flop / (np.percentile(peers[name], 10) * 1e6) / rate:.0%}"
                for name in (OURS, NATIVE)
                if name in peers
            ]
            lines.append(
                f"{one.size}, {case[1]} spikes: {flop / 1e6:.0f} Mflop in products, "
                f"{flop / rate / 1e6:.1f} ms at that rate; reached in the fastest 10 %: "
                f"{', '.join(reached)}"
            )
    return lines


def _growth(one: Measured, small: Case, large: Case) -> str:
    ratios = {
        name: _ratio(one.taken[large][name], one.taken[small][name]) for name in one.taken[small]
    }
    return ", ".join(f"{name} {_spread(ratio)}" for name, ratio in ratios.items())


def _ratio(taken: Taken, base: Taken) -> tuple[float, float, float]:
    low, high = np.percentile(taken / base, [10, 90]).tolist()
    return float(np.median(taken) / np.median(base)), low, high


def _spread(ratio: tuple[float, float, float]) -> str:
    return f"{ratio[0]:.2f}x [{ratio[1]:.2f}–{ratio[2]:.2f}]"


def _summary(taken: Taken) -> dict[str, float | int]:
    median, p90, p99 = np.percentile(taken, [50, 90, 99]).round(4).tolist()
    best = round(float(taken.min()), 4)
    return {"n": len(taken), "min_ms": best, "median_ms": median, "p90_ms": p90, "p99_ms": p99}


if __name__ == "__main__":
    run(main)
