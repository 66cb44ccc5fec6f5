"""A reader of a ring, in any process: the frames since it last looked, and how many it missed.

Legend: F frames.
"""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import FileProblemError, UsageError
from poyo_edge.runtime.page.ring import layout
from poyo_edge.runtime.page.ring.memory import is_alive, path_of, running
from poyo_edge.runtime.page.ring.state import read_state

_LOW = 0xFFFFFFFF
_CHECKED_FROM = 12


class RingError(FileProblemError):
    """A ring that cannot be read."""


class FrameReader:
    """Reads a ring that another process writes; any number of them may, and none is waited for.

    Args:
        run: name in ``/dev/shm``, or a path.
        back_s: seconds of frames from before that the first ``read`` gives, as many as there are.

    Raises:
        UsageError: no such ring; with the names of those that there are.
        RingError: no ring, or one of another version.
    """

    def __init__(self, run: str, *, back_s: float = 0.0) -> None:
        self.path = path_of(run)
        try:
            self._file = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            there = ", ".join(running()) or "none"
            raise UsageError(
                f"{run}: expected the ring of a run, got none that can be opened "
                f"({error.strerror}); running now: {there}"
            ) from None
        try:
            self._open(self.path)
        except BaseException:
            os.close(self._file)
            raise
        self.lost = 0
        """Frames that were written over before they were read."""
        self.torn = 0
        """Frames that will never be whole: their writer died in the middle of one."""
        self.next = max(0, self.written - round(back_s * float(self.head["rate_hz"])))
        """Number of the frame that is read next."""
        self.next = max(self.next, self.written - self.slots)

    @property
    def frame_dtype(self) -> np.dtype[Any]:
        """Of what ``read`` gives."""
        return self._frames.dtype

    @property
    def written(self) -> int:
        """Whole frames so far."""
        return int(self._live["written"])

    @property
    def alive(self) -> bool:
        """Whether a process still writes it."""
        return is_alive(self._file)

    @property
    def replaced(self) -> bool:
        """Whether another ring has its name by now, as that of a run that was started again."""
        try:
            return not os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def read(self, most: int = 4096) -> npt.NDArray[Any]:
        """Frames (F,) of ``layout.frame_dtype`` since the last call, at most so many, copied.

        One that is being written is left for the next call; those that were written over are
        counted in ``lost`` and left out.
        """
        self._catch_up()
        end = min(self.written, self.next + most)
        found = np.empty(max(0, end - self.next), self._frames.dtype)
        n = 0
        while self.next < end:
            slot, whole = self.next % self.slots, 2 * self.next + 2
            before = int(self._sequence[slot])
            if before == whole:
                found[n] = self._frames[slot]
                if self._is_whole(found[n : n + 1], slot, whole):
                    n += 1
                    self.next += 1
                    continue
                before = int(self._sequence[slot])
            if before > whole:
                self._catch_up()
                self.lost += self.next == (whole - 2) // 2
                self.next = max(self.next, whole // 2)
            else:
                break  # on its way: a store that this processor does not see yet
        if self.next == self.written and not n and self._half_written():
            self.torn = int(not self.alive)
        return found[:n]

    def state(self) -> tuple[int, dict[str, Any]]:
        """Number and contents of the newest state; 0 and nothing while there is none."""
        return read_state(self._memory, int(self.head["state_at"]))

    def close(self) -> None:
        """Let it go; what was read stays."""
        os.close(self._file)

    def _half_written(self) -> bool:
        return int(self._sequence[self.next % self.slots]) == 2 * self.next + 1

    def _catch_up(self) -> None:
        """Pass over what has been written over, or is next to be."""
        oldest = self.written - self.slots + 1
        if self.next < oldest:
            self.lost += oldest - self.next
            self.next = oldest

    def _is_whole(self, frame: npt.NDArray[Any], slot: int, whole: int) -> bool:
        data = frame.view(np.uint8)[_CHECKED_FROM:].data
        same = int(self._sequence[slot]) == whole and int(frame["sequence"][0]) == whole
        return same and zlib.crc32(data, whole & _LOW) == int(frame["check"][0])

    def _open(self, path: Path) -> None:
        size = os.fstat(self._file).st_size
        if size < layout.HEAD_BYTES:
            raise _refused(path, "size", f">= {layout.HEAD_BYTES} bytes", size)
        self._memory = mmap.mmap(self._file, size, access=mmap.ACCESS_READ)
        self._live = layout.head_of(self._memory)
        self.head = self._live.copy()
        """``layout.HEAD`` as it was when the ring was opened."""
        if self.head["magic"] != layout.MAGIC:
            raise _refused(path, "first bytes", layout.MAGIC, self._memory[:8])
        if self.head["version"] != layout.VERSION:
            raise RingError(
                path, "version", expected=layout.VERSION, got=int(self.head["version"]),
                do="look at it with the poyo-edge that runs",
            )  # fmt: skip
        dtype = layout.frame_dtype(int(self.head["dims"]), int(self.head["units"]))
        self.slots = int(self.head["slots"])
        at, state = int(self.head["state_at"]), int(self.head["state_bytes"])
        if self.head["frame_bytes"] != dtype.itemsize or state != layout.STATE_BYTES:
            raise _refused(path, "frame_bytes", dtype.itemsize, int(self.head["frame_bytes"]))
        wanted = layout.HEAD_BYTES + self.slots * dtype.itemsize
        if self.slots < 1 or at != wanted or size < at + 2 * state:
            raise _refused(path, "size", wanted + 2 * state, size)
        self._frames = np.ndarray(self.slots, dtype, self._memory, layout.HEAD_BYTES)
        self._sequence = self._frames["sequence"]


def _refused(path: Path, field: str, expected: object, got: object) -> RingError:
    return RingError(path, field, expected=expected, got=got, do="name the ring of a run")
