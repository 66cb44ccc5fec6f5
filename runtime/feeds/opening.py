"""Addresses → feeds and sinks.

Each row names a function of its own file, which gets the address taken apart:
``open_feed(address) -> Feed``, and ``open_sink(address, dim_out) -> Sender`` with the number of
values that a window is decoded to. That file imports its library where it opens something; if the
library is not there, the message is made from the row.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from poyo_edge.errors import MissingExtraError
from poyo_edge.runtime.feeds.feed import Feed
from poyo_edge.runtime.feeds.values import Sender, Sink
from poyo_edge.runtime.feeds.wire.address import Address, AddressRow

FEEDS = {
    "udp": AddressRow(
        address="udp://HOST:PORT?rate=1e9&bits=32",
        help="anything, JSON datagrams (binds)",
        load="poyo_edge.runtime.feeds.sockets:open_udp_feed",
    ),
    "tcp": AddressRow(
        address="tcp://HOST:PORT?rate=1e9&bits=32",
        help="anything, JSON lines (connects)",
        load="poyo_edge.runtime.feeds.sockets:open_tcp_feed",
    ),
    "file": AddressRow(
        address="file:RECORDING.h5?split=test&speed=1&labels=cursor.vel&trials=1&cursor=cursor.pos",
        help="a recording",
        load="poyo_edge.runtime.feeds.recording_feed:open_feed",
    ),
    "lsl": AddressRow(
        address="lsl://STREAM?source_id=ID&trials=NAME&cursor=NAME",
        help="Lab Streaming Layer",
        load="poyo_edge.runtime.feeds.lsl:open_feed",
        extra="lsl",
        package="pylsl",
    ),
    "redis": AddressRow(
        address="redis://HOST:PORT/STREAM?bin_ms=1&dtype=int16&trials=STREAM&cursor=STREAM",
        help="BRAND (Redis)",
        load="poyo_edge.runtime.feeds.brand:open_feed",
        extra="redis",
        package="redis",
    ),
    "openephys": AddressRow(
        address="openephys://HOST:PORT?rate=30000&sorted=1&stream=NAME",
        help="Open Ephys (ZeroMQ)",
        load="poyo_edge.runtime.feeds.open_ephys:open_feed",
        extra="zmq",
        package="zmq",
    ),
    "intan": AddressRow(
        address="intan://HOST:PORT?rate=30000&sorted=1",
        help="Intan RHX",
        load="poyo_edge.runtime.feeds.intan:open_feed",
    ),
    "blackrock": AddressRow(
        address="blackrock://DEVICE?rate=1e9&sorted=1",
        help="Blackrock",
        load="poyo_edge.runtime.feeds.blackrock:open_feed",
        extra="blackrock",
        package="pycbsdk",
    ),
}
"""Scheme → where spikes come from."""
SINKS = {
    "udp": AddressRow(
        address="udp://HOST:PORT",
        help="anything, JSON datagrams",
        load="poyo_edge.runtime.feeds.sockets:open_udp_sink",
    ),
    "redis": AddressRow(
        address="redis://HOST:PORT/STREAM",
        help="BRAND (Redis)",
        load="poyo_edge.runtime.feeds.brand:open_sink",
        extra="redis",
        package="redis",
    ),
    "lsl": AddressRow(
        address="lsl://STREAM",
        help="Lab Streaming Layer",
        load="poyo_edge.runtime.feeds.lsl:open_sink",
        extra="lsl",
        package="pylsl",
    ),
    "zmq": AddressRow(
        address="zmq://HOST:PORT",
        help="ZeroMQ, JSON in one part (binds and publishes)",
        load="poyo_edge.runtime.feeds.open_ephys:open_sink",
        extra="zmq",
        package="zmq",
    ),
    "shm": AddressRow(
        address="shm:NAME",
        help="shared memory of this machine",
        load="poyo_edge.runtime.feeds.shared_memory:open_sink",
        never_waits=True,
    ),
}
"""Scheme → where values go."""


def open_feed(address: str, *, option: str = "--from") -> Feed:
    """The feed of an address like ``udp://127.0.0.1:5000``; it is not started yet.

    Args:
        address: where spikes, or trials and the cursor, come from.
        option: of the command line, for messages.

    Raises:
        UsageError: no such kind of feed, or a part of the address that cannot be.
        MissingExtraError: its library is not installed.
    """
    where = Address.parse(option, address, FEEDS)
    feed: Feed = _opened(FEEDS[where.scheme], where)
    return feed


def open_sink(address: str, dim_out: int, *, valid_for_ms: float | None = None) -> Sink:
    """The sink of an address like ``udp://127.0.0.1:6000``, for values of ``dim_out`` numbers.

    Args:
        address: where values go.
        dim_out: numbers of a value.
        valid_for_ms: how long a value stands, for sinks that say so before the first one.

    Raises:
        UsageError: no such kind of sink, or a part of the address that cannot be.
        MissingExtraError: its library is not installed.
    """
    parsed = Address.parse("--to", address, SINKS)
    where = dataclasses.replace(parsed, valid_for_ms=valid_for_ms)
    row = SINKS[where.scheme]
    made: Sender = _opened(row, where, dim_out)
    return Sink(address, made, made.close, never_waits=row.never_waits)


def _opened(row: AddressRow, address: Address, *more: Any) -> Any:
    """What the row's function makes of the address, which it looks at before it needs a library."""
    try:
        return row.opener(address, *more)
    except MissingExtraError:
        raise
    except ImportError as error:
        if not row.package:
            raise
        raise MissingExtraError(row.package, row.extra, address.text) from error
