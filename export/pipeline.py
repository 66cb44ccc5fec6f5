"""Checkpoint → folded core → ONNX → artifact, with the parity that lets it be written."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32
from poyo_edge.artifact import (
    ADAPT,
    CORE,
    CORE_ORT_CPU,
    GOLDEN,
    MANIFEST,
    PRIOR,
    SESSIONS,
    WEIGHTS,
    Activity,
    FileRecord,
    Golden,
    Manifest,
    Session,
    SessionHeader,
    recording_activity,
)
from poyo_edge.checkpoint import Checkpoint, load_checkpoint
from poyo_edge.checkpoint.weight_health import WeightHealth, weight_health
from poyo_edge.errors import UsageError
from poyo_edge.export.graph.adapt import build_adapt
from poyo_edge.export.graph.core import build_core
from poyo_edge.export.graph.fold import FoldedWeights, fold
from poyo_edge.export.graph.fusion import fuse_for_ort_cpu
from poyo_edge.export.graph.prior import prior_tensors
from poyo_edge.export.parity.adapt import GradientParity, compare_gradients
from poyo_edge.export.parity.core import Parity, Reference, compare, compare_variant
from poyo_edge.export.parity.meter import Progress
from poyo_edge.export.parity.windows import Window, recorded_windows, synthetic_windows
from poyo_edge.export.provenance import TABLES, core_hash, source_record, tool_versions
from poyo_edge.export.report import write_report
from poyo_edge.files.tensors import to_bytes
from poyo_edge.files.writing import atomic_folder, require_free, safe_name, sha256_file
from poyo_edge.recording import Recording
from poyo_edge.recording.confined import open_confined
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.checks.replay import draw, replay
from poyo_edge.runtime.constants import session_constants
from poyo_edge.runtime.decoder import Decoder

MAX_SPIKES = 8192
_GOLDEN_SPIKES = 1000
Step = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What ``poyo-edge export`` can be told."""

    sequence_length: float | None = None
    latent_step: float | None = None
    output_scale: tuple[float, ...] | None = None
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
            "tolerance": self.parity.tolerance,
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
    recording = open_confined(options.recording) if options.recording else None
    say("folding the weights")
    weights = {name: tensor.numpy() for name, tensor in checkpoint.weights.items()}
    exporter = _Exporter(checkpoint, weights, options, say, on_progress)
    say("writing the graphs")
    graph = build_core(exporter.folded)
    core = graph.SerializeToString()
    fused = fuse_for_ort_cpu(graph, exporter.spec).SerializeToString()
    adapt = build_adapt(exporter.folded).SerializeToString()
    parity, gradients, golden = exporter.compare(core, fused, adapt, recording)
    parity.require()
    gradients.require()
    report = ExportReport(
        name=out.name.removesuffix(".poyo"),
        artifact=None if options.dry_run else str(out),
        checkpoint=checkpoint,
        parity=parity,
        gradients=gradients,
        health=weight_health(weights),
        sessions={name: len(units) for name, units in exporter.sessions.items()},
        behavior=options.behavior,
        replay=None,
        tools=tool_versions(),
    )
    if options.dry_run:
        return report
    with atomic_folder(out, overwrite=options.overwrite) as folder:
        say("writing the artifact")
        files = {CORE: core, CORE_ORT_CPU: fused, ADAPT: adapt, GOLDEN: golden.to_bytes()}
        exporter.write(folder, files, recording)
        return exporter.finish(folder, report, recording)


class _Exporter:
    """One checkpoint on its way into an artifact."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        weights: dict[str, Float32],
        options: ExportOptions,
        say: Step,
        tell: Progress | None,
    ) -> None:
        self.checkpoint = checkpoint
        self.weights = weights
        self.options = options
        self.say, self.tell = say, tell
        self.spec = checkpoint.spec
        self.folded: FoldedWeights = fold(weights, checkpoint.spec)
        self.core_hash = core_hash(weights, checkpoint.spec)
        self.sessions = _kept_sessions(checkpoint, options.keep_sessions)

    def embeddings(self, session_id: str | None, units: Sequence[str]) -> tuple[Float32, Float32]:
        """Rows of the two tables: (U, D) and (D,)."""
        unit_rows = [self.checkpoint.unit_vocab[unit] for unit in units]
        session_row = 0 if session_id is None else self.checkpoint.session_vocab[session_id]
        return (
            self.weights["unit_emb.weight"][unit_rows],
            self.weights["session_emb.weight"][session_row],
        )

    def compare(
        self, core: bytes, fused: bytes, adapt: bytes, recording: Recording | None
    ) -> tuple[Parity, GradientParity, Golden]:
        """Parity on the session of the recording, or on the one with most units."""
        session_id, units = self._session_to_compare(recording)
        unit_embedding, session_embedding = self.embeddings(session_id, units)
        constants = session_constants(
            self.spec, self.folded.session, unit_embedding, session_embedding
        )
        unit_vocab, session_vocab = self.checkpoint.unit_vocab, self.checkpoint.session_vocab
        reference = Reference(
            model=self.checkpoint.model(),
            unit_rows=np.array([unit_vocab[unit] for unit in units]),
            session_row=0 if session_id is None else session_vocab[session_id],
        )
        windows = synthetic_windows(self.spec, len(units))
        if recording is not None:
            windows += recorded_windows(recording, self.spec)
        self.say("comparing predictions with the checkpoint's own model")
        plain = OrtCpuBackend(core, threads=1)
        parity, expected = compare(reference, plain, constants, windows, tell=self.tell)
        self.say("comparing predictions of the graph for ONNX Runtime")
        variant = OrtCpuBackend(fused, threads=1)
        parity = compare_variant(parity, variant, constants, windows, expected, tell=self.tell)
        short = [len(w.time) <= _GOLDEN_SPIKES and w.kind == "synthetic" for w in windows]
        labelled = [window for window, kept in zip(windows, short, strict=True) if kept][::2]
        self.say("comparing gradients")
        gradients, golden_gradients = compare_gradients(reference, adapt, labelled, tell=self.tell)
        golden = Golden(
            unit_embedding=unit_embedding,
            session_embedding=session_embedding,
            windows=tuple(
                _golden_window(window, prediction)
                for window, prediction, kept in zip(windows, expected, short, strict=True)
                if kept
            ),
            tolerance=parity.tolerance,
            gradients=golden_gradients,
        )
        return parity, gradients, golden

    def write(self, folder: Path, files: dict[str, bytes], recording: Recording | None) -> None:
        """Everything but reports and manifest."""
        for name, data in files.items():
            (folder / name).write_bytes(data)
        tables = [self.weights[name][1:] for name in TABLES]
        (folder / PRIOR).write_bytes(to_bytes(prior_tensors(*tables), {}))
        (folder / WEIGHTS).write_bytes(to_bytes(self.folded.session, {}))
        (folder / SESSIONS).mkdir()
        for session_id, units in self.sessions.items():
            unit_embedding, session_embedding = self.embeddings(session_id, units)
            header = SessionHeader(
                session_id=session_id, unit_ids=units, core_hash=self.core_hash, created=_now()
            )
            session = Session(
                header=header,
                unit_embedding=unit_embedding,
                session_embedding=session_embedding,
                activity=self._activity(recording, session_id, units),
            )
            session.save(folder / SESSIONS / f"{safe_name(session_id)}.session")

    def finish(
        self, folder: Path, report: ExportReport, recording: Recording | None
    ) -> ExportReport:
        """Replay the recording on what is written, then write reports and manifest."""
        figures: list[str] = []
        if recording is not None:
            self.say(f"replaying {recording.path.name}")
            self.write_manifest(folder, report)
            report, figures = _replayed(folder, recording, report, self.options)
        write_report(folder, report.to_json(), figures)
        self.write_manifest(folder, report)
        return report

    def write_manifest(self, folder: Path, report: ExportReport) -> None:
        """``manifest.json`` for the files that are there now."""
        files = {
            str(file.relative_to(folder)): FileRecord(
                sha256=sha256_file(file), size=file.stat().st_size
            )
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.name != MANIFEST
        }
        manifest = Manifest(
            name=report.name,
            spec=self.spec,
            output=self.checkpoint.output,
            behavior=self.options.behavior,
            core_hash=self.core_hash,
            source=source_record(self.checkpoint),
            max_spikes=self.options.max_spikes,
            files=files,
            tools=report.tools,
            created=_now(),
        )
        text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

    def _activity(
        self, recording: Recording | None, session_id: str, units: Sequence[str]
    ) -> Activity | None:
        """How the units fired in the recording's training split, or in all of it."""
        behavior = self.options.behavior
        if recording is None or recording.session_id != session_id or not behavior:
            return None
        split = "train" if "train" in recording.domains else "all"
        return recording_activity(recording, units, behavior, split, self.spec.window_seconds)

    def _session_to_compare(self, recording: Recording | None) -> tuple[str | None, Sequence[str]]:
        if recording is not None:
            if recording.session_id not in self.sessions:
                raise UsageError(
                    f"{recording.path}: session: expected one of the checkpoint's sessions "
                    f"{list(self.sessions)[:8]}, got {recording.session_id!r}; "
                    f"leave --recording out, or name a recording that the model knows"
                )
            known, units = self.checkpoint.unit_vocab, recording.unit_ids
            unknown = [unit for unit in units if unit not in known]
            if unknown:
                raise UsageError(
                    f"{recording.path}: units/id: expected units of the checkpoint, got "
                    f"{len(unknown)} others like {unknown[0]!r}"
                )
            return recording.session_id, units
        if self.sessions:
            return max(self.sessions.items(), key=lambda item: len(item[1]))
        return None, [unit for unit in self.checkpoint.unit_vocab if unit != "NA"][:200] or ["NA"]


def _kept_sessions(checkpoint: Checkpoint, keep: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found = {name: units for name, units in checkpoint.session_units().items() if units}
    unknown = [name for name in keep if name not in found]
    if unknown:
        raise UsageError(
            f"keep_sessions: expected some of {list(found)[:8]}, got {unknown}; "
            f"'poyo-edge inspect' lists the sessions of a checkpoint"
        )
    return {name: found[name] for name in keep} if keep else found


def _golden_window(window: Window, prediction: Float32) -> dict[str, npt.NDArray[Any]]:
    return {
        "spike_time": window.time,
        "spike_unit": window.unit,
        "query_time": window.query,
        "prediction": prediction,
    }


def _replayed(
    folder: Path, recording: Recording, report: ExportReport, options: ExportOptions
) -> tuple[ExportReport, list[str]]:
    decoder = Decoder.open(folder, session=recording.session_id)
    result = replay(decoder, recording, options.behavior, split=options.split)
    figures = draw(
        folder,
        result,
        title=f"{recording.session_id}, {options.behavior}",
        unit=report.checkpoint.output.unit,
    )
    replayed = {"recording": recording.path.name, "split": options.split, **result.to_json()}
    return dataclasses.replace(report, replay=replayed), figures


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
