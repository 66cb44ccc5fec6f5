"""``poyo-edge evaluate``: how well a model decodes, beside baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import (
    LOOK,
    DataFolder,
    Json,
    Quiet,
    behavior_to,
    command,
    needs,
    recordings_in,
    require_drawing,
    seed_of,
    split_to,
)
from poyo_edge.cli.text import Values, markdown
from poyo_edge.errors import UsageError
from poyo_edge.files.writing import write_bytes

NAMES = ("wiener", "mlp", "gru")
PRETRAINED = "gru-pretrained"
"""Takes minutes, and other sessions: only where it is asked for."""


@command(
    LOOK,
    example="poyo-edge evaluate demo/demo.ckpt --data demo/recordings --report evaluation",
)
def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint or an artifact.")],
    data: DataFolder,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another model for a column of its own; may be repeated."),
    ] = None,
    behavior: Annotated[str, behavior_to("decode", whose="model")] = "",
    split: Annotated[str, split_to("judge on", of="recordings")] = "test",
    within: Annotated[
        str, typer.Option(help="Judge in this interval alone, like movement_phases.reach_period.")
    ] = "",
    protocol: Annotated[str, typer.Option(help="causal, acausal, or both.")] = "both",
    baselines: Annotated[
        str,
        typer.Option(help="Some of wiener,mlp,gru,gru-pretrained joined by commas, or none."),
    ] = ",".join(NAMES),
    pretrain: Annotated[
        Path | None,
        typer.Option(help="Recordings that gru-pretrained learns first; default those judged."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Judge one of so many samples.")] = 1,
    seed: Annotated[int, seed_of("Of the baselines.")] = 0,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html, tables (Markdown, JSON) and a picture."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge a model on its sessions, causally and as the papers do, beside baselines."""
    console = Console(as_json=as_json, quiet=quiet)
    evaluating = needs("train", "poyo_edge.evaluation")
    chosen = tuple(name for name in baselines.split(",") if name not in ("", "none"))
    unknown = sorted(set(chosen) - {*NAMES, PRETRAINED})
    if unknown:
        known = ", ".join((*NAMES, PRETRAINED))
        raise UsageError(
            f"--baselines: expected some of {known}, or none, got {', '.join(unknown)}"
        )
    if pretrain is not None and PRETRAINED not in chosen:
        raise UsageError(f"--pretrain: expected --baselines {PRETRAINED} with it, got none")
    if protocol not in (*evaluating.PROTOCOLS, "both"):
        raise UsageError(f"--protocol: expected causal, acausal or both, got {protocol!r}")
    if report is not None:
        require_drawing(report)
    settings = evaluating.EvaluationSettings(
        behavior=behavior,
        split=split,
        within=within,
        protocols=evaluating.PROTOCOLS if protocol == "both" else (protocol,),
        baselines=chosen,
        pretrain=() if pretrain is None else tuple(recordings_in(pretrain)),
        every=every,
        seed=seed,
    )
    values = evaluating.evaluate(
        model, recordings_in(data), settings, against=against or (), on_step=console.step
    )
    if report is not None:
        from poyo_edge.figures import draw_evaluation
        from poyo_edge.reports.evaluation import evaluation_page
        from poyo_edge.reports.page import REPORT_HTML

        table, numbers, picture = (report / f"evaluation.{end}" for end in ("md", "json", "png"))
        write_bytes(table, f"{evaluation_markdown(values)}\n".encode())
        write_bytes(numbers, json.dumps(values, indent=1).encode())
        draw_evaluation(picture, values)
        page = report / REPORT_HTML
        write_bytes(page, evaluation_page(values).encode())
        values["files"] = [str(path) for path in (table, numbers, picture, page)]
    console.result(values, evaluation_text(values))


def evaluation_markdown(values: Values) -> str:
    """A table for each protocol, with a row for each session and each animal."""
    tables = []
    for protocol in values["sessions"][0]["r2"]:
        rows = [(s["session"], s["r2"][protocol]) for s in values["sessions"]]
        if len(values["sessions"]) > 1:
            rows += [
                (f"mean of {s['subject'] or 'all'} ({s['n_sessions']})", s["r2"][protocol])
                for s in values["subjects"]
            ]
        names = list(dict.fromkeys(name for _, r2 in rows for name in r2))
        body = [
            [label, *(f"{r2[name]:.3f}" if name in r2 else "–" for name in names)]
            for label, r2 in rows
        ]
        tables.append(f"{protocol} R²\n\n{markdown([protocol, *names], body)}")
    return "\n\n".join(tables)


def evaluation_text(values: Values) -> str:
    """The tables, and what was written."""
    left = values["left_out"]
    notes = f"\nnot in the model, left out: {', '.join(left[:6])}" if left else ""
    files = f"\n\nwrote {'  '.join(values['files'])}" if values.get("files") else ""
    return f"{evaluation_markdown(values)}{notes}{files}"
