"""How a ring lies in shared memory. Little-endian; version 1.

    0              HEAD (4096 bytes), written once but for ``written``
    4096           ``slots`` frames of ``frame_bytes`` each
    state_at       two blocks of ``state_bytes`` each (``state``)

Frame n (counted from 0) lies in slot ``n % slots``. Its ``sequence`` is ``2 n + 1`` while it is
written and ``2 n + 2`` when it is whole (a seqlock for each slot, Lameter 2005), and ``check`` is
the CRC-32 of all of the frame behind it, begun with the low half of that last number. A reader
takes a frame whose sequence is the one that it expects, before and after, and whose check holds:
processors that show stores in another order than they were made (Arm) cannot pass half a frame off
as whole.
``written`` counts whole frames and only hints where the newest is.

Legend: D dimensions of a decoded value, U units at most, W = 16 dimensions of a workspace at most.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.journal import STATUSES
from poyo_edge.trials import MOST_DIMS

MAGIC, VERSION = b"POYORING", 1
HEAD_BYTES = 4096
STATE_BYTES = 1 << 18
SESSION_BYTES = 96

HEAD = np.dtype([
    ("magic", "S8"), ("version", "<u4"), ("slots", "<u4"), ("frame_bytes", "<u4"),
    ("dims", "<u4"), ("units", "<u4"), ("state_bytes", "<u4"), ("state_at", "<u8"),
    ("rate_hz", "<f8"), ("tick_rate_hz", "<f8"), ("window_s", "<f8"),
    ("pid", "<u8"), ("began_ns", "<i8"), ("began_unix_s", "<f8"), ("written", "<u8"),
])  # fmt: skip
"""``rate_hz``: windows per second of the host; ``began_ns``: of the host's monotonic clock."""

FLAGS = (
    "warmup", "clock_reset", "verifying", "silent", "stream_lost", "gap", "over_budget",
    "overflow", "backend", "fallback", "drift", "coverage", "output_range", "wrong_session",
    "slow", "stale_rows", "delayed", "unverified", "clock_rate", "loss", "skipped", "flood",
    "zeroed", "paused", "stopped", "control",
)  # fmt: skip
"""Bit i of ``flags`` is this name; new ones are added at the end."""
OTHER_FLAG = 63
"""The bit of a flag that this table does not know."""
_BITS = {name: 1 << i for i, name in enumerate(FLAGS)}


_FRONT = [
    ("sequence", "<u8"), ("check", "<u4"),
    ("status", "u1"), ("decoded_status", "u1"), ("cursor_dims", "u1"), ("target_dims", "u1"),
    ("flags", "<u8"),
    ("seq", "<i8"),  # LoopResult.seq
    ("tick", "<i8"), ("t_s", "<f8"), ("epoch", "<u4"), ("n_spikes", "<u4"),
    ("host_ns", "<i8"),  # when the value was ready, of the host's monotonic clock
    ("due_ns", "<i8"), ("valid_until_ns", "<i8"), ("newest_in_ns", "<i8"), ("decode_ns", "<i8"),
    ("in_to_out_ns", "<i8"),  # -1 where no packet was new
    ("silence_s", "<f8"),  # from the newest spike to the window's end; NaN without any
    ("decoded", "<u8"), ("skipped", "<u8"), ("deadline_misses", "<u8"),
    ("packets", "<u8"), ("packets_dropped", "<u8"),
    ("swaps", "<u4"),  # sessions so far, the first one not counted
    ("unknown_spikes", "<u4"),  # of units that the session does not have, since the last frame
    ("label_t_s", "<f8"),  # of the label; NaN if none came
    ("trial", "<i8"), ("trial_t_s", "<f8"),  # -1 and NaN between trials
    ("radius", "<f8"),  # of the target; NaN where it is not known
    ("cursor_t_s", "<f8"),
    ("session", f"S{SESSION_BYTES}"),
]  # fmt: skip
_CODES = {"u1": "B", "u4": "I", "u8": "Q", "i8": "q", "f8": "d"}


def frame_dtype(dims: int, units: int) -> np.dtype[Any]:
    """One frame.

    Args:
        dims: D.
        units: U; counts of more units than the session has are 0.
    """
    return np.dtype([
        *_FRONT,
        ("value", "<f8", (dims,)),  # what left
        ("own_value", "<f8", (dims,)),  # the decoder's own, before what stands behind it
        ("label", "<f8", (dims,)),  # newest behaviour that came
        ("target", "<f8", (MOST_DIMS,)),
        ("cursor", "<f8", (MOST_DIMS,)),
        ("counts", "<u2", (units,)),  # spikes of each unit that came since the last frame
    ])  # fmt: skip


def front_struct() -> struct.Struct:
    """The numbers of a frame behind ``sequence`` and ``check``, to be written at once."""
    dtypes = [np.dtype(code) for name, code in _FRONT if name not in ("sequence", "check")]
    return struct.Struct(
        "<" + "".join(_CODES.get(one.str[1:], f"{one.itemsize}s") for one in dtypes)
    )


def bits_of(flags: Iterable[str]) -> int:
    """Flags as the bits of a frame."""
    bits = 0
    for name in flags:
        bits |= _BITS.get(name, 1 << OTHER_FLAG)
    return bits


def flags_of(bits: int) -> tuple[str, ...]:
    """The flags that bits stand for, in the order of ``FLAGS``."""
    found = tuple(name for name, bit in _BITS.items() if bits & bit)
    return found + ("other",) * bool(bits >> OTHER_FLAG & 1)


def head_of(memory: Any) -> npt.NDArray[Any]:
    """The head at the begin of a memory, as an array of no dimensions."""
    return np.ndarray((), HEAD, memory)


def n_slots(rate_hz: float, seconds: float) -> int:
    """Frames that are kept: the power of two that holds so many seconds, 256 at least."""
    return 1 << max(8, int(np.ceil(np.log2(max(1.0, rate_hz * seconds)))))


__all__ = [
    "FLAGS", "HEAD", "HEAD_BYTES", "MAGIC", "MOST_DIMS", "SESSION_BYTES", "STATE_BYTES",
    "STATUSES", "VERSION", "bits_of", "flags_of", "frame_dtype", "front_struct", "head_of",
    "n_slots",
]  # fmt: skip
