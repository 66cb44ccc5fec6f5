"""Checkpoint → folded core → ONNX → artifact, with the parity that lets it be written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from poyo_edge.artifact import ADAPT, ADAPT_ORT_CPU, CORE, CORE_CPU, CORE_ORT_CPU, GOLDEN
from poyo_edge.artifact.core_weights import core_hash
from poyo_edge.checkpoint import Checkpoint, load_checkpoint
from poyo_edge.checkpoint.weight_health import WeightHealth, weight_health
from poyo_edge.errors import UsageError
from poyo_edge.export.comparing import Step, compare_graphs
from poyo_edge.export.contents import write_contents, write_manifest
from poyo_edge.export.folded import FoldedCheckpoint, kept_sessions
from poyo_edge.export.graph.adapt import build_adapt
from poyo_edge.export.graph.adapt_ort_cpu import build_adapt_for_ort_cpu
from poyo_edge.export.graph.core import build_core
from poyo_edge.export.graph.fold import fold
from poyo_edge.export.graph.fusion import fuse_for_ort_cpu
from poyo_edge.export.graph.native_fusion import fuse_for_native
from poyo_edge.export.parity.adapt import GradientParity
from poyo_edge.export.parity.core import Parity
from poyo_edge.export.parity.meter import Progress
from poyo_edge.export.provenance import source_record, tool_versions
from poyo_edge.export.report import write_report
from poyo_edge.files.writing import atomic_folder, require_free
from poyo_edge.recording import Recording
from poyo_edge.recording.confined import open_confined
from poyo_edge.runtime.backends.kernel_library import find_library
from poyo_edge.runtime.checks.replay import Replay, draw, replay
from poyo_edge.runtime.decoder import Decoder

MAX_SPIKES = 8191
"""The largest window where nothing else is said: that of an engine (see ``token_buckets``)."""

LONGEST_UNIT = 40
"""Characters of a unit."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What ``poyo-edge export`` can be told."""

    sequence_length: float | None = None
    latent_step: float | None = None
    output_scale: tuple[float, ...] | None = None
    behavior_unit: str = ""
    """Unit of decoded values, for example "cm/s", where the checkpoint says none; wins over it."""
    task: str | None = None
    """The task of a POYO+ whose readout is exported; None for the only one."""
    vocab: Path | None = None
    """JSON with the vocabularies of a checkpoint that has none."""
    keep_sessions: tuple[str, ...] = ()
    """Ids of the sessions to put into the artifact; empty for all."""
    recording: Path | None = None
    """Also compare on this recording's windows and replay it."""
    behavior: str = ""
    """What is decoded, as GROUP.KEY of a recording."""
    split: str = "test"
    """The split of the recording to replay."""
    max_spikes: int = MAX_SPIKES
    overwrite: bool = False
    dry_run: bool = False
    """Look and compare, but write nothing."""

    def __post_init__(self) -> None:
        if self.max_spikes < 1:
            raise UsageError(f"max_spikes: expected an integer >= 1, got {self.max_spikes}")
        if len(self.behavior_unit) > LONGEST_UNIT or not self.behavior_unit.isprintable():
            raise UsageError(
                f"behavior_unit: expected at most {LONGEST_UNIT} characters that can be printed, "
                f"such as cm/s, got {self.behavior_unit[: 2 * LONGEST_UNIT]!r}"
            )
        if self.recording is not None and not self.behavior:
            raise UsageError(
                "behavior: expected GROUP.KEY beside a recording, got none; "
                "pass --behavior, for example --behavior cursor.vel"
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """Everything that was found on the way; also the contents of ``report.json``."""

    name: str
    artifact: str | None
    """Where the artifact is; None after a dry run."""
    checkpoint: Checkpoint
    parity: Parity
    gradients: GradientParity
    health: WeightHealth
    sessions: dict[str, int]
    """Session id → number of units."""
    behavior: str
    replay: dict[str, Any] | None
    tools: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        checkpoint = self.checkpoint
        return {
            "name": self.name,
            "artifact": self.artifact,
            "layout": checkpoint.layout,
            "source": source_record(checkpoint),
            "spec": checkpoint.spec.to_json(),
            "output": checkpoint.output.to_json(),
            "behavior": self.behavior,
            "max_abs_error": self.parity.max_abs_error,
            "tolerance": self.parity.most_allowed,
            "output_sd": self.parity.output_sd,
            "rounding": self.parity.rounding,
            "float64_times": self.parity.float64_times,
            "gradients": dataclasses.asdict(self.gradients),
            "parity": [line.to_json() for line in self.parity.lines],
            "health": self.health.to_json(),
            "sessions": self.sessions,
            "replay": self.replay,
            "tools": self.tools,
        }


def export_checkpoint(
    path: str | Path,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    on_step: Step | None = None,
    on_progress: Progress | None = None,
) -> ExportReport:
    """Export a checkpoint that torch_brain's POYO wrote, and check it against its own model.

    The artifact appears whole, and only if the parity holds.

    Args:
        path: the checkpoint.
        out: the folder to write, ``NAME.poyo``.
        options: see ``ExportOptions``.
        on_step: called with a sentence before each step.
        on_progress: called within long steps with what is done and what there is.

    Raises:
        CheckpointError, RecordingError: a file cannot be used.
        CheckFailedError: the core does not say what the model says; nothing is written.
        UsageError: an option makes no sense, or ``out`` exists and may not be overwritten.
    """
    options, say = options or ExportOptions(), on_step or (lambda _: None)
    out = Path(out)
    if not options.dry_run:
        require_free(out, overwrite=options.overwrite)
    say(f"reading {Path(path).name}")
    checkpoint = load_checkpoint(
        path,
        sequence_length=options.sequence_length,
        latent_step=options.latent_step,
        output_scale=options.output_scale,
        task=options.task,
        vocab=options.vocab,
    )
    checkpoint = _with_unit(checkpoint, options.behavior_unit)
    recording = open_confined(options.recording) if options.recording else None
    say("folding the weights")
    source = _folded(checkpoint, options)
    say("writing the graphs")
    graphs = _graphs(source)
    found = compare_graphs(source, graphs, recording, say=say, tell=on_progress)
    found.require()
    report = ExportReport(
        name=out.name.removesuffix(".poyo"),
        artifact=None if options.dry_run else str(out),
        checkpoint=checkpoint,
        parity=found.parity,
        gradients=found.gradients,
        health=weight_health(source.weights),
        sessions={name: len(units) for name, units in source.sessions.items()},
        behavior=options.behavior,
        replay=None,
        tools=tool_versions(),
    )
    if options.dry_run:
        return report
    with atomic_folder(out, overwrite=options.overwrite) as folder:
        say("writing the artifact")
        files = {**graphs, GOLDEN: found.golden.to_bytes()}
        write_contents(folder, source, files, recording, options.behavior)
        return _finish(folder, source, report, recording, options, say, on_progress)


def _with_unit(checkpoint: Checkpoint, unit: str) -> Checkpoint:
    stated = checkpoint.output.unit
    if unit in ("", stated):
        return checkpoint
    note = f"The unit {unit!r} was set by the argument."
    if stated:
        note = f"The file says that values are in {stated!r}; the argument {unit!r} won."
    return dataclasses.replace(
        checkpoint,
        output=dataclasses.replace(checkpoint.output, unit=unit),
        notes=(*checkpoint.notes, note),
    )


def _folded(checkpoint: Checkpoint, options: ExportOptions) -> FoldedCheckpoint:
    weights = {name: tensor.numpy() for name, tensor in checkpoint.weights.items()}
    return FoldedCheckpoint(
        checkpoint=checkpoint,
        weights=weights,
        folded=fold(weights, checkpoint.spec),
        core_hash=core_hash(weights, checkpoint.spec),
        sessions=kept_sessions(checkpoint, options.keep_sessions),
    )


def _graphs(source: FoldedCheckpoint) -> dict[str, bytes]:
    """File name in the artifact → bytes."""
    core, spec = build_core(source.folded), source.checkpoint.spec
    native = {}
    if find_library() is not None:  # where nobody can compare it, it is not written
        native[CORE_CPU] = fuse_for_native(core, spec).SerializeToString()
    return {
        **native,
        CORE: core.SerializeToString(),
        CORE_ORT_CPU: fuse_for_ort_cpu(core, spec).SerializeToString(),
        ADAPT: build_adapt(source.folded).SerializeToString(),
        ADAPT_ORT_CPU: build_adapt_for_ort_cpu(source.folded).SerializeToString(),
    }


def _finish(
    folder: Path,
    source: FoldedCheckpoint,
    report: ExportReport,
    recording: Recording | None,
    options: ExportOptions,
    say: Step,
    tell: Progress | None,
) -> ExportReport:
    """Replay the recording on what is written, then write reports and manifest."""

    def vouch() -> None:
        write_manifest(
            folder,
            source,
            name=report.name,
            behavior=options.behavior,
            max_spikes=options.max_spikes,
            tools=report.tools,
        )

    replayed: Replay | None = None
    if recording is not None:
        say(f"replaying {recording.path.name}")
        vouch()
        report, replayed = _replayed(folder, recording, report, options, tell)
    write_report(folder, report.to_json(), replayed)
    vouch()
    return report


def _replayed(
    folder: Path,
    recording: Recording,
    report: ExportReport,
    options: ExportOptions,
    tell: Progress | None,
) -> tuple[ExportReport, Replay]:
    decoder = Decoder.open(folder, session=recording.session_id)
    result = replay(decoder, recording, options.behavior, split=options.split, on_progress=tell)
    draw(
        folder,
        result,
        title=f"{recording.session_id}, {options.behavior}",
        unit=report.checkpoint.output.unit,
    )
    replayed = {"recording": recording.path.name, "split": options.split, **result.to_json()}
    return dataclasses.replace(report, replay=replayed), result
