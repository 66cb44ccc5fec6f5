"""A session and its core as one ONNX file.

Made without torch or onnx, since sessions are made on devices (``frozen_graph``). So every artifact
can be frozen, those of older versions too.

Legend: N spikes, U units, O outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.arrays import Array, Float32
from poyo_edge.artifact import CORE, CORE_CPU, CORE_ORT_CPU, Artifact, Session
from poyo_edge.artifact.frozen import FrozenHeader, open_frozen, sealed
from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.export.frozen_graph import frozen_graph
from poyo_edge.files.writing import atomic_path, require_folder
from poyo_edge.runtime.backends.kernel_library import find_library
from poyo_edge.runtime.backends.native_record import read_built_graph
from poyo_edge.runtime.backends.ort_cpu import open_ort_cpu
from poyo_edge.runtime.core import Core

TOLERANCE = 1e-5
"""Of the output scale: how far a frozen file may be from the core."""
_TYPICAL_SPIKES = 500
_WINDOWS = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FreezeReport:
    """What was written, and how far it is from the artifact."""

    out: str
    session_id: str
    n_units: int
    fused: bool
    """Whether it has ONNX Runtime's own operators, for its CPU provider."""
    kernels: bool
    """Whether it has operators of our own, so that it needs their library."""
    bytes: int
    sha256: str
    n_windows: int
    """Compared with the core."""
    max_abs_error: float
    """Largest difference of a value, in behaviour units."""
    tolerance: float

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)


def freeze_session(
    artifact: str | Path,
    session: Session | str | Path | None,
    out: str | Path,
    *,
    plain: bool = False,
    kernels: bool = False,
    overwrite: bool = False,
) -> FreezeReport:
    """Write a session of an artifact as one ONNX file that needs nothing else.

    Its inputs are ``spike_unit`` (1, N) int32, rows of the session's units, and ``spike_time``
    (1, N) float32, seconds from the start of the window; its output is ``value`` (1, 1, O) float32
    in behaviour units. Spikes may be in any order; N may be 0. Spikes of no unit (-1, for example)
    or outside the window are left out, so a window can be padded.

    Args:
        artifact: the folder ``NAME.poyo``.
        session: a session, its file or its id; None takes the only one.
        out: the file to write.
        plain: standard operators only, for runtimes other than ONNX Runtime's CPU provider.
        kernels: operators of our own (``poyo_edge_kernels.so``), which are faster; whoever decodes
            with the file needs their library.
        overwrite: replace a file that is there.

    Raises:
        ArtifactError, SessionError: a file cannot be used.
        UsageError: no such session, one of another core, or ``out`` cannot be written.
        CheckFailedError: it decodes otherwise than the artifact; nothing is written then.
        MissingExtraError, BackendError: ONNX Runtime is absent or fails.
    """
    out = Path(out)
    require_folder(out)
    if out.exists() and not overwrite:
        raise UsageError(
            f"{out}: expected no such file yet, got one; name another, or pass --overwrite"
        )
    opened = Artifact.open(artifact)
    chosen = _session_of(opened, session)
    core = Core.open(opened, backend="ort-cpu")
    constants = core.constants_of(chosen)
    name, graph = _graph_to_freeze(opened, plain=plain, kernels=kernels)
    header = _header_of(opened, chosen)
    scale, offset = opened.manifest.output.arrays(opened.manifest.spec.dim_out)
    query = np.full((1, 1), header.window_s, np.float32)
    model = frozen_graph(
        graph,
        opened.path / name,
        {**constants.feeds(), "query_time": query},
        scale.astype(np.float32),
        offset.astype(np.float32),
        chosen.wiener,
    )
    data = sealed(model, header)
    windows = _windows(header)
    error = _largest_error(core, chosen, data, windows, kernels=kernels)
    tolerance = TOLERANCE * float(np.abs(scale).max())
    if not error <= tolerance:
        raise CheckFailedError(
            f"{out}: expected values within {tolerance:.2g} of the artifact's, got {error:.2g}; "
            f"nothing was written; run poyo-edge verify {opened.path}"
        )
    with atomic_path(out) as temporary:
        temporary.write_bytes(data)
    frozen = open_frozen(out)
    return FreezeReport(
        out=str(out),
        session_id=header.session_id,
        n_units=len(header.unit_ids),
        fused=name == CORE_ORT_CPU,
        kernels=kernels,
        bytes=len(data),
        sha256=frozen.sha256,
        n_windows=len(windows),
        max_abs_error=error,
        tolerance=tolerance,
    )


def _session_of(artifact: Artifact, session: Session | str | Path | None) -> Session:
    """The one that is meant, if it was made for this artifact's core."""
    chosen = session if isinstance(session, Session) else artifact.session(session)
    core_hash = artifact.manifest.core_hash
    if chosen.header.core_hash != core_hash:
        raise UsageError(
            f"session {chosen.header.session_id!r}: expected one made for core "
            f"{core_hash[:12]}, got {chosen.header.core_hash[:12]}; use a session that "
            f"was made for this artifact"
        )
    return chosen


def _header_of(artifact: Artifact, session: Session) -> FrozenHeader:
    manifest = artifact.manifest
    return FrozenHeader(
        session_id=session.header.session_id,
        unit_ids=session.header.unit_ids,
        core_hash=manifest.core_hash,
        window_s=float(manifest.spec.window_seconds),
        unit=manifest.output.unit,
        behavior=manifest.behavior,
        max_spikes=manifest.max_spikes,
        activity=session.activity,
    )


def _graph_to_freeze(artifact: Artifact, *, plain: bool, kernels: bool) -> tuple[str, bytes]:
    """The file of the artifact whose graph is taken, and that graph."""
    if kernels:
        return CORE_CPU, _graph_of_kernels(artifact, plain=plain)
    fused = not plain and CORE_ORT_CPU in artifact.manifest.files
    name = CORE_ORT_CPU if fused else CORE
    return name, artifact.read(name)


def _graph_of_kernels(artifact: Artifact, *, plain: bool) -> bytes:
    """The artifact's graph of our operators, from its export or from ``build``."""
    if plain:
        raise UsageError("kernels: expected it without plain, which asks for standard operators")
    graph = artifact.read_optional(CORE_CPU)
    if graph is None:
        graph = read_built_graph(artifact.path, artifact.manifest.files[CORE].sha256)
    if graph is None or find_library() is None:
        raise UsageError(
            f"kernels: expected operators of our own and an artifact with a graph of them; run: "
            f"poyo-edge build {artifact.path} --target cpu; or freeze without --kernels"
        )
    return graph


def _windows(header: FrozenHeader) -> list[tuple[Float32, Array]]:
    """Windows to compare: silent, of one spike, of the largest size, and of the session's rates."""
    rng = np.random.default_rng(0)
    usual = _TYPICAL_SPIKES
    if header.activity is not None:
        usual = max(1, round(float(header.activity.rate_hz.sum()) * header.window_s))
    sizes = [0, 1, header.max_spikes]
    sizes += [min(int(n), header.max_spikes) for n in rng.poisson(usual, _WINDOWS - len(sizes))]
    last = np.nextafter(np.float32(header.window_s), np.float32(0))
    return [
        (
            np.minimum(rng.random(n, np.float32) * np.float32(header.window_s), last),
            rng.integers(0, len(header.unit_ids), n).astype(np.int32),
        )
        for n in sizes
    ]


def _largest_error(
    core: Core,
    session: Session,
    data: bytes,
    windows: Sequence[tuple[Float32, Array]],
    *,
    kernels: bool,
) -> float:
    manifest, constants = core.artifact.manifest, core.constants_of(session)
    scale, offset = manifest.output.arrays(manifest.spec.dim_out)
    query = np.full(1, manifest.spec.window_seconds, np.float32)
    library = find_library() if kernels else None
    operators = "" if library is None else str(library.path)
    frozen = open_ort_cpu(data, threads=1, what="the frozen session", operators=operators)
    errors = list[float]()
    for times, units in windows:
        wanted = core.predict(constants, times, units, query).astype(np.float64) * scale + offset
        if session.wiener is not None:
            wanted = session.wiener.mixed_with(wanted, units, times, query)
        feeds = {"spike_unit": units[None], "spike_time": times[None]}
        (value,) = frozen.run(["value"], feeds)
        errors.append(np.abs(value[0] - wanted).max())
    return float(np.max(errors))
