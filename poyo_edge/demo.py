"""The whole road on simulated recordings: simulate → pretrain → export → verify → replay."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poyo_edge.export.pipeline import ExportOptions, export_checkpoint
from poyo_edge.export.report import REPORT_HTML
from poyo_edge.runtime.replay import LATENCY_PNG, TRACE_PNG
from poyo_edge.runtime.verify import verify
from poyo_edge.simulate import simulate_study
from poyo_edge.training import DEMO_RECIPE, train

Say = Callable[[str], None]
Bar = Callable[[int, int, str], None]


def run_demo(
    folder: str | Path, *, seed: int = 0, steps: int | None = None, say: Say, bar: Bar
) -> dict[str, Any]:
    """Run the demo and return its figures as JSON values.

    Args:
        folder: where recordings, checkpoint and artifact go; older ones are replaced.
        seed: of simulation and training.
        steps: training steps; None takes those of the demo's recipe.
        say: told each step, a sentence.
        bar: told the training's progress: steps done, steps in all, a note.
    """
    folder = Path(folder)
    say("simulating four sessions of motor cortex, each with other units")
    recordings = simulate_study(folder / "recordings", n_sessions=4, seed=seed)
    recipe = dataclasses.replace(DEMO_RECIPE, seed=seed, steps=steps or DEMO_RECIPE.steps)
    say(f"pretraining one small POYO on the train splits of all four, {recipe.steps} steps")
    trained = train(
        recordings,
        recipe,
        folder / "demo.ckpt",
        on_progress=lambda done, total, loss: bar(done, total, f"loss {loss:.3f}"),
    )
    artifact = folder / "demo.poyo"
    options = ExportOptions(recording=recordings[-1], behavior=recipe.behavior, overwrite=True)
    report = export_checkpoint(trained.checkpoint, artifact, options, on_step=say)
    say("verifying the artifact on this machine")
    checks = verify(artifact)
    values = report.to_json()
    return {
        "r2": values["replay"]["r2"],
        "r2_per_dim": values["replay"]["r2_per_dim"],
        "n_predictions": values["replay"]["n_predictions"],
        "protocol": values["replay"]["protocol"],
        "latency_ms": values["replay"]["latency_ms"],
        "backend": values["replay"]["backend"],
        "statuses": values["replay"]["statuses"],
        "max_abs_error": values["max_abs_error"],
        "tolerance": values["tolerance"],
        "verified": all(check.ok for check in checks),
        "train_s": round(trained.wall_s, 1),
        "artifact": str(artifact),
        "recording": str(recordings[-1]),
        "checkpoint": str(trained.checkpoint),
        "report": str(artifact / REPORT_HTML),
        "pictures": [str(artifact / TRACE_PNG), str(artifact / LATENCY_PNG)],
    }
