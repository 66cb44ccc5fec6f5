"""The newest value in shared memory (a file in /dev/shm), for a process on the same machine.

Little-endian: uint64 sequence, int64 host_ns, float64 t, uint32 status, uint32 D, D float64.
The sequence is odd while a value is written: read it, the value, and it again; if the two differ or
are odd, read once more (a seqlock, Lameter 2005).
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.journal import STATUSES
from poyo_edge.runtime.loop_parts import LoopResult

_HEAD = struct.Struct("<QqdII")
_SEQUENCE = struct.Struct("<Q")
_FOLDER = Path("/dev/shm")


class SharedMemorySink:
    """Writes each value over the last one."""

    def __init__(self, name: str, dim_out: int) -> None:
        self.path = _FOLDER / name
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise UsageError(
                f"shm:{name}: expected a name that is free in {_FOLDER}, got one that is not; "
                f"give another name, or remove {self.path} if a killed run left it there"
            ) from None
        except OSError as error:
            raise UsageError(
                f"shm:{name}: expected a name for a file in {_FOLDER}, got one that cannot be "
                f"written ({error.strerror}); give another name"
            ) from None
        size = _HEAD.size + 8 * dim_out
        os.ftruncate(file, size)
        self._memory = mmap.mmap(file, size)
        os.close(file)
        self._sequence, self._dim_out = 0, dim_out

    def __call__(self, value: LoopResult) -> None:
        """Put it there."""
        buffer = self._memory
        _SEQUENCE.pack_into(buffer, 0, self._sequence + 1)
        state = STATUSES.index(value.result.status.value)
        head = (self._sequence + 1, value.host_ns, value.t_s, state, self._dim_out)
        _HEAD.pack_into(buffer, 0, *head)
        buffer[_HEAD.size : _HEAD.size + 8 * self._dim_out] = np.asarray(
            value.result.value, "<f8"
        ).tobytes()
        self._sequence += 2
        _SEQUENCE.pack_into(buffer, 0, self._sequence)

    def close(self) -> None:
        """Take the memory away."""
        self._memory.close()
        self.path.unlink(missing_ok=True)


def read_shared(name: str) -> tuple[int, float, str, npt.NDArray[np.float64]]:
    """The newest value of another process: ``(count, t, status, value (D,))``; count 0 is none.

    Raises:
        FileNotFoundError: no such memory.
    """
    with (
        (_FOLDER / name).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory,
    ):
        while True:
            data = memory[:]
            sequence, _, t, state, dims = _HEAD.unpack_from(data)
            if sequence % 2 == 0 and _SEQUENCE.unpack_from(memory)[0] == sequence:
                value = np.frombuffer(data, "<f8", dims if sequence else 0, _HEAD.size)
                return sequence // 2, t, STATUSES[state], value
