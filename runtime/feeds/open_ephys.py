"""ZeroMQ: spikes of the Open Ephys GUI in, values out.

In: the Event Broadcaster (tcp 5557) and the ZMQ Interface plugin (tcp 5556) publish JSON headers of
spikes in one part of a message; waveforms in others are left alone. Written from the plugins'
documentation and tried on messages generated from it.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.address import Address
from poyo_edge.runtime.feeds.wire.parsing import Malformed, shown
from poyo_edge.runtime.feeds.wire.sequence import OneCounter, Sequence

_LONGEST_HEADER = 1 << 16
_MOST_WAITING = 1 << 16
_MOST_HZ = 1e12
_SAME_RATE = 0.005
_BOTH_S = 1.0
"""Two streams that are there from the start ask for a choice; a later second one is dropped."""


def import_zmq() -> Any:
    """pyzmq.

    Raises:
        ImportError: it is not installed.
    """
    import zmq

    return zmq


class Spike(NamedTuple):
    """One spike, and what its message says about where it comes from."""

    tick: int
    """Sample number."""
    electrode: str
    unit: int
    """Sorted id."""
    stream: str
    """Of the GUI; "" where the message names none."""
    rate_hz: float | None
    """Of the stream, where the message has it."""


def parse_spike(part: bytes) -> tuple[int, str, int] | None:
    """``(sample number, electrode, sorted id)`` of a message's part; None if it is no spike."""
    try:
        message = json_part(part)
        spike = None if message is None else read_spike(message)
    except Malformed:
        return None
    return None if spike is None else spike[:3]


def json_part(part: bytes) -> dict[str, Any] | None:
    """The JSON object that a part is, or None."""
    if not part.startswith(b"{") or len(part) > _LONGEST_HEADER:
        return None
    try:
        message = json.loads(part)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def read_spike(message: dict[str, Any]) -> Spike | None:
    """The spike of a JSON part; None if it says to be something else.

    Raises:
        Malformed: a spike that lacks what is needed.
    """
    inner = message.get("spike")
    spike = {**message, **inner} if isinstance(inner, dict) else message
    kind = spike.get("event_type", spike.get("type"))
    if kind not in ("spike", None):
        return None
    tick = spike.get("sample_number", spike.get("sample_num"))
    name = spike.get("electrode", spike.get("electrode_name"))
    unit = spike.get("sorted_id", 0)
    if kind is None and tick is None and name is None:
        return None
    if not isinstance(name, str) or not 0 < len(name) <= 256 or not (_whole(tick) and _whole(unit)):
        raise Malformed(
            f"expected a spike with electrode, sample_number and sorted_id, got "
            f"one with {shown(', '.join(map(str, spike)))}; use the Event Broadcaster or the ZMQ "
            f"Interface"
        )
    rate, stream = spike.get("sample_rate"), spike.get("stream", spike.get("stream_name", ""))
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= _MOST_HZ:
        rate = None
    return Spike(tick, name, unit, str(stream), rate)


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


class OpenEphysFeed(Feed):
    """Subscribes to spikes. Units are named by electrode; with ``sorted_units``, ``NAME#ID``.

    Args:
        address: as ZeroMQ takes it.
        tick_rate_hz: the stream's sample rate.
        sorted_units: tell units of an electrode apart.
        stream: whose spikes to take; "" takes those of the only one.
    """

    def __init__(
        self, address: str, tick_rate_hz: float, *, sorted_units: bool = False, stream: str = ""
    ) -> None:
        super().__init__(tick_rate_hz)
        self._zmq = import_zmq()
        self.address, self.sorted_units, self.stream = address, sorted_units, stream
        self._numbers = Sequence()
        self._only = OneCounter(tick_rate_hz)

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Subscribe and receive; ZeroMQ connects again by itself.

        Raises:
            zmq.ZMQError: the address cannot be used.
            UsageError: spikes of two streams, or of another rate than was stated.
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
            spikes, said = self._spikes(parts, host_ns)
            found += [spike for spike in spikes if self._meant(spike, host_ns)]
            if not spikes and not said:
                kinds = shown(next((part for part in parts if part.startswith(b"{")), parts[-1]))
                self.ignored(f"{self.address}: expected spikes, got other messages, {kinds}")
        if found:
            ticks = np.array([spike.tick for spike in found], np.int64)
            names = [f"{s.electrode}#{s.unit}" if self.sorted_units else s.electrode for s in found]
            self.hand_over(receiver, ticks, np.array(names, np.str_), host_ns=host_ns)

    def _spikes(self, parts: list[bytes], host_ns: int) -> tuple[list[Spike], bool]:
        """Spikes of a message, and whether a part was malformed."""
        spikes, said = list[Spike](), False
        for message in filter(None, map(json_part, parts)):
            if _whole(number := message.get("message_no")):
                self.lost(self._numbers.add(number), host_ns=host_ns)
            try:
                if (spike := read_spike(message)) is not None:
                    spikes.append(spike)
            except Malformed as error:
                said = True
                self.malformed(f"{self.address}: {error}")
        return spikes, said

    def _meant(self, spike: Spike, host_ns: int) -> bool:
        """Whether a spike is of the one stream."""
        if self.stream and spike.stream != self.stream:
            other = repr(spike.stream) if spike.stream else "messages that name no stream"
            self.ignored(f"{self.address}: expected spikes of {self.stream!r}, got {other}")
            return False
        if spike.rate_hz is not None and abs(spike.rate_hz / self.tick_rate_hz - 1) > _SAME_RATE:
            raise self.refused(
                f"{self.address}: expected a sample rate of {self.tick_rate_hz:g} Hz, got a spike "
                f"of {spike.stream or spike.electrode!r} at {spike.rate_hz:g} Hz; say "
                f"?rate={spike.rate_hz:g}, or choose another stream with ?stream="
            )
        said = self._only.add(spike.tick, spike.stream, host_ns)
        if not said:
            return True
        said = f"{self.address}: {said}"
        if self._only.began_within(host_ns, _BOTH_S):
            self.note_problem(said)
            raise UsageError(said)
        self.malformed(said)
        return False


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
    """``openephys://HOST:PORT?rate=30000&sorted=1&stream=NAME``."""
    return OpenEphysFeed(
        _endpoint(address),
        address.number("rate", 30_000.0),
        sorted_units=address.flag("sorted"),
        stream=address.option("stream"),
    )


def open_sink(address: Address, _: int) -> ZmqSink:
    """``zmq://HOST:PORT``."""
    return ZmqSink(_endpoint(address))


def _endpoint(address: Address) -> str:
    host, port = address.host_port()
    return f"tcp://{host}:{port}"
