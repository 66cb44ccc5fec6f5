"""Trials and the cursor from streams of Redis.

An entry of trials has the field ``trial``, a JSON object; one of the cursor has ``pos`` (float64
each) and, where the device's counter is known, ``ts`` (uint64 ticks).
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver
from poyo_edge.runtime.feeds.wire.entries import Entries
from poyo_edge.runtime.feeds.wire.parsing import Malformed
from poyo_edge.runtime.feeds.wire.redis_client import connect, import_redis
from poyo_edge.runtime.feeds.wire.task import CursorAt, read_cursor, trial_of_text
from poyo_edge.trials import MOST_DIMS, TrialUpdate

_MOST_ENTRIES = 256
_IDLE = 5
"""Reads in a row that bring nothing, until the streams are looked at: they may have begun anew."""


class RedisTask(Feed):
    """Reads streams from their newest entry on.

    Args:
        connection: ``host`` and ``port``, or ``unix_socket_path``, of Redis.
        trials: name of the stream of trials; "" for none.
        cursor: name of the stream of the cursor; "" for none.
    """

    def __init__(self, connection: Mapping[str, Any], trials: str = "", cursor: str = "") -> None:
        super().__init__()
        import_redis()  # Where it is missing, that is said here and not in the thread.
        self.connection, self.trials, self.cursor = dict(connection), trials, cursor
        self._entries = {name: Entries(name) for name in (trials, cursor) if name}

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Connect and receive; after a break it goes on behind the last entries read.

        Raises:
            redis.RedisError: refused or gone.
        """
        client = connect(self.connection, timeout_s=5.0)
        try:
            client.ping()
            self.counters.connections += 1
            for entries in self._entries.values():
                entries.look(client)
            idle = 0
            while not stop.is_set():
                last = {name: entries.last for name, entries in self._entries.items()}
                answer = client.xread(last, count=_MOST_ENTRIES, block=int(POLL_S * 1000))
                now = time.monotonic_ns()
                idle = 0 if answer else idle + 1
                for name, found in answer or ():
                    name = name.decode() if isinstance(name, bytes) else name
                    self._entries[name].read(found)
                    self._take(name, [fields for _, fields in found], receiver, now)
                if idle and idle % _IDLE == 0:
                    for entries in self._entries.values():
                        entries.began_anew(client)
        finally:
            client.close()

    def _take(
        self, stream: str, entries: list[Mapping[bytes, bytes]], receiver: Receiver, host_ns: int
    ) -> None:
        self.counters.messages += len(entries)
        for fields in entries:
            trial, cursor = None, None
            try:
                if stream == self.trials:
                    trial = trial_of(fields, self.tick_rate_hz)
                else:
                    cursor = cursor_of(fields)
            except Malformed as error:
                self.malformed(f"{stream}: {error}")
                continue
            self.hand_over_task(receiver, trial, cursor, host_ns=host_ns)


def trial_of(fields: Mapping[bytes, bytes], rate_hz: float) -> TrialUpdate:
    """The trial of an entry.

    Raises:
        Malformed: it has none, or one that cannot be.
    """
    text = fields.get(b"trial")
    if text is None:
        raise Malformed(f"expected an entry with trial, got {_names(fields)}; name its stream")
    return trial_of_text(text, rate_hz)


def cursor_of(fields: Mapping[bytes, bytes]) -> CursorAt:
    """Where an entry says the cursor was.

    Raises:
        Malformed: it does not say it.
    """
    raw, stamp = fields.get(b"pos"), fields.get(b"ts")
    if not isinstance(raw, bytes):
        raise Malformed(f"expected an entry with pos, got {_names(fields)}; name its stream")
    if len(raw) % 8 or not 8 <= len(raw) <= 8 * MOST_DIMS:
        raise Malformed(
            f"pos: expected float64 of 1 to {MOST_DIMS} coordinates, got {len(raw)} bytes"
        )
    values: dict[str, Any] = {"pos": [np.frombuffer(raw, "<f8").tolist()]}
    if stamp is not None:
        if len(stamp) != 8:
            raise Malformed(f"ts: expected 8 bytes, ticks as uint64, got {len(stamp)} bytes")
        values["ticks"] = [struct.unpack("<Q", stamp)[0]]
    return read_cursor(values, 1.0)


def _names(fields: Mapping[bytes, bytes]) -> str:
    found = ", ".join(name.decode(errors="replace") for name in fields)
    return f"{found or 'no fields'!s:.80}"
