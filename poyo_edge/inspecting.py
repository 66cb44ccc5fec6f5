"""What a path is: a checkpoint, an artifact, a session or a recording."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter, deque
from pathlib import Path
from typing import Any

from poyo_edge.artifact import SESSIONS, Artifact, Session
from poyo_edge.artifact.artifact import MANIFEST
from poyo_edge.artifact.frozen import is_frozen, open_frozen
from poyo_edge.errors import FileProblemError, MissingExtraError, RecordingError
from poyo_edge.files.magic import HDF5_MAGIC
from poyo_edge.journal import (
    Controlled,
    Cursor,
    Decoded,
    Journal,
    Labels,
    Spikes,
    TrialTold,
    is_journal,
)
from poyo_edge.recording import Recording
from poyo_edge.recording.confined import open_confined
from poyo_edge.recording.given import is_given
from poyo_edge.recording.other_files import refuse_other

_SAFETENSORS = ".safetensors"
NEXT = {
    "recording": (
        "poyo-edge calibrate MODEL.poyo {path}  # if its units are new to the model",
        "poyo-edge replay MODEL.poyo {path}  # if the model has a session of it",
        "poyo-edge train small --data {path} -o model.ckpt",
    ),
    "checkpoint": (
        "poyo-edge export {path}{named}",
        "poyo-edge evaluate {path} --data RECORDINGS",
    ),
    "artifact": (
        "poyo-edge verify {path}",
        "poyo-edge calibrate {path} RECORDING.h5  # units that it has not seen",
        "poyo-edge build {path} --target jetson  # or rtx, cuda, cpu",
    ),
    "session": (
        "poyo-edge replay MODEL.poyo RECORDING.h5 --session {path}",
        "poyo-edge run MODEL.poyo --session {path} --from ADDRESS",
        "poyo-edge freeze MODEL.poyo --session {path} -o SESSION.onnx",
    ),
    "frozen session": ("see docs/embedding.md: any ONNX Runtime, or libpoyoedge, decodes with it",),
    "journal": (
        "poyo-edge verify {path} --artifact MODEL.poyo --session SESSION  # decodes it again",
        "poyo-edge convert {path}  # makes a recording of it, where none lies beside it",
    ),
    "folder of recordings": (
        "poyo-edge train small --data {path} --dry-run",
        "poyo-edge inspect {path}/RECORDING.h5",
    ),
}
"""Kind → what to do with it, as commands; ``{path}`` is what was looked at."""
_MOST_EVENTS = 1000
"""Of a journal, the newest, that are told one by one."""
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80")
"""A zip, as torch writes since 1.6, or a bare pickle."""


def inspect_path(path: str | Path) -> dict[str, Any]:
    """Recognise a path by its contents and describe it; the key "kind" says what it is, "next"
    what to do with it.

    Raises:
        FileProblemError: nothing is there, or it is damaged or unknown.
        MissingExtraError: it is a checkpoint and torch is not installed.
    """
    values = _look(Path(path))
    words = shlex.quote(str(path))
    named = " --task TASK" if len(values.get("tasks", ())) > 1 else ""
    if values.get("scaled") is False:
        named += " --output-scale SCALE  # by which behaviour was divided in training"
    lines = [line.format(path=words, named=named) for line in NEXT[values["kind"]]]
    if values["kind"] == "recording" and not _measured(values):
        journal = Path(path).with_suffix(".journal")
        lines = ["nothing was measured in it: labels to calibrate or judge with are missing"]
        if journal.is_file():
            lines.append(f"poyo-edge inspect {shlex.quote(str(journal))}")
    return {**values, "next": lines}


def _measured(recording: dict[str, Any]) -> list[str]:
    """Behaviours that are not what a decoder or its control gave."""
    return [name for name in recording["behaviors"] if not is_given(name)]


def _look(path: Path) -> dict[str, Any]:
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            refuse_other(path)
            if found := recordings_below(path):
                return _folder(path, found)
        return _artifact(path)
    if not path.exists():
        raise FileProblemError(
            path, "path", expected="a file or folder", got="nothing there", do="check the path"
        )
    if not path.is_file():
        raise FileProblemError(
            path, "path", expected="a file or folder", got="something else", do="check the path"
        )
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(HDF5_MAGIC):
        return _recording(path)
    if is_journal(path):
        return _journal(path)
    if path.suffix == ".session":
        header = Session.open(path).header.to_json()
        return {"kind": "session", "path": str(path), **header}
    if is_frozen(path):
        return _frozen(path)
    refuse_other(path)
    if not start.startswith(_TORCH_MAGIC) and path.suffix != _SAFETENSORS:
        raise FileProblemError(
            path,
            "file",
            expected="a checkpoint, a recording (HDF5), a .session file or an artifact folder",
            got="a file of another kind",
            do="name one of these; for a file inside an artifact, name its folder",
        )
    return _checkpoint(path)


def recordings_below(path: Path) -> list[Path]:
    """HDF5 files of a folder, and of the folders in it, as ``train --data`` takes them."""
    return sorted([*path.glob("*.h5"), *path.glob("*/*.h5")])


def _folder(path: Path, found: list[Path]) -> dict[str, Any]:
    return {
        "kind": "folder of recordings",
        "path": str(path),
        "n_recordings": len(found),
        "recordings": [file.relative_to(path).as_posix() for file in found],
        "total_bytes": sum(file.stat().st_size for file in found),
    }


def _artifact(path: Path) -> dict[str, Any]:
    artifact = Artifact.open(path)
    values = artifact.manifest.to_json()
    files = values.pop("files")
    sizes = {name: record["size"] for name, record in files.items()}
    others = {name: size for name, size in sizes.items() if not name.startswith(SESSIONS + "/")}
    return {
        "kind": "artifact",
        "path": str(path),
        **values,
        "sessions": {
            name: len(Session.open(file).header.unit_ids)
            for name, file in artifact.session_files().items()
        },
        "bytes": others,
        "total_bytes": sum(sizes.values()),
    }


def _frozen(path: Path) -> dict[str, Any]:
    frozen = open_frozen(path)
    values = dataclasses.asdict(frozen.header)
    unit_ids = values.pop("unit_ids")
    del values["activity"]
    return {
        "kind": "frozen session",
        "path": str(path),
        **values,
        "n_units": len(unit_ids),
        "unit_ids": list(unit_ids[:4]),
        "sha256": frozen.sha256,
        "bytes": len(frozen.data),
    }


def _recording(path: Path) -> dict[str, Any]:
    recording = open_confined(path)
    first, last = recording.spike_times[[0, -1]].tolist()
    seconds = max(last - first, 1e-9)
    splits = {
        name: round(float((intervals[:, 1] - intervals[:, 0]).sum()), 3)
        for name, intervals in recording.domains.items()
    }
    return {
        "kind": "recording",
        "path": str(path),
        "session_id": recording.session_id,
        "subject_id": recording.subject_id or None,
        "n_units": len(recording.unit_ids),
        "unit_ids": list(recording.unit_ids[:4]),
        "n_spikes": len(recording.spike_times),
        "spikes_per_s": round(len(recording.spike_times) / seconds, 2),
        "first_spike_s": first,
        "last_spike_s": last,
        "splits_s": splits,
        "behaviors": list(recording.behaviors),
        "behavior_units": recording.behavior_units,
        **_trials(recording),
    }


def _trials(recording: Recording) -> dict[str, Any]:
    """What is known of the trials, or why they cannot be used."""
    try:
        trials = recording.trials()
    except RecordingError as error:
        said = f"expected {error.expected}, got {error.got}; {error.do}"
        return {"trials": None, "notes": [f"its trials cannot be used: {error.field}: {said}"]}
    return {"trials": None if trials is None else trials.to_json()}


def _journal(path: Path) -> dict[str, Any]:
    journal = Journal(path)
    kinds: dict[type, str] = {
        Spikes: "spike_chunks",
        Decoded: "values",
        Labels: "label_chunks",
        dict: "events",
        TrialTold: "trial_messages",
        Cursor: "cursor_chunks",
        Controlled: "controlled_values",
    }
    counts = dict.fromkeys(kinds.values(), 0)
    told, first, last = deque[dict[str, Any]](maxlen=_MOST_EVENTS), None, None
    flags = Counter[str]()
    for entry in journal.entries():
        counts[kinds[type(entry)]] += 1
        if isinstance(entry, Decoded):
            flags.update(entry.flags)
            last = entry.host_ns  # ticks begin anew where the device's clock does
            first = last if first is None else first
        elif isinstance(entry, dict):
            since = None if first is None or last is None else last - first
            seconds = None if since is None else round(since / 1e9, 3)
            told.append({"after_s": seconds, **entry})
    header = journal.header.to_json()
    unit_ids = header.pop("unit_ids")
    return {
        "kind": "journal",
        "path": str(path),
        **header,
        "n_units": len(unit_ids),
        "unit_ids": unit_ids[:4],
        **counts,
        "bytes_left_out": journal.bytes_left_out,
        "values_with_flag": dict(flags.most_common()),
        "told": list(told),
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    try:
        from poyo_edge.checkpoint import open_checkpoint
    except ImportError:
        raise MissingExtraError("torch", "export", "inspecting a checkpoint") from None
    opened = open_checkpoint(path)
    checkpoint = opened.load(task=opened.tasks[0] if opened.tasks else None)
    sessions = {name: len(units) for name, units in checkpoint.session_units().items()}
    return {
        "kind": "checkpoint",
        "path": str(path),
        "sha256": checkpoint.sha256,
        "layout": checkpoint.layout,
        "container": checkpoint.container,
        "prefix": checkpoint.prefix,
        "spec": checkpoint.spec.to_json(),
        "output": checkpoint.output.to_json(),
        "scaled": checkpoint.scaled,
        "omega": checkpoint.omega_formula,
        "n_units": len(checkpoint.unit_vocab) - 1,
        "sessions": sessions,
        "tasks": list(opened.tasks),
        "notes": [*checkpoint.notes, *_choose(opened.tasks)],
    }


def _choose(tasks: tuple[str, ...]) -> list[str]:
    if len(tasks) < 2:
        return []
    return [f"It has {len(tasks)} tasks; this is the first. Export one of them with --task."]
