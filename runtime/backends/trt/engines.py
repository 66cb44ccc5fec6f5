"""Built engines: files that are code, so nothing unchecked ever reaches TensorRT.

An engine is ``KEY.engine`` beside ``KEY.json``, in a folder that only its owner may write. The
key is the hash of everything the engine depends on; when any of it differs on this machine, the
engine is refused and has to be built again. All checks happen before TensorRT is imported.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

from poyo_edge.errors import ArtifactError, BackendError, UsageError
from poyo_edge.files.tensors import read_file
from poyo_edge.files.writing import own_folder, sha256_bytes, sha256_json, write_bytes
from poyo_edge.records import record_from, require_fields
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.trt.engine_key import EngineKey
from poyo_edge.targets import build_command

ENGINES = "engines"
"""The folder in an artifact; its manifest does not list it, since engines are made later."""
TIMING_CACHE = "timing.cache"
SCHEMA = "poyo-edge/engine/1"
FLAVOURS = ("tensorrt", "tensorrt-rtx")
_MOST_BYTES = 4 << 30
_MOST_RECORD_BYTES = 1 << 20
_DIGEST = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """What is found of an installed engine without running it."""

    file: str
    sound: bool
    """Its record holds, and its bytes are those that were built."""
    detail: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """What ``KEY.json`` says about ``KEY.engine``."""

    key: EngineKey
    sha256: str
    size: int
    build_s: float
    parity: dict[str, Any] | None
    """How it compared with the FP32 core on the device; None when it could not be run there."""
    created: str

    def __post_init__(self) -> None:
        require_fields(self)

    def to_json(self) -> dict[str, Any]:
        """JSON values, with a checksum of them."""
        values = {**dataclasses.asdict(self), "key": self.key.to_json()}
        return {"schema": SCHEMA, **values, "checksum": sha256_json(values)}


class EngineStore:
    """The engines in one folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def build_command(self, flavour: str, precision: str = "fp16") -> str:
        """What to type to make the engines of the artifact that the folder belongs to."""
        flags = () if precision == "fp16" else (f"--precision {precision}",)
        return build_command(self.folder.parent, flavour, *flags)

    def write(self, record: EngineRecord, data: bytes) -> Path:
        """Put an engine in place: first its bytes, then the record that makes it count.

        Raises:
            UsageError: the record is not that of these bytes, or the folder cannot be written.
        """
        if (record.sha256, record.size) != (sha256_bytes(data), len(data)):
            raise UsageError("engine: expected the bytes that its record describes, got others")
        path = self.folder / f"{record.key.name}.engine"
        text = json.dumps(record.to_json(), indent=1) + "\n"
        self._write(path, data)
        self._write(path.with_suffix(".json"), text.encode())
        return path

    def prune(self, flavour: str, machine: Machine) -> None:
        """Remove engines of a flavour that this machine, which built them, can never run again."""
        for record in self.records():
            if record.key.flavour == flavour and record.key.differences(machine):
                self._remove(self.folder / f"{record.key.name}.json")

    def drop_superseded(self, flavour: str) -> list[str]:
        """Remove engines of a flavour for buckets that no build makes any more (2ᵏ spikes, before
        they were 2ᵏ - 1): beside those that were just built they would be loaded for nothing.
        Says which."""
        names = []
        for record in self.records():
            size = record.key.n_spikes
            if record.key.flavour == flavour and size & (size + 1):
                self._remove(self.folder / f"{record.key.name}.json")
                names.append(record.key.name)
        return names

    def drop_damaged(self) -> list[ArtifactError]:
        """Remove engines whose records cannot be read: nothing may run them. Says what was wrong
        with each."""
        problems = self._look()[1]
        for problem in problems:
            self._remove(Path(problem.path))
        return problems

    def _remove(self, record: Path) -> None:
        own_folder(self.folder, 0o700)
        record.unlink(missing_ok=True)  # first: without it the engine does not count
        record.with_suffix(".engine").unlink(missing_ok=True)

    def write_timing_cache(self, data: bytes) -> None:
        """Keep what TensorRT measured, behind its checksum."""
        self._write(self.folder / TIMING_CACHE, sha256_bytes(data).encode() + data)

    def read_timing_cache(self) -> bytes:
        """What was kept; nothing when there is none, or it is damaged or open to others."""
        path = self.folder / TIMING_CACHE
        try:
            for item in (self.folder, path):
                _require_private(item, "build again")
            stored = read_file(path, ArtifactError, _MOST_BYTES)
        except ArtifactError:
            return b""
        digest, data = stored[:_DIGEST], stored[_DIGEST:]
        return data if digest == sha256_bytes(data).encode() else b""

    def _write(self, path: Path, data: bytes) -> None:
        """For the owner alone, and never half there."""
        own_folder(self.folder, 0o700)
        self.folder.chmod(0o700)
        previous = os.umask(0o077)
        try:
            write_bytes(path, data)
        finally:
            os.umask(previous)

    def records(self) -> list[EngineRecord]:
        """All records that can be read, smallest bucket first.

        Raises:
            ArtifactError: one is damaged.
        """
        found, problems = self._look()
        if problems:
            raise problems[0]
        return found

    def holds(self, flavour: str) -> bool:
        """Whether there are engines of a flavour, or records that cannot be read."""
        records, problems = self._look()
        return bool(problems) or any(record.key.flavour == flavour for record in records)

    def _look(self) -> tuple[list[EngineRecord], list[ArtifactError]]:
        """The records that can be read, and what is wrong with the others."""
        found, problems = list[EngineRecord](), list[ArtifactError]()
        if self.folder.is_symlink():
            do = f"remove it, then {_rebuild(self.folder, FLAVOURS[0])} (or --target rtx)"
            expected = "a folder of its own"
            return [], [ArtifactError(self.folder, "kind", expected=expected, got="a link", do=do)]
        for path in sorted(self.folder.glob("*.json")):
            try:
                found.append(_read_record(path))
            except ArtifactError as problem:
                problems.append(problem)
        return sorted(found, key=lambda record: record.key.n_spikes), problems

    def examine(self, core_sha256: str, machine: Machine) -> list[EngineState]:
        """Every installed engine: are its bytes those that were built, and is it for this machine?

        TensorRT is neither imported nor given anything.
        """
        records, problems = self._look()
        states = [
            EngineState(file=Path(p.path).name, sound=False, detail=str(p)) for p in problems
        ] + [self._state(record, core_sha256, machine) for record in records]
        recorded = {path.stem for path in self.folder.glob("*.json")}
        return states + [
            EngineState(file=path.name, sound=True, detail="no record of it, so nothing runs it")
            for path in sorted(self.folder.glob("*.engine"))
            if path.stem not in recorded
        ]

    def _state(self, record: EngineRecord, core_sha256: str, machine: Machine) -> EngineState:
        key, file = record.key, f"{record.key.name}.engine"
        try:
            self.read(record, None)
        except ArtifactError as problem:
            changed = "changed bytes: " if problem.field in ("size", "sha256") else ""
            return EngineState(file=file, sound=False, detail=f"{changed}{problem}")
        other = ["core: of another one"] if key.core_sha256 != core_sha256 else []
        other += key.differences(machine)
        fits = "built for something else: " + "; ".join(other) if other else "fits this machine"
        about = f"{key.flavour}, {key.precision}, {key.n_spikes} spikes, bytes unchanged"
        return EngineState(file=file, sound=True, detail=f"{about}; {fits}")

    def fitting(self, flavour: str, core_sha256: str, machine: Machine) -> list[EngineRecord]:
        """Engines of one flavour for this core that fit a machine, smallest bucket first.

        Where several precisions were built, those built last are taken.

        Raises:
            BackendError: there is none; says what is there and why it does not fit.
        """
        records = [r for r in self.records() if r.key.flavour == flavour]
        ours = [r for r in records if r.key.core_sha256 == core_sha256]
        fit = [r for r in ours if not r.key.differences(machine)]
        if not fit:
            why = "another core" if records and not ours else ""
            why = why or "; ".join(ours[0].key.differences(machine)) if records else "none built"
            raise BackendError(
                f"{flavour}: expected an engine for this machine in {self.folder}, got {why}; "
                f"{_rebuild(self.folder, flavour)}"
            )
        newest = max(fit, key=lambda r: r.created).key
        same = (newest.precision, newest.n_units, newest.flags)
        return [r for r in fit if (r.key.precision, r.key.n_units, r.key.flags) == same]

    def read(self, record: EngineRecord, machine: Machine | None) -> bytes:
        """The bytes of an engine, after every check.

        Args:
            record: of the engine.
            machine: that will run it; None for one that only copies it.

        Raises:
            BackendError: it was built for another machine.
            ArtifactError: missing, open to others, truncated or changed.
        """
        differences = record.key.differences(machine) if machine is not None else []
        if differences:
            raise BackendError(
                f"{self.folder.parent}: engine {record.key.name}: {'; '.join(differences)}; "
                f"{_rebuild(self.folder, record.key.flavour, record.key.precision)}"
            )
        path = self.folder / f"{record.key.name}.engine"
        do = _rebuild(self.folder, record.key.flavour, record.key.precision)
        for item in (self.folder, path):
            _require_private(item, do)
        size = path.stat().st_size
        if size != record.size or size > _MOST_BYTES:
            _refuse(path, "size", f"{record.size} bytes", f"{size}", do)
        data = read_file(path, ArtifactError, _MOST_BYTES)
        digest = sha256_bytes(data)
        if digest != record.sha256:
            _refuse(path, "sha256", record.sha256[:12], digest[:12], do)
        return data


def _rebuild(folder: Path, flavour: str, precision: str = "fp16") -> str:
    """What to do about an engine of a folder."""
    where = " on this machine" if flavour == "tensorrt" else ""
    command = EngineStore(folder).build_command(flavour, precision)
    return f"build it again{where}: {command}"


def _read_record(path: Path) -> EngineRecord:
    do = f"remove it, then {_rebuild(path.parent, FLAVOURS[0])} (or --target rtx)"
    try:
        values = json.loads(read_file(path, ArtifactError, _MOST_RECORD_BYTES))
        if values.pop("schema") != SCHEMA:
            raise ValueError(f"no schema {SCHEMA!r}")
        checksum = values.pop("checksum")
        if checksum != sha256_json(values):
            raise ValueError("a checksum that does not hold")
        record = record_from(EngineRecord, values)
    except ArtifactError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise ArtifactError(
            path, "contents", expected="the record of an engine", got=str(problem), do=do
        ) from problem
    key = record.key
    if key.flavour not in FLAVOURS:
        _refuse(path, "flavour", f"one of {list(FLAVOURS)}", repr(key.flavour), do)
    if path.stem != key.name:
        _refuse(path, "name", key.name, path.stem, do)
    return record


def _require_private(path: Path, do: str) -> None:
    try:
        status = path.lstat()
    except OSError as problem:
        raise ArtifactError(
            path, "file", expected="an engine", got="nothing there", do=do
        ) from problem
    if stat.S_ISLNK(status.st_mode):
        _refuse(path, "kind", "a file of its own", "a link", do)
    if status.st_uid not in (os.getuid(), 0):
        _refuse(path, "owner", f"user {os.getuid()} or root", f"user {status.st_uid}", do)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = oct(stat.S_IMODE(status.st_mode))
        _refuse(
            path,
            "permissions",
            "one that its owner alone may write",
            mode,
            do=f"if you copied it here, run: chmod go-w {path}; else {do}",
        )


def _refuse(path: Path, field: str, expected: str, got: str, do: str) -> None:
    raise ArtifactError(path, field, expected=expected, got=got, do=do)
