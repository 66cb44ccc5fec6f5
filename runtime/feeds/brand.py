"""BRAND: threshold crossings or counts of a Redis stream in, values into another.

Fields as BRAND's nodes write them: ``crossings`` (int16 per channel, each 1 ms) or ``samples``
(float32 counts per channel, each 20 ms), ``ts`` (uint64 nanoseconds of CLOCK_MONOTONIC) and
``sync`` (JSON), which goes out again with the value that it was last part of.
"""

from __future__ import annotations

import functools
import json
import re
import struct
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver, gather_s
from poyo_edge.runtime.feeds.task.redis_streams import RedisTask
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.address import Address
from poyo_edge.runtime.feeds.wire.entries import Entries
from poyo_edge.runtime.feeds.wire.parsing import (
    MOST_IN_BIN,
    MOST_SPIKES,
    Malformed,
    first_no_count,
    spread_counts,
)
from poyo_edge.runtime.feeds.wire.redis_client import connect, import_redis

CROSSINGS_MS, COUNTS_MS = 1.0, 20.0
DTYPES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "int64": 8, "float32": 4,
          "float64": 8}  # fmt: skip
"""Types that counts may have → bytes of a channel."""
_CHANNEL = re.compile("ch([0-9]{1,5})")
_MOST_CHANNELS = 1 << 15
_MOST_ENTRIES = 256
_LOOK_EACH_S = 1.0
"""Between two looks for entries that were trimmed away before they were read."""
_IDLE = 5
"""Reads in a row that bring nothing, until the stream is looked at: it may have begun anew."""
_KEPT = 100_000
"""Entries that the output stream keeps."""


class Bin(NamedTuple):
    """One entry: spikes of a bin."""

    ticks: npt.NDArray[np.int64]
    """(N,) nanoseconds of CLOCK_MONOTONIC."""
    channels: npt.NDArray[np.int64]
    """(N,) numbers from 0."""
    sync: Any


def parse_bin(fields: Mapping[bytes, bytes], bin_ms: float | None = None) -> Bin | None:
    """What ``read_bin`` reads, or None where it cannot."""
    try:
        return read_bin(fields, bin_ms)
    except Malformed:
        return None


def read_bin(
    fields: Mapping[bytes, bytes],
    bin_ms: float | None = None,
    dtype: str = "",
    unit_names: Collection[str] = (),
) -> Bin:
    """Spikes of one stream entry, evenly over its bin.

    Args:
        fields: of the entry.
        bin_ms: length of the bin; None takes 1 ms for crossings and 20 ms for samples.
        dtype: of the counts, a name of ``DTYPES``; "" takes int16 for crossings and float32 for
            samples where that fits the units.
        unit_names: what the decoder knows units as; empty asks for no length.

    Raises:
        Malformed: it is no such entry.
    """
    field = "crossings" if b"crossings" in fields else "samples"
    raw, stamp = fields.get(field.encode()), fields.get(b"ts")
    if not isinstance(raw, bytes) or not isinstance(stamp, bytes):
        found = ", ".join(name.decode(errors="replace") for name in fields)
        raise Malformed(
            f"expected an entry with crossings or samples, and ts, got {found or 'no fields'!s:.80}"
            f"; name the stream of counts"
        )
    if len(stamp) != 8 or (end := struct.unpack("<Q", stamp)[0]) >= 1 << 62:
        raise Malformed(
            f"ts: expected 8 bytes, nanoseconds of CLOCK_MONOTONIC as uint64, got {len(stamp)} "
            f"bytes {stamp[:20]!r}; let the node write uint64"
        )
    counts = _counts(field, raw, dtype, unit_names)
    length_ms = bin_ms or (CROSSINGS_MS if field == "crossings" else COUNTS_MS)
    ticks, channels = spread_counts(counts, int(end), length_ms * 1e6)
    return Bin(ticks, channels, _sync(fields.get(b"sync")))


def _counts(field: str, raw: bytes, dtype: str, unit_names: Collection[str]) -> npt.NDArray[Any]:
    """Whole numbers of spikes (C,) of the channels."""
    kind = dtype or ("int16" if field == "crossings" else "float32")
    _require_length(field, len(raw), kind, asked=bool(dtype), unit_names=unit_names)
    counts = np.frombuffer(raw, np.dtype(kind).newbyteorder("<"))
    if (at := first_no_count(counts)) is not None:
        raise Malformed(
            f"{field}: expected whole counts of 0 to {MOST_IN_BIN} as {kind}, got {counts[at]:.4g} "
            f"of channel {at}; name a stream that is not normalised, or say ?dtype="
        )
    if counts.sum() > MOST_SPIKES:
        raise Malformed(
            f"{field}: expected at most {MOST_SPIKES} spikes in a bin, got {counts.sum():.0f} as "
            f"{kind}; say what the counts are with ?dtype="
        )
    return counts


def _require_length(
    field: str, n_bytes: int, kind: str, *, asked: bool, unit_names: Collection[str]
) -> None:
    """Refuse a field whose length does not fit the units, or fits them as another type only."""
    size = DTYPES[kind]
    if n_bytes % size or not 0 < n_bytes <= size * _MOST_CHANNELS:
        raise Malformed(
            f"{field}: expected {kind} of 1 to {_MOST_CHANNELS} channels, got {n_bytes} bytes; say "
            f"?dtype= (one of {', '.join(DTYPES)})"
        )
    least, exact = _channels_of(frozenset(unit_names))
    if not least:
        return
    n_channels = n_bytes // size
    others = [one for one, width in DTYPES.items() if width != size and n_bytes / width in exact]
    if n_channels < least or (n_channels not in exact and others and not asked):
        do = f"say ?dtype={' or '.join(others)}" if others else "name another stream"
        keep = f", or ?dtype={kind} if that is right" if n_channels >= least else ""
        raise Malformed(
            f"{field}: expected {least} channels (the session has ch{least - 1}), {least * size} "
            f"bytes of {kind}, got {n_bytes} bytes, {n_channels} channels; {do}{keep}"
        )


@functools.lru_cache(maxsize=8)
def _channels_of(unit_names: frozenset[str]) -> tuple[int, frozenset[int]]:
    """How many channels there are at least, and how many there may be without a doubt; 0 for units
    that have no numbers. An entry comes each millisecond, and the names are the same."""
    numbers = {int(name[2:]) for name in unit_names if _CHANNEL.fullmatch(name)}
    least = max(numbers, default=-1) + 1
    return least, frozenset({least, len(numbers)})


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
        dtype: of the counts if it is not BRAND's usual one.
        trials: name of a stream of trials; "" for none.
        cursor: name of a stream of the cursor; "" for none.

    Raises:
        UsageError: no such dtype.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        stream: str,
        bin_ms: float | None = None,
        dtype: str = "",
        *,
        trials: str = "",
        cursor: str = "",
    ) -> None:
        super().__init__(1e9)
        if dtype and dtype not in DTYPES:
            raise UsageError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        import_redis()  # Where it is missing, that is said here and not in the thread.
        self.connection, self.stream, self.bin_ms = dict(connection), stream, bin_ms
        self.dtype = dtype
        self._names: npt.NDArray[np.str_] = np.empty(0, np.str_)
        self._entries = Entries(stream)
        if trials or cursor:
            self.beside = (RedisTask(connection, trials, cursor),)

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Connect and receive; after a break it goes on behind the last entry read.

        A stream that was deleted, or that a restarted server has not, is read from its beginning
        when it comes again.

        Raises:
            redis.RedisError: refused, gone, or no stream.
        """
        client = connect(self.connection, timeout_s=5.0)
        try:
            client.ping()
            self.counters.connections += 1
            if self._entries.last and not self._look_for_another(client):
                self._broke = False  # Entries that came meanwhile are there.
            self.lost(self._entries.look(client)[0], host_ns=time.monotonic_ns())
            looked, idle = time.monotonic(), 0
            while not stop.is_set():
                answer = client.xread({self.stream: self._entries.last}, count=_MOST_ENTRIES,
                                      block=int(POLL_S * 1000))  # fmt: skip
                now = time.monotonic_ns()
                idle = 0 if answer else idle + 1
                for _, entries in answer or ():
                    self._entries.read(entries)
                    self._take([fields for _, fields in entries], receiver, now)
                if answer and time.monotonic() - looked > _LOOK_EACH_S:
                    lost, all_read = self._entries.look(client)
                    self.lost(lost, host_ns=now)
                    looked = time.monotonic() if all_read else looked
                elif idle and idle % _IDLE == 0:
                    self._look_for_another(client)
                if answer:  # Entries come one each 1 ms.
                    time.sleep(gather_s(receiver))
        finally:
            client.close()

    def _look_for_another(self, client: Any) -> bool:
        """Whether the stream is not the one that was read; then some of it may have been missed."""
        another = self._entries.began_anew(client)
        if another:
            self._broke = self._used
            self.details["began_anew"] = self.details.get("began_anew", 0) + 1
        return another

    def _take(
        self, entries: Sequence[Mapping[bytes, bytes]], receiver: Receiver, host_ns: int
    ) -> None:
        """Hand over what came together as one packet, with the newest ``sync``."""
        self.counters.messages += len(entries)
        bins = list[Bin]()
        for fields in entries:
            try:
                bins.append(read_bin(fields, self.bin_ms, self.dtype, self.unit_names))
            except Malformed as error:
                self.malformed(f"{self.stream}: {error}")
        if not bins:
            return
        channels = np.concatenate([one.channels for one in bins])
        most = int(channels.max(initial=-1))
        if most >= len(self._names):
            self._names = np.array([f"ch{i}" for i in range(most + 1)])
        names = self._names[channels] if len(channels) else np.empty(0, np.str_)
        ticks = np.concatenate([one.ticks for one in bins])
        sync = next((one.sync for one in reversed(bins) if one.sync is not None), None)
        self.hand_over(receiver, ticks, names, host_ns=host_ns, sync=sync)


class BrandSink:
    """Adds each value to a stream: ``samples`` (float64s), ``ts``, ``sync``, ``status``, …"""

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
        if value.valid_for_ms is not None:
            fields["valid_for_ms"] = value.valid_for_ms
        if value.trial is not None:
            fields["trial"] = value.trial
        self._client.xadd(self.stream, fields, maxlen=_KEPT, approximate=True)

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()


def open_feed(address: Address) -> Feed:
    """``redis://HOST:PORT/STREAM?bin_ms=1&dtype=int16&trials=STREAM&cursor=STREAM``; without the
    first STREAM, trials or cursor alone."""
    bin_ms = address.number("bin_ms", 0.0) or None
    trials, cursor = address.option("trials"), address.option("cursor")
    if (trials or cursor) and not address.url.path.strip("/"):
        host, port = address.host_port()
        return RedisTask({"host": host, "port": port}, trials, cursor)
    where = _stream(address)
    return BrandFeed(*where, bin_ms, address.option("dtype"), trials=trials, cursor=cursor)


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
