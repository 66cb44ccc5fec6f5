"""Kills a save at every line that it runs, of ours, pathlib or shutil, and looks at what is left.

``main`` prints one JSON line per kind of save: how many kills, and what was found after them. Each
save runs in a forked child that ends itself, without clean-up, at its k-th line; then the file is
read as a device would read it.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import poyo_edge
from poyo_edge.artifact import Session, SessionHeader
from poyo_edge.calibration import calibrated
from poyo_edge.calibration.calibrated import CalibratedSession, Quality
from poyo_edge.files.writing import atomic_folder
from poyo_edge.journal import Decoded, Journal, JournalHeader, JournalWriter

OURS = (
    *(str(Path(module.__file__ or "").parent) for module in (poyo_edge, calibrated)),
    str(pathlib.__file__),
    str(shutil.__file__),
)
KILLED = 9
HEADER = JournalHeader(session_id="s", unit_ids=("u",), tick_rate_hz=1000.0, behavior="")


@dataclasses.dataclass(frozen=True)
class Save:
    """A kind of save: puts the old state there, saves the new one, and says what is there."""

    prepare: Callable[[Path], object]
    save: Callable[[Path], object]
    read: Callable[[Path], str]


def main() -> None:
    """Kill each kind of save everywhere, in the folder that the program was given."""
    for name, kind in SAVES.items():
        folder = Path(sys.argv[1], name)
        print(json.dumps({"save": name, **kill_everywhere(kind, folder)}), flush=True)


def kill_everywhere(kind: Save, folder: Path) -> dict[str, Any]:
    """Kill at line 1, 2, 3 … until the save ends by itself; a state that cannot be read raises."""
    found: collections.Counter[str] = collections.Counter()
    for line in range(1, 100_000):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kind.prepare(folder)
        ended = run_until(line, lambda: kind.save(folder))
        found[kind.read(folder)] += 1
        if ended:
            return {"kills": line - 1, "found": dict(found)}
    raise AssertionError("the save never ends")


def run_until(line: int, save: Callable[[], object]) -> bool:
    """Run in a child that is gone at its ``line``-th line; True if it ended before that."""
    child = os.fork()
    if child == 0:
        left = line

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.startswith(OURS):
                return None
            left -= event == "line"
            if not left:
                os._exit(KILLED)
            return trace

        sys.settrace(trace)
        save()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, KILLED):
        raise AssertionError(f"the save ended with {code}")
    return code == 0


def session(created: str) -> CalibratedSession:
    """A small one; ``created`` tells old from new."""
    header = SessionHeader(session_id="day", unit_ids=("u",), core_hash="c0", created=created)
    quality = Quality(
        r2_heldout=0.5, r2_per_dim=(0.5,), r2_interval=((0.4, 0.6),), n_judged=9, r2_in_use=None,
        labelled_s=60.0, steps=1, wall_s=1.0, stopped="all steps", curve=(), silent_units=(),
        notes=(),
    )  # fmt: skip
    table = np.ones((1, 2), np.float32)
    return CalibratedSession(
        header=header, unit_embedding=table, session_embedding=table[0], quality=quality
    )


def read_session(folder: Path) -> str:
    """What is there, and what stays beside it."""
    previous = folder / "day.session.previous"
    kept = f" ({Session.open(previous).header.created})" if previous.exists() else ""
    return Session.open(folder / "day.session").header.created + kept


def write_folder(folder: Path, text: str) -> None:
    """As an export puts an artifact in place of an older one."""
    with atomic_folder(folder / "m.poyo", overwrite=True) as new:
        for name in ("core.onnx", "manifest.json"):
            (new / name).write_text(text)


def read_folder(folder: Path) -> str:
    """Both files, which must be of one artifact."""
    texts = {(folder / "m.poyo" / name).read_text() for name in ("core.onnx", "manifest.json")}
    (text,) = texts
    return text


def put_folder(folder: Path) -> None:
    """The older artifact."""
    (folder / "m.poyo").mkdir()
    for name in ("core.onnx", "manifest.json"):
        (folder / "m.poyo" / name).write_text("old")


def put_sessions(folder: Path) -> None:
    """The session in use and the one before it."""
    for name, created in (("day.session", "old"), ("day.session.previous", "older")):
        (folder / name).write_bytes(session(created).to_bytes())


def write_journal(folder: Path) -> None:
    """Three values."""
    writer = JournalWriter(folder / "j.journal", HEADER)
    for i in range(3):
        writer.decoded(i, i, "VALID", i, np.array([float(i)]))
    writer.close()


def read_journal(folder: Path) -> str:
    """How many values came through, each of them whole; "none" before its header did."""
    path = folder / "j.journal"
    try:
        entries = list(Journal(path).entries())
    except ValueError:
        return "none"
    for i, entry in enumerate(entries):
        assert isinstance(entry, Decoded)
        assert (entry.tick, entry.value.tolist()) == (i, [float(i)])
    return f"{len(entries)} values"


SAVES = {
    "session": Save(put_sessions, lambda f: session("new").save(f / "day.session"), read_session),
    "artifact": Save(put_folder, lambda f: write_folder(f, "new"), read_folder),
    "journal": Save(lambda f: None, write_journal, read_journal),
}
