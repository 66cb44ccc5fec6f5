"""Whether operators of our own were right and faster for an artifact on this machine.

``build --target cpu`` compares and times them and writes the record; with other kernels, another
core or another processor it says nothing.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from poyo_edge.artifact.onnx_guard import require_plain_onnx
from poyo_edge.errors import ArtifactError
from poyo_edge.files.tensors import read_file
from poyo_edge.files.writing import own_folder, sha256_bytes, write_bytes
from poyo_edge.records import AnyFloat, JsonRecord, require_fields
from poyo_edge.runtime.backends.beside_manifest import read_record, write_record

FOLDER = "cpu"
RECORD = "native.json"
GRAPH = "core.cpu.onnx"
"""In an artifact, where its export made it, or in ``cpu/``, where ``build`` did."""
ADAPT_RECORD, ADAPT_GRAPH = "native_adapt.json", "adapt.cpu.onnx"
"""Of loss and gradients; both in ``cpu/``."""
_DO = "remove the folder cpu, or build again with poyo-edge build --target cpu"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NativeRecord(JsonRecord):
    """What was measured, and of what."""

    core_sha256: str
    graph_sha256: str
    sources: str
    """Of the kernels; see ``kernel_library.sources_hash``."""
    instructions: str
    cpu: str
    n_windows: int
    """Compared with the core."""
    max_abs_error: AnyFloat
    """In the model's scale."""
    output_sd: AnyFloat
    speedup: float
    """How many times faster than ``ort-cpu``, one thread."""

    def __post_init__(self) -> None:
        require_fields(self)

    def save(self, artifact: Path, graph: bytes | None) -> None:
        """Write it into an artifact, with the graph where the manifest has none."""
        if graph is not None:
            own_folder(artifact / FOLDER)
            write_bytes(artifact / FOLDER / GRAPH, graph)
        write_record(artifact / FOLDER / RECORD, self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NativeAdaptRecord(JsonRecord):
    """What was measured of the graph of gradients; on which machine says ``NativeRecord``."""

    core_sha256: str
    graph_sha256: str
    sources: str
    max_relative_error: AnyFloat
    """Of loss and gradients against the golden ones, each relative to its largest entry."""
    speedup: float
    """How many times faster than the graph that the artifact was exported with, one thread."""

    def __post_init__(self) -> None:
        require_fields(self)

    def save(self, artifact: Path, graph: bytes) -> None:
        """Write it into an artifact, with the graph."""
        own_folder(artifact / FOLDER)
        write_bytes(artifact / FOLDER / ADAPT_GRAPH, graph)
        write_record(artifact / FOLDER / ADAPT_RECORD, self)


def forget_native_adapt(artifact: Path) -> None:
    """Remove the record of the graph of gradients, if there is one; the graph is then not used."""
    (artifact / FOLDER / ADAPT_RECORD).unlink(missing_ok=True)


def read_native_adapt(artifact: Path) -> NativeAdaptRecord | None:
    """The record of the graph of gradients, or None where there is none.

    Raises:
        ArtifactError: it cannot be read.
    """
    return read_record(artifact / FOLDER / ADAPT_RECORD, NativeAdaptRecord, _DO)


def read_adapt_graph(artifact: Path, record: NativeAdaptRecord) -> bytes:
    """The graph of gradients that a record is of.

    Raises:
        ArtifactError: it is not there, not what the record says, or not a graph of ours.
    """
    return _checked(artifact / FOLDER / ADAPT_GRAPH, record.graph_sha256)


def read_native(artifact: Path) -> NativeRecord | None:
    """The record of an artifact, or None where there is none.

    Raises:
        ArtifactError: it cannot be read.
    """
    return read_record(artifact / FOLDER / RECORD, NativeRecord, _DO)


def read_built_graph(artifact: Path, core_sha256: str) -> bytes | None:
    """The graph that ``build`` made of this core, or None where it made none.

    Raises:
        ArtifactError: it is not what the record says, or not a graph of ours.
    """
    path, record = artifact / FOLDER / GRAPH, read_native(artifact)
    if record is None or record.core_sha256 != core_sha256 or not path.exists():
        return None
    return _checked(path, record.graph_sha256)


def _checked(path: Path, sha256: str) -> bytes:
    data = read_file(path, ArtifactError)
    if (digest := sha256_bytes(data)) != sha256:
        raise ArtifactError(path, "sha256", expected=sha256[:12], got=digest[:12], do=_DO)
    require_plain_onnx(data, path)
    return data


def has_graph(artifact: Path) -> bool:
    """Whether an artifact has a graph of our operators, in one place or the other."""
    return (artifact / GRAPH).exists() or (artifact / FOLDER / GRAPH).exists()


def has_adapt_graph(artifact: Path) -> bool:
    """Whether ``build`` made a graph of gradients of our operators for an artifact."""
    return (artifact / FOLDER / ADAPT_GRAPH).exists()
