"""Whether a Blackrock .nev is whole: its packets are all of one size, which its header names."""

from __future__ import annotations

import struct
from pathlib import Path

from poyo_edge.recording.plausible import Doubt
from poyo_edge.recording.rules import refuse

_MAGIC = (b"NEURALEV", b"BREVENTS")
_BASIC = 336
"""Bytes of the header that every .nev has; https://blackrockneurotech.com/wp-content/ifu,
LB-0023, "NEV basic header"."""
_LEAST_PACKET = 8
_AGAIN = "copy it again from its source"


def nev_doubts(path: Path) -> tuple[Doubt, ...]:
    """What is doubted of a .nev: it ends inside a packet.

    Raises:
        RecordingError: it ends inside its header, or is none.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(20)
    if not head.startswith(_MAGIC):
        got = "one that begins otherwise" if size else "an empty file"
        refuse(path, "file", f"{' or '.join(m.decode() for m in _MAGIC)} at its start", got, _AGAIN)
    n_header, n_packet = struct.unpack("<II", head[12:20]) if len(head) == 20 else (_BASIC, 0)
    if size < n_header or size < _BASIC:
        got = f"a truncated file of {size} bytes"
        refuse(path, "header", f"{max(n_header, _BASIC)} bytes", got, _AGAIN)
    if n_packet < _LEAST_PACKET:
        refuse(path, "header", "packets of at least 8 bytes", f"{n_packet}", _AGAIN)
    whole, rest = divmod(size - n_header, n_packet)
    if not rest:
        return ()
    return (
        Doubt(
            name="truncated",
            field="file",
            expected=f"whole packets of {n_packet} bytes",
            got=f"{whole} of them and {rest} bytes of another, as if it had been cut",
            do=f"{_AGAIN}, or take the packets that are whole with --accept truncated",
        ),
    )
