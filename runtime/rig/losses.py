"""Which values lack spikes that were sent: lost on the way, or in windows that were skipped."""

from __future__ import annotations

from poyo_edge.journal import JournalWriter
from poyo_edge.runtime.feeds.values import Packet
from poyo_edge.runtime.rig.device_clock import DeviceClock

LOSS, SKIPPED = "loss", "skipped"
"""Flags: a window lacks spikes that were lost; windows before this one were never decoded."""


class Losses:
    """Remembers until when windows lack something, and notes in the journal what feeds say.

    Args:
        window_ticks: length of a window.
        journal: for what was lost, and for the first that could not be used.
    """

    def __init__(self, window_ticks: float, journal: JournalWriter | None = None) -> None:
        self._window, self._journal = window_ticks, journal
        self._until: float | None = None
        self._dropped = self._skipped = 0
        self._unknown = False

    def take(self, packet: Packet, clock: DeviceClock) -> None:
        """A packet that tells of others."""
        if packet.lost:
            self._lack(packet.host_ns, clock)
            self._event(feed="lost", n=packet.lost)
        else:
            self._event(feed="problem", said=packet.problem)

    def look(self, dropped: int, host_ns: int, clock: DeviceClock) -> None:
        """``dropped`` packets so far waited behind too many others; new ones are a loss."""
        if dropped > self._dropped:
            self._event(feed="lost", n=dropped - self._dropped)
            self._dropped = dropped
            self._lack(host_ns, clock)

    def unknown(self, said: str) -> None:
        """The first spike of a unit that the session has not; "" while there was none."""
        if said and not self._unknown:
            self._unknown = True
            self._event(feed="problem", said=said)

    def skipped(self, n: int) -> None:
        """``n`` windows are not decoded."""
        self._skipped += n

    def reset(self) -> None:
        """The clock begins anew, and the window with it."""
        self._until = None

    def flags(self, end: float) -> tuple[str, ...]:
        """Flags of the window that ends at the tick ``end``; skipped ones are told once."""
        lost = self._until is not None and end < self._until
        found = (LOSS,) * lost + (SKIPPED,) * bool(self._skipped)
        self._skipped = 0
        return found

    def _lack(self, host_ns: int, clock: DeviceClock) -> None:
        if clock.known:
            until = clock.device_now(host_ns) + self._window
            self._until = until if self._until is None else max(self._until, until)

    def _event(self, **values: object) -> None:
        if self._journal is not None:
            self._journal.event(**values)
