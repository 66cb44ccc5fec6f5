"""Blackrock through pycbsdk: spike events by its callback.

``header.time`` is nanoseconds of the device (ticks of 30 kHz on devices of the legacy protocol),
``header.chid`` counts from 1, and the packet's type is the unit: 0 unsorted, 1 to 5 sorted, 255
noise.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver
from poyo_edge.runtime.feeds.wire.address import Address

_NOISE = 255
_MOST_CHANNELS = 1 << 15
_MOST_UNITS = 5


def parse_event(header: Any, sorted_units: bool) -> tuple[int, str] | None:
    """``(time, unit name)`` of an event's header; None for noise and what is no spike."""
    channel, kind, tick = (getattr(header, name, None) for name in ("chid", "type", "time"))
    if not all(isinstance(one, (int, np.integer)) for one in (channel, kind, tick)):
        return None
    if not 1 <= channel <= _MOST_CHANNELS or not 0 <= tick < 1 << 62:  # type: ignore[operator]
        return None
    unit = int(kind) & 0xFF  # type: ignore[arg-type]
    if unit > _MOST_UNITS:
        return None
    name = f"ch{int(channel)}"  # type: ignore[arg-type]
    return int(tick), f"{name}#{unit}" if sorted_units else name  # type: ignore[arg-type]


class BlackrockFeed(Feed):
    """Spikes of the front end's channels. Units are ``ch1``; with ``sorted_units``, ``ch1#2``.

    Args:
        device: as pycbsdk names it, like "HUB1", "NSP" or "LEGACY_NSP".
        tick_rate_hz: 1e9, or 30000 for the legacy protocol.
        sorted_units: tell units of a channel apart.
        session: an open session, for programs that have one; None opens it.
    """

    def __init__(
        self,
        device: str,
        tick_rate_hz: float = 1e9,
        *,
        sorted_units: bool = False,
        session: Any = None,
    ) -> None:
        super().__init__(tick_rate_hz)
        self.device, self.sorted_units = device, sorted_units
        self._given = session
        self._listens = False
        if session is None:
            import pycbsdk

            self._pycbsdk = pycbsdk

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Open the device and wait; packets come by callback in pycbsdk's thread.

        Raises:
            RuntimeError: the device does not answer, or stopped.
        """
        session = self._given
        if session is None:
            session = self._pycbsdk.Session(self._pycbsdk.DeviceType[self.device])
        try:
            if session is not self._given or not self._listens:
                self._listens = True  # a session that was given keeps what it was told
                session.on_event("FRONTEND")(lambda header, _: self._heard(header))
            self.counters.connections += 1
            while not stop.wait(POLL_S):
                if not session.running:
                    raise RuntimeError("the Blackrock session stopped")
        finally:
            if self._given is None:
                session.close()

    def _heard(self, header: Any) -> None:
        receiver = self._receiver
        if receiver is not None and not self._worker.stopping.is_set():
            self.take(header, receiver)

    def take(self, header: Any, receiver: Receiver) -> None:
        """One event, as the callback gives it."""
        now = time.monotonic_ns()
        self.counters.messages += 1
        event = parse_event(header, self.sorted_units)
        if event is None:
            self._ignore(header)
            return
        self.hand_over(receiver, np.array([event[0]]), np.array([event[1]]), host_ns=now)

    def _ignore(self, header: Any) -> None:
        found = {name: getattr(header, name, None) for name in ("chid", "type", "time")}
        said = ", ".join(f"{name} {value!r:.40}" for name, value in found.items())
        kind = found["type"]
        if isinstance(kind, (int, np.integer)) and int(kind) & 0xFF == _NOISE:
            self.ignored(f"expected spikes, got noise ({said})")
            return
        said = (
            f"expected spikes with chid 1 to {_MOST_CHANNELS}, type 0 to {_MOST_UNITS} and whole "
            f"ticks, got an event with {said}; give the feed front-end events only"
        )
        self.ignored(said)
        self.note_problem(said)


def open_feed(address: Address) -> BlackrockFeed:
    """``blackrock://DEVICE?rate=1e9&sorted=1``."""
    rate = address.number("rate", 1e9)
    return BlackrockFeed(address.name(), rate, sorted_units=address.flag("sorted"))
