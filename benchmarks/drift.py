"""Does health turn DEGRADED where R² collapses, and stay quiet where it does not?

Two questions, one artifact. Days: each recording is replayed with the session of each day of the
artifact, units matched by their order; the activity of a session is measured in the train split of
its own recording. Units: a recording is replayed with its own session while a share of its units
falls silent, or fires at random, and R² is drawn against the share.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from parts.environment import describe, environment
from parts.script import markdown, require, run, say, write_json

from poyo_edge.artifact import Artifact, Session, recording_activity
from poyo_edge.recording import Recording
from poyo_edge.runtime import Decoder, DecoderSettings, HealthSettings
from poyo_edge.runtime.checks.replay import replay
from poyo_edge.runtime.core import Core

HEALTH_FLAGS = ("drift", "coverage", "output_range")
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)


def main() -> None:
    """Replay, print the tables, draw the curve."""
    options = parse()
    artifact = Artifact.open(options.artifact)
    core = Core.open(artifact, backend="ort-cpu")
    recordings = [Recording.open(path) for path in options.recording]
    days = [] if options.units_only else compare_days(core, recordings, options)
    units = damage_units(core, recordings[0], options)
    where = environment(1)
    print(describe(where))
    if days:
        print(f"\n{table(days, ('recording', 'session'))}")
    print(f"\n{table(units, ('damage', 'share'))}")
    write_json(options.json, {**where, "days": days, "units": units})
    if options.png is not None:
        draw(options.png, units)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("artifact", type=Path, help="with a session of each of several days")
    add("recording", type=Path, nargs="+", help="of these days or others, same electrodes")
    add("--behavior", required=True, help="GROUP.KEY, for example cursor.vel")
    add("--split", default="test", help="split to replay (default: test)")
    add("--units-only", action="store_true", help="only damage units of the first recording")
    add("--json", type=Path, help="also write the results to this file")
    add("--png", type=Path, help="draw R² against the share of damaged units")
    options = parser.parse_args()
    if options.png is not None:
        require("matplotlib", "plot", "drawing pictures")
    return options


def compare_days(core: Core, recordings: list[Recording], options: Any) -> list[dict[str, Any]]:
    """Each recording with each day's session."""
    known = {r.session_id: r for r in recordings if r.session_id in core.artifact.session_files()}
    found = []
    for recording in recordings:
        for day, source in known.items():
            say(f"{recording.session_id} with the session of {day}")
            session = measured(core, source, day, options.behavior)
            header = dataclasses.replace(session.header, unit_ids=recording.unit_ids)
            moved = dataclasses.replace(session, header=header)
            row = {"recording": recording.session_id, "session": day}
            found.append(row | judged(core, moved, recording, options))
    return found


def damage_units(core: Core, recording: Recording, options: Any) -> list[dict[str, Any]]:
    """A recording with its own session while units fall silent or fire at random."""
    session = measured(core, recording, recording.session_id, options.behavior)
    order = np.random.default_rng(0).permutation(len(recording.unit_ids))
    found = []
    for damage, change in (("silent", silenced), ("noisy", made_noisy)):
        for share in SHARES:
            say(f"{share:.0%} of units {damage}")
            rows = order[: round(share * len(order))]
            damaged = change(recording, rows)
            row = {"damage": damage, "share": share}
            found.append(row | judged(core, session, damaged, options))
    return found


def measured(core: Core, recording: Recording, session_id: str, behavior: str) -> Session:
    """The artifact's session with the activity in the train split of its recording."""
    session = core.artifact.session(session_id)
    ids, window_s = session.header.unit_ids, core.artifact.manifest.spec.window_seconds
    activity = recording_activity(recording, ids, behavior, "train", window_s)
    return dataclasses.replace(session, activity=activity)


def silenced(recording: Recording, rows: Any) -> Recording:
    """Without the spikes of these units."""
    keep = ~np.isin(recording.spike_units, rows)
    return dataclasses.replace(
        recording,
        spike_times=recording.spike_times[keep],
        spike_units=recording.spike_units[keep],
    )


def made_noisy(recording: Recording, rows: Any) -> Recording:
    """These units fire at random, three times as often as they did."""
    rng = np.random.default_rng(1)
    counts = np.bincount(recording.spike_units, minlength=len(recording.unit_ids))
    n_noise = 3 * counts[rows]
    begin, end = recording.intervals("all")[[0, -1], [0, 1]]
    rest = silenced(recording, rows)
    times = np.concatenate([rest.spike_times, rng.uniform(begin, end, int(n_noise.sum()))])
    units = np.concatenate([rest.spike_units, np.repeat(rows, n_noise)])
    order = np.argsort(times, kind="stable")
    return dataclasses.replace(recording, spike_times=times[order], spike_units=units[order])


def judged(core: Core, session: Session, recording: Recording, options: Any) -> dict[str, Any]:
    """R² of a replay, and what health said at its end and on the way."""
    settings = DecoderSettings(health=HealthSettings())
    decoder = Decoder(core, session, settings=settings)
    flagged: list[bool] = []
    decode = decoder.decode

    def noted(t: float, *, stream_lost: bool = False) -> Any:
        result = decode(t, stream_lost=stream_lost)
        flagged.append(any(flag in HEALTH_FLAGS for flag in result.flags))
        return result

    decoder.decode = noted  # type: ignore[method-assign]
    result = replay(decoder, recording, options.behavior, split=options.split)
    health = decoder.health()
    first = next((i for i, flag in enumerate(flagged) if flag), None)
    return {
        "r2": round(result.r2, 3),
        "status": health["status"],
        "flags": health["flags"],
        "degraded_share": round(float(np.mean(flagged)), 3),
        "first_s": None
        if first is None
        else round(float(first * np.median(np.diff(result.times))), 1),
        "drifted_share": health["drifted_share"],
        "outside_share": health["outside_share"],
        "coverage": health["coverage"],
    }


def table(rows: list[dict[str, Any]], names: tuple[str, str]) -> str:
    """One line per replay."""
    header = [*names, "R²", "windows DEGRADED", "first after s", "units drifted", "flags"]
    lines = [
        [
            *(row[name] for name in names),
            f"{row['r2']:.3f}",
            f"{row['degraded_share']:.0%}",
            "–" if row["first_s"] is None else row["first_s"],
            "–" if row["drifted_share"] is None else f"{row['drifted_share']:.0%}",
            ", ".join(row["flags"]) or "–",
        ]
        for row in rows
    ]
    return markdown(header, lines)


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """R² against the share of damaged units; filled where health said DEGRADED."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    for damage, color in (("silent", "#2563eb"), ("noisy", "#c2410c")):
        mine = [row for row in rows if row["damage"] == damage]
        shares = [100 * row["share"] for row in mine]
        axis.plot(shares, [row["r2"] for row in mine], color=color, lw=1.2, label=damage)
        for share, row in zip(shares, mine, strict=True):
            face = color if row["status"] == "degraded" else "white"
            axis.plot(share, row["r2"], "o", color=color, mfc=face)
    axis.set_ylim(bottom=max(-0.6, axis.get_ylim()[0]))
    axis.axhline(0, color="#8a8f98", lw=0.8)
    axis.set_xlabel("units damaged (%)")
    axis.set_ylabel("R², causal")
    axis.set_title("filled: health says DEGRADED", fontsize=9, loc="right")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    run(main)
