"""What is left of control after an hour of drift, with and without recalibration?

A simulated person, array and task in a closed loop over the decode loop and decoder of a rig
(``poyo_edge.simulation``): no person and no animal. The session is calibrated on observation; then
the array drifts. Two runs from the same seed: the session stays, or ``FreeUseCalibration`` infers
targets, fits and judges, and what passes is taken. It is told spikes, cursor and decoded values,
never trials or targets; the loop is told them, as on a rig, and says what became of control. A
session is taken as many seconds later as its fit took of one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from parts.environment import describe, environment
from parts.script import markdown, require, run, say, write_json

from poyo_edge.artifact import Session
from poyo_edge.calibration import Calibrator
from poyo_edge.calibration.free_use.recalibrating import FreeUseCalibration, FreeUseSettings
from poyo_edge.errors import PoyoEdgeError
from poyo_edge.figures import draw_hours
from poyo_edge.runtime import Decoder
from poyo_edge.simulation.array import TICK_HZ, ArraySettings, Drift, SimulatedArray
from poyo_edge.simulation.closed_loop import ClosedLoop, Run
from poyo_edge.simulation.decoding import LoopDecoding
from poyo_edge.simulation.measures import measure
from poyo_edge.simulation.observing import ObservationSettings, observe
from poyo_edge.simulation.person import Person
from poyo_edge.simulation.tasks import TaskSettings
from poyo_edge.trials import Trial, Trials

DRIFTS = {
    "directions": Drift(direction_deg=60.0),
    "losses": Drift(lost=0.4),
    "exchanges": Drift(exchanged=0.5),
    "rates": Drift(rate_factor=1.8),
}
"""Within an hour."""
MINUTES, BLOCK_MIN = 60, 10


def main() -> None:
    """Run what is not there yet, print the table, draw the picture."""
    options = parse()
    rows: list[dict[str, Any]] = []
    if options.json is not None and options.json.is_file():
        rows = json.loads(options.json.read_text(encoding="utf-8"))["rows"]
    where = environment(1)
    for seed in options.seeds:
        for drift in options.drifts:
            for recalibrated in (False, True):
                key = {"seed": seed, "drift": drift, "recalibrated": recalibrated}
                if any(key.items() <= row.items() for row in rows):
                    continue
                rows += [key | block for block in hour(options, seed, drift, recalibrated)]
                write_json(options.json, {**where, "rows": rows})
    print(f"{describe(where)}\n\n{table(rows)}")
    if options.png is not None:
        draw_hours(options.png, rows)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("artifact", type=Path, help="of a decoder of cursor velocity in cm/s")
    add("--seeds", type=int, nargs="+", default=[1], help="of array, person and targets")
    add("--drifts", nargs="+", choices=list(DRIFTS), default=list(DRIFTS))
    add("--task", choices=("center-out", "random", "grid"), default="random")
    add("--observe-s", type=float, default=60.0, help="of observation that is calibrated on")
    share = "of each minute in which the cursor is used; the array drifts in all of it"
    add("--use-share", type=float, default=1.0, help=share)
    add("--after-s", type=float, default=180.0, help="of use between fits")
    add("--json", type=Path, help="also write results here; what is there is not run again")
    add("--png", type=Path, help="draw success over the hour")
    options = parser.parse_args()
    if options.png is not None:
        require("matplotlib", "plot", "drawing pictures")
    return options


def hour(options: Any, seed: int, drift: str, recalibrated: bool) -> list[dict[str, Any]]:
    """Figures of each ten minutes."""
    began = time.monotonic()
    session = calibrated(options, seed)
    array = SimulatedArray.draw(ArraySettings(drift=DRIFTS[drift]), seed=seed)
    decoder = Decoder.open(options.artifact, session=session, tick_rate_hz=TICK_HZ)
    user = Recalibrating(options, decoder, array) if recalibrated else None
    told: dict[str, Any] = {} if user is None else {"on_spikes": user.free.on_spikes}
    poyo = LoopDecoding(decoder, array.unit_ids, **told)
    decoding = poyo if user is None else Told(poyo, user)
    task = TaskSettings(kind=options.task)
    cursor = None if user is None else user.free.on_cursor
    loop = ClosedLoop(array, decoding, task=task, seed=seed, **telling(poyo, cursor))
    found = []
    for block in range(MINUTES // BLOCK_MIN):
        minutes = list[Run]()
        for _ in range(BLOCK_MIN):
            minutes.append(loop.run(seconds=60 * options.use_share))
            if options.use_share < 1:
                array.age(60 * (1 - options.use_share))
        row = {
            "until_min": BLOCK_MIN * (block + 1),
            **measure(whole(minutes), task.hold_s).summary(),
            "health": decoder.health()["status"],
            "health_flags": decoder.health()["flags"],
            "outcome": {k: poyo.loop.outcome.to_json()[k] for k in ("status", "reason", "trials")},
            "session": decoder.session_id,
        }
        found.append(row)
        say(
            f"seed {seed}, {drift}, {'with' if recalibrated else 'without'}: "
            f"{row['until_min']} min, success {row['success']}, {row['bits_per_s']} bit/s, "
            f"{row['session']} ({time.monotonic() - began:.0f} s)"
        )
    if user is not None:
        found[-1]["fits"] = user.free.to_json()["history"]
    return found


def telling(poyo: LoopDecoding, on_cursor: Any) -> dict[str, Any]:
    """What a task tells the loop of a rig, for the outcome: its trials and the cursor."""

    def trial(told: Trial) -> None:
        poyo.loop.feed_trial(told, host_ns=poyo.host.ns)

    def cursor(ticks: Any, positions: Any) -> None:
        poyo.loop.feed_cursor(ticks, positions, host_ns=poyo.host.ns)
        if on_cursor is not None:
            on_cursor(ticks, positions)

    return {"on_trial": trial, "on_cursor": cursor}


def whole(runs: list[Run]) -> Run:
    """Runs that followed each other as one; a trial that began before them is left out."""
    names = [f.name for f in dataclasses.fields(Trials)]
    trials = {n: np.concatenate([getattr(run.trials, n) for run in runs]) for n in names}
    inside = trials["start"] >= runs[0].times[0]
    steps = ("times", "position", "velocity", "decoded", "intended", "target", "spike_times",
             "spike_rows")  # fmt: skip
    columns: dict[str, Any] = {n: np.concatenate([getattr(run, n) for run in runs]) for n in steps}
    kept = Trials(**{name: values[inside] for name, values in trials.items()})
    return dataclasses.replace(runs[0], trials=kept, **columns)


def calibrated(options: Any, seed: int) -> Session:
    """A session of the undrifted array, from observation: cached beside the results."""
    kept = None
    if options.json is not None:
        kept = options.json.with_suffix(f".seed{seed}.session")
        if kept.is_file():
            return Session.open(kept)
    array = SimulatedArray.draw(seed=seed)
    seconds = ObservationSettings(seconds=options.observe_s)
    block = observe(array, Person(seed=[seed, 9]), TaskSettings(), seconds, seed=seed)
    labels = block.labelled(block.velocity, lead_s=array.delay_s, begins_s=1.0)
    calibrator = Calibrator.open(options.artifact, array.unit_ids, session_id=f"observed-{seed}")
    calibrator.add(labels.spike_times, labels.spike_rows, labels.times, labels.values)
    session = calibrator.fit()
    say(f"seed {seed}: observation, held-out R² {session.quality.r2_heldout:.3f}")
    if kept is not None:
        session.save(kept)
    return session


class Recalibrating:
    """Waits for each fit, and takes what is offered when its time is over."""

    def __init__(self, options: Any, decoder: Decoder, array: SimulatedArray) -> None:
        self.free = FreeUseCalibration(
            options.artifact,
            decoder,
            settings=FreeUseSettings(after_s=options.after_s, max_seconds=math.inf),
        )
        self._array, self._takes_at = array, math.inf
        self._share = options.use_share

    def told(self, value: Any) -> None:
        """A decoded value of the loop."""
        self.free.on_value(value)
        now = self._array.tick / TICK_HZ
        if self.free.fitting:
            began = time.process_time()  # this thread only waits
            while self.free.fitting:
                time.sleep(0.02)
            say(f"  {self.free.history[-1]}")
            if self.free.offered is not None:
                self._takes_at = now + self._share * (time.process_time() - began)
        elif now >= self._takes_at:
            self._takes_at = math.inf
            try:
                self.free.take()
            except PoyoEdgeError as problem:
                say(f"  not taken: {problem}")


class Told:
    """A decoding that also tells its values to somebody."""

    name = "poyo"

    def __init__(self, decoding: LoopDecoding, user: Recalibrating) -> None:
        self._decoding, self._user = decoding, user

    def restart(self) -> None:
        """Begin anew."""
        self._decoding.restart()

    def step(self, end: int, ticks: Any, rows: Any) -> Any:
        """The value (2,) at tick ``end``."""
        value = self._decoding.step(end, ticks, rows)
        if self._decoding.last is not None:
            self._user.told(self._decoding.last)
        return value


def table(rows: list[dict[str, Any]]) -> str:
    """Success and throughput of each ten minutes, without and with, mean over seeds."""
    header = ["drift", "recalibrated"]
    header += [f"{m} min" for m in range(BLOCK_MIN, MINUTES + 1, BLOCK_MIN)]
    lines = []
    for drift in dict.fromkeys(row["drift"] for row in rows):
        for recalibrated in (False, True):
            cells = []
            for until in range(BLOCK_MIN, MINUTES + 1, BLOCK_MIN):
                some = [
                    row
                    for row in rows
                    if (row["drift"], row["recalibrated"], row["until_min"])
                    == (drift, recalibrated, until)
                ]
                cells.append(_cell(some))
            lines.append([drift, "yes" if recalibrated else "no", *cells])
    note = "success % / throughput bit/s / angular error °, health, outcome"
    return f"{note}\n\n{markdown(header, lines)}"


def _cell(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "–"
    success, bits, angle = (
        np.mean([row[name] for row in rows if row[name] is not None])
        for name in ("success", "bits_per_s", "angular_error_deg")
    )
    health = "/".join(sorted({row["health"] for row in rows}))
    outcome = "/".join(sorted({row["outcome"]["status"] for row in rows}))
    return f"{100 * success:.0f} / {bits:.2f} / {angle:.0f}, {health}, {outcome}"


if __name__ == "__main__":
    run(main)
