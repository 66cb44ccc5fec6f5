"""What a sender's numbers of its messages say about those that never arrived."""

from __future__ import annotations

_SECOND = 1_000_000_000
_APART_S = 2.0
"""A counter that is off by less is late or early; by more, another one."""
_RETURNS = 3
"""A backlog that has lost its middle comes back to the first counter once."""
_KEPT = 64
"""Numbers that are remembered as missing: a message may be overtaken by as many."""


class Sequence:
    """Numbers that go up by one with each message; a sender that restarts begins them anew."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._missing = set[int]()
        self.anew = False
        """Whether the last number began them anew."""

    def add(self, number: int) -> int:
        """How many more messages are missing now; -1 when one of them has come after all."""
        self.anew = False
        if number in self._missing:
            self._missing.discard(number)
            return -1
        lost = 0
        if self._next is None or number < self._next:
            self.anew = True
            self._missing.clear()
        else:
            lost = number - self._next
            self._missing |= {*range(max(self._next, number - _KEPT), number)}
            self._missing = {one for one in self._missing if one >= number - _KEPT}
        self._next = number + 1
        return lost


class OneCounter:
    """Notices spikes of a second stream, or of a second counter that runs beside the first.

    A counter that begins anew is no second one: the one before is not heard again.

    Args:
        rate_hz: ticks per second.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._stream: str | None = None
        self._began_ns = 0
        self._offset: float | None = None
        self._before: tuple[float, int] | None = None
        self._returns = 0

    def began_within(self, host_ns: int, seconds: float) -> bool:
        """Whether the first spike came at most so long before."""
        return host_ns - self._began_ns <= seconds * _SECOND

    def add(self, tick: int, stream: str, host_ns: int) -> str:
        """Take a spike; why it is of another source than those before, or ""."""
        offset = tick / self._rate_hz - host_ns / _SECOND
        if self._stream is None or self._offset is None:
            self._stream, self._began_ns, self._offset = stream, host_ns, offset
            return ""
        if stream != self._stream:
            return (
                f"expected spikes of one stream, got {stream!r} beside {self._stream!r}; choose "
                f"with ?stream="
            )
        if abs(offset - self._offset) < _APART_S:
            self._offset = offset
            return ""
        again = self._before is not None and abs(offset - self._before[0]) < _APART_S
        if again and self._before is not None and host_ns - self._before[1] < _APART_S * _SECOND:
            self._returns += 1
        if self._returns >= _RETURNS:
            return (
                f"expected one counter of samples, got {tick} beside one that is "
                f"{abs(offset - self._offset):.1f} s away; choose one stream with ?stream="
            )
        self._before, self._offset = (self._offset, host_ns), offset
        return ""
