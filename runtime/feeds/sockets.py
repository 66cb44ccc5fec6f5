"""JSON over UDP and TCP: for everything that has no adapter of its own."""

from __future__ import annotations

import json
import socket
import threading
import time

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.address import Address
from poyo_edge.runtime.feeds.wire.kernel import Overflow
from poyo_edge.runtime.feeds.wire.parsing import Malformed
from poyo_edge.runtime.feeds.wire.sequence import Sequence
from poyo_edge.runtime.feeds.wire.task import TaskMessage, read_message

_DATAGRAM = 1 << 16
_LONGEST_LINE = 1 << 20


class _JsonFeed(Feed):
    def __init__(
        self, host: str, port: int, tick_rate_hz: float = 1e9, bits: int | None = None
    ) -> None:
        super().__init__(tick_rate_hz, bits)
        self.host, self.port = host, port
        self._numbers = Sequence()
        self._numbered = False

    def _take(self, data: bytes, receiver: Receiver, host_ns: int) -> None:
        self.counters.messages += 1
        try:
            parsed = read_message(data, self.tick_rate_hz)
        except Malformed as error:
            self.malformed(str(error))
            return
        if parsed.seq is not None:
            self._numbered, missing = True, self._numbers.add(parsed.seq)
            # A sender that begins anew after a break says nothing of what came between.
            missing += self._broke and self._numbers.anew
            self._broke = False
            self.lost(missing, host_ns=host_ns)
        if isinstance(parsed, TaskMessage):
            self.hand_over_task(receiver, parsed.trial, parsed.cursor, host_ns=host_ns)
        elif parsed.values is not None:
            self.hand_over_labels(receiver, parsed.ticks, parsed.values, host_ns=host_ns)
        else:
            self.hand_over(receiver, parsed.ticks, parsed.units, host_ns=host_ns, sync=parsed.sync)


class UdpFeed(_JsonFeed):
    """One JSON object per datagram, on an address that this side binds; port 0 takes a free one."""

    def __init__(
        self, host: str, port: int, tick_rate_hz: float = 1e9, bits: int | None = None
    ) -> None:
        super().__init__(host, port, tick_rate_hz, bits)
        self.bound = threading.Event()

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Bind and receive; ``bound`` is set and ``port`` is the real one from then on.

        Raises:
            UsageError: the address could never be bound.
            ConnectionError: it could not be bound again.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            try:
                peer.bind((self.host, self.port))
            except OSError as error:
                said = (
                    f"udp://{self.host}:{self.port}: expected a free port on an address of this "
                    f"machine, got one that cannot be bound ({error.strerror})"
                )
                if not self.counters.connections:
                    raise UsageError(f"{said}; name another, or end what holds it") from None
                raise ConnectionError(said) from None
            peer.settimeout(POLL_S)
            self.port = peer.getsockname()[1]
            overflow = Overflow(peer)
            self.details["receive_buffer_bytes"] = overflow.granted_bytes
            self.details["kernel_drops"] = 0
            self.counters.connections += 1
            self.bound.set()
            while not stop.is_set():
                try:
                    data, dropped = overflow.receive(_DATAGRAM)
                except TimeoutError:
                    continue
                now = time.monotonic_ns()
                self.details["kernel_drops"] += dropped
                if not self._numbered:  # Numbers tell of these as well.
                    self.lost(dropped, host_ns=now)
                self._take(data, receiver, now)


class TcpFeed(_JsonFeed):
    """One JSON object per line, from a server that this side connects to."""

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Connect and receive.

        Raises:
            OSError: refused, reset, or closed by the server.
        """
        with connected("tcp", self.host, self.port) as peer:
            self.counters.connections += 1
            lines = LineBuffer()
            while not stop.is_set():
                try:
                    data = peer.recv(_DATAGRAM)
                except TimeoutError:
                    continue
                if not data:
                    raise ConnectionError("the server closed the connection")
                now = time.monotonic_ns()
                for line in lines.add(data):
                    self._take(line, receiver, now)


def connected(scheme: str, host: str, port: int) -> socket.socket:
    """A connection whose reads come back after ``POLL_S``.

    Raises:
        ConnectionError: nobody answers there.
    """
    try:
        peer = socket.create_connection((host, port), timeout=2.0)
    except OSError as error:
        raise ConnectionError(
            f"{scheme}://{host}:{port}: expected a server that answers, got none "
            f"({error.strerror or error})"
        ) from None
    peer.settimeout(POLL_S)
    return peer


class LineBuffer:
    """Cuts a stream into lines; one that is too long is given as it is and will be malformed."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, data: bytes) -> list[bytes]:
        """Whole lines, without their ends and without empty ones."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        return [line for line in lines if line.strip()]


class UdpSink:
    """Sends each value as one JSON datagram."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._address = (host, port)

    def __call__(self, value: LoopResult) -> None:
        """Send it; a full buffer is an error that the loop counts."""
        self._socket.sendto(json.dumps(value.to_json()).encode(), self._address)

    def close(self) -> None:
        """Let the socket go."""
        self._socket.close()


def open_udp_feed(address: Address) -> UdpFeed:
    """``udp://HOST:PORT?rate=1e9&bits=32``."""
    rate, bits = address.number("rate", 1e9), address.bits()
    return UdpFeed(*address.host_port(), rate, bits)


def open_tcp_feed(address: Address) -> TcpFeed:
    """``tcp://HOST:PORT?rate=1e9&bits=32``."""
    rate, bits = address.number("rate", 1e9), address.bits()
    return TcpFeed(*address.host_port(), rate, bits)


def open_udp_sink(address: Address, _: int) -> UdpSink:
    """``udp://HOST:PORT``."""
    return UdpSink(*address.host_port())
