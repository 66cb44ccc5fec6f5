"""The file that a ring lies in: in memory, for its owner alone, with one writer at a time."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from poyo_edge.errors import UsageError
from poyo_edge.files.locks import gets_lock, has_writer, lets_go
from poyo_edge.runtime.page.ring.layout import MAGIC

FOLDER = Path("/dev/shm")
PREFIX = "poyo-edge-"
_MOST_NAMES = 100


def path_of(run: str) -> Path:
    """Where the ring of a name lies; a name with a slash in it is a path.

    Raises:
        UsageError: no name of a file.
    """
    if "/" in run:
        return Path(run)
    if not run or run.startswith(".") or "\0" in run or len(run) > 200:
        raise UsageError(f"ring: expected a name like {PREFIX}1, or a path, got {run!r:.80}")
    return FOLDER / run


def free_name() -> str:
    """The first of ``poyo-edge-1`` and so on that nobody writes; what a dead run left is free."""
    for number in range(1, _MOST_NAMES):
        name = f"{PREFIX}{number}"
        if not _is_written(FOLDER / name):
            return name
    raise UsageError(f"ring: expected a free name, got {_MOST_NAMES} that are taken; give one")


def running() -> list[str]:
    """Names of the rings in memory that somebody writes now."""
    try:
        found = sorted(FOLDER.iterdir())
    except OSError:
        return []
    return [one.name for one in found if _is_ring(one) and _is_written(one)]


class RingFile:
    """A new file under its name, with this process as its writer; made whole before it is seen.

    Args:
        run: name or path.
        size: bytes, all 0 in the beginning.

    Raises:
        UsageError: another process writes it, another file has the name, or it cannot be made.
    """

    def __init__(self, run: str, size: int) -> None:
        self.path, self._closed = path_of(run), False
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self._require_free()
            self._temporary.unlink(missing_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._file = os.open(self._temporary, flags, 0o600)
        except OSError as error:
            raise UsageError(
                f"ring: expected a name for a file in {FOLDER}, or the path of one, got "
                f"{str(self.path)!r}, which cannot be written ({error.strerror}); name another"
            ) from None
        try:
            if not gets_lock(self._file):
                raise OSError("its lock is taken")
            os.posix_fallocate(self._file, 0, size)  # a full memory is an error now, not a SIGBUS
            self.memory = mmap.mmap(self._file, size)
        except OSError as error:
            self._temporary.unlink(missing_ok=True)
            os.close(self._file)
            raise UsageError(
                f"ring: expected {size} bytes of memory in {self.path.parent}, got none ({error}); "
                f"free some, or name a path elsewhere"
            ) from None

    def show(self) -> None:
        """Give it its name; from now on others find it."""
        self._temporary.replace(self.path)

    def close(self) -> None:
        """Take the name away and let the memory go; who has it open sees that nobody writes. May
        be called again."""
        if self._closed:
            return
        self._closed = True
        for path in (self._temporary, self.path):
            if _same_file(path, self._file):
                path.unlink(missing_ok=True)
        lets_go(self._file)
        os.close(self._file)

    def _require_free(self) -> None:
        if not self.path.exists():
            return
        if not _is_ring(self.path):
            raise UsageError(
                f"ring: expected a name of no other file, got {str(self.path)!r}, which is no "
                f"ring; name another"
            )
        if _is_written(self.path):
            raise UsageError(
                f"ring: expected a name that nobody writes to, got {str(self.path)!r} of another "
                f"run; name another"
            )


def is_alive(file: int) -> bool:
    """Whether the writer of an open ring lives."""
    return has_writer(file)


def _same_file(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except OSError:
        return False


def _is_ring(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.is_file() and file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _is_written(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return has_writer(file)
    finally:
        os.close(file)
