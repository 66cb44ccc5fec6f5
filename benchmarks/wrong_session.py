"""How soon is a wrong session noticed, and is a right one left alone?

Each recording gives a session's record of its activity, from its train split or its first seconds,
and is then heard from many moments on: with its own record; with that of each other recording,
units matched by their order; and with its own record and shuffled rows. No model is needed.
``--half`` takes every second recording's record, so that margins can be chosen with one half and
tried on the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from parts.environment import describe, environment
from parts.script import markdown, run, say, write_json

from poyo_edge.artifact import Activity, activity_of
from poyo_edge.recording import Recording
from poyo_edge.runtime import HealthSettings
from poyo_edge.runtime.session_check import VERIFIED, WRONG_SESSION, SessionCheck

SPLITS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard:
    """A recording as whole windows that begin each ``step_s``."""

    name: str
    n_units: int
    times: npt.NDArray[np.float64]
    units: npt.NDArray[np.int32]
    begins: npt.NDArray[np.float64]
    clean: npt.NDArray[np.bool_]
    """Whether the seconds from there to the verdict lie in a split: none is an artefact."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run that begins at one moment; times are seconds after it, None is never."""

    valid_s: float | None
    wrong_s: float | None
    again_s: float | None
    """When it was VALID after it had been called wrong."""


def main() -> None:
    """Hear, print the table."""
    options = parse()
    logging.disable(logging.ERROR)
    settings = HealthSettings(verify_s=options.verify_s)
    recordings = [Recording.open(path) for path in options.recording]
    heard = [listened(one, options) for one in recordings]
    rows = []
    for at, one in enumerate(recordings):
        if options.half is not None and at % 2 != options.half:
            continue
        say(f"the session of {one.session_id}")
        rows += with_record(record(one, options), one.session_id, heard, settings, options)
    where = environment(1)
    print(f"{describe(where)}\n\n{table(rows, settings)}")
    write_json(options.json, {**where, "runs": rows})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("recording", type=Path, nargs="+", help="of days and animals")
    add("--first-s", type=float, help="record of the first seconds (default: of the train split)")
    add("--verify-s", type=float, default=5.0, help="as in HealthSettings (default: 5)")
    add("--window-s", type=float, default=1.0, help="of the model (default: 1)")
    add("--step-s", type=float, default=5.0, help="from one start to the next (default: 5)")
    add("--for-s", type=float, default=20.0, help="how long each run is heard (default: 20)")
    add("--half", type=int, choices=(0, 1), help="only every second recording's record")
    add("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def listened(recording: Recording, options: Any) -> Heard:
    """Where runs begin, and which of these lie in a split."""
    first, last = recording.intervals("all")[[0, -1], [0, 1]]
    begins = np.arange(first, last - options.for_s, options.step_s)
    clean = np.zeros(len(begins), np.bool_)
    for split in SPLITS:
        for start, end in recording.intervals(split):
            clean |= (begins >= start) & (begins + options.verify_s <= end)
    return Heard(
        name=recording.session_id,
        n_units=len(recording.unit_ids),
        times=recording.spike_times,
        units=recording.spike_units.astype(np.int32),
        begins=begins,
        clean=clean,
    )


def record(recording: Recording, options: Any) -> Activity:
    """The activity that a session of this recording would hold."""
    stretches = recording.intervals("all" if options.first_s else "train")
    if options.first_s:
        start = float(stretches[0, 0])
        stretches = np.array([[start, start + options.first_s]])
    found = activity_of(
        recording.spike_times,
        recording.spike_units,
        np.zeros((1, 1)),
        n_units=len(recording.unit_ids),
        stretches=stretches,
        window_s=options.window_s,
    )
    assert found is not None, "expected ten windows at least"
    return found


def with_record(
    activity: Activity, name: str, heard: list[Heard], settings: HealthSettings, options: Any
) -> list[dict[str, Any]]:
    """One row for each stream that is heard with this record."""
    n_units = len(activity.rate_hz)
    shuffled = np.random.default_rng(0).permutation(n_units).astype(np.int32)
    rows = []
    for one in heard:
        as_they_are = np.arange(max(n_units, one.n_units), dtype=np.int32)
        own = one.name == name
        kinds = {"own" if own else "other": as_they_are} | ({"shuffled": shuffled} if own else {})
        for kind, row_of in kinds.items():
            checks = [
                begun(activity, name, one, begin, row_of, settings, options) for begin in one.begins
            ]
            rows.append(
                {"session": name, "heard": one.name, "kind": kind}
                | counted(checks, one.clean, options.verify_s)
            )
    return rows


def begun(
    activity: Activity, name: str, heard: Heard, begin: float, row_of: npt.NDArray[np.int32],
    settings: HealthSettings, options: Any,
) -> Outcome:  # fmt: skip
    """One run: window after window, as a decoder looks at them."""
    n_units = len(activity.rate_hz)
    ids = [f"unit_{i:03d}" for i in range(n_units)]
    check = SessionCheck(name, ids, activity, options.window_s, settings)
    valid_s = wrong_s = again_s = None
    edges = begin + np.arange(int(options.for_s / options.window_s) + 1) * options.window_s
    cuts = heard.times.searchsorted(edges)
    for n, (lo, hi) in enumerate(itertools.pairwise(cuts), 1):
        rows = row_of[heard.units[lo:hi]]
        check.wait(n * options.window_s)
        check.look(rows[rows < n_units])
        if check.state == WRONG_SESSION:
            wrong_s = n * options.window_s if wrong_s is None else wrong_s
            continue
        if check.state == VERIFIED:
            valid_s = n * options.window_s if wrong_s is None else None
            again_s = None if wrong_s is None else n * options.window_s
            break
    return Outcome(valid_s=valid_s, wrong_s=wrong_s, again_s=again_s)


def counted(runs: list[Outcome], clean: npt.NDArray[np.bool_], soon_s: float) -> dict[str, Any]:
    """Counts of one row."""
    wrong = np.array([one.wrong_s is not None and one.wrong_s <= soon_s for one in runs])
    valid = [one.valid_s for one in runs if one.valid_s is not None]
    return {
        "runs": len(runs),
        "clean_runs": int(clean.sum()),
        "noticed": int(wrong.sum()),
        "noticed_clean": int((wrong & clean).sum()),
        "verified": len(valid),
        "verified_s": sorted(valid)[len(valid) // 2] if valid else None,
        "longest_s": max(valid, default=None),
        "noticed_s": max((one.wrong_s for one in runs if one.wrong_s is not None), default=None),
        "again": sum(one.again_s is not None for one in runs),
    }


def table(rows: list[dict[str, Any]], settings: HealthSettings) -> str:
    """A line for each kind, and for the worst pair of it."""
    header = [
        "heard with", "runs", f"wrong_session within {settings.verify_s:g} s", "none in a split",
        "verified", "after s, median and most", "wrong, then verified",
    ]  # fmt: skip
    lines = []
    for kind in ("own", "other", "shuffled"):
        mine = [row for row in rows if row["kind"] == kind]
        if not mine:
            continue
        lines.append(line(kind, mine))
        share = {id(row): row["noticed"] / row["runs"] for row in mine}
        worst = (max if kind == "own" else min)(mine, key=lambda row: share[id(row)])
        name = f"worst: {worst['heard']} with {worst['session']}"
        lines.append(line(name, [worst]))
    return markdown(header, lines)


def line(name: str, rows: list[dict[str, Any]]) -> list[Any]:
    """Rows added up."""
    total = {
        key: sum(row[key] for row in rows)
        for key in ("runs", "clean_runs", "noticed", "noticed_clean", "verified", "again")
    }
    typical = [row["verified_s"] for row in rows if row["verified_s"] is not None]
    longest = [row["longest_s"] for row in rows if row["longest_s"] is not None]
    times = f"{np.median(typical):g}, {max(longest):g}" if typical else "–"
    return [
        name,
        total["runs"],
        f"{total['noticed']} ({total['noticed'] / total['runs']:.1%})",
        f"{total['noticed_clean']} of {total['clean_runs']}",
        total["verified"],
        times,
        total["again"],
    ]


if __name__ == "__main__":
    run(main)
