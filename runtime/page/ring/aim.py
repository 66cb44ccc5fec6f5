"""Where somebody's mouse is, from a page to a simulation: the one thing that goes that way.

A rig has no such file: what it does is told by commands alone. 32 bytes, little-endian: x f64, y
f64, host_ns i64 (of the host's monotonic clock), check u32 (CRC-32 of those 24 bytes), 4 of 0.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import time
import zlib
from pathlib import Path

from poyo_edge.runtime.page.ring.memory import RingFile

_VALUES, _CHECK = struct.Struct("<ddq"), struct.Struct("<I")
_SIZE = 32
STANDS_S = 0.6
"""A mouse that was not heard of for longer steers no more."""


class Aim:
    """The simulation's end; made by it, taken away by ``close``.

    Args:
        path: of the file.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = RingFile(str(path), _SIZE)
        self._file.show()
        self.path = self._file.path

    def read(self) -> tuple[float, float] | None:
        """Where the mouse is in the workspace; None while nobody steers."""
        data = self._file.memory[:_SIZE]
        x, y, at = _VALUES.unpack_from(data)
        if _CHECK.unpack_from(data, _VALUES.size)[0] != zlib.crc32(data[: _VALUES.size]):
            return None
        age = time.monotonic_ns() - at
        known = at and 0 <= age <= STANDS_S * 1e9 and math.isfinite(x) and math.isfinite(y)
        return (x, y) if known else None

    def close(self) -> None:
        """Take it away."""
        self._file.close()


def point(path: str | Path, x: float, y: float) -> None:
    """The page's end: the mouse is there now.

    Raises:
        OSError: there is no such file any more.
    """
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        with mmap.mmap(file, _SIZE) as memory:
            values = _VALUES.pack(x, y, time.monotonic_ns())
            memory[: _VALUES.size + _CHECK.size] = values + _CHECK.pack(zlib.crc32(values))
    finally:
        os.close(file)
