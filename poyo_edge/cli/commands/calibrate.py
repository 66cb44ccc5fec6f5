"""``poyo-edge calibrate``: fit a new session to the labelled seconds of a recording."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poyo_edge.cli.commands.text import calibrate_text
from poyo_edge.cli.console import Console, program
from poyo_edge.cli.shared import (
    DEVICE,
    ArtifactPath,
    Json,
    Quiet,
    Threads,
    command,
    require_drawing,
)
from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.files.writing import require_folder, safe_name, write_bytes

if TYPE_CHECKING:
    from poyo_edge.calibration import CalibratedSession

CALIBRATION_JSON, CALIBRATION_PNG = "calibration.json", "calibration.png"


@command(
    DEVICE,
    example="poyo-edge calibrate model.poyo today.h5 --behavior cursor.vel -o today.session",
)
def calibrate(
    artifact: ArtifactPath,
    recording: Annotated[Path, typer.Argument(help="Spikes and behaviour, an HDF5 file.")],
    behavior: Annotated[
        str, typer.Option(help="Behaviour to learn, as GROUP.KEY; default the artifact's.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Default ID.session, here; an older one stays as .previous."
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Use the first seconds of the split only.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the recording to learn from.")] = "train",
    max_wall: Annotated[
        float | None, typer.Option(min=0, help="End after this many seconds, with the best so far.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same session.")] = 0,
    start: Annotated[
        str | None, typer.Option(help="Begin with this session, a file or an id, not afresh.")
    ] = None,
    in_use: Annotated[
        str | None,
        typer.Option(help="Refuse a result that is worse than this session of the same units."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Save it even if it is bad.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for a picture and figures of each unit; some times as slow."),
    ] = None,
    threads: Threads = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a new session on this machine, without torch."""
    from poyo_edge.artifact import Artifact
    from poyo_edge.calibration.calibrator import Calibrator
    from poyo_edge.calibration.from_recording import add_recording
    from poyo_edge.recording.confined import open_confined

    console = Console(as_json=as_json, quiet=quiet)
    source = open_confined(recording)
    target = out or Path(f"{safe_name(source.session_id)}.session")
    require_folder(target)
    if target.is_dir():
        raise UsageError(f"{target}: expected a file to write, got a folder; name it with -o")
    if report is not None:
        require_drawing(report)
    opened = Artifact.open(artifact)
    calibrator = Calibrator.open(
        artifact, source.unit_ids, session_id=source.session_id, threads=threads
    )
    wanted = behavior or opened.manifest.behavior
    if not wanted:
        raise UsageError(
            f"behavior: expected one of {list(source.behaviors)}, got none, and the artifact does "
            f"not say what it decodes; name it with --behavior"
        )
    left_out = add_recording(calibrator, source, wanted, split=split, seconds=seconds)
    if left_out:
        console.step(f"{left_out} samples of {wanted} are NaN and were left out")
    console.step(
        f"fitting {len(source.unit_ids)} units to {calibrator.labelled_s:.1f} labelled s of "
        f"{wanted} in the {split} split; Ctrl-C ends it with the best so far"
    )
    session = calibrator.fit(
        max_seconds=math.inf if max_wall is None else max_wall,
        seed=seed,
        start=start,
        in_use=in_use,
        on_progress=lambda p: console.progress(p.done, p.total, f"held-out R² {p.r2:.3f}"),
        resume_file=target.with_name(f".{target.name}.fit"),
    )
    refused = _saved(session, target, force)
    values: dict[str, Any] = {
        "session": None if refused else str(target),
        "behavior": wanted,
        "nan_samples": left_out,
        **session.quality.to_json(),
        "peak_memory_mb": round(_peak_memory_mb(), 1),
    }
    if report is not None:
        console.step("taking each unit away, and fitting to fewer seconds, for the report")
        examined = calibrator.examine(on_progress=lambda n, total: console.progress(n, total, ""))
        values |= examined.to_json()
        values["report"] = [str(path) for path in _write_report(report, values)]
    console.result(values, calibrate_text(values, artifact, recording, program()))
    if refused:
        raise refused


def _saved(session: CalibratedSession, target: Path, force: bool) -> CheckFailedError | None:
    """Save the session; the reason if it is too bad to be saved."""
    try:
        session.save(target, force=force)
    except CheckFailedError as error:
        return error
    return None


def _peak_memory_mb() -> float:
    """Most memory that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _write_report(folder: Path, values: Mapping[str, Any]) -> list[Path]:
    """All figures as JSON, and a picture of them."""
    from poyo_edge.figures import draw_calibration

    table, picture = folder / CALIBRATION_JSON, folder / CALIBRATION_PNG
    write_bytes(table, json.dumps(values, indent=1).encode())
    draw_calibration(picture, values)
    return [table, picture]
