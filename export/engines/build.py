"""``poyo-edge build``: from an artifact to what a target runs, or to what is left to do there.

On the device that runs the engines this needs neither torch nor onnx: graphs of mixed precision
were made ready on a workstation, by this same command.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poyo_edge.artifact import CORE, CORE_ORT_CPU, Artifact
from poyo_edge.core_inputs import one_window
from poyo_edge.errors import BackendError, MissingExtraError, UsageError
from poyo_edge.export.engines.cpu import approve_precision
from poyo_edge.export.engines.engine_build import EngineBuild, Progress
from poyo_edge.export.engines.options import (
    BuildOptions,
    choose_max_spikes,
    choose_precision,
    choose_session,
    choose_target,
)
from poyo_edge.export.engines.plan import (
    FOLDER,
    UNIT,
    BuildPlan,
    graph_name,
    read_plan,
    read_prepared,
    replaced,
    service_unit,
)
from poyo_edge.export.engines.static_shapes import fix_axes
from poyo_edge.export.parity.engine import Trial
from poyo_edge.export.precision.operator_table import TABLES, VERSIONS, TableSource
from poyo_edge.files.writing import sha256_bytes, write_bytes
from poyo_edge.recording.confined import open_confined
from poyo_edge.runtime.backends import Beside, open_backend
from poyo_edge.runtime.backends.buckets import token_buckets, unit_capacity
from poyo_edge.runtime.backends.machine import Machine, this_machine
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.ov.precision import forget_precision
from poyo_edge.runtime.constants import constant_shapes, session_constants
from poyo_edge.runtime.intake import UnitTable
from poyo_edge.targets import TARGETS, Target, build_command, known_faults

Say = Callable[[str], None]
if TYPE_CHECKING:
    from poyo_edge.export.precision.prepare import Prepared


def build(
    path: str | Path,
    options: BuildOptions | None = None,
    *,
    say: Say | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Build an artifact for a target, as far as this machine allows.

    Returns:
        JSON values: target, precision, buckets, engines, parity, settled, unsettled, next.

    Raises:
        ArtifactError, RecordingError: a file cannot be used.
        UsageError: an option makes no sense for the target.
        CheckFailedError: rounding or an engine is too far from the core; nothing is installed.
        BackendError, MissingExtraError: this machine lacks what the target needs.
    """
    job = _Job(Artifact.open(path), options or BuildOptions(), say or (lambda _: None))
    if job.target.backend == "tensorrt":
        return job.on_device(progress) if job.here else job.elsewhere()
    if job.target.backend == "tensorrt-rtx":
        return job.ahead_of_time(progress)
    return job.without_engine()


class _Job:
    """One build, from what it was told to its report."""

    def __init__(self, artifact: Artifact, options: BuildOptions, say: Say) -> None:
        self.artifact, self.options, self.say = artifact, options, say
        self.machine: Machine = this_machine()
        self.target = choose_target(options.target, self.machine)
        self.here = self.target.built_on_device and bool(self.machine.l4t)
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
        if self.most_spikes < manifest.max_spikes:
            self.warnings.append(
                f"windows of more than {self.buckets[-1]} spikes will be decoded on the CPU "
                f"(the artifact allows {manifest.max_spikes})"
            )

    def elsewhere(self) -> dict[str, Any]:
        """For a Jetson, on another machine: everything that can be settled without one."""
        prepared = self._prepare()
        graph = prepared.graph
        fixed = {str(size): sha256_bytes(self._fix(graph, size)) for size in self.buckets}
        gate = self._gate(graph)
        self.unsettled += [
            "that TensorRT on the Jetson builds the engines: it is another builder than the one "
            "that compiled them here",
            "accuracy on its GPU: checked there against the FP32 core; engines that fail are "
            "not installed",
            "latency: run poyo-edge bench there",
        ]
        plan = BuildPlan(
            core_sha256=self.core_sha256,
            precision=self.precision,
            graph_sha256=sha256_bytes(graph),
            graphs=fixed,
            n_units=self.n_units,
            target=self.target.name,
            prepared=prepared.to_json(),
            settled=self.settled,
            unsettled=self.unsettled,
        )
        if lost := replaced(self.artifact.path, plan):
            self.warnings.append(lost)
        plan.save(self.artifact.path, graph)
        name, flags = self.artifact.path.name, self._flags()
        steps = [f"copy the folder {name} to the Jetson, and there run:"]
        steps.append(f"  poyo-edge build {name} {flags}")
        if self.options.systemd:
            unit = self.artifact.path / FOLDER / UNIT
            write_bytes(unit, service_unit(self.options.systemd, flags).encode())
            there = f"{self.options.systemd}/{FOLDER}/{UNIT}"
            steps.append("or let it build at every start:")
            steps.append(f"  sudo cp {there} /etc/systemd/system/")
            steps.append(f"  sudo systemctl enable --now {UNIT}")
        return self._report(
            engines=[],
            gate=gate,
            rounding=prepared.to_json(),
            next=steps,
        )

    def on_device(self, progress: Progress | None) -> dict[str, Any]:
        """On the Jetson that will run the engines."""
        graph, plan = self._graph_for_device()
        engines = self._engine_build(progress)
        version = engines.version
        self.warnings += engines.version_warnings()
        for fault in known_faults(version):
            links = ", ".join(fault.issues)
            self.warnings.append(f"TensorRT {version}: {fault.fault} ({links}); {fault.answer}")
        if plan is not None:
            same = all(
                plan.graphs.get(str(size), digest) == digest
                for size in self.buckets
                for digest in [sha256_bytes(self._fix(graph, size))]
            )
            if same and plan.n_units == self.n_units:
                self.settled.append("these are the graphs that were checked on the workstation")
        lines, parity = engines.build_and_check(graph, self.core, self.trial, self.options.rebuild)
        self.settled.append("every engine agrees with the FP32 core on this device")
        return self._report(
            engines=lines,
            parity=parity,
            layers=engines.layers,
            notes=engines.notes,
            next=[f"poyo-edge bench {self.artifact.path} --backend tensorrt"],
        )

    def ahead_of_time(self, progress: Progress | None) -> dict[str, Any]:
        """For RTX workstations, on any CPU; checked against the core where there is a GPU."""
        prepared = self._prepare()
        engines = self._engine_build(progress)
        runnable = self.machine.sm in self.target.sm
        lines, parity = engines.build_and_check(
            prepared.graph,
            self.core,
            self.trial if runnable else None,
            self.options.rebuild,
        )
        self.settled.append(f"TensorRT-RTX {engines.version} compiled every bucket")
        if runnable:
            self.settled.append("every engine agrees with the FP32 core on this GPU")
        else:
            self.unsettled.append(
                "accuracy on a GPU: this machine has none that runs the engines; "
                "'poyo-edge verify' on the workstation compares them with golden windows"
            )
        return self._report(
            engines=lines,
            parity=parity,
            rounding=prepared.to_json(),
            next=[f"poyo-edge verify {self.artifact.path.name}  # on the workstation"],
        )

    def without_engine(self) -> dict[str, Any]:
        """ONNX Runtime compiles when it opens the core: check that it does, and that it agrees."""
        name = self.target.backend
        present = importlib.util.find_spec("onnxruntime") is not None
        if not present:
            raise MissingExtraError("onnxruntime", "gpu" if name == "ort-cuda" else "ort", name)
        if self.precision != "fp32":
            return self._lower_on_cpu()
        if self.options.precision == "fp32" and forget_precision(self.artifact.path):
            self.settled.append("what was approved below fp32 is forgotten")
        backend = open_backend(name, self.core, beside=self._for_cpu())
        parity = self.trial.compare(OrtCpuBackend(self.core, threads=1), backend, "fp32")
        parity.require(name, "use --target cpu" if name == "ort-cuda" else "export again")
        if backend.fallen_back:
            raise BackendError(f"{name}: it failed on the way; run poyo-edge doctor")
        self.settled.append(f"{name} runs the core as it is and agrees with it on this machine")
        return self._report(
            engines=[],
            parity=parity.to_json(),
            next=[f"poyo-edge bench {self.artifact.path} --backend {name}"],
        )

    def _lower_on_cpu(self) -> dict[str, Any]:
        """Below FP32 on the CPU: only what a recording shows to cost little."""
        self.say(f"comparing R² in {self.precision} and in fp32")
        record, parity = approve_precision(
            self.artifact.path,
            self.core,
            self.core_sha256,
            self.trial,
            self.precision,
            self.options.recording,
            open_backend("ort-cpu", self.core, beside=self._for_cpu()),
        )
        self.settled.append(
            f"{record.backend} {record.version} in {record.precision} costs "
            f"{record.r2_fp32 - record.r2:.5f} of R² {record.r2_fp32:.4f} on {record.recording} "
            f"({record.n_windows} windows) and takes {1 / record.speedup:.2f} times as long as "
            f"ort-cpu in fp32"
        )
        chosen = "uses it from now on" if record.speedup > 1 else "stays with ort-cpu"
        self.settled.append(f"backend 'auto' {chosen}; 'openvino' computes in {record.precision}")
        self.unsettled.append("other recordings and sessions: build again with one of them to see")
        return self._report(
            engines=[],
            parity=parity.to_json(),
            next=[f"poyo-edge bench {self.artifact.path} --backend {record.backend}"],
        )

    def _for_cpu(self) -> Beside:
        there = CORE_ORT_CPU in self.artifact.manifest.files
        return Beside(fused=self.artifact.read(CORE_ORT_CPU) if there else None)

    def _prepare(self) -> Prepared:
        """The graph of the precision, checked; needs onnx."""
        try:
            from poyo_edge.export.precision.prepare import prepare_graph
        except ModuleNotFoundError as problem:
            package = (problem.name or "").partition(".")[0]
            raise MissingExtraError(package, "export", "making a graph ready") from problem
        self.say(f"checking operators, and rounding to {self.precision} emulated on the CPU")
        plain = build_command(self.artifact.path, self.target.backend, "--precision fp32")
        prepared = prepare_graph(
            self.core, self.precision, self.trial, instead=f"build in FP32: {plain}"
        )
        *versions, rtx = VERSIONS
        self.settled.append(
            f"every operator, type and attribute is one that TensorRT {', '.join(versions)} and "
            f"TensorRT-RTX {rtx.removeprefix('rtx-')} take, by their operator tables"
        )
        self.unsettled += [
            f"that TensorRT {source.tensorrt} takes every operator: {source.why}"
            for source in self._tables()
            if not source.settles
        ]
        if self.precision != "fp32":
            lost = prepared.parity.r2_lost if prepared.parity is not None else None
            on = "" if lost is None else f", R² lower by {lost:.5f} on the recording"
            self.settled.append(
                f"{self.precision} rounding costs {prepared.error:.1e} sd of the output{on} "
                f"(emulated; {prepared.naive_error:.1e} sd without FP32 islands)"
            )
        return prepared

    def _gate(self, graph: bytes) -> list[dict[str, Any]]:
        """Compile the very graphs that the device will build, with NVIDIA's builder for RTX."""
        if not self.machine.rtx:
            self.unsettled.append(
                "that NVIDIA's parser takes the graphs: TensorRT-RTX is not installed here; "
                'pip install "poyo-edge[rtx]" compiles them on any CPU'
            )
            return []
        engines = self._builder(TARGETS["rtx"], None)
        lines = [engines.compile_only(self._fix(graph, size), size) for size in self.buckets]
        self.settled.append(
            f"NVIDIA's parser and builder (TensorRT-RTX {engines.version}) compiled the graph of "
            "every bucket, strongly typed"
        )
        return lines

    def _graph_for_device(self) -> tuple[bytes, BuildPlan | None]:
        plan = read_plan(self.artifact.path)
        if plan is not None and plan.core_sha256 != self.core_sha256:
            plan = None
        if self.precision == "fp32":
            return self.core, plan if plan and plan.precision == "fp32" else None
        if plan is not None and plan.precision == self.precision:
            return read_prepared(self.artifact.path, plan), plan
        if importlib.util.find_spec("onnx_ir") is None:
            raise UsageError(
                f"{self.artifact.path / FOLDER / graph_name(self.precision)}: expected a graph "
                f"made ready on a workstation, got none; run there: poyo-edge build "
                f"{self.artifact.path.name} --target {self.target.name} --precision "
                f"{self.precision}, and copy the artifact again; or, in FP32, here: "
                + build_command(self.artifact.path, "tensorrt", "--precision fp32")
            )
        return self._prepare().graph, None

    def _engine_build(self, progress: Progress | None) -> EngineBuild:
        build = self._builder(self.target, progress)
        build.open_store(
            core_sha256=self.core_sha256,
            precision=self.precision,
            n_units=self.n_units,
            buckets=self.buckets,
        )
        return build

    def _builder(self, target: Target, progress: Progress | None) -> EngineBuild:
        path = self.artifact.path
        again = f"poyo-edge build {path} {self._flags()}"
        return EngineBuild(target, self.machine, self.say, progress, artifact=path, again=again)

    def _flags(self) -> str:
        """What this build was told, as it would be typed."""
        flags = f"--target {self.target.name}"
        if self.precision != "fp16" and self.target.backend.startswith("tensorrt"):
            flags += f" --precision {self.precision}"
        if self.most_spikes < self.artifact.manifest.max_spikes:
            flags += f" --max-spikes {self.most_spikes}"
        return flags

    def _tables(self) -> list[TableSource]:
        """By which table each TensorRT that the target may have was checked."""
        found = {v for r in self.target.releases for v in (r.tensorrt, *r.upgrades)}
        return [source for source in TABLES if source.tensorrt in found]

    def _fix(self, graph: bytes, size: int) -> bytes:
        return fix_axes(graph, one_window(size, self.n_units))

    def _trial(self) -> Trial:
        manifest = self.artifact.manifest
        weights = self.artifact.weights(constant_shapes(manifest.spec))
        constants = session_constants(
            manifest.spec, weights, self.session.unit_embedding, self.session.session_embedding
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

    def _report(self, **more: Any) -> dict[str, Any]:
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
            "operator_tables": [dataclasses.asdict(source) for source in self._tables()],
            "settled": self.settled,
            "unsettled": self.unsettled,
            "warnings": self.warnings,
            **{"parity": None, "gate": [], "rounding": None, "layers": None, "notes": [], **more},
        }
