"""``poyo-edge replay``: a recording as a stream, and R² of what was decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.next_commands import engine_notes, to_calibrate
from poyo_edge.cli.shared import (
    DEVICE,
    ArtifactPath,
    BackendName,
    Json,
    Quiet,
    SessionName,
    Threads,
    behavior_to,
    command,
    recording_with,
    require_drawing,
    split_to,
)
from poyo_edge.cli.text import Values, health_line, latency_table, pairs, r2_text
from poyo_edge.errors import UsageError


@command(
    DEVICE,
    example="poyo-edge replay demo/demo.poyo demo/recordings/sim_04.h5 "
    "--session demo/sim_04.session",
    old={"--figures": "--report"},
)
def replay(
    artifact: ArtifactPath,
    recording: Annotated[Path, recording_with("The recording to stream")],
    behavior: Annotated[str, behavior_to("compare with")] = "",
    session: SessionName = None,
    split: Annotated[str, split_to("decode")] = "test",
    chunk_ms: Annotated[
        float | None, typer.Option(help="Push at most this many ms of spikes at a time.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder to draw the decoded trace and latencies into.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write each decoded value beside the truth: .csv, .npz or .h5."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file of that name.")] = False,
    backend: BackendName = "auto",
    threads: Threads = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Stream a recording through the runtime and score it, causally."""
    from poyo_edge.recording.confined import open_confined
    from poyo_edge.runtime.checks.replay import replay as run_replay
    from poyo_edge.runtime.checks.values_file import require_writable, write_values
    from poyo_edge.runtime.decoder import Decoder

    console = Console(as_json=as_json, quiet=quiet)
    if report is not None:
        require_drawing(report)
    if out is not None:
        require_writable(out, overwrite=overwrite, reads=(recording, artifact, Path(session or "")))
    source = open_confined(recording)
    chosen = session or _own_session(artifact, source, behavior)
    decoder = Decoder.open(artifact, session=chosen, backend=backend, threads=threads)
    behavior = behavior or _own_behavior(decoder, source)
    _require_known(decoder, artifact, source, behavior)
    remarks = _remarks(decoder, source, behavior, split)
    for remark in (*remarks, *engine_notes(artifact, decoder.backend)):
        console.step(f"note: {remark}")
    console.step(f"decoding {split} of {source.session_id} with {decoder.backend}")
    result = run_replay(
        decoder,
        source,
        behavior,
        split=split,
        chunk_s=None if chunk_ms is None else chunk_ms / 1000,
        on_progress=console.progress,
    )
    values = result.to_json() | {"notes": remarks}
    if report is not None:
        values["pictures"] = _draw(report, result, decoder, f"{source.session_id}, {behavior}")
    if out is not None:
        write_values(out, result, unit=decoder.artifact.manifest.output.unit)
        values["values"] = str(out)
    console.result(values, replay_text(values))


def replay_text(values: Values) -> str:
    """R², protocol, counters that are not 0, and latencies."""
    odd = {name: count for name, count in values["counters"].items() if count}
    lines = {
        "R²": r2_text(values),
        "protocol": "causal: window [t - T, t), nothing at or after t is read",
        "predictions": values["n_predictions"],
        "backend": f"{values['backend']}, session {values['session_id']}",
        "statuses": ", ".join(f"{k} {v}" for k, v in values["statuses"].items() if v),
        "spikes": ", ".join(f"{name} {count}" for name, count in odd.items()),
        "health": health_line(values["health"]),
    }
    if values.get("values"):
        lines["values"] = values["values"]
    if values.get("pictures"):
        lines["pictures"] = "  ".join(values["pictures"])
    return f"{pairs(lines)}\n\n{latency_table(values['latency_ms'])}"


def _require_known(decoder: Any, artifact: Path, source: Any, behavior: str) -> None:
    """Units that no session knows are calibrated first; what to type for it is said.

    Raises:
        RecordingError: none of the recording's units is one of the decoder's session.
    """
    from poyo_edge.errors import RecordingError
    from poyo_edge.runtime.checks.replay import rows_of

    try:
        rows_of(decoder, source)
    except RecordingError as error:
        first = to_calibrate(artifact, source.path, source.session_id, behavior)
        raise RecordingError(
            error.path, error.field, expected=error.expected, got=error.got,
            do=f"fit a session of these units first: {first}; or name theirs with --session",
        ) from None  # fmt: skip


def _own_session(artifact: Path, source: Any, behavior: str) -> str:
    """The recording's own session, which the artifact must have when none was named."""
    from poyo_edge.artifact import Artifact, read_manifest

    known = Artifact(path=artifact, manifest=read_manifest(artifact)).session_files()
    session_id: str = source.session_id
    if session_id not in known:
        first = to_calibrate(artifact, source.path, session_id, behavior)
        raise UsageError(
            f"{artifact}: session: expected one for the recording's own id {session_id!r}, got "
            f"{list(known)[:8]}; fit one first: {first}; or name a .session file or another id "
            f"with --session"
        )
    return session_id


def _own_behavior(decoder: Any, recording: Any) -> str:
    """What the artifact says that it decodes."""
    behavior: str = decoder.artifact.manifest.behavior
    if not behavior:
        raise UsageError(
            f"behavior: expected one of {list(recording.behaviors)}, got none, and the artifact "
            f"does not say what it decodes; name it with --behavior"
        )
    return behavior


def _remarks(decoder: Any, recording: Any, behavior: str, split: str) -> list[str]:
    """What a reader of the R² should know before it is printed."""
    from poyo_edge.runtime.checks.replay import rows_of

    manifest, remarks = decoder.artifact.manifest, []
    if manifest.behavior and behavior != manifest.behavior:
        remarks.append(f"the model decodes {manifest.behavior}; it is compared with {behavior}")
    if not manifest.source.get("scaled", True):
        remarks.append(
            "no output scale is known, so decoded values are in the model's scale and R² means "
            "little; export again with --output-scale"
        )
    else:
        remarks += _about_units(manifest.output, recording, behavior, split)
    unknown = int((rows_of(decoder, recording) < 0).sum())
    if unknown:
        n_units = len(recording.unit_ids)
        remarks.append(
            f"{unknown} of {n_units} units are not in the session; their spikes are ignored"
        )
    return remarks


def _about_units(output: Any, recording: Any, behavior: str, split: str) -> list[str]:
    import numpy as np

    from poyo_edge.recording.units import dimension_remarks
    from poyo_edge.spec import spread_remarks

    unit = recording.behavior_units.get(behavior, "")
    remarks = dimension_remarks(behavior, unit, output)
    series = recording.behavior(behavior, allow_nan=True)
    truth = series.values[recording.within(series.times, split)]
    truth = truth[np.isfinite(truth).all(1)]
    if len(truth) and len(output.scale) in (1, truth.shape[1]):
        remarks += spread_remarks(truth, output)
    return remarks


def _draw(folder: Path, result: Any, decoder: Any, title: str) -> list[str]:
    from poyo_edge.runtime.checks.replay import draw

    unit = decoder.artifact.manifest.output.unit
    return [str(folder / name) for name in draw(folder, result, title=title, unit=unit)]
