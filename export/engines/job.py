"""One build of an artifact: what it was told and what was chosen, up to its report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from poyo_edge.artifact import CORE, CORE_CPU, CORE_ORT_CPU, Artifact
from poyo_edge.core_inputs import one_window
from poyo_edge.errors import UsageError
from poyo_edge.export.engines.engine_build import EngineBuild, Progress
from poyo_edge.export.engines.kernel_plan import KernelPlan, expected_attentions
from poyo_edge.export.engines.options import (
    BuildOptions,
    choose_max_spikes,
    choose_precision,
    choose_session,
    choose_target,
)
from poyo_edge.export.engines.static_shapes import fix_axes
from poyo_edge.export.parity.engine import Trial
from poyo_edge.export.precision.operator_table import TABLES, TableSource
from poyo_edge.recording.confined import open_confined
from poyo_edge.runtime.backends import BACKENDS, Beside
from poyo_edge.runtime.backends.buckets import token_buckets, unit_capacity
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.constants import constant_shapes, session_constants
from poyo_edge.runtime.intake import UnitTable
from poyo_edge.targets import Target

Say = Callable[[str], None]


class Job:
    """An artifact on its way to a target, and what has been found on the way.

    Args:
        artifact: what is built.
        options: what was asked for.
        machine: where the build runs.
        say: called with a sentence before each long step.

    Raises:
        ArtifactError, SessionError, RecordingError: a file cannot be used.
        UsageError: an option makes no sense for the artifact or the target.
        BackendError: a Jetson that is too old.
    """

    def __init__(
        self, artifact: Artifact, options: BuildOptions, machine: Machine, say: Say
    ) -> None:
        self.artifact, self.options, self.machine, self.say = artifact, options, machine, say
        self.target = choose_target(options.target, machine)
        self.here = self.target.built_on_device and machine.jetson
        self.precision = choose_precision(options.precision, self.target)
        manifest = artifact.manifest
        self.most_spikes = choose_max_spikes(options.max_spikes, manifest.max_spikes)
        self.buckets = token_buckets(self.most_spikes)
        given = options.recording
        self.recording = None if given is None else open_confined(given)
        recorded = None if self.recording is None else self.recording.session_id
        self.session = choose_session(artifact, options, recorded)
        sizes = [
            len(artifact.session(p).header.unit_ids) for p in artifact.session_files().values()
        ]
        self.n_units = unit_capacity(max([len(self.session.header.unit_ids), *sizes]))
        self.core = artifact.read(CORE)
        self.core_sha256 = manifest.files[CORE].sha256
        self.trial = self._trial()
        self.settled: list[str] = []
        self.unsettled: list[str] = []
        self.warnings: list[str] = []
        self.kernel_plan: dict[str, dict[str, Any]] = {}
        """Token bucket → JSON values of its ``KernelPlan``."""
        if self.most_spikes < manifest.max_spikes:
            self.warnings.append(
                f"windows of more than {self.buckets[-1]} spikes will be decoded on the CPU "
                f"(the artifact allows {manifest.max_spikes})"
            )

    def open_engines(self, progress: Progress | None) -> EngineBuild:
        """What builds the target's engines, told what they are to be."""
        build = self.builder(self.target, progress)
        build.open_store(
            core_sha256=self.core_sha256,
            precision=self.precision,
            n_units=self.n_units,
            buckets=self.buckets,
        )
        return build

    def builder(self, target: Target, progress: Progress | None) -> EngineBuild:
        """What builds engines, for the target or for another."""
        path = self.artifact.path
        again = f"poyo-edge build {path} {self.flags()}"
        return EngineBuild(target, self.machine, self.say, progress, artifact=path, again=again)

    def beside(self) -> Beside:
        """The graphs made for ONNX Runtime's CPU, where the artifact has them."""
        read = self.artifact.read_optional
        return Beside(fused=read(CORE_ORT_CPU), native=read(CORE_CPU))

    def fix(self, graph: bytes, size: int) -> bytes:
        """The graph as engines are built from it, for windows of so many tokens at the most."""
        return fix_axes(graph, one_window(size, self.n_units))

    def operator_tables(self) -> list[TableSource]:
        """By which table each TensorRT that the target may have was checked."""
        found = {v for r in self.target.releases for v in (r.tensorrt, *r.upgrades)}
        return [source for source in TABLES if source.tensorrt in found]

    def note_kernels(self, builder: str, plans: Mapping[int, KernelPlan]) -> None:
        """Keep the kernel plans of a builder, and say where they are not what is expected."""
        self.kernel_plan |= {str(size): plan.to_json() for size, plan in plans.items()}
        found: dict[str, list[str]] = {}
        for size, plan in plans.items():
            for problem in plan.problems(self.artifact.manifest.spec, self.precision):
                found.setdefault(problem, []).append(str(size))
        self.warnings += [
            f"kernels of {builder} for {', '.join(sizes)} spikes: {problem}; decoding is right "
            f"all the same, and slower than it could be"
            for problem, sizes in found.items()
        ]
        if plans and not found:
            fused = "no attention is fused in FP32"
            if self.precision != "fp32":
                fused = "every attention is one kernel"
            self.settled.append(
                f"kernels as expected from {builder}: {fused}, none only copies, no stream waits "
                f"for another"
            )

    def flags(self) -> str:
        """What this build was told, as it would be typed."""
        flags = f"--target {self.target.name}"
        if self.precision != "fp16" and BACKENDS[self.target.backend].built:
            flags += f" --precision {self.precision}"
        if self.most_spikes < self.artifact.manifest.max_spikes:
            flags += f" --max-spikes {self.most_spikes}"
        return flags

    def report(self, **more: Any) -> dict[str, Any]:
        """What ``build`` gives back, as JSON values."""
        return {
            "artifact": str(self.artifact.path),
            "target": self.target.name,
            "title": self.target.title,
            "on_device": self.here,
            "machine": self.machine.to_json(),
            "precision": self.precision,
            "buckets": list(self.buckets),
            "n_units": self.n_units,
            "session": self.session.header.session_id,
            "recording": None if self.recording is None else str(self.recording.path),
            "install": list(self.target.install),
            "releases": [
                f"{r.name}: TensorRT {r.tensorrt}, CUDA {r.cuda}, Python {r.python}"
                + (f" ({r.note})" if r.note else "")
                for r in self.target.releases
            ],
            "operator_tables": [dataclasses.asdict(source) for source in self.operator_tables()],
            "settled": self.settled,
            "unsettled": self.unsettled,
            "warnings": self.warnings,
            "kernel_plan": self.kernel_plan,
            "expected_attentions": expected_attentions(self.artifact.manifest.spec, self.precision),
            **{"parity": None, "gate": [], "rounding": None, "layers": None, "notes": [], **more},
        }

    def _trial(self) -> Trial:
        """The windows that backends and engines are compared on."""
        manifest = self.artifact.manifest
        weights = self.artifact.weights(constant_shapes(manifest.spec))
        session = self.session
        weights |= session.encoder or {}
        constants = session_constants(
            manifest.spec, weights, session.unit_embedding, session.session_embedding
        )
        trial = Trial.prepare(
            manifest.spec, manifest.output, constants, self.buckets, self.most_spikes
        )
        recording = self.recording
        if recording is None:
            return trial
        behavior = self.options.behavior or manifest.behavior
        if not behavior:
            raise UsageError(
                "behavior: expected GROUP.KEY beside a recording, got none, and the artifact "
                "does not say what it decodes; name it with --behavior"
            )
        rows = UnitTable(self.session.header.unit_ids).rows(recording.unit_ids)
        if (rows < 0).all():
            raise UsageError(
                f"{recording.path}: units/id: expected units of session "
                f"{self.session.header.session_id!r}, got none of them; name its own session "
                f"with --session"
            )
        if self.precision == "int8":
            trial = trial.with_calibration(recording, rows, behavior)
        return trial.with_recording(recording, rows, behavior, "test")
