"""Intan RHX: the TCP spike output, chunks of 14 bytes.

Little-endian: uint32 0x3ae2710f, 5 characters of the native channel name, uint32 timestamp in
samples (wraps), uint8 spike id (0 is no spike, 0x80 marks artifacts). Written
from the format that Intan documents for RHX's remote TCP control; it has been tried on generated
streams only.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

from poyo_edge.runtime.feeds.feed import Feed, Receiver
from poyo_edge.runtime.feeds.sockets import connected
from poyo_edge.runtime.feeds.wire.address import Address

MAGIC = 0x3AE2710F
_MAGIC_BYTES = MAGIC.to_bytes(4, "little")
ARTIFACT = 0x80
"""The bit of the spike id that RHX sets for what is an artifact and no spike."""
_WAVEFORMS = (0x2EF07A08).to_bytes(4, "little")
CHUNK = np.dtype([("magic", "<u4"), ("channel", "S5"), ("tick", "<u4"), ("id", "u1")])
Chunks = npt.NDArray[np.void]


class IntanParser:
    """Cuts a byte stream into chunks, and finds the next one after anything else."""

    def __init__(self) -> None:
        self._rest = b""
        self.skipped_bytes = 0
        """Bytes that belong to no chunk."""
        self.first_skipped = b""
        """The first of them."""

    def add(self, data: bytes) -> Chunks:
        """All whole chunks (N,) so far, of dtype ``CHUNK``."""
        data = self._rest + data
        found, at = [], 0
        while True:
            whole = (len(data) - at) // CHUNK.itemsize
            chunks = np.frombuffer(data, CHUNK, whole, at)
            wrong = np.flatnonzero(chunks["magic"] != MAGIC)
            good = int(wrong[0]) if len(wrong) else whole
            found.append(chunks[:good])
            at += good * CHUNK.itemsize
            if not len(wrong):
                break
            next_at = data.find(_MAGIC_BYTES, at + 1)
            if next_at < 0:
                next_at = max(at + 1, len(data) - len(_MAGIC_BYTES) + 1)
            self.skipped_bytes += next_at - at
            self.first_skipped = self.first_skipped or data[at : min(at + 4, next_at)]
            at = next_at
        self._rest = data[at:]
        return np.concatenate(found)


class IntanFeed(Feed):
    """Connects to RHX's spike port (5002 by default).

    Units are named by channel, like ``A-010``; with ``sorted_units``, ``A-010#1``.
    """

    def __init__(
        self, host: str, port: int, tick_rate_hz: float, *, sorted_units: bool = False
    ) -> None:
        super().__init__(tick_rate_hz, bits=32)
        self.host, self.port, self.sorted_units = host, port, sorted_units

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Connect and receive.

        Raises:
            OSError: refused, reset, or closed by RHX.
        """
        parser = IntanParser()
        with connected("intan", self.host, self.port) as peer:
            self.counters.connections += 1
            while not stop.is_set():
                try:
                    data = peer.recv(1 << 16)
                except TimeoutError:
                    continue
                if not data:
                    raise ConnectionError("RHX closed the connection")
                now = time.monotonic_ns()
                skipped = parser.skipped_bytes
                chunks = parser.add(data)
                if parser.skipped_bytes > skipped:
                    self.malformed(_not_spikes(parser.first_skipped))
                self._take(chunks, receiver, now)

    def _take(self, chunks: Chunks, receiver: Receiver, host_ns: int) -> None:
        self.counters.messages += len(chunks)
        artifact, silent = chunks["id"] & ARTIFACT > 0, chunks["id"] == 0
        if silent.any():
            self.ignored("expected spikes, got chunks with id 0, which are none", int(silent.sum()))
        if artifact.any():
            self.counters.artifacts += int(artifact.sum())
            self.first_ignored = self.first_ignored or (
                f"expected spikes, got chunks with id {chunks['id'][artifact][0]:#x}, which marks "
                f"an artifact"
            )
        spikes = chunks[~(artifact | silent)]
        if len(spikes):
            ticks = spikes["tick"].astype(np.int64)
            self.hand_over(receiver, ticks, self._names(spikes), host_ns=host_ns)

    def _names(self, spikes: Chunks) -> npt.NDArray[np.str_]:
        names = np.char.decode(spikes["channel"], "ascii", "replace")
        if self.sorted_units:
            names = np.char.add(np.char.add(names, "#"), spikes["id"].astype(np.str_))
        return np.asarray(names, np.str_)


def _not_spikes(start: bytes) -> str:
    if start == _WAVEFORMS:
        other, do = "RHX's waveform output", "name the port of its spike output"
    else:
        other, do = f"bytes {start.hex(' ')}", "name the port of RHX's TCP spike output"
    return f"expected chunks of spikes that begin with {_MAGIC_BYTES.hex(' ')}, got {other}; {do}"


def open_feed(address: Address) -> IntanFeed:
    """``intan://HOST:PORT?rate=30000&sorted=1``."""
    rate = address.number("rate", 30_000.0)
    return IntanFeed(*address.host_port(), rate, sorted_units=address.flag("sorted"))
