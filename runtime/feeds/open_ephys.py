"""ZeroMQ: spikes of the Open Ephys GUI in, values out.

In: the Event Broadcaster (tcp 5557) and the ZMQ Interface plugin (tcp 5556) publish JSON headers of
spikes in one part of a message; waveforms in others are left alone. Written from the plugins'
documentation and tried on messages generated from it.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any, TypeGuard

import numpy as np

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.address import Address

_LONGEST_HEADER = 1 << 16
_MOST_WAITING = 1 << 16


def import_zmq() -> Any:
    """pyzmq.

    Raises:
        ImportError: it is not installed.
    """
    import zmq

    return zmq


def parse_spike(part: bytes) -> tuple[int, str, int] | None:
    """``(sample number, electrode, sorted id)`` of a message's part; None if it is no spike."""
    if not part.startswith(b"{") or len(part) > _LONGEST_HEADER:
        return None
    try:
        message = json.loads(part)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    inner = message.get("spike")
    spike = {**message, **inner} if isinstance(inner, dict) else message
    kind = spike.get("event_type", spike.get("type"))
    if kind not in ("spike", None):
        return None
    tick = spike.get("sample_number", spike.get("sample_num"))
    name = spike.get("electrode", spike.get("electrode_name"))
    unit = spike.get("sorted_id", 0)
    if not isinstance(name, str) or not 0 < len(name) <= 256:
        return None
    return (tick, name, unit) if _whole(tick) and _whole(unit) else None


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


class OpenEphysFeed(Feed):
    """Subscribes to spikes. Units are named by electrode; with ``sorted_units``, ``NAME#ID``."""

    def __init__(self, address: str, tick_rate_hz: float, *, sorted_units: bool = False) -> None:
        super().__init__(tick_rate_hz)
        self._zmq = import_zmq()
        self.address, self.sorted_units = address, sorted_units

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Subscribe and receive; ZeroMQ connects again by itself.

        Raises:
            zmq.ZMQError: the address cannot be used.
        """
        zmq = self._zmq
        with zmq.Context() as context, context.socket(zmq.SUB) as peer:
            peer.setsockopt(zmq.LINGER, 0)
            peer.setsockopt(zmq.RCVHWM, _MOST_WAITING)
            peer.setsockopt(zmq.SUBSCRIBE, b"")
            peer.connect(self.address)
            self.counters.connections += 1
            while not stop.is_set():
                if not peer.poll(int(POLL_S * 1000)):
                    continue
                self._take(_all_waiting(peer, zmq), receiver, time.monotonic_ns())

    def _take(self, messages: list[list[bytes]], receiver: Receiver, host_ns: int) -> None:
        found = []
        for parts in messages:
            self.counters.messages += 1
            spikes = [spike for part in parts if (spike := parse_spike(part)) is not None]
            if not spikes:
                self.counters.ignored += 1
            found += spikes
        if found:
            ticks = np.array([tick for tick, _, _ in found], np.int64)
            names = [f"{n}#{unit}" if self.sorted_units else n for _, n, unit in found]
            receiver.feed(ticks, np.array(names, np.str_), host_ns=host_ns)


def _all_waiting(peer: Any, zmq: Any) -> list[list[bytes]]:
    messages = list[list[bytes]]()
    while len(messages) < 1024:
        try:
            messages.append(peer.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            break
    return messages


class ZmqSink:
    """Publishes each value as JSON on an address that this side binds.

    Raises:
        UsageError: the address cannot be bound.
    """

    def __init__(self, address: str) -> None:
        zmq = import_zmq()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 100)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise UsageError(
                f"zmq{address.removeprefix('tcp')}: expected a free port of this machine, got one "
                f"that cannot be bound ({zmq.strerror(error.errno)}); give another with --to"
            ) from None
        self.address = self._socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")

    def __call__(self, value: LoopResult) -> None:
        """Publish it; without a subscriber it is gone."""
        self._socket.send(json.dumps(value.to_json()).encode())

    def close(self) -> None:
        """Let the address go."""
        self._socket.close()
        self._context.term()


def open_feed(address: Address) -> OpenEphysFeed:
    """``openephys://HOST:PORT?rate=30000&sorted=1``."""
    rate = address.number("rate", 30_000.0)
    return OpenEphysFeed(_endpoint(address), rate, sorted_units=address.flag("sorted"))


def open_sink(address: Address, _: int) -> ZmqSink:
    """``zmq://HOST:PORT``."""
    return ZmqSink(_endpoint(address))


def _endpoint(address: Address) -> str:
    host, port = address.host_port()
    return f"tcp://{host}:{port}"
