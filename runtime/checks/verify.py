"""Does an artifact still do on this machine what it did where it was exported?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from poyo_edge.artifact import ADAPT, ADAPT_ORT_CPU, CORE, SESSIONS, Artifact, Golden
from poyo_edge.artifact.signing import require_signed
from poyo_edge.errors import PoyoEdgeError, SignatureError
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.backends import BACKENDS, BEHIND, list_backends, open_ort_cpu
from poyo_edge.runtime.backends.kernel_library import find_library
from poyo_edge.runtime.backends.machine import this_machine
from poyo_edge.runtime.backends.native_record import ADAPT_GRAPH, has_adapt_graph
from poyo_edge.runtime.backends.ort_native import open_built_gradients
from poyo_edge.runtime.backends.trt.engines import ENGINES, EngineStore
from poyo_edge.runtime.core import Core

WORST_SD = {"fp32": 1e-2, "fp16": 0.3, "bf16": 2.0}
"""Largest error of one value on a GPU, in sd of the output: enough to notice a broken kernel."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check(JsonRecord):
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def verify(
    path: str | Path, *, threads: int = 1, public_key: str | Path | None = None
) -> list[Check]:
    """Check every file's hash, every session, the golden windows on each backend present, and
    the bytes of every installed engine, whatever machine it was built for.

    Args:
        path: the artifact.
        threads: for one window.
        public_key: a public key file; then the artifact's signature is checked too.

    Raises:
        MissingExtraError: ``cryptography`` is needed for that and not installed.
        ArtifactError: a file is missing or damaged; nothing else can be checked then.
    """
    artifact = Artifact.open(path)
    n_files = len(artifact.manifest.files)
    checks = [Check(name="files", ok=True, detail=f"{n_files} files, size and SHA-256")]
    if public_key is not None:
        checks.append(_signature_check(artifact, public_key))
    sessions = sorted((artifact.path / SESSIONS).glob("*.session"))
    checks += [_session_check(artifact, file) for file in sessions]
    graphs = [name for name in (ADAPT, ADAPT_ORT_CPU) if name in artifact.manifest.files]
    checks += [_gradient_check(artifact, name, threads) for name in graphs]
    if has_adapt_graph(artifact.path) and find_library() is not None:
        checks.append(_gradient_check(artifact, ADAPT_GRAPH, threads))
    store = EngineStore(artifact.path / ENGINES)
    checks += _engine_checks(artifact, store)
    for info in list_backends():
        row = BACKENDS[info.name]
        built = store.holds(info.name) if row.built else True
        if row.holds is not None:
            built = built and row.holds(artifact.path)
        if info.present and built:
            checks.append(_golden_check(artifact, info.name, threads))
        elif info.name == BEHIND:  # the one that every device needs, if only to fall back to
            checks.append(Check(name=f"backend {info.name}", ok=False, detail=info.reason))
    return checks


def _signature_check(artifact: Artifact, public_key: str | Path) -> Check:
    try:
        name = require_signed(artifact, public_key)
    except SignatureError as error:
        return Check(name="signature", ok=False, detail=str(error))
    listed = artifact.manifest.files
    folder = artifact.path / SESSIONS
    added = [f for f in folder.glob("*.session") if f"{SESSIONS}/{f.name}" not in listed]
    beyond = f"; not covered: {len(added)} sessions added later" if added else ""
    return Check(name="signature", ok=True, detail=f"by key {name}{beyond}")


def _engine_checks(artifact: Artifact, store: EngineStore) -> list[Check]:
    """An engine for another machine is no fault; one whose bytes changed is."""
    states = store.examine(artifact.manifest.files[CORE].sha256, this_machine())
    return [Check(name=f"engine {s.file}", ok=s.sound, detail=s.detail) for s in states]


def _session_check(artifact: Artifact, file: Path) -> Check:
    name = f"session {file.name}"
    try:
        session = artifact.session(file)
    except PoyoEdgeError as error:
        return Check(name=name, ok=False, detail=str(error))
    return Check(name=name, ok=True, detail=f"{len(session.header.unit_ids)} units")


def _golden_check(artifact: Artifact, backend: str, threads: int) -> Check:
    name = f"golden windows on {backend}"
    golden = artifact.golden()
    try:
        core = Core.open(artifact, backend=backend, threads=threads)
        constants = core.constants(golden.unit_embedding, golden.session_embedding)
        errors = [
            np.abs(
                core.predict(
                    constants, window["spike_time"], window["spike_unit"], window["query_time"]
                )
                - window["prediction"]
            ).max()
            for window in golden.windows
        ]
    except PoyoEdgeError as error:
        return Check(name=name, ok=False, detail=str(error))
    if core.backend.fallen_back:
        return Check(name=name, ok=False, detail=f"it failed, and {core.backend.name} decoded")
    worst, tolerance = float(np.max(errors)), _tolerance(golden, core, backend)
    # A NaN compares false and so fails.
    ok = bool(worst <= tolerance)
    detail = f"{len(errors)} windows, max error {worst:.2e}, tolerance {tolerance:.2e}"
    return Check(name=name, ok=ok, detail=detail)


def _tolerance(golden: Golden, core: Core, backend: str) -> float:
    """The export's on the CPU; elsewhere what its precision is allowed, in sd of the output."""
    if BACKENDS[backend].exact:
        return golden.tolerance
    with np.errstate(invalid="ignore"):  # golden windows that are not finite fail all the same
        spread = np.concatenate([window["prediction"] for window in golden.windows]).std(0).mean()
    return max(golden.tolerance, WORST_SD[core.backend.precision] * float(spread))


def _gradient_check(artifact: Artifact, file: str, threads: int) -> Check:
    """Whether new sessions can be fitted here: a graph of gradients on its golden batch."""
    golden, native = artifact.golden().gradients, file == ADAPT_GRAPH
    name = "golden gradients on ort-native" if native else "golden gradients on ort-cpu"
    name += f", {file}" if file == ADAPT_ORT_CPU else ""
    try:
        if native:
            session = open_built_gradients(artifact.path)
        else:
            session = open_ort_cpu(artifact.read(file), threads=threads, what=file)
        found = session.run(list(golden.expected), golden.feeds)
    except PoyoEdgeError as error:
        return Check(name=name, ok=False, detail=str(error))
    except Exception as problem:  # ONNX Runtime raises classes of its own.
        return Check(name=name, ok=False, detail=f"{file}: {problem}")
    errors = [
        float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-30))
        for got, want in zip(found, golden.expected.values(), strict=True)
    ]
    worst = float(np.max(errors))
    detail = f"max relative error {worst:.2e}, tolerance {golden.tolerance:.2e}"
    return Check(name=name, ok=bool(worst <= golden.tolerance), detail=detail)
