"""From the last spike in to the value out, over every feed, in one run on loopback.

A process of its own sends 100 units at 20 spikes/s each in packets of 1 ms, stamped with the
host's monotonic clock, which sender and decoder share. For every window the time from its last
spike to the moment when its value is ready is counted. Then the sender (for Redis, the server) is
killed and started again: how long until a window is VALID again? All is recorded in a journal, and
the journal decoded again in its order must give the same bits; that is checked beside the next
feed, in a process that gets only what nobody else wants of the processors.

What the program loaded to make a random artifact (torch) is frozen for Python's garbage collector:
a rig does not have it, and collecting it takes a sixth of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from intake import random_artifact
from parts.environment import describe, environment
from parts.feed_peer import KINDS, PATIENCE_S, Peer, aliases
from parts.feed_sender import NS, UNITS
from parts.script import markdown, require, run, say, write_json

from poyo_edge.errors import CheckFailedError
from poyo_edge.journal import Journal
from poyo_edge.runtime import Decoder, Status
from poyo_edge.runtime.checks.again import decoded_again
from poyo_edge.runtime.feeds.sockets import UdpFeed
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.health import SLOW
from poyo_edge.runtime.rig import Rig, RigSettings


def main() -> None:
    """Measure each feed, print the table, write figures and picture."""
    options = parse()
    rows: list[dict[str, Any]] = []
    checks: list[Future[bool]] = []
    latencies: dict[str, npt.NDArray[np.float64]] = {}
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=spawn, initializer=idle) as beside,
    ):
        artifact = options.artifact or random_artifact(Path(folder), UNITS)
        gc.collect()
        gc.freeze()
        for kind in options.feeds:
            if kind == "redis" and shutil.which("redis-server") is None:
                say("redis: left out, redis-server is not installed")
                continue
            say(f"{kind}: {options.seconds} s")
            row, latencies[kind] = measure(kind, artifact, Path(folder), options)
            rows.append(row)
            checks.append(beside.submit(replayed, artifact, Path(folder, f"{kind}.journal")))
        for row, check in zip(rows, checks, strict=True):
            row["equal"] = check.result()
            say(f"{row['feed']}: decoded again, {'equal' if row['equal'] else 'other'} values")
    where = environment(1)
    print(f"{describe(where)}\n\n{table(rows)}")
    write_json(options.json, {**where, "seconds": options.seconds, "feeds": rows})
    if options.picture:
        draw(options.picture, latencies)
    if not all(row["equal"] for row in rows):
        raise CheckFailedError("replay: expected the same bits as live, got others; see the table")


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifact", type=Path, help="of a session with 100 units")
    parser.add_argument("--feeds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--seconds", type=float, default=60.0, help="per feed")
    parser.add_argument("--rate", type=float, default=50.0, help="windows per second")
    parser.add_argument("--settle-ms", type=float, default=0.0, help="see poyo-edge run")
    parser.add_argument("--json", type=Path, help="results file")
    parser.add_argument("--picture", type=Path, help="picture of the distributions")
    return parser.parse_args()


def measure(
    kind: str, artifact: Path, folder: Path, options: argparse.Namespace
) -> tuple[dict[str, Any], npt.NDArray[np.float64]]:
    """One feed: a row of figures, and the latencies (N,) in ms."""
    peer, watch = Peer(kind, folder), Watch()
    feed = peer.feed()
    settings = RigSettings(
        rate_hz=options.rate,
        settle_ms=options.settle_ms,
        journal=folder / f"{kind}.journal",
        units=aliases(artifact, kind),
    )
    if kind in ("redis", "tcp", "intan", "lsl", "openephys"):
        peer.start(options.seconds + 4 * PATIENCE_S)
    rig = Rig.open(artifact, feed, settings=settings, on_value=watch)
    try:
        with rig:
            if isinstance(feed, UdpFeed):
                assert feed.bound.wait(PATIENCE_S)
                peer.place = str(feed.port)
            peer.start(options.seconds + 4 * PATIENCE_S)
            watch.wait_valid(0)
            begin = len(watch.seen)
            time.sleep(options.seconds)
            seen = watch.seen[begin:]
            peer.kill()
            time.sleep(2.0)
            restarted = time.monotonic_ns()
            peer.start(options.seconds + PATIENCE_S)
            back = watch.wait_valid(restarted)
            stats = rig.stats()
    finally:
        peer.kill()
    scale = 1e9 / feed.tick_rate_hz
    latency = np.array(
        [
            (host_ns - last_spike * scale) / 1e6
            for host_ns, last_spike, _ in seen
            if last_spike is not None
        ]
    )
    if feed.bits is not None:  # Ticks of a counter: add its turns.
        turn = 2**feed.bits * scale / 1e6
        latency = latency % turn
    loop = stats["loop"]
    row = {
        "feed": kind,
        "n": len(latency),
        **{
            name: round(float(np.percentile(latency, p)), 3)
            for name, p in (("p50", 50), ("p99", 99), ("p999", 99.9), ("max", 100))
        },
        "decode_p50": stats["decoder"]["latency_ms"]["p50"],
        "skipped": loop["skipped"],
        "deadline_misses": loop["deadline_misses"],
        "delayed_spikes": stats["decoder"]["counters"]["delayed"],
        "received": stats["decoder"]["counters"]["received"],
        "back_s": round((back - restarted) / NS, 2),
        "failures": stats["feed"]["failures"],
    }
    say(str(row))
    return row, latency


def idle() -> None:
    """Leave the processors to everybody else."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def whole(one: LoopResult) -> bool:
    """Whether a value is VALID, or would be on a machine that is fast enough."""
    status, flags = one.result.status, one.result.flags
    return status is Status.VALID or (status is Status.DEGRADED and set(flags) == {SLOW})


class Watch:
    """Keeps of each value when it was ready, its last spike and whether it was VALID; waits."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float | None, bool]] = []
        self._changed = threading.Condition()

    def __call__(self, value: LoopResult) -> None:
        with self._changed:
            self.seen.append((value.host_ns, value.result.t_last_spike, whole(value)))
            self._changed.notify_all()

    def wait_valid(self, after_ns: int) -> int:
        """When the first VALID value after some moment was ready."""

        def found() -> list[int]:
            return [at for at, _, valid in self.seen[-500:] if at > after_ns and valid]

        with self._changed:
            if not self._changed.wait_for(lambda: bool(found()), PATIENCE_S):
                raise CheckFailedError(f"expected a VALID value within {PATIENCE_S} s, got none")
            return found()[0]


def replayed(artifact: Path, path: Path) -> bool:
    """Whether the journal, decoded again in its order, gives the same bits."""
    journal = Journal(path)
    decoder = Decoder.open(artifact, tick_rate_hz=journal.header.tick_rate_hz)
    return all(
        np.array_equal(again.value, value.value) for value, again in decoded_again(journal, decoder)
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Milliseconds of each feed, and what else happened."""
    head = ["feed", "windows", "p50 ms", "p99", "p99.9", "max", "decode p50", "skipped", "late",
            "delayed spikes", "replay equal", "back after restart, s"]  # fmt: skip
    keys = ("feed", "n", "p50", "p99", "p999", "max", "decode_p50", "skipped", "deadline_misses",
            "delayed_spikes", "equal", "back_s")  # fmt: skip
    return markdown(head, [[row[key] for key in keys] for row in rows])


def draw(path: Path, latencies: dict[str, npt.NDArray[np.float64]]) -> None:
    """Share of windows that took longer than so many ms."""
    require("matplotlib", "plot", "a picture")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for kind, values in latencies.items():
        ordered = np.sort(values)
        axes.step(ordered, 1 - np.arange(len(ordered)) / len(ordered), label=kind)
    axes.set(yscale="log", xscale="log", xlabel="last spike in → value out, ms",
             ylabel="share of windows above", title="Latency over loopback")  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    run(main)
