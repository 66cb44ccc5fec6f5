"""A million windows: does memory stay flat, and latency what it was?

Spikes come as fast as they are decoded: each window is a period of device time further on, so a
day of it passes in minutes. With ``--idle`` the model is left out, and a million windows take
some minutes. Every ten minutes of device time a burst comes, spikes are late, ahead or of unknown
units, and the session is swapped; ten times the counter jumps. So the rare paths run too.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from parts.environment import describe, environment
from parts.script import markdown, run, say, write_json

from poyo_edge.artifact import Artifact
from poyo_edge.errors import CheckFailedError
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.backends import Backend
from poyo_edge.runtime.core import Core

MOST_GROWTH_MB = 2.0
PARTS = 10


class NoModel(Backend):
    """A backend that answers zero at once."""

    name = "none"

    def __init__(self, dim_out: int) -> None:
        self.dim_out = dim_out

    def run(self, feeds: Any) -> Any:
        """(B, Q, O) zeros."""
        return np.zeros((*feeds["query_time"].shape, self.dim_out), np.float32)


def main() -> None:
    """Soak, print a line per tenth, and fail when memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("artifact", type=Path)
    add("--session", help="of the artifact, if it has several")
    add("--windows", type=int, default=1_000_000)
    add("--decode-hz", type=float, default=50.0)
    add("--rate", type=float, default=500.0, help="spikes per second")
    add("--idle", action="store_true", help="leave the model out")
    add("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    artifact = Artifact.open(options.artifact)
    core = Core.open(artifact, backend="ort-cpu")
    if options.idle:
        core = dataclasses.replace(core, backend=NoModel(artifact.manifest.spec.dim_out))
    session = artifact.session(options.session)
    decoder = Decoder(core, session, tick_rate_hz=30_000)
    rows = [soak(decoder, session, options, part) for part in range(PARTS)]
    where = environment(1)
    head = ["windows", "device hours", "resident MB", "p50 ms", "p99 ms", "max ms", "µs per window"]
    keys = ("windows", "hours", "rss_mb", "p50", "p99", "max", "us")
    print(f"{describe(where)}\n\n{markdown(head, [[row[k] for k in keys] for row in rows])}")
    stats = decoder.stats()
    print(f"\n{stats['counters']}\n{stats['statuses']}")
    write_json(options.json, {**where, "parts": rows, "stats": stats})
    grown = rows[-1]["rss_mb"] - rows[0]["rss_mb"]
    if grown > MOST_GROWTH_MB:
        raise CheckFailedError(
            f"memory: expected at most {MOST_GROWTH_MB} MB more, got {grown:.1f}"
        )


def soak(decoder: Decoder, session: Any, options: Any, part: int) -> dict[str, Any]:
    """A tenth of the windows."""
    n, period = options.windows // PARTS, round(30_000 / options.decode_hz)
    per_window = max(1, round(options.rate / options.decode_hz))
    per_event = round(600 * options.decode_hz)
    rng = np.random.default_rng(part)
    n_units = len(decoder.unit_ids)
    offsets = np.sort(rng.choice(period, (64, per_window)), axis=1)
    units = rng.integers(0, n_units, (64, per_window)).astype(np.int32)
    burst = np.arange(10 * 30_000) // 3
    start, began = 10**9 if part % 2 else 0, time.perf_counter()
    before = decoder.latency.counts.copy()
    for i in range(n):
        tick = start + i * period
        decoder.push(tick + offsets[i % 64], units[i % 64])
        if i % per_event == per_event - 1:
            decoder.push(tick + burst[:20_000], np.zeros(20_000, np.int32))
            decoder.push([tick - 10**8, tick + 10**9, tick], [-1, 0, n_units + 5])
            decoder.swap_session(session)
        decoder.decode(tick + period)
    took = time.perf_counter() - began
    say(f"{(part + 1) * n} windows")
    counts = decoder.latency.counts - before
    edges, total = decoder.latency.edges_ms(), counts.cumsum()
    p50, p99 = (edges[int(np.searchsorted(total, total[-1] * q)) + 1] for q in (0.5, 0.99))
    return {
        "windows": (part + 1) * n,
        "hours": round((part + 1) * n * period / 30_000 / 3600, 1),
        "rss_mb": resident_mb(),
        "p50": round(float(p50), 4),
        "p99": round(float(p99), 4),
        "max": round(decoder.latency.max_ns / 1e6, 2),
        "us": round(took / n * 1e6, 1),
    }


def resident_mb() -> float:
    """Memory of this process."""
    return round(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6, 1)


if __name__ == "__main__":
    run(main)
