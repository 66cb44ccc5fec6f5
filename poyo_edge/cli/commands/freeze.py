"""``poyo-edge freeze``: a session and its core as one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import DEPLOY, ArtifactPath, Json, SessionName, command
from poyo_edge.cli.text import Values


@command(
    DEPLOY,
    example="poyo-edge freeze demo/demo.poyo --session sim_00 -o sim_00.onnx",
    old={"--force": "--overwrite"},
)
def freeze(
    artifact: ArtifactPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, NAME.onnx.")],
    session: SessionName = None,
    plain: Annotated[
        bool,
        typer.Option(help="Standard operators only, for others than ONNX Runtime on a CPU."),
    ] = False,
    kernels: Annotated[
        bool,
        typer.Option(help="Operators of our own, for programs that load their library."),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write one ONNX file that any ONNX Runtime decodes a session with."""
    from poyo_edge.export.freeze import freeze_session

    report = freeze_session(
        artifact, session, out, plain=plain, kernels=kernels, overwrite=overwrite
    ).to_json()
    Console(as_json=as_json).result(report, freeze_text(report))


def freeze_text(report: Values) -> str:
    """What was written, and how to decode with it."""
    made = "for ONNX Runtime on a CPU" if report["fused"] else "in standard operators"
    made = "in operators of our own" if report["kernels"] else made
    return (
        f"{report['out']}: session {report['session_id']}, {report['n_units']} units, "
        f"{report['bytes'] / 1e6:.1f} MB, {made}\n"
        f"largest difference from the artifact in {report['n_windows']} windows: "
        f"{report['max_abs_error']:.1e} (allowed {report['tolerance']:.1e})\n"
        f"inputs: spike_unit (1, n) int32, spike_time (1, n) float32 seconds from the window's "
        f"start; output: value"
    )
