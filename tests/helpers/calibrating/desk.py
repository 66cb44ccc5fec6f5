"""A folder with a recording of new units, on which tests run ``poyo-edge calibrate``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from helpers.calibrating.teacher import drifted, lesson
from helpers.commands import LIMIT_S, start
from helpers.paths import TINY
from poyo_edge.recording import write_recording

TRAIN_S, TEST_S = 20.0, 6.0


class Desk(NamedTuple):
    """A folder with a recording of new units and what is there before the command runs."""

    folder: Path
    recording: Path
    truth: Path
    """The session that made the behaviour."""
    near: Path
    """One that has drifted from it."""
    out: Path
    """Where the new session goes; an old one is there."""

    def run(self, *arguments: object, recording: Path | None = None) -> Done:
        """The command on this desk, ended."""
        code, out, err = finished(self.started(*arguments, recording=recording))
        return Done(code, out, err, self.out.read_bytes() == b"the old session")

    def started(self, *arguments: object, recording: Path | None = None) -> subprocess.Popen[str]:
        words = ["calibrate", TINY, recording or self.recording, "-o", self.out, *arguments]
        return start(*words, cwd=self.folder)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class Done(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    untouched: bool
    """Whether the old session is still there."""

    def json(self) -> dict[str, Any]:
        assert self.stdout.count("\n") == 1, self.stderr

        def no_json(constant: str) -> Any:
            raise AssertionError(f"{constant} is no JSON")

        values: dict[str, Any] = json.loads(self.stdout, parse_constant=no_json)
        return values


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def write(path: Path, *, duration_s: float = TRAIN_S + TEST_S, **changes: Any) -> Path:
    given = lesson(duration_s=duration_s)
    end = given.times[-1] + 0.05
    arrays: dict[str, Any] = {
        "session_id": "day",
        "subject_id": "nobody",
        "unit_ids": given.unit_ids,
        "spike_times": given.spike_times[given.spike_times < end],
        "spike_units": given.spike_rows[given.spike_times < end],
        "behaviors": {"cursor.vel": (given.times, given.values)},
        "domains": {"train": [(0.0, end - TEST_S)], "test": [(end - TEST_S, end)]},
    }
    return write_recording(path, **(arrays | changes))


def write_task(path: Path, **changes: Any) -> Path:
    """The same day as a task: a cursor that moves as is decoded, in trials of two seconds."""
    given = lesson(duration_s=TRAIN_S + TEST_S)
    position = np.cumsum(given.values * 0.1, axis=0)
    starts = np.arange(0.0, given.times[-1] - 1.5, 2.0)
    ends = starts + 1.9
    shown = {"cursor.vel": (given.times, given.values), "cursor.pos": (given.times, position)}
    arrays = {"behaviors": shown, "trials": np.stack([starts, ends], axis=1), **changes}
    write(path, **arrays)
    if arrays["trials"] is not None:
        with h5py.File(path, "r+") as file:
            last = np.searchsorted(given.times, ends + 1e-9) - 1
            file["trials/target"] = position[last]
            file["trials/success"] = np.ones(len(starts), bool)
            file["trials/radius"] = np.full(len(starts), 0.5)
    return path


def furnished(folder: Path) -> Desk:
    made = Desk(
        folder=folder / "desk",
        recording=write(folder / "day.h5"),
        truth=folder / "truth.session",
        near=folder / "near.session",
        out=folder / "desk" / "today.session",
    )
    made.folder.mkdir()
    lesson().truth.save(made.truth)
    drifted(lesson().truth, 0.1).save(made.near)
    made.out.write_bytes(b"the old session")
    return made


def require_one_line(done: Done, code: int, message: str) -> None:
    """The reason alone, the old session where it was."""
    assert done.code == code, done.stderr
    assert done.untouched
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
