"""Does decoding keep its deadline while a new session is fitted in the same process?

One decoder, paced by the clock, decodes a simulated stream at a fixed rate: first alone, then with
``Calibrator.start`` running beside it, in turns. Latencies of both are compared in one run.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from parts.environment import describe, environment
from parts.script import markdown, run, say, write_json

from poyo_edge.arrays import Float64
from poyo_edge.calibration import Calibrator, FitSettings
from poyo_edge.calibration.from_recording import add_recording
from poyo_edge.recording import Recording
from poyo_edge.runtime import Decoder

ALONE, BESIDE = "alone", "with a fit beside it"


def main() -> None:
    """Measure in turns, print the table."""
    options = parse()
    recording = Recording.open(options.recording)
    decoder = Decoder.open(options.artifact, session=options.session)
    calibrator = Calibrator.open(
        options.artifact, recording.unit_ids, settings=FitSettings(steps=10**6)
    )
    add_recording(calibrator, recording, options.behavior, seconds=options.labels)
    taken: dict[str, list[Float64]] = {ALONE: [], BESIDE: []}
    for turn in range(options.turns):
        say(f"turn {turn + 1} of {options.turns}")
        taken[ALONE].append(latencies(decoder, recording, options))
        fit = calibrator.start(seed=turn)
        try:
            taken[BESIDE].append(latencies(decoder, recording, options))
        finally:
            fit.stop()
            fit.result()
    figures = {name: summary(np.concatenate(times)) for name, times in taken.items()}
    where = environment(1)
    names = list(figures[ALONE])
    rows: list[list[Any]] = [
        [name, *(f"{figures[name][key]:.2f}" for key in names)] for name in figures
    ]
    ratios = {key: figures[BESIDE][key] / figures[ALONE][key] for key in names}
    rows.append(["ratio", *(f"{ratios[key]:.2f}" for key in names)])
    print(f"{describe(where)}\n\n{markdown(['decode, ms', *names], rows)}")
    write_json(options.json, {**where, "latency_ms": figures, "ratio": ratios})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("recording", type=Path, help="streamed, and calibrated on")
    parser.add_argument("--behavior", required=True, help="GROUP.KEY, for example cursor.vel")
    parser.add_argument("--session", help="to decode with; default the artifact's only one")
    parser.add_argument("--labels", type=float, default=60.0, help="labelled seconds of the fit")
    parser.add_argument("--rate", type=float, default=50.0, help="decodes per second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    for name in ("labels", "rate", "seconds", "turns"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name}: expected a number > 0, got {getattr(options, name)}")
    return options


def latencies(decoder: Decoder, recording: Recording, options: argparse.Namespace) -> Float64:
    """Milliseconds of each decode of a stream that comes at the pace of the clock."""
    times = recording.spike_times - recording.spike_times[0]
    rows = decoder.rows(recording.unit_ids)[recording.spike_units]
    decoder.reset()
    began, pushed, out = time.perf_counter(), 0, []
    for tick in range(1, int(options.seconds * options.rate)):
        now = tick / options.rate
        time.sleep(max(0.0, began + now - time.perf_counter()))
        heard = int(np.searchsorted(times, now))
        started = time.perf_counter_ns()
        decoder.push(times[pushed:heard], rows[pushed:heard])
        decoder.decode(now)
        out.append((time.perf_counter_ns() - started) / 1e6)
        pushed = heard
    return np.array(out[int(2 * decoder.window_s * options.rate) :])


def summary(times: Float64) -> dict[str, float]:
    """Percentiles in milliseconds."""
    values = np.percentile(times, [50, 90, 99, 99.9])
    names = ("p50", "p90", "p99", "p99.9")
    return {**dict(zip(names, values.tolist(), strict=True)), "max": float(times.max())}


if __name__ == "__main__":
    run(main)
