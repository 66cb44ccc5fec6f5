"""Reads a recording that nobody vouches for in a process of its own first, within limits.

A damaged HDF5 file can make the HDF5 library ask for gigabytes, run on, or crash, before any of our
checks see a value. Here that ends a child and not the program: ``poyo-edge inspect`` looks at every
recording in this way.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
from pathlib import Path

from poyo_edge.errors import RecordingError
from poyo_edge.recording import Recording

TIME_LIMIT_S = 20
"""And as much again for each gigabyte."""
MEMORY_LIMIT = 1 << 30
"""Bytes beyond eight times the size of the file."""
_REFUSED = 5


def require_readable(path: str | Path) -> None:
    """Read everything in a recording once, in a confined process.

    Raises:
        RecordingError: it breaks the layout, or cannot be read within the limits.
    """
    command = [sys.executable, "-m", "poyo_edge.recording_confined", str(Path(path).absolute())]
    with contextlib.suppress(subprocess.TimeoutExpired):
        limit = 4 * _seconds(Path(path))
        done = subprocess.run(command, capture_output=True, timeout=limit)
        if done.returncode == 0:
            return
        if done.returncode == _REFUSED:
            said = json.loads(done.stdout)
            raise RecordingError(path, said.pop("field"), **said)
    raise RecordingError(
        path,
        "file",
        expected="a recording that can be read within limits of memory and time",
        got="one that makes the HDF5 library crash, run on, or ask for far more than its size",
        do="do not use this file; copy it again from its source",
    )


def _read_all(path: Path) -> int:
    try:
        recording = Recording.open(path)
        for key in recording.behaviors:
            recording.behavior(key, allow_nan=True)
    except RecordingError as refused:
        said = {"field": refused.field, "expected": str(refused.expected), "got": str(refused.got)}
        print(json.dumps({**said, "do": refused.do}))
        return _REFUSED
    return 0


def _seconds(path: Path) -> int:
    return TIME_LIMIT_S * (1 + (path.stat().st_size >> 30))


def _confine(path: Path) -> None:
    limit = MEMORY_LIMIT + 8 * path.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (_seconds(path), _seconds(path)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _confine(Path(sys.argv[1]))
    sys.exit(_read_all(Path(sys.argv[1])))
