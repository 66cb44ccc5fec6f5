"""Packets that wait for the loop: taken in their order, and no longer than a deadline allows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.runtime.feeds.values import Packet
from poyo_edge.runtime.rig.settings import HostClock, LoopCounters
from poyo_edge.trials import Trial, TrialUpdate

_SHARE = 2
"""At most one part in so many of a period goes into taking packets; the rest is for decoding."""
_MAY_LAG, _MAY_CATCH_UP = 3, 50
"""Periods in a row that may end with packets waiting: while they grow older, and while the loop
catches up, as after a pause of its thread."""
_STALE_PERIODS, _STALE_NS = 2, 20_000_000


class PacketQueue:
    """Feeds put packets in from any thread; the loop takes them.

    When the loop does not get to the end of the queue for some periods, and what waits grows older,
    more comes than it can take: until it gets there again, spikes that have waited for two periods
    are dropped, so that the rest is new.

    Args:
        most: packets that may wait; beyond them the oldest are dropped.
        period_ns: from one window to the next.
        counters: where what was dropped is counted.
    """

    def __init__(self, most: int, period_ns: int, counters: LoopCounters) -> None:
        self._packets: deque[Packet] = deque(maxlen=most)
        self._period_ns, self._counters = period_ns, counters
        self._stale_ns = max(_STALE_PERIODS * period_ns, _STALE_NS)
        self._lagging = self._oldest_ns = self._n_dropped = 0
        self._dropped_ns: int | None = None
        self._floods = False

    def __len__(self) -> int:
        return len(self._packets)

    @property
    def spikes_wait(self) -> bool:
        """Whether a packet with spikes waits; a task's do not count."""
        return any(len(packet.units) for packet in tuple(self._packets))

    def lack(self, now_ns: int, window_ns: float) -> bool:
        """Whether packets were dropped that a window may lack, or were left when the time to take
        them was over."""
        if self._counters.packets_dropped != self._n_dropped:
            self._n_dropped, self._dropped_ns = self._counters.packets_dropped, now_ns
        lately = self._dropped_ns is not None and now_ns - self._dropped_ns < window_ns
        return lately or self._lagging > 0

    def put(self, packet: Packet) -> None:
        """Let it wait."""
        # A full deque drops its oldest by itself: no thread finds it empty in between.
        self._counters.packets_dropped += len(self._packets) == self._packets.maxlen
        self._packets.append(packet)

    def take(self, now_ns: Callable[[], int]) -> Iterator[Packet]:
        """What waits now, as a window is due: the oldest first, until the time for it is over."""
        now = now_ns()
        until = now + self._period_ns // _SHARE
        yield from self._oldest(now_ns, until, now - self._stale_ns if self._flooded(now) else None)
        self._lagging = self._lagging + 1 if self._packets and now_ns() >= until else 0

    def take_until(self, now_ns: Callable[[], int], until: int) -> Iterator[Packet]:
        """What waits now, between two windows: the oldest first, until the next one is due."""
        stale = now_ns() - self._stale_ns if self._floods else None
        yield from self._oldest(now_ns, until, stale)

    def _oldest(self, now_ns: Callable[[], int], until: int, stale: int | None) -> Iterator[Packet]:
        """Packets that wait, until the time is over; spikes from before ``stale`` are dropped."""
        for _ in range(len(self._packets)):
            packet = self._packets.popleft()
            if stale is not None and packet.host_ns < stale and len(packet.units):
                self._counters.packets_dropped += 1
                continue
            yield packet
            if now_ns() >= until:
                break

    def _flooded(self, now: int) -> bool:
        if not self._lagging or not self._packets:  # what was left may be taken by now
            self._floods, self._oldest_ns = False, 0
            return False
        before, self._oldest_ns = self._oldest_ns, now - self._packets[0].host_ns
        grows = self._lagging >= _MAY_LAG and self._oldest_ns > before
        self._floods = self._floods or grows or self._lagging >= _MAY_CATCH_UP
        return self._floods


class Inbox:
    """What feeds hand over, from any thread; none of it blocks or raises.

    Args:
        waiting: where it waits for the loop.
        counters: where what cannot wait is counted.
        host: the host's clock.
    """

    def __init__(self, waiting: PacketQueue, counters: LoopCounters, host: HostClock) -> None:
        self._waiting, self.counters, self._host = waiting, counters, host
        self._arrived = threading.Event()
        """Set when a packet has come."""

    def feed(
        self, ticks: npt.ArrayLike, units: npt.ArrayLike, *, host_ns: int | None = None,
        sync: Any = None,
    ) -> None:  # fmt: skip
        """Hand over a packet of spikes from any thread; never blocks and never raises for it.

        Args:
            ticks: (N,) integers of the device's counter.
            units: (N,) unit ids, or rows: those of ``Decoder.rows``, or plain integers, which are
                rows of the session that the loop began with.
            host_ns: when it arrived; None is now.
            sync: passed through to the next value.
        """
        at = self._host.now_ns() if host_ns is None else host_ns
        try:
            packet = Packet(
                ticks=np.asarray(ticks), units=np.asanyarray(units), host_ns=at, sync=sync
            )
        except ValueError:  # lists of lists of different lengths
            self.counters.bad_packets += 1
            return
        self._put(packet)

    def feed_labels(
        self, ticks: npt.ArrayLike, values: npt.ArrayLike, *, host_ns: int | None = None
    ) -> None:
        """Hand over behaviour: ticks (N,) and values (N, D), on the clock of the spikes.

        ``D`` is what the decoder gives. Labels of another width, from the future or more than ten
        minutes old count as bad packets.
        """
        at = self._host.now_ns() if host_ns is None else host_ns
        try:
            table = np.atleast_2d(np.asarray(values, np.float64))
            packet = Packet(ticks=np.asarray(ticks), units=np.empty(0, np.int32), host_ns=at,
                            labels=table)  # fmt: skip
        except (ValueError, TypeError):
            self.counters.bad_packets += 1
            return
        self._put(packet)

    def feed_trial(self, trial: Trial | TrialUpdate, *, host_ns: int | None = None) -> None:
        """Hand over what is known of a trial by now; the newest of a number stands for it.

        A ``TrialUpdate`` leaves what it does not name as it was, and its times may be ``NOW``.
        Times from the future or more than ten minutes old, trials that overlap and targets of
        another width than those before count as bad packets.
        """
        at = self._host.now_ns() if host_ns is None else host_ns
        update = TrialUpdate.of(trial) if isinstance(trial, Trial) else trial
        self._put(Packet.note(at, trial=update))

    def feed_cursor(
        self, ticks: npt.ArrayLike | None, positions: npt.ArrayLike, *, host_ns: int | None = None
    ) -> None:
        """Hand over where the cursor was shown: ticks (N,), or None for now, and (N, D) positions.

        Positions of another width than the targets, that are not finite, from the future or more
        than ten minutes old count as bad packets.
        """
        at = self._host.now_ns() if host_ns is None else host_ns
        try:
            table = np.atleast_2d(np.asarray(positions, np.float64))
            given = np.empty(0, np.int64) if ticks is None else np.atleast_1d(np.asarray(ticks))
            packet = Packet(ticks=given, units=np.empty(0, np.int32), host_ns=at, cursor=table)
        except (ValueError, TypeError):
            self.counters.bad_packets += 1
            return
        self._put(packet)

    def note_loss(self, n: int, *, host_ns: int | None = None) -> None:
        """Messages of the feed never arrived: values that lack them are DEGRADED with ``loss``."""
        at = self._host.now_ns() if host_ns is None else host_ns
        self._put(Packet.note(at, lost=n))

    def note_problem(self, said: str) -> None:
        """What the feed could not use, for the journal."""
        self._put(Packet.note(self._host.now_ns(), problem=said))

    def _put(self, packet: Packet) -> None:
        self._waiting.put(packet)
        if not self._arrived.is_set():  # Who clears it takes what waits afterwards.
            self._arrived.set()
