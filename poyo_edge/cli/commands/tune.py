"""``poyo-edge tune``: gain, lead, smoothing and speed scaling for a session, by simulation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import (
    DEVICE,
    ArtifactPath,
    BackendName,
    Json,
    Quiet,
    Threads,
    behavior_to,
    command,
    seed_of,
)
from poyo_edge.cli.text import Values, markdown, pairs
from poyo_edge.errors import UsageError
from poyo_edge.files.writing import require_folder

if TYPE_CHECKING:
    from poyo_edge.runtime.decoder import Decoder
    from poyo_edge.simulation.array import SimulatedArray
    from poyo_edge.simulation.tune import Tried

_SHOWN = 8
"""Candidates that the table has."""


@command(
    DEVICE,
    example="poyo-edge tune demo/demo.poyo --session demo/sim_04.session -o control.json",
    old={"--force": "--overwrite"},
)
def tune(
    artifact: ArtifactPath,
    session: Annotated[
        str, typer.Option(help="A .session file, or the id of a session in the artifact.")
    ],
    recording: Annotated[
        Path | None,
        typer.Option(
            help="Fit the simulated array to this recording of the session's units; default one "
            "that is made from the session's own record."
        ),
    ] = None,
    behavior: Annotated[str, behavior_to("fit the array to")] = "",
    latency: Annotated[
        float, typer.Option(help="Of the rig in ms: from a value to the cursor's movement by it.")
    ] = 0.0,
    radius: Annotated[
        list[float] | None,
        typer.Option(help="Radius of targets in cm; may be repeated; default 1.2, 0.8."),
    ] = None,
    distance: Annotated[float, typer.Option(help="Of targets from the middle, in cm.")] = 7.0,
    trials: Annotated[int, typer.Option(help="For each radius, of the best candidates.")] = 40,
    seed: Annotated[int, seed_of("Of spikes, person and targets.")] = 1000,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the settings there, for run.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the file that is there.")] = False,
    backend: BackendName = "auto",
    threads: Threads = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose gain, lead, smoothing and speed scaling by simulation."""
    from poyo_edge.runtime.decoder import Decoder
    from poyo_edge.simulation.array import TICK_HZ
    from poyo_edge.simulation.calibrating import require_plane
    from poyo_edge.simulation.decoding import LoopDecoding
    from poyo_edge.simulation.tasks import TaskSettings
    from poyo_edge.simulation.tune import TuneSettings
    from poyo_edge.simulation.tune import tune as tuned_by

    console = Console(as_json=as_json, quiet=quiet)
    if out is not None and out.exists() and not overwrite:
        raise UsageError(
            f"{out}: expected no such file yet, got one; name another, or pass --overwrite"
        )
    if out is not None:
        require_folder(out)
        if out.is_dir():
            raise UsageError(f"{out}: expected the name of a file, got a folder; name another")
    settings = TuneSettings(
        latency_ms=latency, radii_cm=tuple(radius or (1.2, 0.8)), n_trials=trials, seed=seed
    )
    task = TaskSettings(distance_cm=distance)
    require_plane(artifact)
    decoder = Decoder.open(
        artifact, session=session, backend=backend, threads=threads, tick_rate_hz=TICK_HZ
    )
    array = _array(console, decoder, recording, behavior)
    found = tuned_by(
        array,
        LoopDecoding(decoder, array.unit_ids, rate_hz=1 / array.period_s),
        settings,
        task=task,
        on_progress=lambda tried: console.step(_said(tried)),
    )
    if out is not None:
        found.settings.save(out)
    values: Values = {
        "artifact": str(artifact),
        "session": decoder.session_id,
        "array": "session" if recording is None else str(recording),
        "latency_ms": latency,
        "radii_cm": list(settings.radii_cm),
        "control": found.settings.to_json(),
        "bits_per_s": round(found.bits_per_s, 4),
        "bits_per_s_before": round(found.bits_per_s_before, 4),
        "tried": [one.to_json() for one in found.tried],
        "out": None if out is None else str(out),
    }
    console.result(values, tune_text(values))


def tune_text(values: Values) -> str:
    """What was tried, what was chosen, and what to type next."""
    names = ("gain", "lead_ms", "smoothing_ms", "speed_exponent")
    rows = [
        [*(f"{one[name]:g}" for name in names), str(one["n_trials"]), f"{one['bits_per_s']:.2f}",
         f"{100 * one['success']:.0f}"]
        for one in sorted(values["tried"], key=lambda one: (-one["n_trials"], -one["bits_per_s"]))
    ][:_SHOWN]  # fmt: skip
    head = ["gain", "lead ms", "smoothing ms", "speed exponent", "trials", "bit/s", "success %"]
    table = markdown(head, rows)
    chosen = {name.replace("_", " "): f"{values['control'][name]:g}" for name in names}
    chosen["throughput"] = (
        f"{values['bits_per_s']:.2f} bit/s, {values['bits_per_s_before']:.2f} without"
    )
    said = (
        "Simulated, with an array made from the session's record; one fitted to its recording "
        "(--recording) is closer to the truth."
        if values["array"] == "session"
        else "Simulated, with an array fitted to the recording."
    )
    end = "Next: poyo-edge tune … -o control.json"
    if values["out"]:
        end = f"Next: poyo-edge run … --control-settings {values['out']}"
    return f"{table}\n\n{pairs(chosen)}\n\n{said} No person or animal was in this loop.\n\n{end}"


def _array(
    console: Console, decoder: Decoder, recording: Path | None, behavior: str
) -> SimulatedArray:
    if recording is None:
        from poyo_edge.simulation.fitted.from_session import array_from_session

        console.step("making an array from the session's record")
        return array_from_session(decoder)
    from poyo_edge.recording.confined import open_confined
    from poyo_edge.simulation.fitted.from_recording import array_from_recording

    source = open_confined(recording)
    wanted = behavior or decoder.artifact.manifest.behavior
    if not wanted:
        raise UsageError(
            f"behavior: expected one of {list(source.behaviors)}, got none, and the artifact does "
            f"not say what it decodes; name it with --behavior"
        )
    console.step(f"fitting an array to {source.session_id}")
    return array_from_recording(source, wanted)


def _said(tried: Tried) -> str:
    settings = tried.settings
    return (
        f"gain {settings.gain:g}, lead {settings.lead_ms:g} ms, smoothing "
        f"{settings.smoothing_ms:g} ms, exponent {settings.speed_exponent:g}: "
        f"{tried.bits_per_s:.2f} bit/s in {tried.n_trials} trials"
    )
