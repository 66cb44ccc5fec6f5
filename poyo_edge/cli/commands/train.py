"""``poyo-edge train``: a model from a folder of recordings, by a recipe."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge.cli.commands.train_text import dry_run_text, train_text
from poyo_edge.cli.console import Console, program
from poyo_edge.cli.shared import START, Json, Quiet, command, needs
from poyo_edge.errors import UsageError

DataFolder = Annotated[Path, typer.Option("--data", help="Folder of recordings (*.h5), or one.")]


@command(START, example="poyo-edge train small --data recordings -o model.ckpt")
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a TOML file.")],
    data: DataFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The checkpoint; default RECIPE.ckpt, here.")
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a value of the recipe, KEY=VALUE; may be repeated."),
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Begin with the weights of this checkpoint.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run of that checkpoint.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a checkpoint, or the state of a run, of that name.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Say what would be trained and what it costs; write nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one model over many sessions, or fine-tune one."""
    first = os.environ.get("RANK", "0") == os.environ.get("LOCAL_RANK", "0") == "0"
    console = Console(as_json=as_json, quiet=quiet or not first)
    training = needs("train", lambda: __import__("poyo_edge.training", fromlist=["_"]))
    chosen = training.load_recipe(recipe, values or ())
    target = out or Path(f"{Path(recipe).stem}.ckpt")
    state, logs = target.with_name(f"{target.name}.resume"), target.with_name(f"{target.name}.logs")
    if dry_run:
        found = _survey(data, chosen, start_from, console)
        console.result(found, dry_run_text(found))
        return
    if first:
        _check_free(target, state, resume=resume, overwrite=overwrite)
    console.step(f"checking recordings in {data}; the recipe is {recipe}: {chosen.about}")
    result = training.train(
        data,
        chosen,
        target,
        start_from=start_from,
        resume=resume,
        state=state,
        logs=logs,
        on_progress=_Bar(console, chosen.batch_size).tell,
        on_note=console.step,
    )
    if first:
        found = {
            "checkpoint": str(result.checkpoint),
            "sessions": list(result.session_ids),
            "n_units": result.n_units,
            "parameters": result.n_parameters,
            "steps": result.steps,
            "loss": result.losses[-1] if result.losses else None,
            "valid_r2": result.r2,
            "wall_s": round(result.wall_s, 1),
            "logs": str(logs),
        }
        console.result(found, train_text(found, data, program()))


def _survey(data: Path, recipe: Any, start_from: Path | None, console: Console) -> dict[str, Any]:
    from poyo_edge.training.start import prepare
    from poyo_edge.training.survey import survey

    console.step(f"checking recordings in {data}")
    plan = prepare(data, recipe, start_from=start_from, on_progress=console.progress)
    console.step("measuring a few steps")
    return survey(plan)


def _check_free(target: Path, state: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to write over what a run has left, before anything is read."""
    if target.is_dir():
        raise UsageError(f"{target}: expected a file to write, got a folder; name it with -o")
    if resume or overwrite:
        return
    if state.exists():
        raise UsageError(
            f"{state}: expected no interrupted run of that name, got one; continue it with "
            f"--resume, choose another with -o, or pass --overwrite"
        )
    if target.exists():
        raise UsageError(
            f"{target}: expected a name that is free, got a file; choose another with -o or pass "
            f"--overwrite"
        )


class _Bar:
    """Progress with windows a second and the time that is left."""

    def __init__(self, console: Console, batch_size: int) -> None:
        self._console, self._batch_size = console, batch_size
        self._started, self._first = 0.0, 0

    def tell(self, step: int, steps: int, loss: float) -> None:
        """One step is done."""
        now = time.monotonic()
        if not self._first:
            self._started, self._first = now, step
        per_step = (now - self._started) / max(1, step - self._first)
        rate = f"{self._batch_size / per_step:.0f} samples/s" if per_step else ""
        left = _duration(per_step * (steps - step))
        self._console.progress(step, steps, f"loss {loss:.3f}  {rate}  {left} left")


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
