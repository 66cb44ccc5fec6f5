"""The graph that engines are built from: made ready, tried with NVIDIA's builder, or read back."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from poyo_edge.errors import MissingExtraError, UsageError, pip_install
from poyo_edge.export.engines.job import Job
from poyo_edge.export.engines.plan import FOLDER, BuildPlan, graph_name, read_plan, read_prepared
from poyo_edge.export.precision.operator_table import VERSIONS
from poyo_edge.targets import TARGETS, build_command

if TYPE_CHECKING:
    from poyo_edge.export.precision.prepare import Emulated, Prepared


def prepare(job: Job) -> Prepared:
    """The graph of the precision, checked; needs onnx.

    Raises:
        MissingExtraError: onnx is not installed.
        CheckFailedError: an operator that TensorRT does not take, or rounding costs too much.
    """
    try:
        from poyo_edge.export.precision.prepare import prepare_graph
    except ModuleNotFoundError as problem:
        package = (problem.name or "").partition(".")[0]
        raise MissingExtraError(package, "export", "making a graph ready") from problem
    job.say(f"checking operators, and rounding to {job.precision} emulated on the CPU")
    plain = build_command(job.artifact.path, job.target.backend, "--precision fp32")
    prepared = prepare_graph(job.core, job.precision, job.trial, instead=f"build in FP32: {plain}")
    *versions, rtx = VERSIONS
    job.settled.append(
        f"every operator, type and attribute is one that TensorRT {', '.join(versions)} and "
        f"TensorRT-RTX {rtx.removeprefix('rtx-')} take, by their operator tables"
    )
    job.unsettled += [
        f"that TensorRT {source.tensorrt} takes every operator: {source.why}"
        for source in job.operator_tables()
        if not source.settles
    ]
    if job.precision != "fp32":
        _tell_cost(job, prepared)
    return prepared


def _tell_cost(job: Job, prepared: Prepared) -> None:
    """What low precision costs, as emulated."""

    def words(found: Emulated) -> str:
        lost = found.parity.r2_lost if found.parity is not None else None
        on = "" if lost is None else f", R² lower by {lost:.5f} on the recording"
        return f"{found.error:.1e} sd of the output{on}"

    rounded, bound = prepared.rounded, prepared.accumulated
    job.settled.append(
        f"{job.precision} rounding costs {words(rounded)} "
        f"(emulated; {rounded.naive_error:.1e} sd without FP32 islands)"
    )
    if bound is None or bound.parity is None:
        return
    job.settled.append(
        f"with every sum in FP16 too, as fused attention may keep them, it costs {words(bound)} "
        f"(a bound, emulated on {bound.parity.n_windows} windows)"
    )
    if problems := bound.parity.problems():
        job.warnings.append(
            f"kernels that keep sums in FP16 may lose more than is allowed: {'; '.join(problems)}; "
            f"the comparison on the device decides, and --precision fp32 or bf16 avoids it"
        )


def compile_with_rtx(job: Job, graph: bytes) -> list[dict[str, Any]]:
    """Compile the very graphs that the device will build, with NVIDIA's builder for RTX."""
    if not job.machine.rtx:
        job.unsettled.append(
            "that NVIDIA's parser takes the graphs: TensorRT-RTX is not installed here; "
            f"what {pip_install('rtx')} brings compiles them on any CPU"
        )
        return []
    engines = job.builder(TARGETS["rtx"], None)
    lines = [engines.compile_only(job.fix(graph, size), size) for size in job.buckets]
    job.note_kernels(f"TensorRT-RTX {engines.version}", engines.kernel_plans)
    job.settled.append(
        f"NVIDIA's parser and builder (TensorRT-RTX {engines.version}) compiled the graph of "
        "every bucket, strongly typed"
    )
    return lines


def graph_for_device(job: Job) -> tuple[bytes, BuildPlan | None]:
    """The graph of the precision on the device, and the plan it came with, if it came with one.

    Raises:
        ArtifactError: what was made ready was changed since.
        UsageError: nothing was made ready, and this machine cannot do it.
    """
    plan = read_plan(job.artifact.path)
    if plan is not None and plan.core_sha256 != job.core_sha256:
        plan = None
    if job.precision == "fp32":
        return job.core, plan if plan and plan.precision == "fp32" else None
    if plan is not None and plan.precision == job.precision:
        return read_prepared(job.artifact.path, plan), plan
    if importlib.util.find_spec("onnx_ir") is None:
        raise UsageError(
            f"{job.artifact.path / FOLDER / graph_name(job.precision)}: expected a graph "
            f"made ready on a workstation, got none; run there: poyo-edge build "
            f"{job.artifact.path.name} --target {job.target.name} --precision "
            f"{job.precision}, and copy the artifact again; or, in FP32, here: "
            + build_command(job.artifact.path, "tensorrt", "--precision fp32")
        )
    return prepare(job).graph, None
