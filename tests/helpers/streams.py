"""Streams that take nothing."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def never_read(kind: str) -> Iterator[int]:
    """A number to write to that is full; its reader lives, and never reads."""
    with contextlib.ExitStack() as ends:
        if kind == "socket":
            ours, theirs = (ends.enter_context(one) for one in socket.socketpair())
            reader, writer = ours.fileno(), theirs.fileno()
        else:
            reader, writer = os.pipe() if kind == "pipe" else pty.openpty()
            ends.callback(os.close, writer)
            ends.callback(os.close, reader)
        os.set_blocking(writer, False)
        for n_bytes in (4096, 1):  # what is left in the end is too little for a line
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, bytes(n_bytes))
        os.set_blocking(writer, True)
        yield writer
