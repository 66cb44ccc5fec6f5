"""How soon is control usable on an array that no session knows, and which labels are worth what?

A new array is drawn for each seed. Decoders are calibrated on some seconds of observation alone,
then, from the longest observation, once more after a minute in which each controlled the cursor
itself, with each kind of labels. Throughput at each latency; the labels are the same kind for all
decoders, and what the person intended is never looked at. Person, array and task are simulated.
"""

from __future__ import annotations

import argparse
from typing import Any

from parts.mornings import Kept, Rows, add_common, controlled, measure_and_report
from parts.script import markdown, run

from poyo_edge.calibration.intention import IntentionSettings
from poyo_edge.errors import CheckFailedError
from poyo_edge.simulation.array import SimulatedArray
from poyo_edge.simulation.calibrating import Calibration, calibrated
from poyo_edge.simulation.mornings.recalibrating import Recalibration, recalibrated
from poyo_edge.simulation.observing import ObservationSettings

LABELS = ("proportional", "constant", "refit")


def main() -> None:
    """Measure what is not known yet, print the table."""
    measure_and_report(
        parse(), ("observe_s", "recalibrate_s", "latency", "labels", "trials"), morning, table
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common(parser)
    add = parser.add_argument
    add("--observe-s", type=float, nargs="+", default=[15.0, 30.0, 60.0])
    add("--recalibrate-s", type=float, default=60.0, help="of closed loop, after the longest")
    add("--labels", nargs="*", choices=LABELS, default=list(LABELS))
    add("--latency", type=float, nargs="+", default=[0.0, 100.0], help="added, in ms")
    return parser.parse_args()


def morning(kept: Kept, options: Any, seed: int) -> None:
    """All parts of one seed."""
    array = SimulatedArray.draw(seed=seed, name=f"array_{seed}")
    known: dict[float, Any] = {}

    def decoders(seconds: float) -> Any:
        if seconds not in known:
            known[seconds] = calibrated(array, observation(options, seconds), seed=seed)
        return known[seconds]

    def observed(seconds: float) -> Rows:
        row = {"seed": seed, "observe_s": seconds, "labels": "observation"}
        try:
            found = decoders(seconds)
        except CheckFailedError as refused:
            return [row | {"decoder": "poyo", "refused": str(refused)}]
        return [row | one for one in judged(array, found, options, seed)]

    def again(kind: str, seconds: float) -> Rows:
        row = {"seed": seed, "observe_s": seconds, "labels": kind}
        labels = IntentionSettings(kind=kind)  # type: ignore[arg-type]  # it is checked there
        settings = Recalibration(seconds=options.recalibrate_s, labels=labels)
        calibration = observation(options, seconds)
        found, told = recalibrated(array, decoders(seconds), calibration, settings, seed=seed)
        said = {one.decoder: one.to_json() for one in told}
        return [row | one | {"recalibrated": said[one["decoder"]]}
                for one in judged(array, found, options, seed)]  # fmt: skip

    for seconds in options.observe_s:
        kept.part(f"seed {seed}, {seconds:g} s of observation", lambda s=seconds: observed(s))  # type: ignore[misc]
    longest = max(options.observe_s)
    for kind in options.labels:
        name = f"seed {seed}, {longest:g} s and {options.recalibrate_s:g} s of {kind}"
        kept.part(name, lambda k=kind: again(k, longest))  # type: ignore[misc]


def observation(options: Any, seconds: float) -> Calibration:
    """Calibrated on so many seconds."""
    return Calibration(artifact=options.artifact, observation=ObservationSettings(seconds=seconds))


def judged(array: SimulatedArray, decoders: Any, options: Any, seed: int) -> Rows:
    """Each decoder at each latency."""
    return controlled(
        array, decoders, latencies_ms=options.latency, n_trials=options.trials, seed=seed
    )


def table(rows: Rows) -> str:
    """One line for each decoder, latency and part."""
    header = ["labels", "seed", "observed s", "decoder", "latency ms", "success %", "bit/s",
              "95 %", "held gain", "taken", "why not"]  # fmt: skip
    return markdown(header, [line(row) for row in rows])


def line(row: dict[str, Any]) -> list[object]:
    """One row of the table."""
    begin = [row["labels"], row["seed"], f"{row['observe_s']:g}", row["decoder"]]
    if "refused" in row:
        return [*begin, "–", "–", "–", "–", "–", "no", row["refused"]]
    said = row.get("recalibrated", {"taken": True, "reason": ""})
    low, high = row["bits_per_s_95"]
    return [
        *begin, f"{row['latency_ms']:g}", f"{100 * row['success']:.0f}",
        f"{row['bits_per_s']:.2f}", f"{low:.2f}–{high:.2f}",
        f"{row['step']['held_gain_1s']:.2f}", "yes" if said["taken"] else "no", said["reason"],
    ]  # fmt: skip


if __name__ == "__main__":
    run(main)
