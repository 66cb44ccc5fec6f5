"""How long a packet takes to a client that does nothing but read, over servers and libraries."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import numpy as np

from parts.feed_peer import Peer

SECONDS = 3.0


def transport(kind: str, folder: Path) -> dict[str, float | None]:
    """p50 and p99 in ms from a sender's stamp to its reader's hands; None where it is a socket of
    our own, or none at all."""
    read = {"redis": _redis, "lsl": _lsl}.get(kind)
    if read is None:
        return {"outside_p50": None, "outside_p99": None}
    peer = Peer(kind, folder)
    peer.start(SECONDS + 30)
    try:
        taken = np.array(read(peer)) / 1e6
    finally:
        peer.kill()
    return {
        f"outside_p{percent}": round(float(np.percentile(taken, percent)), 3)
        for percent in (50, 99)
    }


def _redis(peer: Peer) -> list[float]:
    from redis import Redis

    client: Any = Redis(port=peer.port)
    taken, last, end = list[float](), b"$", time.monotonic() + SECONDS
    while time.monotonic() < end:
        for _, entries in client.xread({"spikes": last}, block=100) or ():
            now = time.monotonic_ns()
            taken += [now - struct.unpack("<Q", fields[b"ts"])[0] for _, fields in entries]
            last = entries[-1][0]
    return taken


def _lsl(peer: Peer) -> list[float]:
    """The newest spike of a packet is up to 1 ms old when it is sent; that is in it."""
    import pylsl

    (info, *_) = pylsl.resolve_byprop("name", peer.place, 1, timeout=10.0)
    inlet = pylsl.StreamInlet(info)
    taken, end = list[float](), time.monotonic() + SECONDS
    while time.monotonic() < end:
        _, stamp = inlet.pull_sample(timeout=0.1)
        if stamp is not None:
            taken.append(time.monotonic_ns() - stamp * 1e9)
    inlet.close_stream()
    return taken
