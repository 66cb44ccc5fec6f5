"""Addresses → feeds and sinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds.feed import Feed
from poyo_edge.runtime.feeds.values import LoopResult

FEEDS = {
    "udp": "udp://HOST:PORT?rate=1e9&bits=32",
    "tcp": "tcp://HOST:PORT?rate=1e9&bits=32",
    "file": "file:RECORDING.h5?split=test&speed=1&labels=cursor.vel",
    "lsl": "lsl://STREAM",
    "redis": "redis://HOST:PORT/STREAM?bin_ms=1",
    "openephys": "openephys://HOST:PORT?rate=30000&sorted=1",
    "intan": "intan://HOST:PORT?rate=30000&sorted=1",
    "blackrock": "blackrock://DEVICE?rate=1e9&sorted=1",
}
SINKS = {
    "udp": "udp://HOST:PORT",
    "redis": "redis://HOST:PORT/STREAM",
    "lsl": "lsl://STREAM",
    "zmq": "zmq://HOST:PORT",
    "shm": "shm:NAME",
}


def open_feed(address: str) -> Feed:
    """The feed of an address like ``udp://127.0.0.1:5000``; it is not started yet.

    Raises:
        UsageError: no such kind of feed, or a part of the address that cannot be.
        MissingExtraError: its library is not installed.
    """
    url = _split("--from", address, FEEDS)
    options = _options(address, url, FEEDS[url.scheme])
    rate, bits = options.number("rate", 1e9), options.whole("bits")
    if url.scheme in ("udp", "tcp"):
        from poyo_edge.runtime.feeds.sockets import TcpFeed, UdpFeed

        kind = UdpFeed if url.scheme == "udp" else TcpFeed
        return kind(*_host_port(address, url), rate, bits)
    if url.scheme == "file":
        from poyo_edge.runtime.feeds.recording_feed import RecordingFeed

        return RecordingFeed(
            url.netloc + url.path,
            split=options.text("split", "all"),
            speed=options.number("speed", 1.0),
            behavior=options.text("labels", ""),
        )
    if url.scheme == "lsl":
        from poyo_edge.runtime.feeds.lsl import LslFeed

        return LslFeed(_name(address, url))
    if url.scheme == "redis":
        from poyo_edge.runtime.feeds.brand import BrandFeed

        bin_ms = options.number("bin_ms", 0.0) or None
        return BrandFeed(*_redis(address, url), bin_ms)
    sorted_units = options.text("sorted", "") not in ("", "0")
    if url.scheme == "openephys":
        from poyo_edge.runtime.feeds.open_ephys import OpenEphysFeed

        host, port = _host_port(address, url)
        return OpenEphysFeed(
            f"tcp://{host}:{port}", options.number("rate", 30_000.0), sorted_units=sorted_units
        )
    if url.scheme == "intan":
        from poyo_edge.runtime.feeds.intan import IntanFeed

        host, port = _host_port(address, url)
        return IntanFeed(host, port, options.number("rate", 30_000.0), sorted_units=sorted_units)
    from poyo_edge.runtime.feeds.blackrock import BlackrockFeed

    return BlackrockFeed(_name(address, url), rate, sorted_units=sorted_units)


class Sink:
    """Called with each value; ``close`` lets its peer go."""

    def __init__(
        self, address: str, send: Callable[[LoopResult], None], close: Callable[[], None]
    ) -> None:
        self.address, self._send, self.close = address, send, close

    def __call__(self, value: LoopResult) -> None:
        """Send a value."""
        self._send(value)


def open_sink(address: str, dim_out: int) -> Sink:
    """The sink of an address like ``udp://127.0.0.1:6000``.

    Raises:
        UsageError: no such kind of sink, or a part of the address that cannot be.
        MissingExtraError: its library is not installed.
    """
    url = _split("--to", address, SINKS)
    _options(address, url, SINKS[url.scheme])
    made: Any
    if url.scheme == "udp":
        from poyo_edge.runtime.feeds.sockets import UdpSink

        made = UdpSink(*_host_port(address, url))
    elif url.scheme == "redis":
        from poyo_edge.runtime.feeds.brand import BrandSink

        made = BrandSink(*_redis(address, url))
    elif url.scheme == "lsl":
        from poyo_edge.runtime.feeds.lsl import LslSink

        made = LslSink(_name(address, url), dim_out)
    elif url.scheme == "zmq":
        from poyo_edge.runtime.feeds.open_ephys import ZmqSink

        host, port = _host_port(address, url)
        made = ZmqSink(f"tcp://{host}:{port}")
    else:
        from poyo_edge.runtime.feeds.shared_memory import SharedMemorySink

        made = SharedMemorySink(_name(address, url), dim_out)
    return Sink(address, made, made.close)


class _Options:
    def __init__(self, address: str, values: dict[str, str]) -> None:
        self._address, self._values = address, values

    def text(self, name: str, default: str) -> str:
        return self._values.get(name, default)

    def number(self, name: str, default: float) -> float:
        try:
            value = float(self._values.get(name, default))
        except ValueError:
            value = -1.0
        if not 0 < value <= 1e12 and name in self._values:
            raise UsageError(
                f"{self._address}: {name}: expected a number > 0, got {self._values[name]!r}"
            )
        return value

    def whole(self, name: str) -> int | None:
        text = self._values.get(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit():
            raise UsageError(f"{self._address}: {name}: expected a whole number, got {text!r}")
        if not 8 <= int(text) <= 63:
            raise UsageError(f"{self._address}: {name}: expected 8 to 63, got {text}")
        return int(text)


def _split(option: str, address: str, known: dict[str, str]) -> SplitResult:
    try:
        url = urlsplit(address)
        _ = url.port
    except ValueError as error:
        raise UsageError(f"{option}: expected an address, got {address!r} ({error})") from None
    if url.scheme not in known:
        raise UsageError(
            f"{option}: expected an address like {', '.join(known.values())}, got {address!r}"
        )
    return url


def _options(address: str, url: SplitResult, example: str) -> _Options:
    known = {name for name, _ in parse_qsl(urlsplit(example).query)}
    values = dict(parse_qsl(url.query, keep_blank_values=True))
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            f"{address}: expected options {sorted(known) or 'none'}, got {unknown[0]!r}"
        )
    return _Options(address, values)


def _host_port(address: str, url: SplitResult) -> tuple[str, int]:
    if not url.hostname or url.port is None:
        raise UsageError(f"{address}: expected HOST:PORT, like 127.0.0.1:5000")
    return url.hostname, url.port


def _name(address: str, url: SplitResult) -> str:
    name = (url.netloc + url.path).strip("/")
    if not name:
        raise UsageError(f"{address}: expected a name behind {url.scheme}:, got none")
    return name


def _redis(address: str, url: SplitResult) -> tuple[dict[str, Any], str]:
    host, port = _host_port(address, url)
    stream = url.path.strip("/")
    if not stream:
        raise UsageError(f"{address}: expected a stream behind the port, like /thresh_cross_1")
    return {"host": host, "port": port}, stream
