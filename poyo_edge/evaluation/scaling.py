"""How held-out sessions are decoded by models trained on more and more sessions (the paper's RQ4).

Each cell is one road of the demo: train on the first N recordings, export, calibrate every
held-out recording on its first labelled seconds without torch, and replay its test split.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.calibration import Calibrator
from poyo_edge.calibration.from_recording import add_recording
from poyo_edge.errors import UsageError
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint
from poyo_edge.figures import draw_scaling
from poyo_edge.files.writing import write_bytes
from poyo_edge.recording import Recording
from poyo_edge.runtime.checks.replay import replay
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.training import Recipe, load_recipe, train

CELLS = "cells.json"
Say = Callable[[str], None]
Bar = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is trained on what."""

    recipe: str
    overrides: tuple[str, ...] = ()
    recordings: tuple[Path, ...]
    sessions: tuple[int, ...]
    """Numbers of recordings to train on, always the first ones."""
    sizes: tuple[str, ...] = ()
    """DIMxDEPTH each; empty takes the recipe's own size."""
    held_out: int
    """The last recordings, which no model sees."""
    seconds: float
    """Labelled seconds for calibration."""

    def __post_init__(self) -> None:
        most = len(self.recordings) - self.held_out
        if not self.sessions or max(self.sessions) > most:
            raise UsageError(
                f"--sessions: expected at most {most} ({len(self.recordings)} recordings, "
                f"{self.held_out} held out), got {list(self.sessions)}"
            )

    def recipes(self) -> dict[str, Recipe]:
        """Size → the recipe with it.

        Raises:
            UsageError: a size is not DIMxDEPTH, or the recipe cannot be used.
        """
        own = load_recipe(self.recipe, self.overrides)
        found = {}
        for size in self.sizes or (f"{own.spec.dim}x{own.spec.depth}",):
            dim, _, depth = size.partition("x")
            if not dim.isdecimal() or not depth.isdecimal():
                raise UsageError(f"--size: expected DIMxDEPTH, like 64x6, got {size!r}")
            sizes = [f"model.dim={dim}", f"model.depth={depth}"]
            found[size] = load_recipe(self.recipe, [*self.overrides, *sizes])
        return found


def run_study(study: Study, folder: Path, *, say: Say, bar: Bar) -> list[dict[str, Any]]:
    """Make the cells that the folder lacks, each written as soon as it is done; draw them all.

    Args:
        study: what to train.
        folder: for models, ``cells.json`` and the picture; a killed study goes on from there.
        say: told each step.
        bar: told progress.

    Raises:
        UsageError: the study is impossible, or the folder holds another one.
    """
    recipes = study.recipes()
    path, about = folder / CELLS, _about(study)
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"study": about}
    if found["study"] != about:
        raise UsageError(
            f"{path}: expected the cells of this study, got those of another recipe, data or "
            f"calibration; choose another folder with -o"
        )
    cells: dict[str, dict[str, Any]] = found.setdefault("cells", {})
    wanted = [(size, n) for n in sorted(set(study.sessions)) for size in recipes]
    for count, (size, n_sessions) in enumerate(wanted, start=1):
        name = f"{n_sessions}_{size}"
        if name not in cells:
            say(f"model {count} of {len(wanted)}: {n_sessions} sessions, size {size}")
            cells[name] = {
                "size": size,
                **_cell(study, recipes[size], n_sessions, folder / name, say, bar),
            }
            write_bytes(path, json.dumps(found, indent=1).encode())
    chosen = [cells[f"{n}_{size}"] for size, n in wanted]
    draw_scaling(folder / "scaling.png", chosen)
    return chosen


def _about(study: Study) -> dict[str, Any]:
    """What all cells of a folder have in common."""
    return {
        "recipe": study.recipe,
        "overrides": list(study.overrides),
        "recordings": [path.name for path in study.recordings],
        "held_out": study.held_out,
        "seconds": study.seconds,
    }


def _cell(
    study: Study, recipe: Recipe, n_sessions: int, stem: Path, say: Say, bar: Bar
) -> dict[str, Any]:
    checkpoint, artifact = stem.with_suffix(".ckpt"), stem.with_suffix(".poyo")
    state = stem.with_suffix(".resume")
    trained = train(
        study.recordings[:n_sessions],
        recipe,
        checkpoint,
        state=state,
        resume=state.exists(),
        on_progress=lambda done, total, loss: bar(done, total, f"loss {loss:.3f}"),
    )
    behavior = next(iter(recipe.data.values())).behavior
    export_checkpoint(checkpoint, artifact, ExportOptions(behavior=behavior, overwrite=True))
    heldout = []
    for path in study.recordings[-study.held_out :]:
        recording = Recording.open(path)
        say(f"calibrating {recording.session_id} on {study.seconds:g} s")
        calibrator = Calibrator.open(artifact, recording.unit_ids, session_id=recording.session_id)
        add_recording(calibrator, recording, behavior, seconds=study.seconds)
        fitted = calibrator.fit(seed=recipe.seed)
        played = replay(Decoder.open(artifact, session=fitted), recording, behavior)
        heldout.append(
            {
                "session": recording.session_id,
                "r2": float(np.mean(played.r2_per_dim)),
                "labelled_s": fitted.quality.labelled_s,
            }
        )
    return {
        "n_sessions": n_sessions,
        "n_units": trained.n_units,
        "parameters": trained.n_parameters,
        "steps": trained.steps,
        "train_s": round(trained.wall_s, 1),
        "loss": float(np.mean(trained.losses[-50:])),
        "r2": float(np.mean([h["r2"] for h in heldout])),
        "heldout": heldout,
    }
