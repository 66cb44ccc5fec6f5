"""``poyo-edge scaling``: how R² on new sessions grows with sessions and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import (
    TRAIN,
    DataFolder,
    Json,
    Quiet,
    RecipeName,
    RecipeValues,
    command,
    needs,
    recordings_in,
    require_drawing,
)
from poyo_edge.cli.text import Values, markdown
from poyo_edge.files.writing import write_bytes


@command(
    TRAIN,
    example="poyo-edge scaling demo --data demo/recordings --sessions 1 --sessions 4",
)
def scaling(
    recipe: RecipeName,
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
        list[float] | None,
        typer.Option(
            min=0,
            help="Labelled seconds that each is calibrated on; may be repeated; 0 guesses from a "
            "minute without labels; default 60.",
        ),
    ] = None,
    baselines: Annotated[
        str,
        typer.Option(help="gru-pretrained, learned and tuned on the same recordings, or none."),
    ] = "none",
    values: RecipeValues = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on growing numbers of sessions and sizes, and judge on sessions never seen."""
    console = Console(as_json=as_json, quiet=quiet)
    run = needs("all", "poyo_edge.evaluation.scaling")
    require_drawing(out)
    study = run.Study(
        recipe=recipe,
        overrides=tuple(values or ()),
        recordings=tuple(recordings_in(data)),
        sessions=tuple(sessions or (1, 2, 4, 8, 16)),
        sizes=tuple(size or ()),
        held_out=held_out,
        seconds=tuple(sorted({*(seconds or (60.0,))})),
        baselines=tuple(sorted({*baselines.split(",")} - {"", "none"})),
    )
    cells, peers = run.run_study(study, out, say=console.step, bar=console.progress)
    table = scaling_markdown(cells, peers)
    files = {"table": str(out / "scaling.md"), "picture": str(out / "scaling.png")}
    write_bytes(out / "scaling.md", f"{table}\n".encode())
    found = {"cells": cells, "baselines": peers, **files}
    console.result(found, f"{table}\n\nwrote {files['table']} {files['picture']}")


def scaling_markdown(cells: Sequence[Values], peers: Sequence[Values] = ()) -> str:
    """A row for each model and each baseline; a column for each number of labelled seconds."""
    seconds = list(cells[0].get("r2_by_seconds", ()))
    several = len(seconds) > 1
    judged = [f"R², {s} s" for s in seconds] if several else ["R² held out"]
    head = ["sessions", "size", "units", "parameters", "train s", *judged, "lowest, highest"]
    rows = []
    for cell in (*cells, *peers):
        r2 = [one["r2"] for one in cell["heldout"]]
        means = cell["r2_by_seconds"].values() if several else [cell["r2"]]
        if "size" in cell:
            model = [cell["size"], cell["n_units"], f"{cell['parameters']:,}"]
        else:
            model = [cell["decoder"], "–", "–"]
        rows.append(
            [
                cell["n_sessions"],
                *model,
                f"{cell['train_s']:.0f}",
                *(f"{mean:.3f}" for mean in means),
                f"{min(r2):.3f}, {max(r2):.3f}",
            ]
        )
    return markdown(head, rows)
