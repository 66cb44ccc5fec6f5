"""``poyo-edge evaluate`` and ``poyo-edge scaling``: how well models decode, and how that grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.commands.train import DataFolder
from poyo_edge.cli.commands.train_text import evaluation_markdown, evaluation_text, scaling_markdown
from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import LOOK, Json, Quiet, command, needs, require_drawing
from poyo_edge.errors import UsageError
from poyo_edge.files.writing import write_bytes

NAMES = ("wiener", "mlp", "gru")


@command(LOOK, example="poyo-edge evaluate model.ckpt --data recordings --report evaluation")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint or an artifact.")],
    data: DataFolder,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another model for a column of its own; may be repeated."),
    ] = None,
    behavior: Annotated[
        str, typer.Option(help="Behaviour to decode, as GROUP.KEY; default the model's.")
    ] = "",
    split: Annotated[str, typer.Option(help="Split of the recordings to judge on.")] = "test",
    within: Annotated[
        str, typer.Option(help="Judge in this interval alone, like movement_phases.reach_period.")
    ] = "",
    protocol: Annotated[str, typer.Option(help="causal, acausal, or both.")] = "both",
    baselines: Annotated[
        str, typer.Option(help="Some of wiener,mlp,gru joined by commas, or none.")
    ] = ",".join(NAMES),
    every: Annotated[int, typer.Option(min=1, help="Judge one of so many samples.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the baselines.")] = 0,
    report: Annotated[
        Path | None, typer.Option(help="Folder for the tables (Markdown, JSON) and a picture.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge a model on its sessions, causally and as the papers do, beside baselines."""
    console = Console(as_json=as_json, quiet=quiet)
    evaluating = needs("train", lambda: __import__("poyo_edge.evaluation.evaluate", fromlist=["_"]))
    chosen = tuple(name for name in baselines.split(",") if name not in ("", "none"))
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        raise UsageError(
            f"--baselines: expected some of {', '.join(NAMES)}, or none, got {', '.join(unknown)}"
        )
    if protocol not in (*evaluating.PROTOCOLS, "both"):
        raise UsageError(f"--protocol: expected causal, acausal or both, got {protocol!r}")
    if report is not None:
        require_drawing(report)
    settings = evaluating.Settings(
        behavior=behavior,
        split=split,
        within=within,
        protocols=evaluating.PROTOCOLS if protocol == "both" else (protocol,),
        baselines=chosen,
        every=every,
        seed=seed,
    )
    values = evaluating.evaluate(
        model, recordings_in(data), settings, against=against or (), say=console.step
    )
    if report is not None:
        from poyo_edge.figures import draw_evaluation

        table, numbers, picture = (report / f"evaluation.{end}" for end in ("md", "json", "png"))
        write_bytes(table, f"{evaluation_markdown(values)}\n".encode())
        write_bytes(numbers, json.dumps(values, indent=1).encode())
        draw_evaluation(picture, values)
        values["files"] = [str(path) for path in (table, numbers, picture)]
    console.result(values, evaluation_text(values))


def recordings_in(data: Path) -> list[Path]:
    """The recordings of a folder and of the folders in it, or the one that is named.

    Raises:
        UsageError: there are none.
    """
    found = [data] if data.is_file() else sorted([*data.glob("*.h5"), *data.glob("*/*.h5")])
    if not found:
        raise UsageError(f"{data}: expected recordings (*.h5), got none; correct --data")
    return found


@command(LOOK, example="poyo-edge scaling small --data recordings --sessions 1 --sessions 4")
def scaling(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a TOML file.")],
    data: DataFolder,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for models, table and picture.")
    ] = Path("scaling"),
    sessions: Annotated[
        list[int] | None, typer.Option(min=1, help="How many to train on; may be repeated.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="Sizes as DIMxDEPTH, like 64x6; may be repeated; default the recipe's."),
    ] = None,
    held_out: Annotated[
        int, typer.Option(min=1, help="Last recordings of the folder, which no model sees.")
    ] = 2,
    seconds: Annotated[
        float, typer.Option(min=1, help="Labelled seconds that each is calibrated on.")
    ] = 60.0,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a value of the recipe, KEY=VALUE; may be repeated."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on growing numbers of sessions and sizes, and judge on sessions never seen."""
    console = Console(as_json=as_json, quiet=quiet)
    run = needs("all", lambda: __import__("poyo_edge.evaluation.scaling", fromlist=["_"]))
    require_drawing(out)
    study = run.Study(
        recipe=recipe,
        overrides=tuple(values or ()),
        recordings=tuple(recordings_in(data)),
        sessions=tuple(sessions or (1, 2, 4, 8, 16)),
        sizes=tuple(size or ()),
        held_out=held_out,
        seconds=seconds,
    )
    cells = run.run_study(study, out, say=console.step, bar=console.progress)
    found = {"cells": cells, "table": str(out / "scaling.md"), "picture": str(out / "scaling.png")}
    write_bytes(out / "scaling.md", f"{scaling_markdown(cells)}\n".encode())
    console.result(found, f"{scaling_markdown(cells)}\n\nwrote {found['table']} {found['picture']}")
