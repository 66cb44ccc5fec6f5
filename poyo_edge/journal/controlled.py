"""Frames of kind CONTROLLED: what left instead of a decoded value.

Legend: D dimensions.
"""

from __future__ import annotations

import dataclasses
import struct

import numpy as np
import numpy.typing as npt

STATUSES = ("VALID", "WARMUP", "DEGRADED", "HELD", "INVALID")
_HEAD = struct.Struct("<qIffBBH")
_HELD = ("", "zeroed", "paused", "stopped")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Controlled:
    """What left (D,) instead of the value that was decoded at ``tick``."""

    tick: int
    status: str
    value: npt.NDArray[np.float64]
    ramp: float
    """Share of the speed that a slow start let through."""
    assist: float
    """Share of the automatic command."""
    click: bool
    held: str
    """``zeroed``, ``paused`` or ``stopped`` by a command, else ""."""

    def payload(self) -> bytes:
        """Of its frame: tick i64, status u32, ramp f32, assist f32, click u8, held u8, D u16,
        D values f64."""
        head = _HEAD.pack(
            self.tick, STATUSES.index(self.status), self.ramp, self.assist, self.click,
            _HELD.index(self.held), len(self.value),
        )  # fmt: skip
        return head + np.asarray(self.value, "<f8").tobytes()


def controlled_from(payload: bytes) -> Controlled:
    """Read what ``Controlled.payload`` wrote.

    Raises:
        ValueError, IndexError, struct.error: another one wrote it.
    """
    tick, status, ramp, assist, click, held, dims = _HEAD.unpack_from(payload)
    value = np.frombuffer(payload, "<f8", dims, _HEAD.size)
    return Controlled(
        tick=tick, status=STATUSES[status], value=value, ramp=ramp, assist=assist,
        click=bool(click), held=_HELD[held],
    )  # fmt: skip
