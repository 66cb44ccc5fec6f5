"""How much of one core do pushing spikes and cutting windows take, without the model?

A stream of spikes is pushed in small chunks and decoded at a steady rate by a decoder whose
backend does nothing, so that what is left is poyo-edge's own work per spike, chunk and window.
Streams of several kinds run as fast as they go, taking turns second by second; the share is
processor time per second of stream. With ``--paced`` every chunk is pushed when the clock says
so: between chunks the processor sleeps and forgets, and the same work takes longer.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import itertools
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from parts.environment import describe, environment
from parts.script import markdown, require, run, say, write_json

from poyo_edge.artifact import Artifact
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.backends import Backend, Feeds
from poyo_edge.runtime.constants import constant_shapes
from poyo_edge.runtime.core import Core
from poyo_edge.spec import POYO_1_3M, ModelSpec

TICK_RATE_HZ = 30_000.0
WARM_UP_S = 2
GOAL_PERCENT = 2.0

Chunk = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Times and units of the spikes of one chunk."""


class NoModel(Backend):
    """A backend that answers zero at once."""

    name = "none"

    def __init__(self, dim_out: int) -> None:
        self.dim_out = dim_out

    def run(self, feeds: Feeds) -> npt.NDArray[np.float32]:
        """(B, Q, O) zeros."""
        return np.zeros((*feeds["query_time"].shape, self.dim_out), np.float32)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream:
    """Spikes of many seconds in the order they arrive, and what they are pushed as."""

    chunks: list[Chunk]
    chunks_per_second: int
    tick_rate_hz: float | None = None


def main() -> None:
    """Measure each kind of stream, print the table, write the results file."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        path = options.artifact or random_artifact(Path(folder), options.units)
        artifact = Artifact.open(path)
        results = measure(artifact, options)
        if options.profile:
            profile(artifact, options)
    where = environment(1)
    print(f"{describe(where)}\n\n{table(results)}\n\n{goal_line(results, options)}")
    settings = {
        key: getattr(options, key) for key in ("rate", "chunk_ms", "decode_hz", "seconds", "paced")
    }
    write_json(options.json, {**where, **settings, "results": results})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "artifact",
        type=Path,
        nargs="?",
        help="NAME.poyo; left out, a random 1.3M model is exported (needs torch_brain)",
    )
    parser.add_argument("--session", help="session of the artifact, if it has several")
    parser.add_argument("--units", type=int, default=100, help="units of the random model")
    parser.add_argument("--rate", type=float, default=5000.0, help="spikes per second")
    parser.add_argument("--chunk-ms", type=float, default=1.0)
    parser.add_argument("--decode-hz", type=float, default=50.0)
    parser.add_argument("--seconds", type=int, default=20, help="seconds of stream to time")
    parser.add_argument(
        "--paced",
        action="store_true",
        help="push at the pace of the clock, asleep in between, as beside a real device",
    )
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    for name in ("units", "rate", "chunk_ms", "decode_hz", "seconds"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name}: expected a number > 0, got {getattr(options, name)}")
    return options


def random_artifact(
    folder: Path,
    n_units: int,
    spec: ModelSpec = POYO_1_3M,
    on_step: Callable[[str], None] = say,
) -> Path:
    """Export a model with random weights and one session of ``n_units`` units."""
    require("torch", "export", "a random model")
    import torch
    from parts.oracle import torch_brain_model

    from poyo_edge.export.pipeline import ExportOptions, export_checkpoint

    model = torch_brain_model(spec)
    model.unit_emb.initialize_vocab([f"session/unit_{i:04d}" for i in range(n_units)])
    model.session_emb.initialize_vocab(["session"])
    checkpoint = folder / "random.pt"
    torch.save(model.state_dict(), checkpoint)
    out = folder / "random.poyo"
    export_checkpoint(checkpoint, out, ExportOptions(output_scale=(1.0,)), on_step=on_step)
    return out


def measure(artifact: Artifact, options: Any) -> list[dict[str, Any]]:
    """What each stream took, second by second in turns."""
    plain = open_decoder(artifact, options.session, None)
    streams = {name: make(plain, options) for name, make in STREAMS.items()}
    decoders = {
        name: open_decoder(artifact, options.session, stream.tick_rate_hz)
        for name, stream in streams.items()
    }
    n_seconds = WARM_UP_S + options.seconds
    taken = {name: np.empty((n_seconds, 2)) for name in streams}
    for second in range(n_seconds):
        for name, stream in streams.items():
            taken[name][second] = run_second(decoders[name], stream, second, options)
    return [
        {
            "stream": name,
            **shares(taken[name][WARM_UP_S:] * 100, stream, options),
            "counters": {k: n for k, n in decoders[name].stats()["counters"].items() if n},
        }
        for name, stream in streams.items()
    ]


def shares(
    percent: npt.NDArray[np.float64], stream: Stream, options: Any
) -> dict[str, float | dict[str, float]]:
    """Medians of (seconds, 2) percent of one core: pushing and decoding."""
    push, decode = percent.T
    return {
        "push_percent": _spread(push),
        "decode_percent": _spread(decode),
        "total_percent": _spread(push + decode),
        "push_us_per_chunk": float(np.median(push)) * 1e4 / stream.chunks_per_second,
        "decode_us": float(np.median(decode)) * 1e4 / options.decode_hz,
    }


def open_decoder(artifact: Artifact, session: str | None, tick_rate_hz: float | None) -> Decoder:
    """A decoder of this artifact whose model answers zero at once."""
    spec = artifact.manifest.spec
    core = Core(
        artifact=artifact,
        backend=NoModel(spec.dim_out),
        weights=artifact.weights(constant_shapes(spec)),
    )
    return Decoder(core, artifact.session(session), tick_rate_hz=tick_rate_hz)


def run_second(decoder: Decoder, stream: Stream, second: int, options: Any) -> tuple[float, float]:
    """Processor seconds spent pushing and decoding in one second of the stream."""
    n_chunks, unit = stream.chunks_per_second, stream.tick_rate_hz
    decode_after = set(np.arange(n_chunks, 0, -n_chunks / options.decode_hz).astype(int).tolist())
    chunks = stream.chunks[second * n_chunks : (second + 1) * n_chunks]
    decoding = waiting = 0
    began, started = time.perf_counter(), time.thread_time_ns()
    for pushed, chunk in enumerate(chunks, start=1):
        if options.paced:
            paused = time.thread_time_ns()
            wait_until(began + pushed / n_chunks)
            waiting += time.thread_time_ns() - paused
        decoder.push(*chunk)
        if pushed in decode_after:
            paused = time.thread_time_ns()
            t = second + pushed / n_chunks
            decoder.decode(t if unit is None else round(t * unit))
            decoding += time.thread_time_ns() - paused
    pushing = time.thread_time_ns() - started - decoding - waiting
    return pushing / 1e9, decoding / 1e9


def wait_until(moment: float) -> None:
    """Sleep until ``time.perf_counter`` reaches a moment."""
    while (left := moment - time.perf_counter()) > 0:
        time.sleep(left)


def profile(artifact: Artifact, options: Any) -> None:
    """Print where each stream's time goes, on stderr; profiling itself takes some of it."""
    plain = open_decoder(artifact, options.session, None)
    for name, make in STREAMS.items():
        stream = make(plain, options)
        decoder = open_decoder(artifact, options.session, stream.tick_rate_hz)
        profiler = cProfile.Profile()
        for second in range(WARM_UP_S + options.seconds):
            profiler.runcall(run_second, decoder, stream, second, options)
        say(f"{name}:")
        pstats.Stats(profiler, stream=sys.stderr).strip_dirs().sort_stats("tottime").print_stats(12)


def in_order(decoder: Decoder, options: Any) -> Stream:
    """Rows and float64 seconds, ascending, no two spikes at one time."""
    times, rows = _spikes(decoder, options)
    return _cut(times, rows, times, options)


def with_ties(decoder: Decoder, options: Any) -> Stream:
    """As a 30 kHz system delivers them: times on a grid, so some spikes share one."""
    times, rows = _spikes(decoder, options)
    return _cut(np.floor(times * TICK_RATE_HZ) / TICK_RATE_HZ, rows, times, options)


def by_channel(decoder: Decoder, options: Any) -> Stream:
    """Each chunk sorted by unit instead of time, as systems that scan channels deliver it."""
    stream = in_order(decoder, options)
    orders = [np.argsort(rows, kind="stable") for _, rows in stream.chunks]
    chunks = [(t[o], r[o]) for (t, r), o in zip(stream.chunks, orders, strict=True)]
    return dataclasses.replace(stream, chunks=chunks)


def ticks(decoder: Decoder, options: Any) -> Stream:
    """Integer device ticks of 30 kHz, ascending, with ties."""
    times, rows = _spikes(decoder, options)
    stream = _cut(np.floor(times * TICK_RATE_HZ).astype(np.int64), rows, times, options)
    return dataclasses.replace(stream, tick_rate_hz=TICK_RATE_HZ)


def long_rows(decoder: Decoder, options: Any) -> Stream:
    """As ``in_order``, but rows are int64."""
    times, rows = _spikes(decoder, options)
    return _cut(times, rows.astype(np.int64), times, options)


def unit_ids(decoder: Decoder, options: Any) -> Stream:
    """As ``in_order``, but units are given by id."""
    times, rows = _spikes(decoder, options)
    return _cut(times, np.array(decoder.unit_ids)[rows], times, options)


STREAMS: dict[str, Callable[[Decoder, Any], Stream]] = {
    "int32 rows, in order": in_order,
    "int32 rows, in order, 30 kHz times": with_ties,
    "int32 rows, 30 kHz ticks": ticks,
    "int64 rows, in order": long_rows,
    "unit ids, in order": unit_ids,
    "int32 rows, chunks by channel": by_channel,
}
"""Name → how it is made. The first is what the goal speaks about."""


def table(results: list[dict[str, Any]]) -> str:
    """Percent of one core, and microseconds per call."""
    header = ["stream", "push %", "decode without model %", "together % (p90)"]
    rows = [
        [
            one["stream"],
            f"{one['push_percent']['median']:.2f}",
            f"{one['decode_percent']['median']:.2f}",
            f"{one['total_percent']['median']:.2f} ({one['total_percent']['p90']:.2f})",
            f"{one['push_us_per_chunk']:.1f}",
            f"{one['decode_us']:.1f}",
        ]
        for one in results
    ]
    return markdown([*header, "µs per push", "µs per decode"], rows)


def goal_line(results: list[dict[str, Any]], options: Any) -> str:
    """Whether the first stream keeps the goal."""
    share = results[0]["total_percent"]["median"]
    verdict = "kept" if share <= GOAL_PERCENT else "missed"
    pace = "paced" if options.paced else "as fast as it goes"
    return (
        f"{options.rate:g} spikes/s in {options.chunk_ms:g} ms chunks, {options.decode_hz:g} "
        f"windows/s, {pace}: {share:.2f} % of one core; goal <= {GOAL_PERCENT:g} %: {verdict}"
    )


def _spikes(decoder: Decoder, options: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
    rng = np.random.default_rng(0)
    duration = options.seconds + WARM_UP_S
    times = np.unique(rng.uniform(0, duration, round(options.rate * duration)))
    rows = rng.integers(0, len(decoder.unit_ids), len(times)).astype(np.int32)
    return times, rows


def _cut(
    given: npt.NDArray[Any], units: npt.NDArray[Any], times: npt.NDArray[Any], options: Any
) -> Stream:
    per_second = max(1, round(1000 / options.chunk_ms))
    duration = options.seconds + WARM_UP_S
    edges = np.arange(1, duration * per_second) / per_second
    cuts = [0, *np.searchsorted(times, edges).tolist(), len(times)]
    chunks = [(given[lo:hi].copy(), units[lo:hi].copy()) for lo, hi in itertools.pairwise(cuts)]
    return Stream(chunks=chunks, chunks_per_second=per_second)


def _spread(values: npt.NDArray[np.float64]) -> dict[str, float]:
    median, p90 = np.percentile(values, [50, 90]).tolist()
    return {"median": median, "p90": p90}


if __name__ == "__main__":
    run(main)
