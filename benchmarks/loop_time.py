"""What does the loop take beside decoding, over each feed, before a change and after?

A window can be decoded from the later of two moments on: when it is due, and when the newest
packet that it holds has arrived. From there to the moment when its value is out, less the call of
``decode``, is the loop's own time. A rig of this checkout and one of another (``--against``, a
clone at an older commit) run in alternating blocks, each in a process of its own beside a sender's,
with and without a journal, with the panel of ``poyo-edge run`` on a terminal, and with a page in a
process of its own and a client that takes all that it draws (versions that have a page).

The model is small, so that 100 windows a second leave the processor time; ``--artifact`` takes any.
Over Redis and Lab Streaming Layer a packet passes a server or a library first: what that takes is
measured apart, with a client that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from parts import loop_side
from parts.environment import describe, environment
from parts.feed_peer import KINDS
from parts.feed_sender import UNITS
from parts.script import markdown, run, say, write_json
from parts.transport import transport

from poyo_edge.errors import CheckFailedError, UsageError

HERE = Path(__file__).resolve().parent
SMALL = {"depth": 1, "latents_per_step": 8}
"""How the model differs from 1.3M."""
FEEDS = (*KINDS, "file")
WITH = {
    "plain": {}, "journal": {"journal": True}, "panel": {"journal": True, "panel": True},
    "page": {"journal": True, "page": True},
}  # fmt: skip
"""What runs beside decoding."""


def main() -> None:
    """Measure each feed and rate, print the table, write the figures."""
    if sys.argv[1:2] == ["--side"]:
        loop_side.main(sys.argv[2])
        return
    options = parse()
    sides = {"now": HERE.parent}
    if options.against is not None:
        if not (options.against / "poyo_edge" / "runtime").is_dir():
            raise UsageError(
                f"--against {options.against}: expected a clone of poyo-edge, got none; make one: "
                f"git clone . FOLDER && git -C FOLDER checkout COMMIT"
            )
        sides = {"before": options.against, **sides}
    rows: list[dict[str, Any]] = []
    where = environment(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifact = options.artifact or made_by(next(iter(sides.values())), folder)
        for kind in options.feeds:
            if kind == "redis" and shutil.which("redis-server") is None:
                say("redis: left out, redis-server is not installed")
                continue
            say(f"{kind}: what is outside of this process")
            outside = transport(kind, folder)
            for rate_hz in options.rates:
                for one in measured(kind, rate_hz, sides, artifact, folder, options):
                    rows.append(one | outside)
                write_json(options.json, {**where, "rows": rows})
    print(f"{describe(where)}\n\n{table(rows)}")


def made_by(tree: Path, folder: Path) -> Path:
    """A random artifact of the older side, which both can open."""
    make = (
        "import dataclasses, sys, pathlib; from intake import POYO_1_3M, random_artifact; "
        f"spec = dataclasses.replace(POYO_1_3M, **{SMALL}); "
        f"random_artifact(pathlib.Path(sys.argv[1]), {UNITS}, spec)"
    )
    subprocess.run(
        [sys.executable, "-c", make, str(folder.resolve())], check=True, cwd=tree / "benchmarks",
        env={**os.environ, "PYTHONPATH": str(tree.resolve())},
    )  # fmt: skip
    return folder / "random.poyo"


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="a clone at the commit to compare with")
    parser.add_argument("--artifact", type=Path, help="of a session with 100 units")
    parser.add_argument("--feeds", nargs="+", default=list(FEEDS), choices=FEEDS)
    parser.add_argument("--rates", nargs="+", type=float, default=[50.0, 100.0])
    parser.add_argument("--beside", nargs="+", default=list(WITH), choices=[*WITH])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each block")
    parser.add_argument("--blocks", type=int, default=2, help="of each side, in turns")
    parser.add_argument("--priority", type=int, help="SCHED_FIFO of rig and sender; needs root")
    parser.add_argument("--json", type=Path, help="results file")
    return parser.parse_args()


def measured(
    kind: str, rate_hz: float, sides: dict[str, Path], artifact: Path, folder: Path,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each side and each thing beside it; their blocks take turns."""
    cells = [
        (side, beside)
        for beside in options.beside
        for side, tree in sides.items()
        if beside != "page" or (tree / "runtime" / "page").is_dir()
    ]
    times: dict[tuple[str, str], list[npt.NDArray[np.float64]]] = {cell: [] for cell in cells}
    figures: dict[tuple[str, str], list[dict[str, float]]] = {cell: [] for cell in cells}
    for block in range(options.blocks):
        for side, beside in cells if block % 2 == 0 else reversed(cells):
            say(f"{kind}, {rate_hz:g} Hz, {side}, {beside}: block {block + 1}")
            given = {
                "kind": kind, "rate_hz": rate_hz, "artifact": str(artifact), "folder": str(folder),
                "seconds": options.seconds, "journal": False, "panel": False, "page": False,
                "out": str(folder / "rows.npy"), **WITH[beside],
            }  # fmt: skip
            figures[side, beside].append(one_block(given, sides[side], options.priority))
            times[side, beside].append(np.load(folder / "rows.npy"))
    return [
        {"feed": kind, "rate_hz": rate_hz, "side": side, "beside": beside,
         **summary(np.concatenate(times[side, beside]), figures[side, beside])}
        for side, beside in cells
    ]  # fmt: skip


def one_block(given: dict[str, Any], tree: Path, priority: int | None) -> dict[str, float]:
    """What a side prints at its end."""
    words = [sys.executable, str(HERE / "loop_time.py"), "--side", json.dumps(given)]
    if priority is not None:
        words = ["chrt", "-f", str(priority), *words]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tree)}
    )
    if done.returncode != 0:
        raise CheckFailedError(
            f"{given['kind']}: expected a rig that runs, got\n{done.stderr[-2000:]}"
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(rows: npt.NDArray[np.float64], figures: list[dict[str, float]]) -> dict[str, Any]:
    """Milliseconds of windows (N, 5), as ``Kept`` keeps them, that held a packet of their own."""
    out, due, newest, decode, last = rows.T
    own = (out - np.maximum(due, newest) - decode) / 1e6
    from_spike = (out - last - decode)[np.isfinite(last)] / 1e6
    total = {name: sum(one[name] for one in figures) for name in figures[0]}
    return {
        "n": len(rows),
        "own_p50": percentile(own, 50),
        "own_p99": percentile(own, 99),
        "own_max": percentile(own, 100),
        "spike_p50": percentile(from_spike, 50),
        "spike_p99": percentile(from_spike, 99),
        "decode_p50": percentile(decode / 1e6, 50),
        "delayed_percent": round(100 * total["delayed"] / max(1, total["received"]), 2),
        "skipped": int(total["skipped"]),
        "late": int(total["late"]),
        "cpu_percent": round(total["cpu_percent"] / len(figures), 1),
    }


def percentile(values: npt.NDArray[np.float64], percent: float) -> float | None:
    """To a microsecond; None of nothing."""
    return round(float(np.percentile(values, percent)), 3) if len(values) else None


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each feed, rate, side and what is beside it."""
    head = ["feed", "Hz", "beside", "side", "windows", "own p50 ms", "own p99", "own max",
            "from spike p50", "p99", "decode p50", "spikes too late %", "skipped", "cpu %",
            "outside p50", "p99"]  # fmt: skip
    keys = ("feed", "rate_hz", "beside", "side", "n", "own_p50", "own_p99", "own_max", "spike_p50",
            "spike_p99", "decode_p50", "delayed_percent", "skipped", "cpu_percent", "outside_p50",
            "outside_p99")  # fmt: skip
    return markdown(head, [["–" if row[key] is None else row[key] for key in keys] for row in rows])


if __name__ == "__main__":
    run(main)
