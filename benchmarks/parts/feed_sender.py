"""Sends made-up spikes over one feed, in packets of 1 ms, stamped with the host's monotonic clock.

Started by feeds.py in a process of its own: ``python feed_sender.py KIND PORT_OR_NAME SECONDS``.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

UNITS, RATE_HZ, INTAN_HZ = 100, 20.0, 30_000
NS = 1_000_000_000
Send = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], None]


def main(kind: str, place: str, seconds: float) -> None:
    """Send until the time is over or the process is ended."""
    print("ready", flush=True)
    stream(SENDERS[kind](place), seconds)


def stream(send: Send, seconds: float, seed: int | None = None) -> None:
    """Each millisecond the spikes of the last one: ns (N,) of CLOCK_MONOTONIC and channels (N,)."""
    rng = np.random.default_rng(seed)
    last = time.monotonic_ns()
    end = last + int(seconds * NS)
    while last < end:
        time.sleep(max(0.0, (last + 1_000_000 - time.monotonic_ns()) / NS))
        now = time.monotonic_ns()
        n = rng.poisson(UNITS * RATE_HZ * (now - last) / NS)
        send(np.sort(rng.integers(last, now, n)), rng.integers(0, UNITS, n))
        last = now


def names(channels: npt.NDArray[np.int64]) -> list[str]:
    """What the feeds call the channels."""
    return [f"ch{channel}" for channel in channels.tolist()]


def json_line(ns: npt.NDArray[np.int64], channels: npt.NDArray[np.int64]) -> bytes:
    """One packet for the udp and tcp feeds."""
    return json.dumps({"ticks": ns.tolist(), "units": names(channels)}).encode()


def udp(place: str) -> Send:
    """Datagrams to a port."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return lambda ns, channels: _ignore(
        peer.sendto(json_line(ns, channels), ("127.0.0.1", int(place)))
    )


def _accepted(place: str) -> socket.socket:
    listening = socket.create_server(("127.0.0.1", int(place)))
    peer = listening.accept()[0]
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def tcp(place: str) -> Send:
    """Lines to whoever connects to the port."""
    peer = _accepted(place)
    return lambda ns, channels: peer.sendall(json_line(ns, channels) + b"\n")


def intan(place: str) -> Send:
    """Chunks of RHX's spike output to whoever connects to the port."""
    peer = _accepted(place)

    def send(ns: npt.NDArray[np.int64], channels: npt.NDArray[np.int64]) -> None:
        ticks = ns // 1000 * 3 // 100 % 2**32
        peer.sendall(
            b"".join(
                struct.pack("<I5sIB", 0x3AE2710F, f"A-{channel:03d}".encode(), tick, 1)
                for tick, channel in zip(ticks.tolist(), channels.tolist(), strict=True)
            )
        )

    return send


def openephys(place: str) -> Send:
    """Spike messages like those of Open Ephys, one each."""
    from poyo_edge.runtime.feeds.open_ephys import import_zmq

    zmq = import_zmq()
    publisher = zmq.Context().socket(zmq.PUB)
    publisher.bind(f"tcp://127.0.0.1:{place}")

    def send(ns: npt.NDArray[np.int64], channels: npt.NDArray[np.int64]) -> None:
        for tick, name in zip(ns.tolist(), names(channels), strict=True):
            head = {"event_type": "spike", "electrode": name, "sample_number": tick, "sorted_id": 0}
            publisher.send(json.dumps(head).encode())

    return send


def lsl(place: str) -> Send:
    """Samples of an irregular stream."""
    import pylsl

    info = pylsl.StreamInfo(place, "spikes", 1, pylsl.IRREGULAR_RATE, pylsl.cf_double64, place)
    outlet = pylsl.StreamOutlet(info)

    def send(ns: npt.NDArray[np.int64], channels: npt.NDArray[np.int64]) -> None:
        for tick, channel in zip(ns.tolist(), channels.tolist(), strict=True):
            outlet.push_sample([float(channel)], tick / NS)

    return send


def redis(place: str) -> Send:
    """Threshold crossings each millisecond, as BRAND's nodes write them."""
    from redis import Redis

    client: Any = Redis(port=int(place))

    def send(ns: npt.NDArray[np.int64], channels: npt.NDArray[np.int64]) -> None:
        counts = np.bincount(channels, minlength=UNITS).astype("<i2")
        stamp = struct.pack("<Q", time.monotonic_ns())
        client.xadd(
            "spikes", {"crossings": counts.tobytes(), "ts": stamp, "sync": "{}"}, maxlen=10_000
        )

    return send


def _ignore(_: object) -> None:
    return


SENDERS: dict[str, Callable[[str], Send]] = {
    "udp": udp, "tcp": tcp, "intan": intan, "openephys": openephys, "lsl": lsl, "redis": redis,
}  # fmt: skip

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
