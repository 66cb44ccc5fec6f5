"""What the ring of a page costs the loop: microseconds for each window and each packet.

    python benchmarks/ring.py [--windows 20000] [--json ring.json]

``write`` is what a window costs in the loop's thread, ``spikes`` what a packet of 30 spikes does,
``state`` what the thread beside puts there once a second, ``read`` what a frame costs a reader, in
its own process. Windows of several sizes take turns, so that all meet the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.feeds import a_value

from poyo_edge.runtime.page.ring.reader import FrameReader
from poyo_edge.runtime.page.ring.writer import FrameWriter, RingShape
from poyo_edge.runtime.rig.settings import LoopCounters

_UNITS = (60, 100, 500)
_SPIKES = 30


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        rows = [row(Path(folder), units, given.windows) for units in _UNITS]
    print(
        "| units | frame, bytes | write p50, p99 µs | spikes p50, p99 µs | state p50 µs | read µs |"
    )
    print("|---:|---:|---:|---:|---:|---:|")
    for one in rows:
        cells = [f"{one[k]['p50']:.1f}, {one[k]['p99']:.1f}" for k in ("write", "spikes")]
        print(f"| {one['units']} | {one['frame_bytes']} | {cells[0]} | {cells[1]} | "
              f"{one['state']['p50']:.0f} | {one['read']['p50']:.1f} |")  # fmt: skip
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1))


def row(folder: Path, units: int, windows: int) -> dict[str, Any]:
    """Costs with a session of so many units."""
    shape = RingShape(dims=2, units=units, rate_hz=50, tick_rate_hz=30_000, window_s=1.0)
    ring = FrameWriter(str(folder / f"ring_{units}"), shape)
    reader = FrameReader(str(ring.path))
    rng = np.random.default_rng(0)
    rows, ticks = rng.integers(0, units, _SPIKES).astype(np.int32), np.arange(_SPIKES)
    value, counters = a_value(), LoopCounters()
    state = {"session": {"unit_ids": [f"session/unit_{i:03d}" for i in range(units)],
             "rate_hz": [8.125] * units, "rate_sd_hz": [3.5] * units}}  # fmt: skip
    found = {
        "spikes": timed(lambda: ring.note_spikes(ticks, rows), windows),
        "write": timed(
            lambda: ring.write(value, due_ns=1, newest=True, counters=counters), windows
        ),
        "state": timed(lambda: ring.state.put(state), windows // 20),
    }
    reads = []
    for _ in range(windows // 200):
        for _ in range(100):
            ring.write(value, due_ns=1, newest=True, counters=counters)
        began = time.perf_counter_ns()
        n = len(reader.read())
        reads.append((time.perf_counter_ns() - began) / 1e3 / max(1, n))
    frame_bytes = reader.frame_dtype.itemsize
    ring.close()
    return {"units": units, "frame_bytes": frame_bytes, **found, "read": percentiles(reads)}


def timed(act: Callable[[], None], n: int) -> dict[str, float]:
    """Percentiles of so many calls, in µs."""
    took = np.empty(n)
    for i in range(n):
        began = time.perf_counter_ns()
        act()
        took[i] = (time.perf_counter_ns() - began) / 1e3
    return percentiles(took)


def percentiles(took: Any) -> dict[str, float]:
    """The middle and 99 of 100."""
    return {"p50": float(np.percentile(took, 50)), "p99": float(np.percentile(took, 99))}


if __name__ == "__main__":
    main()
