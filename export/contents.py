"""The files of an artifact that export writes: graphs, tensors, sessions and the manifest."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path

from poyo_edge.artifact import (
    MANIFEST,
    PRIOR,
    SESSIONS,
    WEIGHTS,
    Activity,
    FileRecord,
    Manifest,
    Session,
    SessionHeader,
    recording_activity,
)
from poyo_edge.artifact.core_weights import TABLES
from poyo_edge.export.folded import FoldedCheckpoint
from poyo_edge.export.graph.prior import guess_tensors, prior_tensors
from poyo_edge.export.provenance import source_record
from poyo_edge.files.tensors import to_bytes
from poyo_edge.files.writing import safe_name, sha256_file
from poyo_edge.recording import Recording


def write_contents(
    folder: Path,
    source: FoldedCheckpoint,
    files: Mapping[str, bytes],
    recording: Recording | None,
    behavior: str,
) -> None:
    """Write everything but reports and manifest.

    Args:
        folder: where to; it is there and empty.
        source: the checkpoint.
        files: name → bytes, of what is written as it is.
        recording: how the units of its session fired goes into that session.
        behavior: what is decoded, as GROUP.KEY; "" when unknown.
    """
    for name, data in files.items():
        (folder / name).write_bytes(data)
    tables = [source.weights[name][1:] for name in TABLES]
    guess, names = guess_tensors(source.checkpoint.guess)
    (folder / PRIOR).write_bytes(to_bytes({**prior_tensors(*tables), **guess}, names))
    (folder / WEIGHTS).write_bytes(to_bytes(source.folded.session, {}))
    (folder / SESSIONS).mkdir()
    window_s = source.checkpoint.spec.window_seconds
    for session_id, units in source.sessions.items():
        unit_embedding, session_embedding = source.embeddings(session_id, units)
        mixed = source.checkpoint.filters.get(session_id)
        header = SessionHeader(
            session_id=session_id, unit_ids=units, core_hash=source.core_hash, created=_now()
        )
        session = Session(
            header=header,
            unit_embedding=unit_embedding,
            session_embedding=session_embedding,
            activity=_activity(recording, header, behavior, window_s),
            wiener=None if mixed is None else mixed.of(units),
        )
        session.save(folder / SESSIONS / f"{safe_name(session_id)}.session")


def write_manifest(
    folder: Path,
    source: FoldedCheckpoint,
    *,
    name: str,
    behavior: str,
    max_spikes: int,
    tools: dict[str, str],
) -> None:
    """Write ``manifest.json`` for the files that are there now."""
    files = {
        str(file.relative_to(folder)): FileRecord(
            sha256=sha256_file(file), size=file.stat().st_size
        )
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    manifest = Manifest(
        name=name,
        spec=source.checkpoint.spec,
        output=source.checkpoint.output,
        behavior=behavior,
        core_hash=source.core_hash,
        source=source_record(source.checkpoint),
        max_spikes=max_spikes,
        files=files,
        tools=tools,
        created=_now(),
    )
    text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _activity(
    recording: Recording | None, header: SessionHeader, behavior: str, window_s: float
) -> Activity | None:
    """How the units fired in the recording's training split, or in all of it."""
    if recording is None or recording.session_id != header.session_id or not behavior:
        return None
    split = "train" if "train" in recording.domains else "all"
    return recording_activity(recording, header.unit_ids, behavior, split, window_s)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
