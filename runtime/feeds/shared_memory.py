"""The newest value in shared memory (a file in /dev/shm), for a process on the same machine.

Little-endian: uint64 sequence, int64 host_ns, float64 t, uint32 status, uint32 D, D float64, int64
valid_until_ns.
The sequence is odd while a value is written: read it, the value, and it again; if the two differ
or are odd, read once more (a seqlock, Lameter 2005). The writer holds a lock on the file (flock),
which the system takes from a process that dies: readers notice by it, and the next run goes on
where that one stopped.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import struct
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.files.locks import gets_lock, has_writer
from poyo_edge.journal import STATUSES
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.address import Address

_HEAD = struct.Struct("<QqdII")
_SEQUENCE = struct.Struct("<Q")
_STATE = struct.Struct("<I")
_STATE_AT = 24
_UNTIL = struct.Struct("<q")
_INVALID = STATUSES.index("INVALID")
_FOLDER = Path("/dev/shm")


class SharedMemorySink:
    """Writes each value over the last one."""

    def __init__(self, name: str, dim_out: int) -> None:
        self.path = _FOLDER / name
        self._dim_out = dim_out
        self._until_at = _HEAD.size + 8 * dim_out
        size = self._until_at + _UNTIL.size
        self._file = self._locked(name)
        found = os.fstat(self._file).st_size
        self._sequence = 0
        if found:
            head = os.pread(self._file, _HEAD.size, 0).ljust(_HEAD.size, b"\0")
            sequence, *_, dims = _HEAD.unpack(head)
            # Older versions left files that end with the value.
            if found not in (self._until_at, size) or (sequence and dims != dim_out):
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
            if not gets_lock(file):
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
        _UNTIL.pack_into(buffer, self._until_at, value.valid_until_ns)
        self._sequence += 2
        _SEQUENCE.pack_into(buffer, 0, self._sequence)

    def close(self) -> None:
        """Take the memory away; who still looks at it sees INVALID."""
        _STATE.pack_into(self._memory, _STATE_AT, _INVALID)
        self._memory.close()
        self.path.unlink(missing_ok=True)
        os.close(self._file)


def open_sink(address: Address, dim_out: int) -> SharedMemorySink:
    """``shm:NAME``."""
    return SharedMemorySink(address.name(), dim_out)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedValue:
    """A value of another process, and whether it still stands."""

    count: int
    """Values so far; 0 is none."""
    t: float
    status: str
    """As it was written, however long ago."""
    value: npt.NDArray[np.float64]
    """(D,)"""
    host_ns: int
    """When it was ready, ``time.monotonic_ns``."""
    valid_until_ns: int
    """Until when it stands, ``time.monotonic_ns``; 0 where nobody said."""
    read_ns: int
    """When it was read, ``time.monotonic_ns``."""
    writer_alive: bool
    """Whether a process still writes there."""

    @property
    def age_s(self) -> float:
        """Seconds since it was ready."""
        return (self.read_ns - self.host_ns) / 1e9

    @property
    def stands(self) -> bool:
        """Whether there is a value, somebody writes, and it was not too old when it was read."""
        in_time = not self.valid_until_ns or self.read_ns <= self.valid_until_ns
        return bool(self.count) and self.writer_alive and in_time


def read_shared_value(name: str) -> SharedValue:
    """The newest value of another process; act on it while it ``stands``.

    Raises:
        FileNotFoundError: no such memory.
    """
    with (
        (_FOLDER / name).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory,
    ):
        while True:
            alive = has_writer(file.fileno())
            data = memory[:]
            sequence, host_ns, t, state, dims = _HEAD.unpack_from(data)
            if sequence % 2 == 0 and _SEQUENCE.unpack_from(memory)[0] == sequence:
                break
            if not alive:  # killed while it wrote: there will be no whole value
                state = _INVALID
                break
    dims = dims if sequence else 0
    end = _HEAD.size + 8 * dims
    known = sequence and len(data) >= end + _UNTIL.size
    return SharedValue(
        count=sequence // 2,
        t=t,
        status=STATUSES[state],
        value=np.frombuffer(data, "<f8", dims, _HEAD.size),
        host_ns=host_ns,
        valid_until_ns=_UNTIL.unpack_from(data, end)[0] if known else 0,
        read_ns=time.monotonic_ns(),
        writer_alive=alive,
    )


def read_shared(name: str) -> tuple[int, float, str, npt.NDArray[np.float64]]:
    """The newest value of another process: ``(count, t, status, value (D,))``; count 0 is none.

    The status is INVALID when the value is too old or its writer has died.

    Raises:
        FileNotFoundError: no such memory.
    """
    found = read_shared_value(name)
    stale = found.count and not found.stands
    return found.count, found.t, "INVALID" if stale else found.status, found.value
