"""Whether the feed still brings something."""

from __future__ import annotations

from collections.abc import Callable

from poyo_edge.runtime.rig.settings import LoopCounters, LoopSettings

_SECOND = 1_000_000_000
_MISSED_PACKETS = 30
"""A feed that owes so many packets, and has stalled, is lost."""
_ENDED_PERIODS = 2
"""What a feed brought last is decoded for so long."""


class SourceWatch:
    """Follows when packets of spikes arrive. Times are nanoseconds of the host.

    Args:
        settings: of the loop.
        counters: where stalls are counted.
        ended: whether the feed has ended.
    """

    def __init__(
        self, settings: LoopSettings, counters: LoopCounters, ended: Callable[[], bool]
    ) -> None:
        self.newest_ns = 0
        """When the newest packet arrived; 0 before any."""
        self.stalled = False
        """Whether nothing came for ``stall_s``."""
        self._stall_ns = settings.stall_s * _SECOND
        self._end_ns = _ENDED_PERIODS * _SECOND / settings.rate_hz
        self._counters, self._ended = counters, ended
        self._first_ns = self._n = 0

    def note(self, host_ns: int) -> None:
        """A packet arrived."""
        self._first_ns = self._first_ns or host_ns
        self.newest_ns = host_ns
        self._n += 1

    def look(self, now: int) -> None:
        """See whether it has stalled."""
        silent = bool(self.newest_ns) and now - self.newest_ns > self._stall_ns
        self._counters.stalls += silent and not self.stalled
        self.stalled = silent

    def lost(self, now: int) -> bool:
        """Whether it has ended, or brought nothing for longer than its packets allow."""
        silent = now - self.newest_ns
        if silent > self._end_ns and self._ended():
            return True
        if not self.stalled:
            return False
        if self._n < _MISSED_PACKETS:  # too few to say how often they come
            return silent > _MISSED_PACKETS * self._stall_ns
        return silent * (self._n - 1) > _MISSED_PACKETS * (self.newest_ns - self._first_ns)
