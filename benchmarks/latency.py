"""How long does one window take: torch_brain, a direct ONNX export of it, and poyo-edge?

All peers get the same random weights and the same windows in one process, batch 1, float32 times,
their inputs ready-made; what is timed is the model alone. Repetitions are interleaved: each one
runs every window on every peer once, in a new random order, so that whatever else the machine
does falls on all of them. Nothing is timed before all peers agree on the outputs.

Legend: N spikes, U units, O outputs.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from common import (
    Window,
    describe,
    environment,
    markdown,
    random_window,
    run,
    say,
    torch_brain_feeds,
    torch_brain_model,
    write_json,
)

from poyo_edge.errors import BackendError, CheckFailedError
from poyo_edge.export.fold import FoldedWeights, fold
from poyo_edge.export.graph import build_core
from poyo_edge.runtime.backends import open_backend
from poyo_edge.runtime.constants import session_constants
from poyo_edge.spec import POYO_1_3M, POYO_11_8M, ModelSpec

Float32 = npt.NDArray[np.float32]
Run = Callable[[], Float32]
"""Decode one window, inputs ready-made: (O,) float32 in the model's scale."""
Taken = npt.NDArray[np.float64]
"""(repetitions,) milliseconds."""
Case = tuple[int, int]
"""``(n_units, n_spikes)`` of a window."""

SIZES = {"1.3M": POYO_1_3M, "11.8M": POYO_11_8M}
CLOCKS = {"wall": time.perf_counter_ns, "cpu": time.process_time_ns}
WARM_UPS = 3
EMBEDDING_STD = 1.0
"""Embeddings as large as trained ones or larger, so that spikes matter to the output."""
TOLERANCE = 1e-5
"""Largest difference between peers, in root mean squares of the outputs."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setup:
    """What every peer is made from."""

    spec: ModelSpec
    model: Any
    """torch_brain's POYO, whose unit i is row i + 1 of its table."""
    threads: int
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    """Peer → what a reader of the table should know about it."""

    def weights(self) -> dict[str, Float32]:
        """The model's tensors as arrays, without the vocabularies."""
        state = self.model.state_dict().items()
        return {k: v.numpy() for k, v in state if isinstance(v, torch.Tensor)}


Peer = Callable[[Window], Run]
"""Makes the inputs for a window ready."""


def torch_brain_eager(setup: Setup) -> Peer:
    """torch_brain's POYO as it is."""
    setup.notes[EAGER] = "inference mode, no padding and so no mask"

    def bind(window: Window) -> Run:
        feeds = as_tensors(torch_brain_feeds(setup.spec, window))

        def decode() -> Float32:
            with torch.inference_mode():
                return np.asarray(setup.model(**feeds)[0, 0].numpy())

        return decode

    return bind


def direct_export(setup: Setup) -> Peer:
    """torch_brain's POYO through ``torch.onnx.export``, on ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "direct.onnx")
        setup.notes[DIRECT] = export_direct(setup, path)
        session = onnxruntime.InferenceSession(
            path, session_options(setup.threads), providers=["CPUExecutionProvider"]
        )
    names = {value.name for value in session.get_inputs()}

    def bind(window: Window) -> Run:
        arrays = torch_brain_feeds(setup.spec, window)
        feeds = {name: array for name, array in arrays.items() if name in names}
        return lambda: np.asarray(session.run(None, feeds)[0][0, 0])

    return bind


def poyo_edge_ort_cpu(setup: Setup) -> Peer:
    """The folded core on the runtime's own backend."""
    folded = fold(setup.weights(), setup.spec)
    backend = open_backend("ort-cpu", build_core(folded).SerializeToString(), threads=setup.threads)
    setup.notes[OURS] = f"folded core, backend {backend.name}"

    def bind(window: Window) -> Run:
        feeds = core_feeds(setup, folded, window)
        return lambda: np.asarray(backend.run(feeds)[0, 0])

    return bind


EAGER, DIRECT, OURS = "torch_brain eager", "direct ONNX export", "poyo-edge ort-cpu"
PEERS: dict[str, Callable[[Setup], Peer]] = {
    EAGER: torch_brain_eager,
    DIRECT: direct_export,
    OURS: poyo_edge_ort_cpu,
}
"""Name → how it is opened. The first is the reference for the outputs."""


def main() -> None:
    """Measure, print the tables, write the results file."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    where = environment(options.threads)
    print(f"{describe(where)}\n{options.clock} time, {options.repeats} repetitions", flush=True)
    measured = [measure(name, options) for name in options.sizes]
    print(f"\n{latency_table(measured)}\n\n{growth_lines(measured)}\n\n{agreement_lines(measured)}")
    results = [one.to_json() for one in measured]
    settings = {"repeats": options.repeats, "clock": options.clock}
    write_json(options.json, {**where, **settings, "results": results})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--spikes", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--units", type=int, nargs="+", default=[100])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time, for one thread on a machine that others use too",
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads > 1:
        parser.error("--clock cpu: expected --threads 1; it would add the time of all threads")
    for name, least in {"spikes": 0, "units": 1, "threads": 1, "repeats": 2}.items():
        values = np.atleast_1d(getattr(options, name))
        if values.min() < least:
            parser.error(f"--{name}: expected an integer >= {least}, got {values.min()}")
    return options


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """Times of one model size."""

    size: str
    taken: dict[Case, dict[str, Taken]]
    """Case → peer → milliseconds of each repetition; same index, same repetition."""
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
    """
    spec = SIZES[size]
    setup = Setup(
        spec=spec,
        model=random_model(spec, max(options.units), options.seed),
        threads=options.threads,
    )
    peers = {}
    for name, opener in PEERS.items():
        say(f"{size}: opening {name}")
        peers[name] = opener(setup)
    rng = np.random.default_rng(options.seed)
    cases = [(n_units, n_spikes) for n_units in options.units for n_spikes in options.spikes]
    windows = {case: random_window(spec, *case, rng) for case in cases}
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
        taken={case: {name: taken[case, name] for name in peers} for case in cases},
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


def as_tensors(feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    """The same inputs for torch."""
    return {name: torch.from_numpy(array) for name, array in feeds.items()}


def core_feeds(
    setup: Setup, folded: FoldedWeights, window: Window
) -> Mapping[str, npt.NDArray[Any]]:
    """Inputs of the folded core, session constants included."""
    weights = setup.weights()
    constants = session_constants(
        setup.spec,
        folded.session,
        weights["unit_emb.weight"][1 : window.n_units + 1],
        weights["session_emb.weight"][1],
    )
    return {
        "spike_unit": window.spike_unit[None],
        "spike_time": window.spike_time[None],
        "spike_mask": np.ones((1, len(window.spike_time)), np.bool_),
        "query_time": np.array([[setup.spec.window_seconds]], np.float32),
        **constants.feeds(),
    }


def export_direct(setup: Setup, path: Path) -> str:
    """Export torch_brain's POYO with a dynamic number of tokens; says how it was done.

    The older exporter (``dynamo=False``) is no way out where this one fails: it cannot read the
    vocabularies in the model's state and, given the state without them, ends Python (torch 2.13).

    Raises:
        BackendError: torch cannot export the model.
    """
    window = random_window(setup.spec, 4, 100, np.random.default_rng(0))
    example = as_tensors(torch_brain_feeds(setup.spec, window))
    n_tokens = torch.export.Dim("tokens", min=2, max=1 << 16)
    tokens = ("input_unit_index", "input_timestamps", "input_token_type")
    shapes = {name: {1: n_tokens} if name in tokens else None for name in example}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                setup.model, kwargs=example, dynamic_shapes=shapes, dynamo=True, verbose=False
            )
            assert program is not None
            program.save(path)
    except Exception as problem:
        raise BackendError(
            f"{DIRECT}: torch {torch.__version__} cannot export torch_brain's POYO with "
            f"dynamo=True: {problem}; "
            f"install onnxscript and the torch that constraints.txt names"
        ) from problem
    return f"torch.onnx.export(dynamo=True) of torch {torch.__version__}, dynamic tokens"


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """The options that poyo-edge opens its own core with."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def check_agreement(size: str, runs: Mapping[tuple[Case, str], Run]) -> dict[str, float]:
    """Run everything once; the largest absolute difference of each peer to the first one.

    Raises:
        CheckFailedError: a peer differs by more than the tolerance.
    """
    reference, *others = PEERS
    outputs = {key: decode() for key, decode in runs.items()}
    cases = {case for case, _ in runs}
    expected = np.stack([outputs[case, reference] for case in cases])
    tolerance = TOLERANCE * float(np.sqrt((expected**2).mean()))
    difference = {
        name: float(np.abs(np.stack([outputs[case, name] for case in cases]) - expected).max())
        for name in others
    }
    for name, apart in difference.items():
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
    """Median, 90 % and ratio of each peer in each case."""
    header = ["model, units, spikes", *(f"{name}: median (p90) ms" for name in PEERS)]
    header += [f"{name} / poyo-edge [10–90 %]" for name in PEERS if name != OURS]
    rows = []
    for one in measured:
        for case, peers in one.taken.items():
            cells = [f"{np.median(t):.2f} ({np.percentile(t, 90):.2f})" for t in peers.values()]
            ratios = [one.ratio(case, name) for name in peers if name != OURS]
            cells += [_spread(ratio) for ratio in ratios]
            rows.append([f"{one.size}, {case[0]}, {case[1]}", *cells])
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


def _growth(one: Measured, small: Case, large: Case) -> str:
    ratios = {name: _ratio(one.taken[large][name], one.taken[small][name]) for name in PEERS}
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
