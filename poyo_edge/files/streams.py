"""What stdout and stderr are to a program: neither ends or delays the work that it tells of.

A terminal goes away, a pipe loses its reader or has one that never reads, a disk is full, an
encoding lacks a character; a rig goes on decoding through all of it.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import select
import stat
import sys
from typing import Any, TextIO

_ESCAPES = "poyo_edge.escapes"
_NOBODY_READS = frozenset({errno.EPIPE, errno.EIO})
"""The reader of a pipe is gone; so is a terminal."""
_PIECE = 512
"""What is writable takes so much without waiting (PIPE_BUF of POSIX)."""


def guard_streams() -> None:
    """Make this process's stdout and stderr such streams; what a test put in their place stays.

    stderr never fails and never waits: what nobody takes is dropped. stdout waits, fails once where
    its disk takes no more, and does not where its reader is gone. What their encoding lacks is
    escaped as JSON does it.
    """
    codecs.register_error(_ESCAPES, _escaped)
    _open_closed_numbers()
    if sys.stderr is sys.__stderr__:
        sys.stderr = _guarded(sys.stderr, 2, must_arrive=False)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _guarded(sys.stdout, 1, must_arrive=True)


class _Guarded(io.FileIO):
    """Bytes to a stream of the process; what it cannot take is dropped."""

    def __init__(self, number: int, *, must_arrive: bool) -> None:
        own = number if must_arrive else _that_does_not_wait(number)
        super().__init__(own, "w", closefd=False)
        self._must_arrive = must_arrive
        self._asks = not must_arrive and own == number and _may_wait(number)
        """Whether it has to ask before it writes, as it would wait else."""

    def write(self, data: Any, /) -> int:
        """Write what it takes; how much is done with."""
        try:
            if self._asks:
                if not select.select([], [self.fileno()], [], 0)[1]:
                    return len(data)
                data = data[:_PIECE]
            return super().write(data) or len(data)
        except OSError as error:
            if self._must_arrive and error.errno not in _NOBODY_READS:
                self._must_arrive = False  # said once: it is tried again as Python ends
                raise
            return len(data)


def _guarded(stream: TextIO | None, number: int, *, must_arrive: bool) -> TextIO:
    encoding = "utf-8" if stream is None else stream.encoding
    raw = _Guarded(number, must_arrive=must_arrive)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors=_ESCAPES,
        line_buffering=number == 2 or raw.isatty(),
    )


def _may_wait(number: int) -> bool:
    if sys.platform == "win32":
        return False
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(number)


def _that_does_not_wait(number: int) -> int:
    """The pipe or terminal behind a number, opened once more for writes that do not wait.

    Other processes that share it wait as before. Linux does so where it is this user's; else, and
    for sockets, this is the number itself.
    """
    if not _may_wait(number):
        return number
    try:
        return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return number


def _open_closed_numbers() -> None:
    """Nothing else may be opened as stdin, stdout or stderr: a journal would get what is said."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(opened, True)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Characters as \\uXXXX; those beyond them as two, so that JSON stays JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
