"""The closed loop in real time: the task in a process of its own, the rig in another, UDP between.

``poyo-edge run`` decodes as beside an array. This process is array, person and task
(``poyo_edge.simulation``): each 20 ms it sends the spikes of a step, its trials and the cursor,
waits for the value of the window that ends there, and moves the cursor by it. Then the same trials
again as fast as the machine allows, through the decode loop alone: success, time, path efficiency
and throughput of both, and a picture of both cursors. Nothing but the decoder is real: no person
and no animal.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from parts.environment import describe, environment
from parts.script import markdown, run, say, write_json

from poyo_edge.arrays import Float64, Int64, Rows
from poyo_edge.errors import UsageError
from poyo_edge.figures import draw_paths
from poyo_edge.runtime import Decoder
from poyo_edge.simulation.array import TICK_HZ, SimulatedArray
from poyo_edge.simulation.calibrating import Calibration, fitted_session, observed
from poyo_edge.simulation.closed_loop import ClosedLoop
from poyo_edge.simulation.cursor import CursorSettings
from poyo_edge.simulation.decoding import LoopDecoding
from poyo_edge.simulation.measures import measure
from poyo_edge.simulation.study import SHOWN_TRIALS, paths_of
from poyo_edge.simulation.tasks import TaskSettings
from poyo_edge.trials import Trial

STARTS_WITHIN_S, MAY_TAKE_S = 60.0, 0.012
"""For the rig to come up, and for a value: a step of the task is 20 ms."""
FIGURES = ("success", "time_s", "path_efficiency", "bits_per_s", "angular_error_deg")


class Rig:
    """``poyo-edge run`` as a process, seen from its task; a ``Decoding`` of a closed loop."""

    name = "udp"

    def __init__(self, artifact: Path, session: Path, unit_ids: tuple[str, ...], log: Path) -> None:
        self._unit_ids = np.array(unit_ids)
        self._values = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._values.bind(("127.0.0.1", 0))
        self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._to = ("127.0.0.1", _free_port())
        self._log = log.open("wb")
        self.late = self.steps = 0
        """Values that were not there in time; the one before moved the cursor on."""
        self.waited_ms: list[float] = []
        self._value, self._newest = np.zeros(2), -1
        command = [
            sys.executable, "-m", "poyo_edge", "run", str(artifact), "--session", str(session),
            "--from", f"udp://127.0.0.1:{self._to[1]}?rate={TICK_HZ}",
            "--to", f"udp://127.0.0.1:{self._values.getsockname()[1]}", "--json",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.DEVNULL)
        self._wait_until_it_decodes()

    def restart(self) -> None:
        """The clock of the device goes on; a closed loop begins with this one."""

    def step(self, end: int, ticks: Int64, rows: Rows) -> Float64:
        """Send a step's spikes when it ends, and wait for the value of the window up to there."""
        self.steps += 1
        ends_at = self._began_s + end / TICK_HZ
        time.sleep(max(0.0, ends_at - time.monotonic()))
        if len(ticks):
            self.send({"ticks": (ticks + self._ahead).tolist(),
                       "units": self._unit_ids[rows].tolist()})  # fmt: skip
        until = ends_at + MAY_TAKE_S
        while self._newest < end + self._ahead and (left := until - time.monotonic()) > 0:
            self._receive(left)
        self.late += self._newest < end + self._ahead
        self.waited_ms.append(1e3 * (time.monotonic() - ends_at))
        return self._value

    def send(self, message: dict[str, Any]) -> None:
        """One datagram to the rig."""
        self._out.sendto(json.dumps(message).encode(), self._to)

    def on_trial(self, trial: Trial) -> None:
        """Tell of a trial on the device's counter."""
        given = trial.to_json()
        for name in ("start", "go_time", "end"):
            if given[name] is not None:
                given[name] += self._ahead
        self.send({"trial": {k: v for k, v in given.items() if v is not None}})

    def on_cursor(self, ticks: Int64, positions: Float64) -> None:
        """Tell where the cursor is."""
        self.send({"cursor": {"ticks": (ticks + self._ahead).tolist(), "pos": positions.tolist()}})

    def close(self) -> dict[str, Any]:
        """End the rig; what it says of itself."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
        found: dict[str, Any] = json.loads(Path(str(self._log.name)).read_bytes())
        return found

    def _wait_until_it_decodes(self) -> None:
        """Send spikes by the clock until values come; the loop's tick 0 is a second later."""
        began, step = time.monotonic(), 0
        rng = np.random.default_rng(0)
        while self._newest < 0:
            if self._process.poll() is not None or time.monotonic() - began > STARTS_WITHIN_S:
                said = Path(str(self._log.name)).read_text(encoding="utf-8")
                raise UsageError(f"run: expected a value within {STARTS_WITHIN_S:g} s, got: {said}")
            step += 1
            time.sleep(max(0.0, began + step * 0.02 - time.monotonic()))
            ticks = np.sort(rng.integers((step - 1) * 600, step * 600, 20))
            units = self._unit_ids[rng.integers(len(self._unit_ids), size=20)]
            self.send({"ticks": ticks.tolist(), "units": units.tolist()})
            self._receive(0.001)
        whole = step + 50  # a second of silence, in which the window empties
        self._ahead, self._began_s = whole * 600, began + whole * 0.02

    def _receive(self, left_s: float) -> None:
        self._values.settimeout(left_s)
        try:
            value = json.loads(self._values.recv(65536))
        except TimeoutError:
            return
        if value["tick"] > self._newest:
            self._newest, self._value = value["tick"], np.array(value["value"])


def main() -> None:
    """Calibrate, control in real time, then as fast as it goes; print both."""
    options = parse()
    calibration = Calibration(artifact=options.artifact)
    array = SimulatedArray.draw(seed=options.seed, name=f"array_{options.seed}")
    say("calibrating on an observation of 60 s")
    session = fitted_session(
        array.unit_ids, observed(array, calibration, seed=options.seed), calibration, options.seed
    )
    rows, paths = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        saved, log = Path(scratch) / "today.session", Path(scratch) / "run.log"
        session.save(saved)
        say(f"{options.trials} trials in real time")
        rig = Rig(options.artifact, saved, array.unit_ids, log)
        for name in ("real time over UDP", "as fast as it goes"):
            live = name.startswith("real")
            decoding = rig if live else _fast(options.artifact, saved, array)
            loop = ClosedLoop(
                array, decoding, task=TaskSettings(), cursor=CursorSettings(), seed=options.seed,
                on_trial=rig.on_trial if live else None,
                on_cursor=rig.on_cursor if live else None,
            )  # fmt: skip
            found = loop.run(n_trials=options.trials)
            measured = measure(found, loop.task_settings.hold_s)
            bits = measured.bits_per_s
            rows.append({
                "loop": name, **{k: measured.summary()[k] for k in FIGURES},
                "bits_se": float(bits.std(ddof=1) / np.sqrt(len(bits))),
            })  # fmt: skip
            paths[name] = paths_of(found)[:SHOWN_TRIALS]
            if live:
                told = rig.close()
    report(options, rows, rig, told)
    if options.picture is not None:
        draw_paths(options.picture, paths, title=f"{options.artifact.name}, simulated")


def report(
    options: argparse.Namespace, rows: list[dict[str, Any]], rig: Rig, told: dict[str, Any]
) -> None:
    """Both tables, and the JSON."""
    where = environment(1)
    head = ["loop", *FIGURES, "± bit/s"]
    print(markdown(head, [[row["loop"], *(f"{row[k]:.2f}" for k in FIGURES),
                           f"{row['bits_se']:.2f}"] for row in rows]))  # fmt: skip
    waited = np.percentile(rig.waited_ms, [50, 99, 100])
    statuses = {k: n for k, n in told["decoder"]["statuses"].items() if n}
    print(f"\nspikes sent → value there, ms: p50 {waited[0]:.1f}, p99 {waited[1]:.1f}, max "
          f"{waited[2]:.1f}; {rig.late} of {rig.steps} later than {1e3 * MAY_TAKE_S:g} ms; "
          f"rig: {statuses}, skipped {told['loop']['skipped']}, outcome "
          f"{told['outcome']['status']} ({told['outcome']['trials']} trials)\n"
          f"{describe(where)}")  # fmt: skip
    write_json(options.json, {
        "rows": rows, "late": rig.late, "steps": rig.steps, "waited_ms": waited.tolist(),
        "outcome": told["outcome"], "statuses": statuses, "environment": where,
    })  # fmt: skip


def _fast(artifact: Path, session: Path, array: SimulatedArray) -> LoopDecoding:
    decoder = Decoder.open(artifact, session=session, tick_rate_hz=TICK_HZ)
    return LoopDecoding(decoder, array.unit_ids, rate_hz=1 / array.period_s)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
