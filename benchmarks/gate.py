"""What does the gate say of labels that are wrong, and what would control have been?

A session is calibrated on observation and controls a cursor for a minute. The labels of that minute
are given as they are, and spoilt in ways that happen on rigs. For each the session is fitted, asked
whether it is good, and tried whatever the gate said. Person, array and task are simulated.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from parts.mornings import Kept, Rows, add_common, controlled, measure_and_report
from parts.script import markdown, run

from poyo_edge.arrays import Float64
from poyo_edge.calibration.intention import IntentionLabels, IntentionSettings, Kind
from poyo_edge.errors import CheckFailedError
from poyo_edge.simulation.array import SimulatedArray
from poyo_edge.simulation.calibrating import Calibration, calibrated, labels_of, observed
from poyo_edge.simulation.closed_loop import ClosedLoop
from poyo_edge.simulation.decoding import LoopDecoding
from poyo_edge.simulation.mornings.recalibrating import decoding_with, refitted
from poyo_edge.simulation.observing import Block, ObservationSettings

PROPORTIONAL = IntentionSettings(kind="proportional")
Spoil = Callable[[IntentionLabels], IntentionLabels]


def main() -> None:
    """Measure what is not known yet, print the table."""
    measure_and_report(parse(), ("observe_s", "control_s", "latency", "trials"), measure, table)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common(parser)
    add = parser.add_argument
    add("--observe-s", type=float, default=60.0)
    add("--control-s", type=float, default=60.0, help="of closed loop that is labelled")
    add("--labels", nargs="+", choices=list(SPOILT), default=list(SPOILT))
    add("--latency", type=float, nargs="+", default=[0.0, 100.0], help="added, in ms")
    return parser.parse_args()


def measure(kept: Kept, options: Any, seed: int) -> None:
    """The session in use and each spoilt one, of one seed."""
    array = SimulatedArray.draw(seed=seed, name=f"array_{seed}")
    calibration = Calibration(
        artifact=options.artifact, observation=ObservationSettings(seconds=options.observe_s)
    )
    names = ["session in use", *options.labels]
    if all(f"seed {seed}: {name}" in kept.parts for name in names):
        return
    before = observed(array, calibration, seed=seed)
    decoding = calibrated(array, calibration, seed=seed)[0]
    assert isinstance(decoding, LoopDecoding)
    in_use = decoding.decoder.session
    loop = ClosedLoop(array, decoding, seed=seed + 500)
    block = loop.run(seconds=options.control_s).block()

    def tried(name: str, decoding: LoopDecoding, said: dict[str, Any]) -> Rows:
        found = controlled(
            array, [decoding], latencies_ms=options.latency, n_trials=options.trials, seed=seed
        )
        return [{"seed": seed, "labels": name, **said, **row} for row in found]

    def spoilt(name: str) -> Rows:
        made = SPOILT[name](block, seed)
        session = refitted(in_use, before, block, made, calibration, seed=seed)
        reason = ""
        try:
            session.require_good()
        except CheckFailedError as refused:
            reason = str(refused)
        quality = session.quality.to_json()
        said = {"reason": reason} | {
            key: quality[key] for key in ("r2_heldout", "control", "compared", "started")
        }
        return tried(name, decoding_with(session, array, calibration), said)

    kept.part(f"seed {seed}: {names[0]}", lambda: tried(names[0], decoding, {"reason": ""}))
    for name in options.labels:
        kept.part(f"seed {seed}: {name}", lambda n=name: spoilt(n))  # type: ignore[misc]


def _changed(spoil: Spoil) -> Callable[[Block, int], IntentionLabels]:
    return lambda block, seed: spoil(labels_of(block, PROPORTIONAL))


def _of_kind(kind: Kind) -> Callable[[Block, int], IntentionLabels]:
    return lambda block, seed: labels_of(block, IntentionSettings(kind=kind))


def _turned(degrees: float) -> Spoil:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn: Float64 = np.array([[cos, sin], [-sin, cos]])
    return lambda made: dataclasses.replace(made, values=made.values @ turn)


def _shuffled(block: Block, seed: int) -> IntentionLabels:
    """Targets of other trials, which then nobody reached."""
    trials = block.trials
    order = np.random.default_rng([seed, 9]).permutation(len(trials))
    wrong = dataclasses.replace(
        trials, target=trials.target[order], success=np.zeros(len(trials), np.bool_)
    )
    return labels_of(dataclasses.replace(block, trials=wrong), PROPORTIONAL)


SPOILT: dict[str, Callable[[Block, int], IntentionLabels]] = {
    "good": _changed(lambda made: made),
    "rotated by 45°": _changed(_turned(45.0)),
    "rotated by 90°": _changed(_turned(90.0)),
    "shuffled targets": _shuffled,
    "0.3 s late": _changed(lambda made: dataclasses.replace(made, times=made.times + 0.3)),
    "constant speed": _of_kind("constant"),
    "speed × 1.5": _changed(lambda made: dataclasses.replace(made, values=made.values * 1.5)),
    "speed × 0.5": _changed(lambda made: dataclasses.replace(made, values=made.values * 0.5)),
    "speed × 0.2": _changed(lambda made: dataclasses.replace(made, values=made.values * 0.2)),
}


def table(rows: Rows) -> str:
    """One line for each kind of labels and latency."""
    header = ["labels", "seed", "held-out R²", "angle °", "held gain", "gate",
              "latency ms", "success %", "bit/s", "95 %", "why"]  # fmt: skip
    return markdown(header, [line(row) for row in rows])


def line(row: dict[str, Any]) -> list[object]:
    """One row of the table."""
    control = row.get("control") or {}
    low, high = row["bits_per_s_95"]
    return [
        row["labels"], row["seed"], number(row.get("r2_heldout")),
        number(control.get("angular_error_deg"), 0), number(control.get("held_gain")),
        ("–" if "control" not in row else "refused" if row["reason"] else "taken"),
        f"{row['latency_ms']:g}", f"{100 * row['success']:.0f}", number(row["bits_per_s"]),
        f"{low:.2f}–{high:.2f}", row["reason"],
    ]  # fmt: skip


def number(value: float | None, digits: int = 2) -> str:
    """As text; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    run(main)
