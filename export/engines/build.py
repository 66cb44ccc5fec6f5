"""``poyo-edge build``: from an artifact to what a target runs, or to what is left to do there.

On the device that runs the engines this needs neither torch nor onnx: graphs of mixed precision
were made ready on a workstation, by this same command.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poyo_edge.artifact import Artifact
from poyo_edge.errors import ArtifactError, BackendError, MissingExtraError
from poyo_edge.export.engines.cpu import approve_precision
from poyo_edge.export.engines.engine_build import Progress
from poyo_edge.export.engines.graphs import compile_with_rtx, graph_for_device, prepare
from poyo_edge.export.engines.job import Job, Say
from poyo_edge.export.engines.native import add_native
from poyo_edge.export.engines.options import BuildOptions
from poyo_edge.export.engines.plan import (
    FOLDER,
    PLAN,
    UNIT,
    BuildPlan,
    read_plan,
    replaced,
    service_unit,
)
from poyo_edge.files.writing import sha256_bytes, write_bytes
from poyo_edge.runtime.backends import BACKENDS, BEHIND, open_backend
from poyo_edge.runtime.backends.machine import this_machine
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.ort_native import NAME
from poyo_edge.runtime.backends.ov.precision import forget_precision
from poyo_edge.targets import known_faults

if TYPE_CHECKING:
    from poyo_edge.export.precision.prepare import Prepared


def build_engines(
    path: str | Path,
    options: BuildOptions | None = None,
    *,
    on_step: Say | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Build an artifact for a target, as far as this machine allows.

    Args:
        path: the artifact, a folder ``NAME.poyo``; what is built goes into it.
        options: see ``BuildOptions``.
        on_step: called with a sentence before each step.
        on_progress: called by the builder with the phase, what is done of it and what there is.

    Returns:
        JSON values: target, precision, buckets, engines, parity, kernel_plan, settled, unsettled,
        next.

    Raises:
        ArtifactError, RecordingError: a file cannot be used.
        UsageError: an option makes no sense for the target.
        CheckFailedError: rounding or an engine is too far from the core; nothing is installed.
        BackendError, MissingExtraError: this machine lacks what the target needs.
    """
    job = Job(
        Artifact.open(path), options or BuildOptions(), this_machine(), on_step or (lambda _: None)
    )
    if not BACKENDS[job.target.backend].built:
        return _without_engine(job)
    if not job.target.built_on_device:
        return _ahead_of_time(job, on_progress)
    return _on_device(job, on_progress) if job.here else _elsewhere(job)


def _elsewhere(job: Job) -> dict[str, Any]:
    """For a Jetson, on another machine: everything that can be settled without one."""
    prepared = prepare(job)
    graph = prepared.graph
    gate = compile_with_rtx(job, graph)
    job.unsettled += [
        "that TensorRT on the Jetson builds the engines: it is another builder than the one "
        "that compiled them here",
        "accuracy on its GPU: checked there against the FP32 core; engines that fail are "
        "not installed",
        "latency: run poyo-edge bench there",
    ]
    plan = _plan(job, prepared)
    if lost := replaced(job.artifact.path, plan):
        job.warnings.append(lost)
    plan.save(job.artifact.path, graph)
    name, flags = job.artifact.path.name, job.flags()
    steps = [f"copy the folder {name} to the Jetson, and there run:"]
    steps.append(f"  poyo-edge build {name} {flags}")
    if job.options.systemd:
        unit = job.artifact.path / FOLDER / UNIT
        write_bytes(unit, service_unit(job.options.systemd, flags).encode())
        there = f"{job.options.systemd}/{FOLDER}/{UNIT}"
        steps.append("or let it build at every start:")
        steps.append(f"  sudo cp {there} /etc/systemd/system/")
        steps.append(f"  sudo systemctl enable --now {UNIT}")
    return job.report(
        engines=[],
        gate=gate,
        rounding=prepared.to_json(),
        next=steps,
    )


def _plan(job: Job, prepared: Prepared) -> BuildPlan:
    """What there is to say about a graph that was made ready."""
    return BuildPlan(
        core_sha256=job.core_sha256,
        precision=job.precision,
        graph_sha256=sha256_bytes(prepared.graph),
        graphs={str(size): sha256_bytes(job.fix(prepared.graph, size)) for size in job.buckets},
        n_units=job.n_units,
        target=job.target.name,
        prepared=prepared.to_json(),
        settled=job.settled,
        unsettled=job.unsettled,
        kernel_plan=job.kernel_plan,
    )


def _keep_plan(job: Job, prepared: Prepared) -> None:
    """After a build for RTX: its kernels go into the plan, but a Jetson's plan stays what it is."""
    path = job.artifact.path
    plan = _plan(job, prepared)
    try:
        old = read_plan(path)
    except ArtifactError:
        old = None
    if old is not None:  # engines that were kept were not listed again
        for size, kernels in old.kernel_plan.items():
            if size in plan.graphs and old.graphs.get(size) == plan.graphs[size]:
                job.kernel_plan.setdefault(size, kernels)
        if old.target != job.target.name:
            if (old.graphs, old.graph_sha256) != (plan.graphs, plan.graph_sha256):
                job.warnings.append(
                    f"{FOLDER}/{PLAN} stays that of {old.target}, {old.precision}, which has "
                    f"another graph; the kernel plan of this build is in --report FILE"
                )
                return
            plan = dataclasses.replace(old, kernel_plan=job.kernel_plan)
    plan.save(path, prepared.graph)


def _on_device(job: Job, progress: Progress | None) -> dict[str, Any]:
    """On the Jetson that will run the engines."""
    graph, plan = graph_for_device(job)
    engines = job.open_engines(progress)
    version = engines.version
    job.warnings += engines.version_warnings()
    for fault in known_faults(version):
        links = ", ".join(fault.issues)
        job.warnings.append(f"TensorRT {version}: {fault.fault} ({links}); {fault.answer}")
    if plan is not None:
        same = all(
            plan.graphs.get(str(size)) == digest
            for size in job.buckets
            for digest in [sha256_bytes(job.fix(graph, size))]
        )
        if same and plan.n_units == job.n_units:
            job.settled.append("these are the graphs that were checked on the workstation")
    lines, parity = engines.build_and_check(graph, job.core, job.trial, job.options.rebuild)
    job.settled.append("every engine agrees with the FP32 core on this device")
    job.note_kernels(f"TensorRT {version}", engines.kernel_plans)
    return job.report(
        engines=lines,
        parity=parity,
        layers=engines.layers,
        notes=engines.notes,
        next=[f"poyo-edge bench {job.artifact.path} --backend tensorrt"],
    )


def _ahead_of_time(job: Job, progress: Progress | None) -> dict[str, Any]:
    """For RTX workstations, on any CPU; checked against the core where there is a GPU."""
    prepared = prepare(job)
    engines = job.open_engines(progress)
    runnable = job.machine.sm in job.target.sm
    lines, parity = engines.build_and_check(
        prepared.graph,
        job.core,
        job.trial if runnable else None,
        job.options.rebuild,
    )
    job.settled.append(f"TensorRT-RTX {engines.version} compiled every bucket")
    job.note_kernels(f"TensorRT-RTX {engines.version}", engines.kernel_plans)
    if runnable:
        job.settled.append("every engine agrees with the FP32 core on this GPU")
    else:
        job.unsettled.append(
            "accuracy on a GPU: this machine has none that runs the engines; "
            "'poyo-edge verify' on the workstation compares them with golden windows"
        )
    _keep_plan(job, prepared)
    return job.report(
        engines=lines,
        parity=parity,
        rounding=prepared.to_json(),
        next=[f"poyo-edge verify {job.artifact.path.name}  # on the workstation"],
    )


def _without_engine(job: Job) -> dict[str, Any]:
    """ONNX Runtime compiles when it opens the core: check that it does, and that it agrees."""
    name = job.target.backend
    row = BACKENDS[name]
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError("onnxruntime", row.extra, name)
    if job.precision != "fp32":
        return _lower_on_cpu(job)
    if job.options.precision == "fp32" and forget_precision(job.artifact.path):
        job.settled.append("what was approved below fp32 is forgotten")
    backend = open_backend(name, job.core, beside=job.beside())
    core = OrtCpuBackend(job.core, threads=1)
    parity = job.trial.compare(core, backend, "fp32")
    parity.require(name, "use --target cpu" if row.gpu else "export again")
    if backend.fallen_back:
        raise BackendError(f"{name}: it failed on the way; run poyo-edge doctor")
    job.settled.append(f"{name} runs the core as it is and agrees with it on this machine")
    native = add_native(job, core, backend) if name == BEHIND else None
    return job.report(
        engines=[],
        parity=parity.to_json(),
        native=None if native is None else native.to_json(),
        next=[f"poyo-edge bench {job.artifact.path} --backend {name if native is None else NAME}"],
    )


def _lower_on_cpu(job: Job) -> dict[str, Any]:
    """Below FP32 on the CPU: only what a recording shows to cost little."""
    job.say(f"comparing R² in {job.precision} and in fp32")
    record, parity = approve_precision(
        job.artifact.path,
        job.core,
        job.core_sha256,
        job.trial,
        job.precision,
        job.options.recording,
        open_backend(BEHIND, job.core, beside=job.beside()),
    )
    job.settled.append(
        f"{record.backend} {record.version} in {record.precision} costs "
        f"{record.r2_fp32 - record.r2:.5f} of R² {record.r2_fp32:.4f} on {record.recording} "
        f"({record.n_windows} windows) and takes {1 / record.speedup:.2f} times as long as "
        f"ort-cpu in fp32"
    )
    chosen = "uses it from now on" if record.speedup > 1 else "stays with ort-cpu"
    job.settled.append(f"backend 'auto' {chosen}; 'openvino' computes in {record.precision}")
    job.unsettled.append("other recordings and sessions: build again with one of them to see")
    return job.report(
        engines=[],
        parity=parity.to_json(),
        next=[f"poyo-edge bench {job.artifact.path} --backend {record.backend}"],
    )
