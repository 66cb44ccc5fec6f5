"""The command line. Heavy imports happen inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge import __version__
from poyo_edge.checkpoint.layouts import checkpoint_help
from poyo_edge.cli.commands import bench as cli_bench
from poyo_edge.cli.commands import build as cli_build
from poyo_edge.cli.commands import calibrate as cli_calibrate
from poyo_edge.cli.commands import convert as cli_convert
from poyo_edge.cli.commands import evaluate as cli_evaluate
from poyo_edge.cli.commands import run as cli_run
from poyo_edge.cli.commands import sign as cli_sign
from poyo_edge.cli.commands import train as cli_train
from poyo_edge.cli.commands.text import (
    demo_text,
    doctor_text,
    export_text,
    inspect_text,
    replay_text,
    verify_text,
)
from poyo_edge.cli.console import Console, program
from poyo_edge.cli.shared import (
    DEPLOY,
    DEVICE,
    LOOK,
    REFUSED,
    START,
    ArtifactPath,
    BackendName,
    Json,
    Quiet,
    SessionName,
    Threads,
    app,
    command,
    ended,
    needs,
    refused,
    require_drawing,
)
from poyo_edge.errors import ArtifactError, CheckFailedError, UsageError

__all__ = [
    "app",
    "cli_bench",
    "cli_build",
    "cli_calibrate",
    "cli_convert",
    "cli_evaluate",
    "cli_run",
    "cli_sign",
    "cli_train",
    "main",
]


def main() -> None:
    """Run the command line. What it cannot be called with is one line too, as every error is."""
    try:
        code = app(standalone_mode=len(sys.argv) == 1)  # alone it shows its help
    except REFUSED as error:
        code = refused(error).exit_code
    except typer.Abort:
        code = ended(KeyboardInterrupt("interrupted"), 130).exit_code
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    as_json: Json = False,
) -> None:
    if as_json and not version:
        raise ended(UsageError("--json: expected it behind a command, got it before; move it"), 2)
    if version:
        values = {"poyo_edge": __version__, "python": platform.python_version()}
        print(json.dumps(values) if as_json else f"poyo-edge {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise ended(UsageError("expected a command, got none; run: poyo-edge --help"), 2)


@command(START, example="poyo-edge demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo writes.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of simulation and training.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain, export, verify and stream a small model on simulated data."""
    console = Console(as_json=as_json, quiet=quiet)
    run_demo = needs("all", lambda: __import__("poyo_edge.cli.demo", fromlist=["_"]).run_demo)
    values = run_demo(out, seed=seed, steps=steps, say=console.step, bar=console.progress)
    console.result(values, demo_text(values, program()))
    if not values["verified"]:
        raise CheckFailedError(
            f"verify: expected all checks to hold, got one that failed; "
            f"run {program()} verify {values['artifact']}"
        )


@command(DEPLOY, example="poyo-edge export ckpt.pt -o model.poyo --output-scale 10")
def export(
    checkpoint: Annotated[Path, typer.Argument(help=checkpoint_help())],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The artifact; default CHECKPOINT.poyo, here."),
    ] = None,
    sequence_length: Annotated[
        float | None, typer.Option(help="Window in seconds, if the checkpoint does not say.")
    ] = None,
    latent_step: Annotated[
        float | None, typer.Option(help="Seconds between latents, if the checkpoint does not say.")
    ] = None,
    output_scale: Annotated[
        list[float] | None,
        typer.Option(help="Behaviour units per model unit; once, or once for each output."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="The task of a POYO+; inspect lists them.")
    ] = None,
    vocab: Annotated[
        Path | None, typer.Option(help="JSON with the vocabularies, if the checkpoint has none.")
    ] = None,
    keep_session: Annotated[
        list[str] | None, typer.Option(help="Put only this session in; may be repeated.")
    ] = None,
    recording: Annotated[
        Path | None, typer.Option(help="Also compare on, and replay, this recording.")
    ] = None,
    behavior: Annotated[str, typer.Option(help="What is decoded, as GROUP.KEY.")] = "",
    split: Annotated[str, typer.Option(help="Split of the recording to replay.")] = "test",
    max_spikes: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Most spikes in a window; the newest are kept."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an artifact of that name.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Look and compare, write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a research checkpoint into an artifact that has been checked."""
    console = Console(as_json=as_json, quiet=quiet)
    pipeline = needs("export", lambda: __import__("poyo_edge.export.pipeline", fromlist=["_"]))
    options = pipeline.ExportOptions(
        sequence_length=sequence_length,
        latent_step=latent_step,
        output_scale=tuple(output_scale) if output_scale else None,
        task=task,
        vocab=vocab,
        keep_sessions=tuple(keep_session or ()),
        recording=recording,
        behavior=behavior,
        split=split,
        max_spikes=max_spikes or pipeline.MAX_SPIKES,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    target = out or Path(f"{checkpoint.stem}.poyo")
    report = pipeline.export_checkpoint(
        checkpoint, target, options, on_step=console.step, on_progress=console.progress
    )
    console.result(report.to_json(), export_text(report.to_json(), target, program(), recording))


@command(LOOK, example="poyo-edge inspect model.poyo")
def inspect(
    path: Annotated[Path, typer.Argument(help="A checkpoint, artifact, session or recording.")],
    as_json: Json = False,
) -> None:
    """Say what a file or folder is."""
    from poyo_edge.inspecting import inspect_path

    values = inspect_path(path)
    Console(as_json=as_json).result(values, inspect_text(values))


@command(DEVICE, example="poyo-edge replay model.poyo session.h5 --behavior cursor.vel")
def replay(
    artifact: ArtifactPath,
    recording: Annotated[Path, typer.Argument(help="The recording to stream, an HDF5 file.")],
    behavior: Annotated[
        str, typer.Option(help="Behaviour to compare with, as GROUP.KEY; default the artifact's.")
    ] = "",
    session: SessionName = None,
    split: Annotated[str, typer.Option(help="Split of the recording to decode.")] = "test",
    chunk_ms: Annotated[
        float | None, typer.Option(help="Push at most this many ms of spikes at a time.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder to draw the decoded trace and latencies into.")
    ] = None,
    backend: BackendName = "auto",
    threads: Threads = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Stream a recording through the runtime and score it, causally."""
    from poyo_edge.recording.confined import open_confined
    from poyo_edge.runtime.checks.replay import replay as run_replay
    from poyo_edge.runtime.decoder import Decoder

    console = Console(as_json=as_json, quiet=quiet)
    if figures is not None:
        require_drawing(figures)
    source = open_confined(recording)
    chosen = session or _own_session(artifact, source.session_id)
    decoder = Decoder.open(artifact, session=chosen, backend=backend, threads=threads)
    behavior = behavior or _own_behavior(decoder, source)
    for remark in _remarks(decoder, source, behavior):
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
    values = result.to_json()
    if figures is not None:
        values["pictures"] = _draw(figures, result, decoder, f"{source.session_id}, {behavior}")
    console.result(values, replay_text(values))


@command(DEVICE, example="poyo-edge verify model.poyo")
def verify(
    artifact: ArtifactPath,
    public_key: Annotated[
        Path | None, typer.Option(help="Also check that this key (KEY.pub) signed it.")
    ] = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Check hashes, signature, sessions and golden windows on this machine."""
    from poyo_edge.runtime.checks.verify import verify as run_verify

    try:
        checks = run_verify(artifact, threads=threads, public_key=public_key)
    except ArtifactError as error:
        if as_json:
            damage = {"name": "files", "ok": False, "detail": str(error)}
            Console(as_json=True).result({"ok": False, "checks": [damage]}, "")
        raise
    ok = all(check.ok for check in checks)
    values = {"ok": ok, "checks": [check.to_json() for check in checks]}
    Console(as_json=as_json).result(values, verify_text(values))
    if not ok:
        raise typer.Exit(3)


@command(LOOK, example="poyo-edge doctor")
def doctor(as_json: Json = False) -> None:
    """Say what this machine can run, and what to install."""
    from poyo_edge.doctor import examine

    values = examine()
    Console(as_json=as_json).result(values, doctor_text(values))


@command(START, example="poyo-edge simulate recordings --sessions 2")
def simulate(
    folder: Annotated[Path, typer.Argument(help="Where the recordings go.")],
    sessions: Annotated[int, typer.Option(min=1, help="How many.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="Length of each.")] = 300.0,
    units: Annotated[int, typer.Option(min=1, help="Units in each.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same spikes.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace recordings of these names.")] = False,
    as_json: Json = False,
) -> None:
    """Write simulated recordings that torch_brain opens too."""
    from poyo_edge.simulation.recordings import Simulation, simulate_study

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder, got a file; name another folder")
    there = [path.name for path in sorted(folder.glob("sim_*.h5"))]
    if there and not overwrite:
        raise UsageError(
            f"{folder}: expected no simulated recordings, got {', '.join(there[:4])}; "
            f"name another folder or pass --overwrite"
        )
    simulation = Simulation(duration_s=seconds, n_units=units)
    paths = simulate_study(folder, n_sessions=sessions, seed=seed, simulation=simulation)
    names = [str(path) for path in paths]
    Console(as_json=as_json).result({"recordings": names}, "\n".join(names))


def _own_session(artifact: Path, session_id: str) -> str:
    """The recording's own session, which the artifact must have when none was named."""
    from poyo_edge.artifact import Artifact, read_manifest

    known = Artifact(path=artifact, manifest=read_manifest(artifact)).session_files()
    if session_id not in known:
        raise UsageError(
            f"{artifact}: session: expected one for the recording's own id {session_id!r}, got "
            f"{list(known)[:8]}; name a .session file or another id with --session"
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


def _remarks(decoder: Any, recording: Any, behavior: str) -> list[str]:
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
    unknown = int((rows_of(decoder, recording) < 0).sum())
    if unknown:
        n_units = len(recording.unit_ids)
        remarks.append(
            f"{unknown} of {n_units} units are not in the session; their spikes are ignored"
        )
    return remarks


def _draw(folder: Path, result: Any, decoder: Any, title: str) -> list[str]:
    from poyo_edge.runtime.checks.replay import draw

    unit = decoder.artifact.manifest.output.unit
    return [str(folder / name) for name in draw(folder, result, title=title, unit=unit)]
