"""BRAND: threshold crossings or counts of a Redis stream in, values into another.

Fields as BRAND's nodes write them: ``crossings`` (int16 per channel, each 1 ms) or ``samples``
(float32 counts per channel, each 20 ms), ``ts`` (uint64 nanoseconds of CLOCK_MONOTONIC) and
``sync`` (JSON), which goes out again with the value that it was last part of.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.address import Address
from poyo_edge.runtime.feeds.wire.parsing import MOST_SPIKES, spread_counts

CROSSINGS_MS, COUNTS_MS = 1.0, 20.0
_MOST_CHANNELS = 1 << 15
_MOST_ENTRIES = 256
_REST_S = 0.002
"""Between two reads: entries that come meanwhile, one each 1 ms, are read together."""
_KEPT = 100_000
"""Entries that the output stream keeps."""


class Bin(NamedTuple):
    """One entry: spikes of a bin."""

    ticks: npt.NDArray[np.int64]
    """(N,) nanoseconds of CLOCK_MONOTONIC."""
    channels: npt.NDArray[np.int64]
    """(N,) numbers from 0."""
    sync: Any


def import_redis() -> Any:
    """redis.

    Raises:
        ImportError: it is not installed.
    """
    import redis
    import redis.backoff
    import redis.retry

    return redis


def connect(connection: Mapping[str, Any], *, timeout_s: float) -> Any:
    """A client that never waits to try again by itself: the loop must not, and the feed does."""
    redis = import_redis()
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    return redis.Redis(**connection, socket_timeout=timeout_s, retry=retry)


def parse_bin(fields: Mapping[bytes, bytes], bin_ms: float | None = None) -> Bin | None:
    """Spikes of one stream entry, evenly over its bin; None if it is no such entry.

    Args:
        fields: of the entry.
        bin_ms: length of the bin; None takes 1 ms for crossings and 20 ms for samples.
    """
    crossings = b"crossings" in fields
    raw, stamp = fields.get(b"crossings" if crossings else b"samples"), fields.get(b"ts")
    size = 2 if crossings else 4
    if not isinstance(raw, bytes) or not isinstance(stamp, bytes) or len(stamp) != 8:
        return None
    if len(raw) % size or not 0 < len(raw) <= size * _MOST_CHANNELS:
        return None
    counts = np.frombuffer(raw, "<i2" if crossings else "<f4")
    (end,) = struct.unpack("<Q", stamp)
    if end >= 1 << 62 or not np.isfinite(counts).all():
        return None
    if np.abs(counts, dtype=np.float64).sum() > MOST_SPIKES:
        return None
    length_ms = bin_ms or (CROSSINGS_MS if crossings else COUNTS_MS)
    ticks, channels = spread_counts(counts, int(end), length_ms * 1e6)
    return Bin(ticks, channels, _sync(fields.get(b"sync")))


def _sync(data: bytes | None) -> Any:
    try:
        return None if data is None else json.loads(data)
    except (ValueError, RecursionError, TypeError):
        return None


class BrandFeed(Feed):
    """Reads a stream from its newest entry on. Channel ``i`` (from 0) is unit ``ch{i}``.

    Args:
        connection: ``host`` and ``port``, or ``unix_socket_path``, of Redis.
        stream: name of the input stream.
        bin_ms: length of a bin if it is not BRAND's usual one.
    """

    def __init__(
        self, connection: Mapping[str, Any], stream: str, bin_ms: float | None = None
    ) -> None:
        super().__init__(1e9)
        import_redis()  # Where it is missing, that is said here and not in the thread.
        self.connection, self.stream, self.bin_ms = dict(connection), stream, bin_ms
        self._names: npt.NDArray[np.str_] = np.empty(0, np.str_)
        self._last: bytes | str | None = None

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Connect and receive; after a break it goes on behind the last entry read.

        Raises:
            redis.RedisError: refused, gone, or no stream.
        """
        client = connect(self.connection, timeout_s=5.0)
        try:
            client.ping()
            self.counters.connections += 1
            last = self._last or self._newest(client)
            while not stop.is_set():
                answer = client.xread({self.stream: last}, count=_MOST_ENTRIES,
                                      block=int(POLL_S * 1000))  # fmt: skip
                now = time.monotonic_ns()
                for _, entries in answer or ():
                    self._take([fields for _, fields in entries], receiver, now)
                    self._last = last = entries[-1][0]
                    time.sleep(_REST_S)
        finally:
            client.close()

    def _newest(self, client: Any) -> bytes | str:
        found = client.xrevrange(self.stream, count=1)
        return found[0][0] if found else "0"

    def _take(
        self, entries: Sequence[Mapping[bytes, bytes]], receiver: Receiver, host_ns: int
    ) -> None:
        """Hand over what came together as one packet, with the newest ``sync``."""
        parsed = [parse_bin(fields, self.bin_ms) for fields in entries]
        bins = [one for one in parsed if one is not None]
        self.counters.messages += len(entries)
        self.counters.malformed += len(entries) - len(bins)
        if not bins:
            return
        channels = np.concatenate([one.channels for one in bins])
        most = int(channels.max(initial=-1))
        if most >= len(self._names):
            self._names = np.array([f"ch{i}" for i in range(most + 1)])
        names = self._names[channels] if len(channels) else np.empty(0, np.str_)
        ticks = np.concatenate([one.ticks for one in bins])
        sync = next((one.sync for one in reversed(bins) if one.sync is not None), None)
        receiver.feed(ticks, names, host_ns=host_ns, sync=sync)


class BrandSink:
    """Adds each value to a stream: ``samples`` (float64s), ``ts``, ``sync``, ``status``."""

    def __init__(self, connection: Mapping[str, Any], stream: str) -> None:
        self._client = connect(connection, timeout_s=0.1)
        self.stream = stream

    def __call__(self, value: LoopResult) -> None:
        """Add it; a server that is away is an error that the loop counts."""
        fields = {
            "samples": np.asarray(value.result.value, "<f8").tobytes(),
            "ts": struct.pack("<Q", value.host_ns),
            "sync": json.dumps(value.sync if value.sync is not None else {}),
            "status": value.result.status.value,
            "i": value.seq,
            "t": value.t_s,
            "n_spikes": value.result.n_spikes,
        }
        self._client.xadd(self.stream, fields, maxlen=_KEPT, approximate=True)

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()


def open_feed(address: Address) -> BrandFeed:
    """``redis://HOST:PORT/STREAM?bin_ms=1``."""
    bin_ms = address.number("bin_ms", 0.0) or None
    return BrandFeed(*_stream(address), bin_ms)


def open_sink(address: Address, _: int) -> BrandSink:
    """``redis://HOST:PORT/STREAM``."""
    return BrandSink(*_stream(address))


def _stream(address: Address) -> tuple[dict[str, Any], str]:
    host, port = address.host_port()
    stream = address.url.path.strip("/")
    if not stream:
        raise UsageError(f"{address.text}: expected a stream behind the port, like /thresh_cross_1")
    return {"host": host, "port": port}, stream


def node_parameters(client: Any, nickname: str) -> dict[str, Any]:
    """Parameters of a node in the newest supergraph.

    Raises:
        UsageError: no supergraph, or the node is not in it.
    """
    entries = client.xrevrange("supergraph_stream", count=1)
    try:
        nodes = json.loads(entries[0][1][b"data"])["nodes"]
        found = [node for node in nodes.values() if node.get("nickname") == nickname]
        parameters = found[0].get("parameters") or {}
    except (IndexError, KeyError, ValueError, TypeError, AttributeError):
        raise UsageError(
            f"supergraph_stream: expected a graph with a node {nickname!r}, got none; start the "
            f"graph with its supervisor first"
        ) from None
    if not isinstance(parameters, dict):
        raise UsageError(f"parameters of {nickname!r}: expected a mapping, got {parameters!r:.80}")
    return parameters


def note_state(client: Any, nickname: str, code: int, status: str) -> None:
    """Tell the supervisor: NODE_STARTED, NODE_READY, NODE_SHUTDOWN or NODE_FATAL_ERROR."""
    client.xadd(f"{nickname}_state", {"code": code, "status": status})
