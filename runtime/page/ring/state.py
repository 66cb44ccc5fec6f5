"""The slow part of a ring: what changes by the second or less, as one JSON object.

Two blocks, written in turn: ``sequence u64, length u32, check u32`` (CRC-32 of what follows) and
``length`` bytes of JSON. The block of the higher sequence whose check holds is the newest; a writer
that dies in the middle of one leaves the other.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from poyo_edge.errors import UsageError
from poyo_edge.runtime.page.ring.layout import STATE_BYTES

_HEAD = struct.Struct("<QII")
_MOST = STATE_BYTES - _HEAD.size


class StateWriter:
    """Writes the newest state over the one before the last.

    Args:
        memory: the ring's.
        at: byte of the first block.
    """

    def __init__(self, memory: Any, at: int) -> None:
        self._memory, self._at, self._sequence = memory, at, 0

    def put(self, state: Mapping[str, Any]) -> None:
        """Write a state, piece by piece, so that no other thread waits for one long piece.

        Raises:
            UsageError: it does not fit; the one before stays.
            TypeError: it holds what is no JSON value.
        """
        pieces = {key: f"{json.dumps(key)}:{json.dumps(value)}" for key, value in state.items()}
        data = ("{" + ",".join(pieces.values()) + "}").encode()
        if len(data) > _MOST:
            longest = max(pieces, key=lambda key: len(pieces[key]))
            raise UsageError(
                f"state: expected at most {_MOST} bytes of JSON, got {len(data)}, of which "
                f"{longest!r} takes {len(pieces[longest])}; the page lacks it"
            )
        self._sequence += 1
        at = self._at + STATE_BYTES * (self._sequence % 2)
        _HEAD.pack_into(self._memory, at, 0, 0, 0)
        self._memory[at + _HEAD.size : at + _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._memory, at, self._sequence, len(data), zlib.crc32(data))


def read_state(memory: Any, at: int) -> tuple[int, dict[str, Any]]:
    """Number and contents of the newest state; 0 and nothing while there is none."""
    blocks = []
    for start in (at, at + STATE_BYTES):
        sequence, length, check = _HEAD.unpack_from(memory, start)
        if sequence and length <= _MOST:
            data = memory[start + _HEAD.size : start + _HEAD.size + length]
            blocks.append((sequence, check, data))
    for sequence, check, data in sorted(blocks, reverse=True):
        if zlib.crc32(data) == check:
            return sequence, json.loads(data)
    return 0, {}
