"""Packets that wait for the loop: taken in their order, and no longer than a deadline allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from poyo_edge.runtime.feeds.values import Packet
from poyo_edge.runtime.rig.settings import LoopCounters

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
        """What waits now, the oldest first, until the time for it is over. Only spikes go stale."""
        now = now_ns()
        until = now + self._period_ns // _SHARE
        stale = now - self._stale_ns if self._flooded(now) else None
        for _ in range(len(self._packets)):
            packet = self._packets.popleft()
            if stale is not None and packet.host_ns < stale and len(packet.units):
                self._counters.packets_dropped += 1
                continue
            yield packet
            if now_ns() >= until:
                break
        self._lagging = self._lagging + 1 if self._packets and now_ns() >= until else 0

    def _flooded(self, now: int) -> bool:
        if not self._lagging:
            self._floods, self._oldest_ns = False, 0
            return False
        before, self._oldest_ns = self._oldest_ns, now - self._packets[0].host_ns
        grows = self._lagging >= _MAY_LAG and self._oldest_ns > before
        self._floods = self._floods or grows or self._lagging >= _MAY_CATCH_UP
        return self._floods
