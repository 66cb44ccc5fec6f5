"""How held-out sessions are decoded by models trained on more and more sessions (the paper's RQ4).

Each cell is one road of the demo: train on the first N recordings, export, calibrate every
held-out recording on its first labelled seconds without torch, and replay its test split. Beside
it, where asked for, a GRU that is pretrained on the same N recordings and tuned to the same labels.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.artifact import Session
from poyo_edge.calibration import Calibrator
from poyo_edge.calibration.from_recording import add_recording, from_unlabelled
from poyo_edge.errors import UsageError
from poyo_edge.evaluation.pretrained_gru import (
    LEAST_UNLABELLED_S,
    PRETRAINED,
    PretrainedGru,
    decode_session,
    pretrained_on,
)
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint
from poyo_edge.figures import draw_scaling
from poyo_edge.files.writing import write_bytes
from poyo_edge.metrics import r2_per_dim
from poyo_edge.recording import Recording
from poyo_edge.runtime.checks.replay import replay
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.training import Recipe, load_recipe, train
from poyo_edge.training.lazy import LazyRecording

CELLS = "cells.json"
JUDGED = "test"
"""The split of held-out recordings that is decoded."""
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
    seconds: tuple[float, ...]
    """Labelled seconds for calibration, ascending; 0 guesses from a minute without labels."""
    baselines: tuple[str, ...] = ()
    """"gru-pretrained" or nothing."""

    def __post_init__(self) -> None:
        if not self.seconds or list(self.seconds) != sorted({*self.seconds}):
            raise UsageError(f"seconds: expected different ones that ascend, got {self.seconds}")
        few = [seconds for seconds in self.seconds if not (seconds == 0 or seconds >= 1)]
        if few:
            raise UsageError(
                f"--seconds: expected 0, for a guess without labels, or 1 and more, got {few[0]:g}"
            )
        unknown = sorted({*self.baselines} - {PRETRAINED})
        if unknown:
            raise UsageError(
                f"--baselines: expected {PRETRAINED} or none, got {', '.join(unknown)}"
            )
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
        if 0 in self.seconds and not own.share_units:
            raise UsageError(
                f"--seconds: expected more than 0 for the recipe {self.recipe}, got 0; its units "
                f"share no embeddings, and nothing can be guessed of others: "
                f"--set share_units=electrode, or the recipe chronic"
            )
        found = {}
        for size in self.sizes or (f"{own.spec.dim}x{own.spec.depth}",):
            dim, _, depth = size.partition("x")
            if not dim.isdecimal() or not depth.isdecimal():
                raise UsageError(f"--size: expected DIMxDEPTH, like 64x6, got {size!r}")
            sizes = [f"model.dim={dim}", f"model.depth={depth}"]
            found[size] = load_recipe(self.recipe, [*self.overrides, *sizes])
        return found


def run_study(
    study: Study, folder: Path, *, say: Say, bar: Bar
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make the cells that the folder lacks, each written as soon as it is done; draw them all.

    Args:
        study: what to train.
        folder: for models, ``cells.json`` and the picture; a killed study goes on from there.
        say: told each step.
        bar: told progress.

    Returns:
        Cells of the models, and those of the baselines.

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
    counts = sorted(set(study.sessions))
    wanted = [(size, n) for n in counts for size in recipes]
    for count, (size, n_sessions) in enumerate(wanted, start=1):
        name = f"{n_sessions}_{size}"
        stem, recipe = folder / name, recipes[size]
        if name not in cells:
            say(f"model {count} of {len(wanted)}: {n_sessions} sessions, size {size}")
            cells[name] = {"size": size, **_trained(study, recipe, n_sessions, stem, bar)}
            write_bytes(path, json.dumps(found, indent=1).encode())
        if "heldout" not in cells[name]:
            cells[name] |= _judged(study, partial(_decoded, stem, study, recipe, say))
            write_bytes(path, json.dumps(found, indent=1).encode())
    beside: dict[str, dict[str, Any]] = found.setdefault("baselines", {})
    recipe = next(iter(recipes.values()))
    for name, n_sessions in itertools.product(study.baselines, counts):
        if f"{n_sessions}_{name}" not in beside:
            say(f"{name} on {n_sessions} sessions")
            beside[f"{n_sessions}_{name}"] = {
                "decoder": name,
                **_gru_cell(study, recipe, n_sessions, say),
            }
            write_bytes(path, json.dumps(found, indent=1).encode())
    chosen = [cells[f"{n}_{size}"] for size, n in wanted]
    peers = [beside[f"{n}_{name}"] for name, n in itertools.product(study.baselines, counts)]
    draw_scaling(folder / "scaling.png", chosen, peers)
    return chosen, peers


def _about(study: Study) -> dict[str, Any]:
    """What all cells of a folder have in common."""
    return {
        "recipe": study.recipe,
        "overrides": list(study.overrides),
        "recordings": [path.name for path in study.recordings],
        "held_out": study.held_out,
        "seconds": study.seconds[0] if len(study.seconds) == 1 else list(study.seconds),
    }


def _trained(study: Study, recipe: Recipe, n_sessions: int, stem: Path, bar: Bar) -> dict[str, Any]:
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
    behavior = _behavior(recipe)
    export_checkpoint(checkpoint, artifact, ExportOptions(behavior=behavior, overwrite=True))
    return {
        "n_sessions": n_sessions,
        "n_units": trained.n_units,
        "parameters": trained.n_parameters,
        "steps": trained.steps,
        "train_s": round(trained.wall_s, 1),
        "loss": float(np.mean(trained.losses[-50:])),
    }


def _decoded(
    stem: Path, study: Study, recipe: Recipe, say: Say, path: Path
) -> Iterator[tuple[float, float]]:
    """R² of a recording and the seconds that had labels, for each of the study's seconds."""
    artifact, behavior = stem.with_suffix(".poyo"), _behavior(recipe)
    recording = Recording.open(path)
    session: Session
    for seconds in study.seconds:
        if seconds == 0:
            say(f"guessing {recording.session_id} without labels")
            session, _, _ = from_unlabelled(
                artifact, recording, split="train", seconds=LEAST_UNLABELLED_S
            )
            labelled_s = 0.0
        else:
            say(f"calibrating {recording.session_id} on {seconds:g} s")
            calibrator = Calibrator.open(
                artifact,
                recording.unit_ids,
                session_id=recording.session_id,
                subject=recording.subject_id or None,
            )
            add_recording(calibrator, recording, behavior, seconds=seconds)
            session = fitted = calibrator.fit(seed=recipe.seed)
            labelled_s = fitted.quality.labelled_s
        decoder = Decoder.open(artifact, session=session)
        yield replay(decoder, recording, behavior, split=JUDGED).r2, labelled_s


def _gru_cell(study: Study, recipe: Recipe, n_sessions: int, say: Say) -> dict[str, Any]:
    behavior = _behavior(recipe)
    began = time.monotonic()
    learned = [LazyRecording.open(p, behavior, {}) for p in study.recordings[:n_sessions]]
    network = pretrained_on(learned, seed=recipe.seed, say=say)
    train_s = round(time.monotonic() - began, 1)
    judged = _judged(study, partial(_gru_decoded, network, study, recipe, say))
    return {"n_sessions": n_sessions, "train_s": train_s, **judged}


def _gru_decoded(
    network: PretrainedGru, study: Study, recipe: Recipe, say: Say, path: Path
) -> Iterator[tuple[float, float]]:
    """As ``_decoded``."""
    lazy = LazyRecording.open(path, _behavior(recipe), {})
    times, truth = lazy.samples(lazy.domains[JUDGED])
    for seconds in study.seconds:
        say(f"tuning {PRETRAINED} to {path.stem} on {seconds:g} s")
        decoded = decode_session(network, lazy, times, seconds=seconds, seed=recipe.seed)
        yield float(r2_per_dim(truth, decoded).mean()), seconds


def _judged(
    study: Study, decoded: Callable[[Path], Iterator[tuple[float, float]]]
) -> dict[str, Any]:
    """R² of all held-out recordings; ``r2`` and ``labelled_s`` are those with the most labels."""
    heldout = []
    for path in study.recordings[-study.held_out :]:
        r2, labelled = zip(*decoded(path), strict=True)
        by_seconds = {f"{s:g}": one for s, one in zip(study.seconds, r2, strict=True)}
        heldout.append(
            {
                "session": Recording.open(path).session_id,
                "r2": r2[-1],
                "labelled_s": labelled[-1],
                "r2_by_seconds": by_seconds,
            }
        )
    means = np.mean([list(one["r2_by_seconds"].values()) for one in heldout], axis=0)
    return {
        "r2": float(means[-1]),
        "r2_by_seconds": {f"{s:g}": float(r2) for s, r2 in zip(study.seconds, means, strict=True)},
        "heldout": heldout,
    }


def _behavior(recipe: Recipe) -> str:
    return next(iter(recipe.data.values())).behavior
