"""Reads a recording that nobody vouches for in a process of its own first, within limits.

A damaged HDF5 file can make the HDF5 library ask for gigabytes, run on, or crash, before any of our
checks see a value. Here that ends a child and not the program: every command that takes a recording
looks at it in this way first.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
from pathlib import Path

from poyo_edge.confined import python_command
from poyo_edge.errors import RecordingError
from poyo_edge.recording import Recording

TIME_LIMIT_S = 20
"""Of a processor, and as much again for each gigabyte."""
MEMORY_LIMIT = 1 << 30
"""Bytes beyond eight times the size of the file."""
_REFUSED = 5


def open_confined(path: str | Path) -> Recording:
    """``Recording.open`` for a file that somebody named: read in a confined process first.

    Raises:
        RecordingError: see ``require_readable``.
    """
    require_readable(path)
    return Recording.open(path)


def require_readable(path: str | Path, *, time_limit_s: int = TIME_LIMIT_S) -> None:
    """Read everything in a recording once, in a confined process.

    Args:
        path: the file.
        time_limit_s: seconds of a processor for a file of less than a gigabyte.

    Raises:
        RecordingError: it breaks the layout, or cannot be read within the limits.
    """
    file = Path(path).absolute()
    size = file.stat().st_size if file.is_file() else 0
    seconds = time_limit_s * (1 + (size >> 30))
    limits = [str(seconds), str(MEMORY_LIMIT + 8 * size)]
    command = python_command("poyo_edge.recording_confined", str(file), *limits)
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, timeout=10 * seconds)
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


def main() -> None:
    """In the process: file, seconds and bytes of memory are its arguments."""
    _confine(*map(int, sys.argv[2:]))
    sys.exit(_read_all(Path(sys.argv[1])))


def _read_all(path: Path) -> int:
    try:
        recording = Recording.open(path)
        for key in recording.behaviors:
            with contextlib.suppress(RecordingError):  # of use only to those who ask for it
                recording.behavior(key, allow_nan=True)
    except RecordingError as refused:
        said = {"field": refused.field, "expected": str(refused.expected), "got": str(refused.got)}
        print(json.dumps({**said, "do": refused.do}))
        return _REFUSED
    return 0


def _confine(seconds: int, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
