"""All engines of one artifact: built, compared with the core, and only then put in place."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from poyo_edge.core_inputs import one_window
from poyo_edge.errors import ArtifactError, BackendError, CheckFailedError
from poyo_edge.export.engines.builder import BuildSettings, BuiltEngine, Progress, build_engine
from poyo_edge.export.engines.kernel_plan import KernelPlan, read_kernel_plan
from poyo_edge.export.engines.static_shapes import fix_axes
from poyo_edge.export.parity.engine import Trial
from poyo_edge.files.writing import sha256_bytes
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.trt.backend import TensorRTBackend
from poyo_edge.runtime.backends.trt.cuda import Cuda
from poyo_edge.runtime.backends.trt.engine_key import EngineKey
from poyo_edge.runtime.backends.trt.engines import ENGINES, EngineRecord, EngineStore
from poyo_edge.runtime.backends.trt.opening import import_tensorrt
from poyo_edge.targets import (
    NEWEST_TENSORRT,
    OLDEST_TENSORRT,
    RTX_CAPABILITIES,
    Target,
    build_command,
    supported_tensorrt,
    version_numbers,
)

__all__ = ["EngineBuild", "Progress"]
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is to be built, beside the graph."""

    core_sha256: str
    precision: str
    n_units: int
    buckets: tuple[int, ...]


class EngineBuild:
    """Builds for one target with the TensorRT of this machine."""

    def __init__(
        self,
        target: Target,
        machine: Machine,
        say: Say,
        progress: Progress | None,
        *,
        artifact: Path,
        again: str,
    ) -> None:
        """Import TensorRT and look at its version.

        Args:
            target: what to build for.
            machine: this one.
            say: told what happens next.
            progress: told how far the builder is.
            artifact: whose engines they are, for errors.
            again: the whole command of this build, for errors; flags may be put behind it.

        Raises:
            MissingExtraError: it is not installed.
            BackendError: it cannot be loaded, or is older than what this is written for.
        """
        self.flavour = target.backend
        self.machine, self.say, self.progress = machine, say, progress
        self.artifact, self.again = artifact, again
        self.trt = import_tensorrt(self.flavour)
        self.version = str(self.trt.__version__)
        self.layers: dict[int, str] | None = None
        """What TensorRT made of each graph, once the engines have run."""
        self.kernel_plans: dict[int, KernelPlan] = {}
        """Token bucket → the builder's own account of what was built here."""
        self.notes: list[str] = []
        capabilities = RTX_CAPABILITIES if self.flavour == "tensorrt-rtx" else ()
        self.settings = BuildSettings(compute_capabilities=capabilities)
        oldest = version_numbers(OLDEST_TENSORRT)
        if self.flavour == "tensorrt" and version_numbers(self.version)[:2] < oldest:
            raise BackendError(
                f"TensorRT: expected {OLDEST_TENSORRT} or newer, got {self.version}; update "
                f"JetPack, then run: {again}"
            )

    def open_store(
        self,
        *,
        core_sha256: str,
        precision: str,
        n_units: int,
        buckets: tuple[int, ...],
    ) -> None:
        """Say what is wanted, and where it goes."""
        self.store = EngineStore(self.artifact / ENGINES)
        self.wanted = _Wanted(
            core_sha256=core_sha256, precision=precision, n_units=n_units, buckets=buckets
        )

    def version_warnings(self) -> list[str]:
        """What to say about a version that nobody has looked at."""
        if self.flavour != "tensorrt" or supported_tensorrt(self.version):
            return []
        return [
            f"TensorRT {self.version} is newer than {NEWEST_TENSORRT}, the newest that this was "
            "written for; the comparison with the core decides"
        ]

    def compile_only(self, graph: bytes, n_spikes: int) -> dict[str, Any]:
        """Build a graph of fixed shape and keep nothing of it but figures."""
        self.say(f"compiling the graph for {n_spikes} spikes")
        with self._named(n_spikes):
            built = build_engine(self.trt, graph, self.settings, progress=self.progress)
        self._note_kernels(n_spikes, built)
        return {
            "n_spikes": n_spikes,
            "size": len(built.data),
            "build_s": round(built.seconds, 2),
            "n_layers": built.n_layers,
        }

    def build_and_check(
        self, graph: bytes, core: bytes, trial: Trial | None, rebuild: bool
    ) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """Build what is not there yet, compare, and install.

        On TensorRT 10.3 an FP16 engine that fails is built once more from the FP32 graph, with
        precision left to the builder, as that version was made to be used.

        Args:
            graph: of the precision wanted, axes open.
            core: the FP32 core, to compare with.
            trial: what to compare on; None where nothing can be run.
            rebuild: build even what is there.

        Raises:
            CheckFailedError: an engine is too far from the core; none is installed.
            BackendError: TensorRT refuses a graph, or cannot run an engine.
        """
        try:
            return self._build_and_check(graph, core, trial, rebuild)
        except CheckFailedError as problem:
            weak = self.version.startswith("10.3") and self.wanted.precision == "fp16"
            if not weak or self.settings.weak_fp16:
                raise
            self.notes.append(f"strongly typed FP16 failed ({problem}): built with weak typing")
            self.say("building once more, with precision left to TensorRT 10.3")
            self.settings = dataclasses.replace(self.settings, weak_fp16=True)
            return self._build_and_check(core, core, trial, rebuild)

    def _build_and_check(
        self, graph: bytes, core: bytes, trial: Trial | None, rebuild: bool
    ) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        keys, graphs = {}, {}
        for size in self.wanted.buckets:
            graphs[size] = fix_axes(graph, one_window(size, self.wanted.n_units))
            keys[size] = self._key(size, sha256_bytes(graphs[size]))
        damaged = self.store.drop_damaged()
        self.notes += [f"removed, and built again if wanted: {problem}" for problem in damaged]
        kept, why = self._kept(keys, rebuild)
        built = {
            size: self._build(size, graphs[size])
            for size in self.wanted.buckets
            if size not in kept
        }
        parity = None
        if trial is not None and built:
            data = {size: kept[size][1] for size in kept}
            data |= {size: engine.data for size, engine in built.items()}
            parity = self._compare(data, core, trial)
        for size, engine in built.items():
            self._install(keys[size], engine, parity)
        if built:
            old = self.store.drop_superseded(self.flavour)
            self.notes += [f"removed an engine of an earlier version: {name}" for name in old]
        if built and self.flavour == "tensorrt":
            self.store.prune(self.flavour, self.machine)
        if not built and kept:
            parity = next(iter(kept.values()))[0].parity
        lines = [
            self._line(keys[size], kept.get(size), built.get(size), why.get(size, ""))
            for size in self.wanted.buckets
        ]
        return lines, parity

    def _kept(
        self, keys: Mapping[int, EngineKey], rebuild: bool
    ) -> tuple[dict[int, tuple[EngineRecord, bytes]], dict[int, str]]:
        """Engines that are there and sound; and why each of the others is built."""
        records = self.store.records()
        kept, why = {}, {}
        for size, key in keys.items():
            same = next((record for record in records if record.key == key), None)
            if same is None:
                why[size] = self._why_not(key, records)
                continue
            if rebuild:
                why[size] = "--rebuild was given"
                continue
            try:
                # Engines made ahead of time are for other machines than this one.
                here = self.machine if self.flavour == "tensorrt" else None
                kept[size] = same, self.store.read(same, here)
            except ArtifactError as problem:
                changed = "bytes changed: " if problem.field in ("size", "sha256") else ""
                why[size] = (
                    f"{changed}the {problem.field} of {Path(problem.path).name} was expected to be "
                    f"{problem.expected}, but is {problem.got}"
                )
        return kept, why

    def _why_not(self, key: EngineKey, records: Sequence[EngineRecord]) -> str:
        """What has changed since the engine that is most like the one wanted."""
        changes = [
            key.changes(record.key)
            for record in records
            if (record.key.flavour, record.key.n_spikes) == (key.flavour, key.n_spikes)
        ]
        if not changes:
            return "there was none"
        fewest = min(changes, key=len)
        # A graph follows from the core, the precision and the sizes: it is news only by itself.
        return "; ".join(c for c in fewest if len(fewest) == 1 or not c.startswith("the graph"))

    @contextlib.contextmanager
    def _named(self, n_spikes: int) -> Iterator[None]:
        """TensorRT's complaints, with what was built and what to type."""
        try:
            yield
        except BackendError as problem:
            raise BackendError(
                f"{self.artifact}: engine for {n_spikes} spikes: {problem}; "
                f"to try again: {self.again}"
            ) from problem

    def _build(self, size: int, graph: bytes) -> BuiltEngine:
        self.say(f"building the engine for {size} spikes, {self.wanted.precision}")
        with self._named(size):
            built = build_engine(
                self.trt,
                graph,
                self.settings,
                timing_cache=self.store.read_timing_cache(),
                progress=self.progress,
            )
        if built.timing_cache:
            self.store.write_timing_cache(built.timing_cache)
        self._note_kernels(size, built)
        self.notes += [f"{size} spikes: TensorRT warns: {words}" for words in built.warnings[:3]]
        return built

    def _note_kernels(self, size: int, built: BuiltEngine) -> None:
        plan = read_kernel_plan(built.listing)
        if plan is not None:
            self.kernel_plans[size] = plan

    def _compare(self, engines: Mapping[int, bytes], core: bytes, trial: Trial) -> dict[str, Any]:
        self.say("comparing the engines with the FP32 core on this device")
        precision = self.wanted.precision
        backend = TensorRTBackend(
            self.flavour, self.trt, Cuda.open(), engines, precision, again=self.again
        )
        try:
            parity = trial.compare(OrtCpuBackend(core, threads=1), backend, precision)
            self.layers = backend.layers()
            self.notes += backend.notes
        finally:
            backend.close()
        parity.require(
            f"{self.artifact}: TensorRT {self.version}, {precision}",
            "no engine was installed; " + self._instead(precision),
        )
        return parity.to_json()

    def _instead(self, precision: str) -> str:
        """What to type when an engine is wrong."""
        report = "--report report.json"
        if precision == "fp32":
            return f"decode on the CPU, and report this: {self.again} {report}"
        plain = build_command(self.artifact, self.flavour, "--precision fp32")
        return f"build in FP32: {plain}; and report this: {self.again} {report}"

    def _install(self, key: EngineKey, engine: BuiltEngine, parity: dict[str, Any] | None) -> None:
        record = EngineRecord(
            key=key,
            sha256=sha256_bytes(engine.data),
            size=len(engine.data),
            build_s=round(engine.seconds, 2),
            parity=parity,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(),
        )
        self.store.write(record, engine.data)

    def _key(self, size: int, graph_sha256: str) -> EngineKey:
        device = self.flavour == "tensorrt"
        sm = (self.machine.sm,) if device else tuple(c.removeprefix("SM") for c in RTX_CAPABILITIES)
        return EngineKey(
            flavour=self.flavour,
            core_sha256=self.wanted.core_sha256,
            graph_sha256=graph_sha256,
            precision=self.wanted.precision,
            n_spikes=size,
            n_units=self.wanted.n_units,
            version=self.machine.tensorrt if device else self.machine.rtx,
            sm=sm,
            driver=self.machine.driver if device else "",
            l4t=self.machine.l4t if device else "",
            flags=self.settings.flags(),
            gpu=self.machine.gpu if device else "",
        )

    def _line(
        self,
        key: EngineKey,
        kept: tuple[EngineRecord, bytes] | None,
        built: BuiltEngine | None,
        why: str,
    ) -> dict[str, Any]:
        size = len(built.data) if built is not None else kept[0].size if kept is not None else 0
        seconds = built.seconds if built is not None else 0.0
        return {
            "n_spikes": key.n_spikes,
            "file": f"{ENGINES}/{key.name}.engine",
            "size": size,
            "build_s": round(seconds, 2),
            "kept": built is None,
            "why": why,
        }
