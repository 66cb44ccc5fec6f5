"""How long does ``calibrate`` take? Wall and processor time of whole fits, on an idle machine.

Published sizes have random weights; what they decode means nothing. All fits take all their steps.
Each fit goes into ``--out`` as soon as it is done; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from intake import random_artifact
from latency import SIZES
from parts.environment import describe, environment
from parts.mornings import Kept
from parts.script import markdown, run, say, write_json

from poyo_edge.calibration import Calibrator, FitSettings
from poyo_edge.calibration.from_recording import add_recording
from poyo_edge.export.engines.build import build_engines
from poyo_edge.export.engines.options import BuildOptions
from poyo_edge.recording import Recording

_ALL_STEPS = 1 << 20
"""Patience with which no fit ends before its last step."""


def main() -> None:
    """Make the fits that are missing, and print the table."""
    options = parse()
    recording = Recording.open(options.recording)
    kept = Kept(
        options.out,
        {"recording": recording.session_id, "seconds": options.seconds, "steps": options.steps}
        | ({"native": True} if options.native else {}),
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in [*options.sizes, *map(str, options.artifact)]:
            for threads in options.threads:

                def fit(name: str = name, threads: int = threads) -> list[dict[str, Any]]:
                    artifact = Path(name)
                    if name in SIZES:
                        artifact = made(Path(folder, name), len(recording.unit_ids), name)
                        if options.native:
                            say(f"{name}: poyo-edge build --target cpu")
                            build_engines(artifact, BuildOptions(target="cpu"))
                    return [timed(artifact, recording, options, threads) | {"model": name}]

                kept.part(f"{name}, {threads} threads", fit)
    where = environment(max(options.threads))
    header = ["model", "threads", "wall s", "processor s", "steps", "R² held out", "peak MB"]
    rows = [
        [row["model"], row["threads"], f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}", row["steps"],
         f"{row['r2_heldout']:.3f}", f"{row['peak_mb']:.0f}"]
        for row in kept.rows
    ]  # fmt: skip
    print(f"{describe(where)}\n\n{markdown(header, rows)}")
    write_json(options.json, {**where, "fits": kept.rows})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("recording", type=Path, help="with labelled seconds to fit to")
    add("--behavior", default="cursor.vel")
    add("--artifact", type=Path, nargs="*", default=[], help="trained models to fit too")
    add("--sizes", nargs="*", choices=SIZES, default=list(SIZES), help="with random weights")
    add("--seconds", type=float, default=120, help="labelled (default: 120)")
    add("--threads", type=int, nargs="+", default=[1, 2])
    add("--steps", type=int, help="instead of those that the labels ask for; for a trial")
    add("--native", action="store_true", help="let build --target cpu make them faster first")
    add("--out", type=Path, help="keep each fit here, and go on from what is there")
    add("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def made(folder: Path, n_units: int, size: str) -> Path:
    """An artifact of random weights; made once."""
    if not folder.exists():
        folder.mkdir()
        random_artifact(folder, n_units, SIZES[size], lambda text: say(f"{size}: {text}"))
    return next(folder.glob("*.poyo"))


def timed(
    artifact: Path, recording: Recording, options: argparse.Namespace, threads: int
) -> dict[str, Any]:
    """One whole fit, with what the gate decodes; opening the model is not counted."""
    settings = FitSettings(patience=_ALL_STEPS, steps=options.steps, encoder_steps=options.steps)
    calibrator = Calibrator.open(
        artifact, recording.unit_ids, session_id="timed", threads=threads, settings=settings,
        subject=recording.subject_id or None,
    )  # fmt: skip
    add_recording(calibrator, recording, options.behavior, seconds=options.seconds)
    wall, cpu = time.perf_counter(), time.process_time()
    quality = calibrator.fit().quality
    return {
        "threads": threads,
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "steps": quality.curve[-1].step,
        "r2_heldout": round(quality.r2_heldout, 4),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


if __name__ == "__main__":
    run(main)
