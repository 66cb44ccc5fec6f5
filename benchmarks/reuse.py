"""Would a stream of windows save time by keeping what latents took from earlier spikes?

Latents lie on a grid of ``latent_step_s``, and attention depends on time differences only. So two
windows whose starts are a whole number of steps apart share latents (same absolute time), and what
such a latent took from a group of spikes can be kept as the sum of exp(score) and of
exp(score)·value, and added up again. Both are measured against the boundary tokens, whose share
the attention of ``core.ort-cpu.onnx`` returns anyway: with share b and output o, the sums are
1/b - 1 and o/b.

What is timed is the encoder's attention alone, with the operator that ``core.ort-cpu.onnx`` uses:
over all spikes, and in the pieces that a window at a given rate computes anew, with adding up.

Legend: H heads, L latents, K head dim (and two columns), N spikes, G groups of spikes.
"""

from __future__ import annotations

import argparse
import dataclasses
import fractions
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from latency import CLOCKS, SIZES, random_model, time_interleaved
from onnx import TensorProto, helper
from parts.environment import describe, environment
from parts.latency_peers import Setup, poyo_edge_ort_cpu, session_options
from parts.script import markdown, run, say, write_json
from parts.windows import random_window

from poyo_edge.errors import CheckFailedError
from poyo_edge.runtime.constants import rotate_halves, rotation
from poyo_edge.spec import ModelSpec
from poyo_edge.tokens import latent_tokens

Array = npt.NDArray[np.float32]
_COLUMNS = 2
_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What windows at one rate share."""

    rate_hz: int
    phases: int
    """Windows until one starts a whole number of steps after the first."""
    shift: int
    """That number of steps."""
    groups: int
    """Groups of steps in a window; one leaves and one comes between windows of a phase."""

    @property
    def new_share(self) -> float:
        """Pairs of a group of latents and one of spikes that are new."""
        return (2 * self.groups - 1) / self.groups**2


def plan(spec: ModelSpec, rate_hz: int) -> Plan | None:
    """None where no two windows share anything."""
    ratio = fractions.Fraction(rate_hz) * fractions.Fraction(spec.latent_step_s)
    phases, shift = ratio.numerator, ratio.denominator
    if shift >= spec.latent_steps:
        return None
    groups = -(-spec.latent_steps // shift)
    return Plan(rate_hz=rate_hz, phases=phases, shift=shift, groups=groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="1.3M")
    parser.add_argument("--spikes", type=int, nargs="+", default=[1000, 4000, 8000])
    parser.add_argument("--rates", type=int, nargs="+", default=[40, 50, 80, 100])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    words = parser.parse_args()
    spec = SIZES[words.size]
    plans = [one for rate in words.rates if (one := plan(spec, rate))]
    say("checking that a kept part is the part that a later window would compute")
    error = check(spec)
    print(describe(environment(1)))
    print(f"parts of two windows differ by at most {error:.1e}, relative to the largest\n")
    measured = time_all(words, spec, plans)
    rows = []
    for n in words.spikes:
        window, full = measured[f"window {n}"], measured[f"full {n}"]
        for one in plans:
            pieces, merge = measured[f"pieces {n} {one.rate_hz}"], measured[f"merge {one.rate_hz}"]
            saved = full - pieces - merge
            rows.append([
                n, one.rate_hz, one.phases, f"{one.new_share:.0%}", f"{window:.2f}",
                f"{full:.2f}", f"{pieces:.2f}", f"{merge:.2f}", f"{saved / window:+.0%}",
                f"{memory_mb(spec, one):.0f}",
            ])  # fmt: skip
    print(markdown([
        "spikes", "Hz", "phases", "pairs anew", "window ms", "its attention to spikes ms",
        "pieces ms", "adding up ms", "of the window saved", "MB kept",
    ], rows))  # fmt: skip
    write_json(words.json, {**environment(1), "size": words.size, "milliseconds": measured})


def time_all(words: argparse.Namespace, spec: ModelSpec, plans: list[Plan]) -> dict[str, float]:
    """Median milliseconds of whole windows, attention over all spikes, pieces, and adding up."""
    rng = np.random.default_rng(0)
    setup = Setup(spec=spec, model=random_model(spec, 100, 0), threads=1)
    say("opening the model")
    peer = poyo_edge_ort_cpu(setup)
    attend = attention(spec)
    runs: dict[tuple[tuple[int, int], str], Callable[[], Array]] = {}
    for n in words.spikes:
        runs[(0, 0), f"window {n}"] = peer(random_window(spec, 100, n, rng))
        runs[(0, 0), f"full {n}"] = bound(attend, spec, spec.n_latents, n, rng)
        for one in plans:
            runs[(0, 0), f"pieces {n} {one.rate_hz}"] = pieces(attend, spec, one, n, rng)
    for one in plans:
        runs[(0, 0), f"merge {one.rate_hz}"] = merging(spec, one, rng)
    taken = time_interleaved(runs, words.repeats, rng, CLOCKS[words.clock])
    return {name: float(np.median(values)) for (_, name), values in taken.items()}


def pieces(
    attend: onnxruntime.InferenceSession,
    spec: ModelSpec,
    one: Plan,
    n: int,
    rng: np.random.Generator,
) -> Callable[[], Array]:
    """New latents on each group of spikes, and older latents on the newest group."""
    latents, spikes = spec.n_latents // one.groups, n // one.groups
    new = bound(attend, spec, latents, spikes, rng, batch=one.groups)
    old = bound(attend, spec, spec.n_latents - latents, spikes, rng)

    def both() -> Array:
        new()
        return old()

    return both


def bound(
    attend: onnxruntime.InferenceSession,
    spec: ModelSpec,
    latents: int,
    spikes: int,
    rng: np.random.Generator,
    batch: int = 1,
) -> Callable[[], Array]:
    """Attention of so many latents to so many spikes and the boundary token."""
    width = spec.cross_heads * (spec.dim_head + _COLUMNS)
    sizes = {"query": latents, "key": spikes + 1, "value": spikes + 1}
    feeds = {
        name: rng.normal(size=(batch, rows, width)).astype(np.float32)
        for name, rows in sizes.items()
    }
    feeds["query"] *= 0.1
    return lambda: np.asarray(attend.run(None, feeds)[0])


def attention(spec: ModelSpec) -> onnxruntime.InferenceSession:
    """The operator that ``core.ort-cpu.onnx`` attends to spikes with, alone."""
    names = ("query", "key", "value")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", name, None]) for name in names
    ]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", "query", None])
    node = helper.make_node(
        "MultiHeadAttention",
        names,
        ["out"],
        domain="com.microsoft",
        num_heads=spec.cross_heads,
        scale=1.0,
    )
    graph = helper.make_graph([node], "attention", inputs, [output])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"]
    )


def merging(spec: ModelSpec, one: Plan, rng: np.random.Generator) -> Callable[[], Array]:
    """Add the kept sums of all groups for each latent, and divide."""
    shape = (one.groups, spec.n_latents, spec.cross_heads, spec.dim_head + 1)
    kept = rng.uniform(1, 2, size=shape).astype(np.float32)
    boundary = rng.normal(size=(*shape[1:3], spec.dim_head)).astype(np.float32)
    total = np.empty(shape[1:], np.float32)

    def merge() -> Array:
        np.add.reduce(kept, axis=0, out=total)
        total[..., :-1] += boundary
        total[..., -1] += 1.0
        return np.asarray(total[..., :-1] / total[..., -1:])

    return merge


def memory_mb(spec: ModelSpec, one: Plan) -> float:
    """What all phases keep: a sum of weights and of values per group, latent and head."""
    values = one.groups * spec.n_latents * spec.cross_heads * (spec.dim_head + 1)
    return 4.0 * values * one.phases / 1e6


def check(spec: ModelSpec, n: int = 200, shift: int = 2) -> float:
    """Largest difference between a kept part and the same part in a later window, in float64.

    Raises:
        CheckFailedError: it is more than rounding.
    """
    rng = np.random.default_rng(0)
    index, time = latent_tokens(spec)
    pairs, dim_head = spec.rotating_pairs, spec.dim_head
    omega = np.geomspace(1.0, 60.0, pairs)
    query = rng.normal(size=(spec.latents_per_step, dim_head))[index] / np.sqrt(dim_head)
    key, value = rng.normal(size=(2, n, dim_head))
    spikes = rng.uniform(shift * spec.latent_step_s, spec.window_seconds, n)

    def part(start: float) -> npt.NDArray[np.float64]:
        latent_cs, spike_cs = (rotation(omega, at) for at in (time, spikes - start))
        turned = rotate_halves(key, *spike_cs)
        score = rotate_halves(query, *latent_cs) @ turned.T
        weight = np.exp(score)
        taken = weight @ rotate_halves(value, *spike_cs)
        back = rotate_halves(taken, latent_cs[0], -latent_cs[1])
        return np.concatenate([back, weight.sum(-1, keepdims=True)], axis=-1)

    skipped = shift * spec.latents_per_step
    first = part(0.0)[skipped:]
    second = part(shift * spec.latent_step_s)[: len(first)]
    error = float(np.abs(first - second).max() / np.abs(first).max())
    if not error <= _TOLERANCE:
        raise CheckFailedError(f"reuse: expected at most {_TOLERANCE:.0e}, got {error:.1e}")
    return error


if __name__ == "__main__":
    run(main)
