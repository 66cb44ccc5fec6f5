"""The newest value in shared memory (a file in /dev/shm), for a process on the same machine.

Little-endian: uint64 sequence, int64 host_ns, float64 t, uint32 status, uint32 D, D float64.
The sequence is odd while a value is written: read it, the value, and it again; if the two differ
or are odd, read once more (a seqlock, Lameter 2005). The writer holds a lock on the file (flock),
which the system takes from a process that dies: the next run goes on where that one stopped.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.journal import STATUSES
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.address import Address

_HEAD = struct.Struct("<QqdII")
_SEQUENCE = struct.Struct("<Q")
_FOLDER = Path("/dev/shm")


class SharedMemorySink:
    """Writes each value over the last one."""

    def __init__(self, name: str, dim_out: int) -> None:
        self.path = _FOLDER / name
        self._dim_out = dim_out
        size = _HEAD.size + 8 * dim_out
        self._file = self._locked(name)
        found = os.fstat(self._file).st_size
        self._sequence = 0
        if found:
            head = os.pread(self._file, _HEAD.size, 0).ljust(_HEAD.size, b"\0")
            sequence, *_, dims = _HEAD.unpack(head)
            if found != size or (sequence and dims != dim_out):
                os.close(self._file)
                raise UsageError(
                    f"shm:{name}: expected a file of {size} bytes that a run with {dim_out} "
                    f"dimensions left, got one of {found}; give another name, or remove {self.path}"
                )
            self._sequence = sequence + sequence % 2
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)

    def _locked(self, name: str) -> int:
        """The file, made if it is not there; nobody else has its lock."""
        while True:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise UsageError(
                    f"shm:{name}: expected a name for a file in {_FOLDER}, got one that cannot be "
                    f"written ({error.strerror}); give another name"
                ) from None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
                raise UsageError(
                    f"shm:{name}: expected a name that nobody writes to, got one of another run; "
                    f"give another name"
                ) from None
            if os.fstat(file).st_nlink:
                return file
            os.close(file)  # its writer ended just now and took it away

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
        os.close(self._file)


def open_sink(address: Address, dim_out: int) -> SharedMemorySink:
    """``shm:NAME``."""
    return SharedMemorySink(address.name(), dim_out)


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
