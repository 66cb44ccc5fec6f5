"""What the operating system drops before a datagram is read, and how much it lets wait."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path

ASKED_BYTES = 1 << 22
"""Half a minute of a hundred units; Linux grants up to net.core.rmem_max."""
_RXQ_OVFL: int = getattr(socket, "SO_RXQ_OVFL", 40)
_COUNT = struct.Struct("=I")
_TABLES = (Path("/proc/net/udp"), Path("/proc/net/udp6"))


class Overflow:
    """Receives datagrams, and counts those that the full buffer of the socket dropped.

    Linux tells with the next datagram that it keeps (SO_RXQ_OVFL, socket(7)); where it does not,
    /proc/net/udp is asked.

    Args:
        peer: a socket of datagrams; its receive buffer is made larger.
    """

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._seen = 0
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ASKED_BYTES)
        self.granted_bytes = peer.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        """The receive buffer; Linux counts its own bookkeeping twice."""
        try:
            peer.setsockopt(socket.SOL_SOCKET, _RXQ_OVFL, 1)
            self._told = True
        except OSError:
            self._told = False

    def receive(self, most_bytes: int) -> tuple[bytes, int]:
        """A datagram, and how many were dropped since the one before.

        Raises:
            TimeoutError: none came.
        """
        data, beside, _, _ = self._peer.recvmsg(most_bytes, socket.CMSG_SPACE(_COUNT.size))
        total = self._seen
        for level, kind, value in beside:
            if (level, kind, len(value)) == (socket.SOL_SOCKET, _RXQ_OVFL, _COUNT.size):
                (total,) = _COUNT.unpack(value)
        if not self._told:
            total = drops_of(os.fstat(self._peer.fileno()).st_ino)
        lost, self._seen = (total - self._seen) % (1 << 32), total
        return data, lost


def drops_of(inode: int) -> int:
    """Datagrams that the system dropped of a socket, from its tables; 0 where it has none."""
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                words = line.split()
                if len(words) > 12 and words[9] == str(inode):
                    return int(words[12])
    return 0
