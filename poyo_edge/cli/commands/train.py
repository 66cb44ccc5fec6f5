"""``poyo-edge train``: a model from a folder of recordings, by a recipe."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge.cli.console import Console, program
from poyo_edge.cli.shared import (
    TRAIN,
    DataFolder,
    Json,
    Quiet,
    RecipeName,
    RecipeValues,
    command,
    needs,
)
from poyo_edge.cli.text import Values, pairs, table
from poyo_edge.errors import UsageError

_SHOWN = 40
"""Sessions that a dry run lists."""


@command(TRAIN, example="poyo-edge train demo --data demo/recordings -o model.ckpt")
def train(
    recipe: RecipeName,
    data: DataFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The checkpoint; default RECIPE.ckpt, here.")
    ] = None,
    values: RecipeValues = None,
    behavior: Annotated[
        str,
        typer.Option(help="What to decode, as GROUP.KEY, in all sources; default the recipe's."),
    ] = "",
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Begin with the weights of this checkpoint.")
    ] = None,
    session: Annotated[
        list[Path] | None,
        typer.Option(help="And with what calibrate found for a session; may be repeated."),
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
    training = needs("train", "poyo_edge.training")
    chosen = training.load_recipe(recipe, values or ())
    if behavior:
        chosen = chosen.with_behavior(behavior)
    target = out or Path(f"{Path(recipe).stem}.ckpt")
    state, logs = target.with_name(f"{target.name}.resume"), target.with_name(f"{target.name}.logs")
    if dry_run:
        found = _survey(data, chosen, start_from, session or [], console)
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
        start_sessions=session or [],
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
            "start_share": round(result.start_share, 4),
            "logs": str(logs),
        }
        console.result(found, train_text(found, data, program()))


def _survey(
    data: Path, recipe: Any, start_from: Path | None, begins: list[Path], console: Console
) -> dict[str, Any]:
    from poyo_edge.training.start import prepare
    from poyo_edge.training.survey import survey

    console.step(f"checking recordings in {data}")
    plan = prepare(
        data, recipe, start_from=start_from, start_sessions=begins, on_progress=console.progress
    )
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


def dry_run_text(values: Values) -> str:
    """Sessions, sizes, costs and early warnings."""
    rows = [
        [
            s["session"],
            s["subject"] or "–",
            s["units"],
            f"{s['split_s'] / 60:.1f}",
            f"{s['spikes_per_s']:.0f}",
            " ".join(f"{x:g}" for x in s["sd"]),
        ]
        for s in values["sessions"][:_SHOWN]
    ]
    more = len(values["sessions"]) - _SHOWN
    head = ["session", "subject", "units", "minutes", "spikes/s", "behaviour sd"]
    lines = {
        "sessions": f"{values['n_sessions']}" + f", {more} of them not shown" * (more > 0),
        "subjects": values["n_subjects"],
        "units": values["n_units"],
        "hours": f"{values['hours']:.2f} in the split",
        "windows": f"{values['n_windows']} in an epoch of {values['steps_per_epoch']} steps",
        "tokens per window": f"{values['tokens_per_window']:.0f}, at most "
        f"{values['most_tokens_per_window']} in the batches that were measured",
        "parameters": f"{values['parameters']:,} and {values['table_parameters']:,} in the tables",
        "memory": f"{values['peak_memory_mb']:.0f} MB at most while measuring on "
        f"{values['device']}; weights, gradients and moments take {values['state_mb']:.0f} MB",
        "step": f"{values['step_s']:.3f} s, {values['samples_per_s']:.0f} samples/s",
        "epoch": _time(values["epoch_s"]),
        "run": f"{_time(values['run_s'])} for {values['steps']} steps",
    }
    notes = "".join(f"\nwarning: {sentence}" for sentence in values["warnings"])
    return f"{table(head, rows)}\n\n{pairs(lines)}{notes}\n\ndry run: nothing was written"


def train_text(values: Values, data: Path, program: str) -> str:
    """What was trained, and what to type next."""
    r2 = values["valid_r2"]
    lines = {
        "checkpoint": values["checkpoint"],
        "sessions": f"{len(values['sessions'])}, {values['n_units']} units",
        "parameters": f"{values['parameters']:,} without the tables",
        "steps": f"{values['steps']}, {_time(values['wall_s'])}, last loss {values['loss']:.4f}"
        if values["loss"] is not None
        else values["steps"],
        "valid R²": f"{sum(r2.values()) / len(r2):.3f} (causal, {len(r2)} sessions)"
        if r2
        else "not measured (validate_every)",
        "log": values["logs"],
    }
    if share := values["start_share"]:
        lines["kept"] = (
            f"{1 - share:.2f} of the way from what tuning began with; "
            f"--set start_worth_s=0 keeps all of it"
        )
    checkpoint = values["checkpoint"]
    return (
        f"{pairs(lines)}\n\nNext:\n  {program} evaluate {checkpoint} --data {data}\n"
        f"  {program} export {checkpoint}"
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
