"""The artifact ``NAME.poyo/``: everything that a device needs, with a manifest that vouches for it.

manifest.json        what this is, and SHA-256 and size of every file
core.onnx            the folded core
core.ort-cpu.onnx    the same with ONNX Runtime's own operators, for its CPU provider
core.cpu.onnx        the same with operators of ours (runtime/native/kernels)
adapt.onnx           loss and gradients, to fit new sessions
adapt.ort-cpu.onnx   the same with ONNX Runtime's own operators, for its CPU provider
weights.safetensors  what the session constants need
prior.safetensors    what trained embeddings look like
golden.safetensors   windows with expected outputs
sessions/*.session   known sessions
report.json, report.html, *.png
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poyo_edge.artifact.golden import Golden, golden_of
from poyo_edge.artifact.onnx_guard import require_plain_onnx
from poyo_edge.artifact.session import UNLABELLED, Session, read_header
from poyo_edge.errors import ArtifactError, UsageError
from poyo_edge.files import tensors
from poyo_edge.files.writing import safe_name, sha256_bytes, sha256_json
from poyo_edge.records import FieldError, JsonRecord, record_from, require_fields
from poyo_edge.spec import ModelSpec, OutputScale

SCHEMA = "poyo-edge/artifact"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
CORE = "core.onnx"
CORE_ORT_CPU = "core.ort-cpu.onnx"
"""Optional: artifacts without it run the core itself there."""
CORE_CPU = "core.cpu.onnx"
"""Optional, likewise, and made only where the operators are there."""
ADAPT = "adapt.onnx"
ADAPT_ORT_CPU = "adapt.ort-cpu.onnx"
"""Optional, likewise."""
WEIGHTS = "weights.safetensors"
PRIOR = "prior.safetensors"
GOLDEN = "golden.safetensors"
SESSIONS = "sessions"
_REQUIRED = (CORE, ADAPT, WEIGHTS, PRIOR, GOLDEN)
_FILE_NAME = re.compile(r"(sessions/)?[A-Za-z0-9_-][A-Za-z0-9._-]*")
_REPAIR = "copy the whole artifact again or export it again"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord(JsonRecord):
    """SHA-256 (hexadecimal) and size in bytes of one file of the artifact."""

    sha256: str
    size: int

    def __post_init__(self) -> None:
        require_fields(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The contents of ``manifest.json``."""

    name: str
    spec: ModelSpec
    output: OutputScale
    behavior: str
    """What is decoded, as GROUP.KEY of a recording; empty when unknown."""
    core_hash: str
    source: dict[str, Any]
    """The checkpoint: file name, sha256, layout, container, notes."""
    max_spikes: int
    """Most spikes that one window is decoded from; the newest are kept."""
    files: dict[str, FileRecord]
    tools: dict[str, str]
    created: str = ""

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values, with a checksum of them."""
        values = {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "spec": self.spec.to_json(),
            "output": self.output.to_json(),
            "files": {name: record.to_json() for name, record in sorted(self.files.items())},
        }
        versions = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION}
        return {**versions, **values, "checksum": sha256_json(values)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An artifact whose manifest has been read and whose files have been checked."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Artifact:
        """Read the manifest, check size and SHA-256 of every file it lists, and look into graphs.

        Raises:
            ArtifactError: anything missing, damaged, of a newer schema or malformed, or a graph
                that ``require_plain_onnx`` refuses.
        """
        artifact = cls(path=Path(path), manifest=read_manifest(path))
        for name in artifact.manifest.files:
            data = artifact.read(name)
            if name.endswith(".onnx"):
                require_plain_onnx(data, artifact.path / name)
        return artifact

    def read(self, name: str) -> bytes:
        """The checked bytes of a listed file.

        Raises:
            ArtifactError: missing, or size or SHA-256 differ from the manifest.
        """
        path, record = self.path / name, self.manifest.files[name]
        if not path.exists():
            raise ArtifactError(
                path, "file", expected="one that the manifest lists", got="none", do=_REPAIR
            )
        data = tensors.read_file(path, ArtifactError)
        if len(data) != record.size:
            raise ArtifactError(
                path, "size", expected=f"{record.size} bytes", got=len(data), do=_REPAIR
            )
        digest = sha256_bytes(data)
        if digest != record.sha256:
            raise ArtifactError(
                path, "sha256", expected=record.sha256[:12], got=digest[:12], do=_REPAIR
            )
        return data

    def read_optional(self, name: str) -> bytes | None:
        """The checked bytes of a file, or None where the manifest does not list it.

        Raises:
            ArtifactError: see ``read``.
        """
        return self.read(name) if name in self.manifest.files else None

    def weights(self, shapes: Mapping[str, tuple[int, ...]]) -> tensors.Tensors:
        """The tensors of ``weights.safetensors``, checked against ``shapes``."""
        path = self.path / WEIGHTS
        arrays, _ = tensors.from_bytes(self.read(WEIGHTS), path, ArtifactError)
        return {
            name: tensors.require_tensor(arrays, name, shape, path, ArtifactError)
            for name, shape in shapes.items()
        }

    def golden(self) -> Golden:
        """The golden windows."""
        path = self.path / GOLDEN
        arrays, metadata = tensors.from_bytes(self.read(GOLDEN), path, ArtifactError)
        try:
            return golden_of(arrays, metadata)
        except (KeyError, ValueError) as problem:
            raise ArtifactError(
                path, "contents", expected="golden windows", got=repr(problem), do=_REPAIR
            ) from problem

    def session_files(self) -> dict[str, Path]:
        """Session id → file, of all sessions in the artifact's folder; of two with one id that
        which the manifest lists."""
        paths = sorted((self.path / SESSIONS).glob("*.session"))
        paths.sort(key=lambda path: f"{SESSIONS}/{path.name}" in self.manifest.files)
        return {read_header(path).session_id: path for path in paths}

    def session(self, session: str | Path | None = None) -> Session:
        """A session by file or id; None takes the only one there is, if somebody has judged it.

        Raises:
            SessionError: the file cannot be used with this core.
            ArtifactError: the manifest lists it, and it was changed since.
            UsageError: no such session, or None where there are none or several.
        """
        path, spec = self._session_path(session), self.manifest.spec
        name = f"{SESSIONS}/{path.name}"
        if name in self.manifest.files and path.parent == self.path / SESSIONS:
            data = self.read(name)  # what is used is what was checked
            core = self.manifest.core_hash
            return Session.from_bytes(data, path, dim=spec.dim, core_hash=core)
        return Session.open(path, dim=spec.dim, core_hash=self.manifest.core_hash)

    def _session_path(self, session: str | Path | None) -> Path:
        if session is not None:
            for path in (Path(session), self.path / session):
                if path.is_file():
                    return path
        if session is not None:
            usual = self.path / SESSIONS / f"{safe_name(str(session))}.session"
            if usual.is_file() and read_header(usual).session_id == str(session):
                return usual
        known = self.session_files()
        if session is None and len(known) == 1:
            only = next(iter(known.values()))
            if read_header(only).method != UNLABELLED:
                return only
        if session is not None and str(session) in known:
            return known[str(session)]
        got = "none named" if session is None else repr(str(session))
        if session is not None and (
            Path(session).suffix == ".session" or len(Path(session).parts) > 1
        ):
            got += ", which is no such file"
        names = ", ".join(list(known)[:8]) + (", …" if len(known) > 8 else "")
        raise UsageError(
            f"{self.path}: session: expected a .session file or one of the {len(known)} ids "
            f"[{names}], got {got}; name one of them (--session)"
        )


def read_manifest(path: str | Path) -> Manifest:
    """Read and check ``manifest.json`` alone.

    Raises:
        ArtifactError: missing, malformed or of a newer schema.
    """
    folder = Path(path)
    file = folder / MANIFEST
    if not folder.is_dir():
        there = folder.exists()
        raise ArtifactError(
            folder,
            "artifact",
            expected="a folder NAME.poyo",
            got="a file" if there else "nothing there",
            do="check the path; poyo-edge export makes one of a checkpoint",
        )
    if not file.exists():
        raise ArtifactError(
            folder,
            "artifact",
            expected=f"a folder with {MANIFEST}",
            got="one without",
            do="name the folder NAME.poyo that export wrote",
        )
    data = tensors.read_file(file, ArtifactError, 16 << 20)
    try:
        values = json.loads(data)
        schema, version = values.pop("schema"), values.pop("schema_version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as problem:
        raise ArtifactError(
            file,
            "contents",
            expected=f"JSON of schema {SCHEMA!r}",
            got=f"{len(data)} bytes that are none",
            do=_REPAIR,
        ) from problem
    if schema != SCHEMA:
        raise ArtifactError(file, "schema", expected=SCHEMA, got=repr(schema), do=_REPAIR)
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            file,
            "schema_version",
            expected=SCHEMA_VERSION,
            got=repr(version),
            do="update poyo-edge, or export the checkpoint again with this version",
        )
    return _manifest(file, values)


def _manifest(file: Path, values: dict[str, Any]) -> Manifest:
    names = {f.name for f in dataclasses.fields(Manifest)} | {"checksum"}
    if set(values) != names:
        raise ArtifactError(
            file,
            "keys",
            expected=", ".join(sorted(names)),
            got=f"unknown {sorted(set(values) - names)}, missing {sorted(names - set(values))}",
            do=_REPAIR,
        )
    recorded, checksum = values.pop("checksum"), sha256_json(values)
    if recorded != checksum:
        raise ArtifactError(
            file, "checksum", expected=f"{recorded!s:.12}", got=checksum[:12], do=_REPAIR
        )
    try:
        manifest = record_from(Manifest, values)
        manifest.output.arrays(manifest.spec.dim_out)
    except FieldError as problem:
        raise ArtifactError(
            file, problem.place, expected=problem.expected, got=problem.got, do=_REPAIR
        ) from None
    except UsageError as problem:
        raise ArtifactError(
            file, "contents", expected="a valid manifest", got=str(problem), do=_REPAIR
        ) from problem
    notes = manifest.source.get("notes", [])
    if not isinstance(notes, list):
        raise ArtifactError(
            file, "source", expected="notes in a list", got=f"{notes!r:.80}", do=_REPAIR
        )
    if manifest.max_spikes < 1:
        raise ArtifactError(
            file, "max_spikes", expected="an integer >= 1", got=manifest.max_spikes, do=_REPAIR
        )
    unsafe = [name for name in manifest.files if not _FILE_NAME.fullmatch(name)]
    missing = [name for name in _REQUIRED if name not in manifest.files]
    if unsafe or missing:
        raise ArtifactError(
            file,
            "files",
            expected=f"plain names with {', '.join(_REQUIRED)} among them",
            got=f"unsafe {unsafe}, missing {missing}",
            do=_REPAIR,
        )
    return manifest
