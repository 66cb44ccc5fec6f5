"""Reads a recording that nobody vouches for in a process of its own first, within limits.

A damaged HDF5 file can make the HDF5 library ask for gigabytes, run on, or crash, before any of our
checks see a value. Here that ends a child and not the program: every command that takes a recording
looks at it in this way first.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from poyo_edge.errors import RecordingError
from poyo_edge.files.confined import BeyondLimitsError, End, call_confined
from poyo_edge.recording.recording import Recording

TIME_LIMIT_S = 20
"""Of a processor, and as much again for each gigabyte."""
MEMORY_LIMIT = 1 << 30
"""Bytes beyond eight times the size of the file."""


_HOW: dict[End, str] = {
    "time": "one on which the library that reads it runs on",
    "memory": "one for which the library that reads it asks for far more memory than its size",
    "crash": "one that makes the library that reads it crash",
    "waiting": "no end of reading it, though it took little of a processor",
}


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
    size = Path(path).stat().st_size if Path(path).is_file() else 0
    try:
        call_confined(
            "poyo_edge.recording.confined:read_all",
            {"path": str(path)},
            seconds=time_limit_s * (1 + (size >> 30)),
            memory=MEMORY_LIMIT + 8 * size,
        )
    except BeyondLimitsError as end:
        raise beyond_limits(path, "a recording", end.how) from None


def beyond_limits(path: str | Path, what: str, how: End) -> RecordingError:
    """The refusal of a file that took more than its limits."""
    waited = how == "waiting"
    return RecordingError(
        path,
        "file",
        expected=f"{what} that can be read within limits of memory and time",
        got=_HOW[how],
        do="try again when the machine or the disk is less busy"
        if waited
        else "do not use this file; copy it again from its source",
    )


def read_all(path: str) -> None:
    """Read everything once.

    Raises:
        RecordingError: it breaks the layout.
    """
    recording = Recording.open(path)
    for key in recording.behaviors:
        with contextlib.suppress(RecordingError):  # of use only to those who ask for it
            recording.behavior(key, allow_nan=True)
    with contextlib.suppress(RecordingError):
        recording.trials()
