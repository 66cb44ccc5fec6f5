"""Who writes a file that others read while it is written: the system's lock on it (flock).

The system takes the lock from a process that dies, however it dies.
"""

from __future__ import annotations

import fcntl
import time

_TRIES, _BETWEEN_TRIES_S = 20, 0.005
"""A reader that asks whether there is a writer holds the lock for some microseconds."""


def gets_lock(file: int) -> bool:
    """Whether this process is the writer from now on, until the descriptor is closed."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(_BETWEEN_TRIES_S)
    return False


def lets_go(file: int) -> None:
    """Write it no more; a memory map keeps a descriptor of its own, and the lock with it."""
    fcntl.flock(file, fcntl.LOCK_UN)


def has_writer(file: int) -> bool:
    """Whether another open descriptor holds the lock; this one's is given back at once."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
