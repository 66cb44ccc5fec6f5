"""How well is a session decoded that pretraining never saw, after X seconds of labels?

Only the unit table and the session embedding are fitted, everything else is frozen: by
torch_brain's own pipeline and by poyo-edge's ``Calibrator``. A ridge Wiener filter gets the same
labels: the first X seconds of the train split. All decode every sample of another split causally:
at each behaviour sample t the window is [t - T, t) and the query is t. Each fit goes into the
results file as soon as it is done, so that a run which was interrupted continues.

Legend: S samples, O outputs, U units, K intervals, F features.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts.environment import describe, environment
from parts.script import markdown, require, run, say
from parts.unit_id_sides import (
    FITTERS,
    MOST_WALL_S,
    OURS,
    STEPPERS,
    TORCH_BRAIN,
    WIENER,
    Fit,
    Job,
    NewSession,
    Point,
)

from poyo_edge.checkpoint import load_checkpoint
from poyo_edge.export.engines.build import build_engines
from poyo_edge.export.engines.options import BuildOptions
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint
from poyo_edge.files.writing import write_bytes

COLORS = {TORCH_BRAIN: "#2563eb", WIENER: "#8a8f98", OURS: "#c2410c"}
WARM_UPS = 3


def main() -> None:
    """Make the fits that the results file lacks, print the table, draw the picture."""
    options = parse()
    torch.set_num_threads(options.threads)
    found = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    where = {**environment(options.threads), "protocol": "causal"}
    checkpoint = load_checkpoint(options.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder, "unit_id.poyo")
        if OURS in options.side or options.time_steps:
            export_checkpoint(checkpoint.path, artifact, ExportOptions(), on_step=say)
            if options.native:
                say("poyo-edge build --target cpu")
                build_engines(artifact, BuildOptions(target="cpu"))
        shared = {"checkpoint": checkpoint, "key": options.behavior, "split": options.split}
        sessions = [NewSession(path=p, artifact=artifact, **shared) for p in options.recording]
        fits = make_fits(sessions, options, found)
        print(f"{describe(where)}\n\n{r2_table(fits)}")
        if options.time_steps:
            found["step_ms"] = time_steps(sessions[0], options.time_steps, options.step_threads)
            print(f"\n{step_table(found['step_ms'])}")
    save(options.json, {**found, **where})
    if options.png is not None:
        draw(options.png, fits)
    if options.wall_png is not None:
        draw_wall(options.wall_png, fits)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("checkpoint", type=Path)
    add("recording", type=Path, nargs="+", help="recordings that the checkpoint never saw")
    add("--behavior", required=True, help="GROUP.KEY, for example cursor.vel")
    add("--split", default="test", help="split to judge on (default: test)")
    add("--side", action="append", choices=FITTERS, help="only this one; may be repeated")
    add("--seconds", type=float, nargs="+", default=[30, 60, 120, 300], help="of labels")
    add("--lr", type=float, nargs="+", default=[1e-3, 2e-3, 5e-3], help="torch_brain's, each")
    add("--steps", type=int, nargs="+", default=[100, 200, 300], help="when torch_brain is judged")
    add("--seed", type=int, nargs="+", default=[0])
    add("--threads", type=int, default=1, help="of each side (default: 1)")
    add("--time-steps", type=int, default=0, metavar="N", help="also time N optimiser steps")
    add("--step-threads", type=int, default=2, help="threads of the timed steps (default: 2)")
    add("--wall", type=float, nargs="+", default=[MOST_WALL_S], help="seconds ours may take, each")
    add("--native", action="store_true", help="let build --target cpu make ours faster first")
    add("--json", type=Path, help="results file; fits that it holds are not made again")
    add("--png", type=Path, help="draw R² against labelled seconds into this file")
    add("--wall-png", type=Path, help="draw R² against the seconds of a fit into this file")
    options = parser.parse_args()
    for name in ("seconds", "lr", "steps", "threads", "step_threads"):
        if np.min(getattr(options, name)) <= 0:
            parser.error(f"--{name.replace('_', '-')}: expected > 0, got {getattr(options, name)}")
    options.side = options.side or list(FITTERS)
    return options


def make_fits(
    sessions: Sequence[NewSession], options: argparse.Namespace, found: dict[str, Any]
) -> list[Fit]:
    """Make and write down the fits that ``found`` lacks; all there are of these recordings."""
    fits: dict[str, Fit] = found.setdefault("fits", {})
    names: list[str] = []
    for session in sessions:
        sha256, recording = session.checkpoint.sha256[:12], session.recording.session_id
        names.append(f"{sha256} {session.split} {session.key} {recording} ")
        for job in jobs(options):
            name = f"{names[-1]}{job}"
            if name not in fits:
                started = time.perf_counter()
                points = FITTERS[job.side](session, job)
                wall_s = round(time.perf_counter() - started, 1)
                made = {"recording": recording, "wall_s": wall_s, "threads": options.threads}
                fits[name] = {**job._asdict(), **made, "points": points}
                save(options.json, found)
                say(f"{name}: R² {cell(best(points))} in {wall_s} s")
    return [fit for name, fit in fits.items() if name.startswith(tuple(names))]


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All fits of one recording; the Wiener filter has no seed."""
    for side, seconds in itertools.product(options.side, options.seconds):
        seeds = options.seed if side != WIENER else [0]
        rates, steps = (options.lr, options.steps) if side == TORCH_BRAIN else ([0.0], [])
        walls = options.wall if side == OURS else [MOST_WALL_S]
        for seed, lr, wall_s in itertools.product(seeds, rates, walls):
            yield Job(side, seconds, seed, lr, tuple(sorted(steps)), wall_s)


def time_steps(session: NewSession, repeats: int, threads: int) -> dict[str, list[float]]:
    """Milliseconds of each repetition of one optimiser step, the sides taking turns."""
    torch.set_num_threads(threads)
    steps = {side: stepper(session, threads) for side, stepper in STEPPERS.items()}
    taken: dict[str, list[float]] = {side: [] for side in steps}
    for _ in range(WARM_UPS + repeats):
        for side, step in steps.items():
            started = time.perf_counter_ns()
            step()
            taken[side].append((time.perf_counter_ns() - started) / 1e6)
    return {side: times[WARM_UPS:] for side, times in taken.items()}


def best(points: Sequence[Point]) -> list[float]:
    """R² of each output where their mean is highest: chosen on the judged split itself."""
    return max((point["r2_per_dim"] for point in points), key=lambda r2: float(np.mean(r2)))


def judged_r2(fits: Sequence[Fit], recording: str, seconds: float, side: str) -> list[float] | None:
    """What a side is judged by: torch_brain's best fit, the mean over seeds of the others.

    Of fits that were given less time than others, nothing counts.
    """
    found = [
        fit
        for fit in fits
        if (fit["recording"], fit["seconds"], fit["side"]) == (recording, seconds, side)
    ]
    if not found:
        return None
    walls = [fit.get("most_wall_s", MOST_WALL_S) for fit in found]
    same = [fit["points"] for fit, wall in zip(found, walls, strict=True) if wall == max(walls)]
    if side == TORCH_BRAIN:
        return best([point for points in same for point in points])
    return list(np.mean([best(points) for points in same], axis=0))


def r2_table(fits: Sequence[Fit]) -> str:
    """R² of each output and their mean, for each recording and each number of seconds."""
    keys = dict.fromkeys((fit["recording"], fit["seconds"]) for fit in fits)
    rows = [
        [f"{key[0]}, {key[1]:g} s", *(cell(judged_r2(fits, *key, side)) for side in FITTERS)]
        for key in keys
    ]
    return markdown(["recording, labels", *(f"{side}: R² (mean)" for side in FITTERS)], rows)


def cell(r2: list[float] | None) -> str:
    """R² of each output, and their mean in brackets."""
    return f"{' / '.join(f'{x:.3f}' for x in r2)} ({np.mean(r2):.3f})" if r2 else "–"


def step_table(taken: Mapping[str, list[float]]) -> str:
    """Median, and 10 to 90 % of the repetitions."""
    quantiles = {side: np.percentile(times, [50, 10, 90]) for side, times in taken.items()}
    most = quantiles[TORCH_BRAIN][0]
    rows = [
        [side, *(f"{ms:.1f}" for ms in found), f"{most / found[0]:.2f}"]
        for side, found in quantiles.items()
    ]
    return markdown(["one optimiser step", "median ms", "10 %", "90 %", "times as fast"], rows)


def panels(figure: Any, count: int) -> Any:
    """So many axes side by side, of one scale of R²."""
    return figure.subplots(1, count, sharey=True, squeeze=False)[0]


def finish(figure: Any, path: Path) -> None:
    """Name the common scale and the sides once, and write the picture."""
    axes = figure.axes
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("causal R², mean of outputs")
    axes[-1].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def draw(path: Path, fits: Sequence[Fit]) -> None:
    """R² against labelled seconds, a panel for each recording and a line for each side.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "plot", "drawing R² against labelled seconds")
    from matplotlib.figure import Figure

    recordings = list(dict.fromkeys(fit["recording"] for fit in fits))
    seconds = sorted({fit["seconds"] for fit in fits})
    figure = Figure(figsize=(1.5 + 4.5 * len(recordings), 3.8))
    for axis, recording in zip(panels(figure, len(recordings)), recordings, strict=True):
        for side, color in COLORS.items():
            r2s = [judged_r2(fits, recording, x, side) for x in seconds]
            means = [np.nan if r2 is None else np.mean(r2) for r2 in r2s]
            axis.plot(seconds, means, "o-", color=color, lw=1.6, ms=4, label=side)
        axis.set_xscale("log")
        axis.set_xticks(seconds, [f"{x:g}" for x in seconds])
        axis.minorticks_off()
        axis.set_xlabel("labelled seconds")
        axis.set_title(recording, loc="left", fontsize=10)
    finish(figure, path)


def draw_wall(path: Path, fits: Sequence[Fit]) -> None:
    """R² against the seconds that a fit took, a panel for each recording and a mark for each point.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "plot", "drawing R² against the seconds of a fit")
    from matplotlib.figure import Figure

    recordings = list(dict.fromkeys(fit["recording"] for fit in fits))
    figure = Figure(figsize=(1.5 + 4.5 * len(recordings), 3.8))
    for axis, recording in zip(panels(figure, len(recordings)), recordings, strict=True):
        for side, color in COLORS.items():
            points = [
                (point.get("fit_s", fit["wall_s"]), np.mean(point["r2_per_dim"]))
                for fit in fits
                if fit["recording"] == recording and fit["side"] == side
                for point in fit["points"]
            ]
            if points:
                axis.plot(*zip(*sorted(points), strict=True), "o", color=color, ms=5, label=side)
        axis.set_xscale("log")
        axis.set_xlabel("seconds of a fit")
        axis.set_title(recording, loc="left", fontsize=10)
    finish(figure, path)


def save(path: Path | None, found: Mapping[str, Any]) -> None:
    """Write the results file, whole or not at all."""
    if path is not None:
        write_bytes(path, f"{json.dumps(found, indent=1, ensure_ascii=False)}\n".encode())


if __name__ == "__main__":
    run(main)
