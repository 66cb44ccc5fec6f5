"""``poyo-edge build``: engines for a machine, or everything short of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge.cli.commands.build_text import TEXT, WIDTH, build_screen, build_text
from poyo_edge.cli.console import Console, program
from poyo_edge.cli.shared import (
    DEPLOY,
    ArtifactPath,
    DecodedBehavior,
    Json,
    Quiet,
    SessionName,
    among,
    command,
)
from poyo_edge.errors import UsageError
from poyo_edge.export.engines.plan import FOLDER
from poyo_edge.files.writing import own_folder, require_folder, write_bytes
from poyo_edge.targets import TARGETS


@command(DEPLOY, example="poyo-edge build demo/demo.poyo --target jetson")
def build(
    artifact: ArtifactPath,
    target: Annotated[
        str | None,
        typer.Option(
            autocompletion=among(TARGETS),
            help="jetson, jetson-orin, jetson-thor, rtx, cuda or cpu. On a Jetson it may be left "
            "out: the target is that Jetson. Anywhere else it must be named.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp16 (engines' default), fp32 or bf16; on the CPU fp32, or bf16 or int8 with a "
            "recording."
        ),
    ] = None,
    max_spikes: Annotated[
        int | None,
        typer.Option(min=1, help="Largest window to build for; default the artifact's own."),
    ] = None,
    recording: Annotated[
        Path | None, typer.Option(help="Also compare R² on this recording's test split.")
    ] = None,
    behavior: DecodedBehavior = "",
    session: SessionName = None,
    rebuild: Annotated[bool, typer.Option(help="Build engines that are there, too.")] = False,
    systemd: Annotated[
        str | None,
        typer.Option(help="Write a unit file that builds at start; the artifact's path there."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write everything that was found, to send to us.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build engines for a machine, or everything short of them elsewhere."""

    from poyo_edge.export import BuildOptions, build_engines

    if systemd is not None and not systemd.startswith("/"):
        raise UsageError(f"systemd: expected the artifact's absolute path there, got {systemd!r}")
    if report is not None:
        require_folder(report)
    console = Console(as_json=as_json, quiet=quiet)
    options = BuildOptions(
        target=target,
        precision=precision,
        max_spikes=max_spikes,
        session=session,
        recording=recording,
        behavior=behavior,
        rebuild=rebuild,
        systemd=systemd,
    )

    def progress(phase: str, done: int, total: int) -> None:
        if total and console.on_terminal():
            console.progress(done, total, phase[:24])

    values = build_engines(artifact, options, on_step=console.step, on_progress=progress)
    if report is not None:
        _write_report(report, values)
    short = {name: value for name, value in values.items() if name != "layers"}
    short["kernel_plan"] = {
        size: {name: value for name, value in plan.items() if name != "layers"}
        for size, plan in values["kernel_plan"].items()
    }
    if values["target"] not in ("cuda", "cpu"):
        _write_text(artifact, build_text(values, program()))
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    console.result(short, build_screen(values, program(), width))


def _write_text(artifact: Path, text: str) -> None:
    """Everything, beside the plan; the screen has what one reads at once."""
    folder = artifact / FOLDER
    own_folder(folder)
    write_bytes(folder / TEXT, (text + "\n").encode())


def _write_report(path: Path, values: dict[str, Any]) -> None:
    """What the command found and what ``doctor`` finds, in one file."""
    from poyo_edge.doctor import examine

    text = json.dumps({"build": values, "doctor": examine()}, indent=1, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())
