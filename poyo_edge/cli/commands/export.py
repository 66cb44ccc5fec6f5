"""``poyo-edge export``: a checkpoint in, an artifact out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.checkpoint.layouts import checkpoint_help
from poyo_edge.cli.console import Console, program
from poyo_edge.cli.shared import DEPLOY, DecodedBehavior, Json, Quiet, command, needs, split_to
from poyo_edge.cli.text import Values, pairs, r2_text, table
from poyo_edge.errors import UsageError


@command(DEPLOY, example="poyo-edge export demo/demo.ckpt -o model.poyo")
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
    behavior_unit: Annotated[
        str, typer.Option(help="Unit of decoded values, if the checkpoint names none: cm/s.")
    ] = "",
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
    behavior: DecodedBehavior = "",
    split: Annotated[str, split_to("replay")] = "test",
    max_spikes: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Most spikes in a window; the newest are kept."),
    ] = None,
    minimal: Annotated[
        Path | None,
        typer.Option(help="Also write which operators a reduced ONNX Runtime must have."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an artifact of that name.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Look and compare, write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a research checkpoint into an artifact that has been checked."""
    if minimal is not None and dry_run:
        raise UsageError("--minimal: expected no --dry-run with it, got both; leave one out")
    console = Console(as_json=as_json, quiet=quiet)
    pipeline = needs("export", "poyo_edge.export.pipeline")
    options = pipeline.ExportOptions(
        sequence_length=sequence_length,
        latent_step=latent_step,
        output_scale=tuple(output_scale) if output_scale else None,
        behavior_unit=behavior_unit,
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
    values, text = report.to_json(), export_text(report.to_json(), target, program(), recording)
    if minimal is not None:
        count = needs("export", "poyo_edge.export.operators").write_operators(target, minimal)
        values["minimal"] = {"file": str(minimal), "operators": count}
        text += f"\n\nwrote {minimal}: {count} operators (docs/embedding.md says what for)"
    console.result(values, text)


def export_text(values: Values, target: Path, program: str, recording: Path | None) -> str:
    """What was found, the parity lines, and what to type next."""
    lines = [
        [
            f"{line['kind']} × {line['n_windows']}",
            line["n_spikes"],
            f"{line['max_abs_error']:.1e}",
            f"{line['tolerance']:.1e}",
            "ok" if line["ok"] else "FAILED",
        ]
        for line in values["parity"]
    ]
    health = values["health"]
    spec, sessions = values["spec"], values["sessions"]
    about = {
        "layout": f"{values['layout']}, {values['source']['file']}",
        "model": f"dim {spec['dim']}, depth {spec['depth']}, window {spec['window_s']} s, "
        f"{spec['latents_per_step']} latents each {spec['latent_step_s']} s",
        "sessions": f"{len(sessions)}, {sum(sessions.values())} units",
        "output": f"scale {values['output']['scale']}, offset {values['output']['offset']}, "
        + (values["output"]["unit"] or "no unit named (--behavior-unit names it)"),
        "weights": f"{health['n_matrices']} matrices, {len(health['dead'])} dead, "
        f"{len(health['degenerate'])} degenerate; FP16 would turn {health['fp16_zero']} weights "
        f"to 0 and {health['fp16_inf']} to Inf",
    }
    if values["replay"]:
        about["replay R²"] = r2_text(values["replay"])
    about["float64 times"] = (
        f"would move the model's own output by {values['float64_times']:.1e} (see docs/design.md)"
    )
    notes = "\n".join(f"note: {note}" for note in values["source"]["notes"])
    parity = table(["parity: windows", "spikes", "max error", "tolerance", ""], lines)
    source = recording or "RECORDING.h5"
    behavior = "" if values["behavior"] else " --behavior GROUP.KEY"
    end = (
        "dry run: nothing was written"
        if values["artifact"] is None
        else f"wrote {target}\n\nNext:\n  {program} verify {target}\n"
        f"  {program} replay {target} {source}{behavior}\n"
        f"  {program} calibrate {target} NEW.h5{behavior} -o new.session  # units it has not seen\n"
        f"  {program} build {target} --target jetson  # or rtx, cuda; see docs/jetson.md"
    )
    if not values["source"]["scaled"]:
        end += (
            "\n\nwarning: no output scale is known, so decoded values stay in the model's scale; "
            "export again with --output-scale to get behaviour units"
        )
    return f"{pairs(about)}\n{notes}\n\n{parity}\n\n{end}"
