"""``poyo-edge calibrate``: fit a new session to the labelled seconds of a recording."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from poyo_edge.cli.console import Console, program
from poyo_edge.cli.shared import (
    DEVICE,
    ArtifactPath,
    Json,
    Quiet,
    behavior_to,
    can_draw,
    command,
    labels_to,
    recording_with,
    require_report,
    seed_of,
    split_to,
)
from poyo_edge.cli.text import Values, control_lines, lead_text, pairs, table, wiener_lines
from poyo_edge.cli.unlabelled import LABELS_NONE, guess_session, require_unused
from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.files.writing import require_folder, safe_name, write_bytes

if TYPE_CHECKING:
    from poyo_edge.calibration import CalibratedSession, Calibrator, Progress
    from poyo_edge.calibration.intention import IntentionSettings
    from poyo_edge.recording import Recording
    from poyo_edge.spec import OutputScale

CALIBRATION_JSON, CALIBRATION_PNG = "calibration.json", "calibration.png"
_FITS = ("behavior", "max_wall", "seed", "start", "in_use", "force", "report", "threads")
"""Options that say how a session is fitted."""
_FAR = 2.0
"""Root mean square of a unit's z from which on it is called far."""


@command(
    DEVICE,
    example="poyo-edge calibrate demo/demo.poyo demo/recordings/sim_04.h5 -o today.session",
)
def calibrate(
    context: typer.Context,
    artifact: ArtifactPath,
    recording: Annotated[Path, recording_with("Spikes and behaviour")],
    behavior: Annotated[str, behavior_to("learn")] = "",
    labels: Annotated[str, labels_to("learn from", none=True)] = "behavior",
    cursor: Annotated[
        str,
        typer.Option(help="Shown positions for labels of intention; default pos beside behavior."),
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
    split: Annotated[str, split_to("learn from")] = "train",
    max_wall: Annotated[
        float | None, typer.Option(min=0, help="End after this many seconds, with the best so far.")
    ] = None,
    seed: Annotated[int, seed_of("The same seed gives the same session.")] = 0,
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
        typer.Option(
            help="Folder for report.html, with pictures and each unit; some times as slow."
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(min=1, max=256, help="Windows to work on at once; the same bits with any."),
    ] = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a new session on this machine, without torch."""
    from poyo_edge.artifact import Artifact
    from poyo_edge.calibration.calibrator import Calibrator
    from poyo_edge.calibration.intention import settings_for
    from poyo_edge.recording.confined import open_confined
    from poyo_edge.recording.units import dimension_remarks

    console = Console(as_json=as_json, quiet=quiet)
    unlabelled = labels == LABELS_NONE
    intention = None if unlabelled else settings_for(labels)
    if cursor and intention is None:
        raise UsageError("--cursor: expected --labels intention:KIND with it, got none")
    source = open_confined(recording)
    target = out or Path(f"{safe_name(source.session_id)}.session")
    require_folder(target)
    if target.is_dir():
        raise UsageError(f"{target}: expected a file to write, got a folder; name it with -o")
    if unlabelled:
        require_unused(context, _FITS, "--labels none fits nothing")
        console.result(*guess_session(artifact, source, target, split=split, seconds=seconds))
        return
    if report is not None:
        require_report(report)
    opened = Artifact.open(artifact)
    calibrator = Calibrator.open(
        artifact,
        source.unit_ids,
        session_id=source.session_id,
        threads=threads,
        subject=source.subject_id or None,
    )
    wanted = behavior or opened.manifest.behavior
    if not wanted:
        raise UsageError(
            f"behavior: expected one of {list(source.behaviors)}, got none, and the artifact does "
            f"not say what it decodes; name it with --behavior"
        )
    unit = source.behavior_units.get(wanted, "")
    for remark in dimension_remarks(wanted, unit, opened.manifest.output):
        console.step(f"note: {remark}")
    shown = cursor or f"{wanted.partition('.')[0]}.pos"
    given = _Given(behavior=wanted, split=split, seconds=seconds, cursor=shown)
    left_out = _add(calibrator, source, given, intention, console)
    console.step(
        f"fitting {len(source.unit_ids)} units to {calibrator.labelled_s:.1f} labelled s of "
        f"{labels if intention else wanted} in the {split} split; Ctrl-C ends it with the best so "
        f"far"
    )
    session = calibrator.fit(
        max_seconds=math.inf if max_wall is None else max_wall,
        seed=seed,
        start=start,
        in_use=in_use,
        on_progress=lambda p: console.progress(p.done, p.total, _progress_text(p)),
        resume_file=target.with_name(f".{target.name}.fit"),
    )
    refused = _saved(session, target, force)
    if refused and session.quality.r2_heldout <= 0:
        refused = _position_too(refused, wanted, unit, opened.manifest.output)
    values: dict[str, Any] = {
        "session": None if refused else str(target),
        "behavior": wanted,
        "nan_samples": left_out,
        **session.quality.to_json(),
        "peak_memory_mb": round(_peak_memory_mb(), 1),
    }
    if report is not None:
        if not refused:
            r2 = session.quality.r2_heldout
            console.step(f"wrote {target}: held-out R² {r2:.3f}; all of it behind the report")
        values["report"] = _examined(calibrator, values, report, console)
    console.result(values, calibrate_text(values, artifact, recording, program()))
    if refused:
        raise refused


def _examined(
    calibrator: Calibrator, values: dict[str, Any], folder: Path, console: Console
) -> list[str]:
    """Add to the values what the report alone needs, and write it; none where Ctrl-C ended it."""
    began = time.monotonic()

    def tell(done: int, total: int) -> None:
        left = math.ceil((time.monotonic() - began) * (total - done) / max(1, done))
        console.progress(done, total, f"{left} s left" if 0 < done < total else "")

    try:
        console.step(
            "taking each unit away, and fitting to fewer seconds, for the report; "
            "Ctrl-C leaves it out"
        )
        examined = calibrator.examine(on_progress=tell)
    except KeyboardInterrupt:
        console.step("interrupted: no report; what was fitted stands")
        return []
    values |= examined.to_json()
    return [str(path) for path in _write_report(folder, values)]


class _Given(NamedTuple):
    """What of a recording is learned from."""

    behavior: str
    split: str
    seconds: float | None
    cursor: str
    """Shown positions, for labels of intention."""


def _add(
    calibrator: Calibrator,
    source: Recording,
    given: _Given,
    intention: IntentionSettings | None,
    console: Console,
) -> int:
    """Hand the labels over; how many samples are left out because they are NaN."""
    from poyo_edge.calibration.from_recording import add_intentions, add_recording

    split, seconds = given.split, given.seconds
    if intention is not None:
        made = add_intentions(
            calibrator, source, given.cursor, intention, split=split, seconds=seconds
        )
        console.step(lead_text(made.report.to_json()))
        return 0
    left_out = add_recording(calibrator, source, given.behavior, split=split, seconds=seconds)
    if left_out:
        console.step(f"{left_out} samples of {given.behavior} are NaN and were left out")
    return left_out


def _progress_text(progress: Progress) -> str:
    """Held-out R² at the last judgement, and the time that is left at this pace."""
    left = "" if progress.left_s is None else f", {math.ceil(progress.left_s)} s left"
    return f"held-out R² {progress.r2:.3f} at step {progress.judged_at}{left}"


def _saved(session: CalibratedSession, target: Path, force: bool) -> CheckFailedError | None:
    """Save the session; the reason if it is too bad to be saved."""
    try:
        session.save(target, force=force)
    except CheckFailedError as error:
        return error
    return None


def _position_too(
    refused: CheckFailedError, behavior: str, unit: str, output: OutputScale
) -> CheckFailedError:
    """The refusal with what may be wrong: a position where the model decodes a velocity."""
    from poyo_edge.recording.suggesting import is_position

    if not is_position(behavior, unit) or is_position("", output.unit):
        return refused
    model = f" ({output.unit})" if output.unit else ""
    return CheckFailedError(
        f"{refused}; {behavior} looks like a position, and the model decodes what it was trained "
        f"on{model}: if that is a velocity, name the velocity with --behavior"
    )


def _peak_memory_mb() -> float:
    """Most memory that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _write_report(folder: Path, values: Mapping[str, Any]) -> list[Path]:
    """All figures as JSON, a page that explains them, and a picture where one can be drawn."""
    from poyo_edge.reports.calibration import calibration_page
    from poyo_edge.reports.page import REPORT_HTML

    written = [folder / CALIBRATION_JSON, folder / REPORT_HTML]
    write_bytes(written[0], json.dumps(values, indent=1).encode())
    write_bytes(written[1], calibration_page(values).encode())
    if can_draw():
        from poyo_edge.figures import draw_calibration

        draw_calibration(folder / CALIBRATION_PNG, values)
        written.append(folder / CALIBRATION_PNG)
    return written


def calibrate_text(values: Values, artifact: Path, recording: Path, program: str) -> str:
    """The learning curve, R² with its interval, what was noticed, and what to type next."""
    best = values["steps"]
    rows = [
        [
            point["step"],
            "" if point["loss"] is None else f"{point['loss']:.4f}",
            f"{point['r2']:.3f}",
            "  ".join(f"{r2:.3f}" for r2 in point["r2_per_dim"]),
            _taken(values) if point["step"] == best else "",
        ]
        for point in values["curve"]
    ]
    dims = [
        f"{r2:.3f} ({low:.2f} to {high:.2f})"
        for r2, (low, high) in zip(values["r2_per_dim"], values["r2_interval"], strict=True)
    ]
    silent = values["silent_units"]
    lines = {
        "held-out R²": f"{values['r2_heldout']:.4f}, causal, on {values['n_judged']} samples in "
        "blocks that were not learned from",
        "per dimension": ", ".join(dims) + ", 95 % intervals",
        "labels": f"{values['labelled_s']:.1f} s",
        "steps": f"{best} ({values['stopped']}), {values['wall_s']:.1f} s in all",
        "memory": f"{values['peak_memory_mb']:.0f} MB at most",
    }
    if values.get("encoder"):
        lines["steps"] += "; the encoder's weights are fitted too"
    if values["r2_in_use"] is not None:
        lines["session in use"] = f"R² {values['r2_in_use']:.4f} on the same samples"
    lines |= control_lines(values) | wiener_lines(values)
    if silent:
        lines["silent units"] = f"{len(silent)}: {', '.join(silent[:6])}" + " …" * (len(silent) > 6)
    for unit, other, alike in values.get("alike", ())[:6]:
        lines[f"alike: {unit}"] = f"{other}, correlation {alike}: one unit twice?"
    far = [unit["unit"] for unit in values.get("units", ()) if unit["distance"] > _FAR]
    if far:
        lines["far from trained units"] = ", ".join(far[:6]) + " …" * (len(far) > 6)
    if values.get("report"):
        lines["report"] = "  ".join(values["report"])
    notes = "".join(f"\nnote: {note}" for note in values["notes"])
    curve = table(["step", "loss", "R²", "per dimension", ""], rows)
    session = values["session"]
    end = "nothing was written" if session is None else f"wrote {session}"
    if session is not None and not values["labels"]:
        end += "\n\nNext:\n"
        end += f"  {program} replay {artifact} {recording} --behavior {values['behavior']} "
        end += f"--session {session}"
    return f"{curve}\n\n{pairs(lines)}{notes}\n\n{end}"


def _taken(values: Values) -> str:
    """Why a point of the curve was taken."""
    highest = max(point["r2"] for point in values["curve"])
    best = highest <= values["r2_heldout"] + 1e-6
    return "taken" if best else "taken: the latest not clearly worse than the best"
