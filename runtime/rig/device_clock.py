"""The device's clock: wraps and resets of its counter, its rate, its place on the host's clock.

A device stamps spikes with an integer counter. Packets reach the host after a delay that varies but
is never negative, so of all packets the one that took least says best how far apart the two clocks
are: the offset is the smallest ``host - device`` of each second, followed along a line (Cristian
1989; Moon, Skelly and Towsley 1999). It holds the smallest delay itself, which one way alone cannot
show; ``probe`` with a round trip can.

Times of the host are nanoseconds of ``time.monotonic_ns``. All arithmetic on ticks is on integers.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.runtime.clock.rate import RateWatch

Ticks = npt.NDArray[np.int64]
_SECOND = 1_000_000_000
_MOST_PPM = 500.0
"""No crystal is further off than this; a steeper line is delay, not rate."""

_CATCHES_UP = 0.1
"""Late packets whose lateness shrinks by this much of the time that passes are a backlog."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClockSettings:
    """What is still the same clock. Seconds."""

    back_s: float = 1.0
    """A packet older than the newest by up to this is of this clock."""
    late_s: float = 0.1
    """When all packets are later than the fastest by more and do not catch up, it was moved."""
    ahead_s: float = 1.0
    """A packet that has run ahead of the host by more since the last one is a jump."""
    seconds_kept: int = 60
    """Seconds of offsets that the line is drawn through."""
    seconds_for_rate: int = 10
    """Below this many, the rate is taken as the device states it."""

    def __post_init__(self) -> None:
        for name in ("back_s", "late_s", "ahead_s", "seconds_kept", "seconds_for_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name}: expected a number > 0, got {value!r}")


@dataclasses.dataclass(slots=True)
class ClockCounters:
    """What happened to the clock."""

    wraps: int = 0
    """The counter began anew after its last value; time went on."""
    discontinuities: int = 0
    """The clock was reset or jumped, and a second packet confirmed it."""
    outliers: int = 0
    """Packets whose time no other confirmed: dropped."""
    out_of_order: int = 0
    """Packets older than one before."""

    def to_json(self) -> dict[str, int]:
        """Name → count."""
        return dataclasses.asdict(self)


class DeviceClock:
    """Places packets of one device. Not thread-safe: one thread places.

    Args:
        rate_hz: ticks per second as the device states them.
        bits: width of the counter, 8 to 63; None for one that never wraps.
        settings: what is still the same clock.
    """

    def __init__(
        self, rate_hz: float, *, bits: int | None = None, settings: ClockSettings | None = None
    ) -> None:
        if not (math.isfinite(rate_hz) and rate_hz > 0):
            raise UsageError(f"rate_hz: expected ticks per second > 0, got {rate_hz!r}")
        if bits is not None and not 8 <= bits <= 63:
            raise UsageError(f"bits: expected 8 to 63 or None, got {bits!r}")
        self.rate_hz = float(rate_hz)
        self.counters = ClockCounters()
        self.epoch = 0
        """Goes up by one at each discontinuity."""
        self._settings = settings or ClockSettings()
        self._modulus = None if bits is None else 1 << bits
        self._turns = 0
        self._newest: int | None = None
        self._newest_host = 0
        self._suspect: tuple[int, int] | None = None
        self._late_since: tuple[int, float] | None = None
        self._line = _OffsetLine(self._settings)
        self._rate_watch = RateWatch(self.rate_hz)
        self._origin = (0, 0)
        self._probe: tuple[int, int, int] | None = None

    def place(self, raw: npt.NDArray[Any], host_ns: int) -> Ticks:
        """Unwrapped ticks (N,) int64 of a packet that arrived at ``host_ns``.

        A packet that no longer fits is held back once (empty result); when the next one agrees with
        it, ``epoch`` goes up and the new time holds. So it does when the counter has stood still:
        or was put back a little: when all packets have come more than ``late_s`` late for
        ``ahead_s`` and do not catch up.

        Args:
            raw: (N,) integers of the device's counter, N >= 1.
            host_ns: nanoseconds of ``time.monotonic_ns`` at arrival.
        """
        ticks = self._unwrapped(np.asarray(raw).astype(np.int64))
        newest = int(ticks.max())
        if self._newest is None:
            self._begin(newest, host_ns)
        elif not self._fits(newest, host_ns):
            suspect, self._suspect = self._suspect, (newest, host_ns)
            if suspect is None or not self._same_clock(newest, host_ns, suspect):
                self.counters.outliers += suspect is not None
                return np.empty(0, np.int64)
            self.counters.discontinuities += 1
            self.epoch += 1
            if self._modulus is not None:
                ticks, newest = ticks % self._modulus, newest % self._modulus
            self._turns = 0
            self._begin(newest, host_ns)
        elif self._suspect is not None:
            self.counters.outliers += 1
            self._suspect = None
        elif self._stood_still(newest, host_ns):
            self.counters.discontinuities += 1
            self.epoch += 1
            self._begin(newest, host_ns)
        if newest < self._newest:  # type: ignore[operator]
            self.counters.out_of_order += 1
        else:
            self._newest, self._newest_host = newest, host_ns
        if self._modulus is not None:
            turns = (newest // self._modulus) * self._modulus
            self.counters.wraps += (
                (turns - self._turns) // self._modulus if turns > self._turns else 0
            )
            self._turns = max(self._turns, turns)
        self._line.add(host_ns - self._origin[1], self._difference_ns(newest, host_ns))
        self._rate_watch.add(newest, host_ns)
        return ticks

    def unwrapped(self, raw: npt.NDArray[Any]) -> Ticks:
        """Ticks (N,) of something else on this counter, such as labels; nothing is placed."""
        return self._unwrapped(np.asarray(raw).astype(np.int64))

    def covers(self, ticks: Ticks, host_ns: int, *, back_s: float) -> bool:
        """Whether unwrapped ticks that arrive at ``host_ns`` can be of this clock.

        Args:
            ticks: (N,), N >= 1.
            host_ns: when they arrived.
            back_s: how old they may be. They may be ahead by ``ahead_s``.
        """
        if self._newest is None:
            return True
        now = self.device_now(host_ns)
        oldest = now - back_s * self.rate_hz
        newest = now + self._settings.ahead_s * self.rate_hz
        return bool(oldest <= int(ticks.min()) and int(ticks.max()) <= newest)

    def probe(self, ticks: int, sent_ns: int, received_ns: int) -> None:
        """Use a round trip: the device's counter was ``ticks`` between the two host times.

        The tightest of the last ones counts, as in NTP (RFC 5905).
        """
        half = max(0, received_ns - sent_ns) // 2
        age = received_ns - self._probe[2] if self._probe is not None else math.inf
        if self._probe is None or half <= self._probe[1] or age > 60 * _SECOND:
            offset = self._difference_ns(int(ticks), sent_ns + half)
            self._probe = (offset, half, received_ns)

    @property
    def known(self) -> bool:
        """Whether anything has been placed."""
        return self._newest is not None

    @property
    def newest(self) -> int | None:
        """The newest tick placed, unwrapped."""
        return self._newest

    @property
    def rate_ppm(self) -> float:
        """How much faster the device runs than stated, in parts per million; 0 if unknown."""
        return -self._line.slope * 1e6

    @property
    def wrong_rate_hz(self) -> float | None:
        """About what rate was seen, where the last ten seconds contradict the stated one."""
        return self._rate_watch.wrong_hz

    @property
    def uncertainty_ns(self) -> int:
        """Half a round trip where one was probed; else the median delay above the smallest one.

        The smallest delay itself is not in the latter: one way cannot show it.
        """
        return self._probe[1] if self._probe is not None else self._line.spread_ns

    def device_now(self, host_ns: int) -> int:
        """The newest tick that a packet can carry which arrives at ``host_ns``.

        Raises:
            UsageError: nothing has been placed yet.
        """
        if self._newest is None:
            raise UsageError("device_now: expected a clock that has placed a packet, got a new one")
        tick0, host0 = self._origin
        elapsed = host_ns - host0
        return tick0 + int((elapsed - self._line.at(elapsed)) * self.rate_hz / _SECOND)

    def to_monotonic_ns(self, ticks: int) -> int:
        """When a packet with this unwrapped tick arrives at the earliest, on the host's clock.

        With ``probe``, when the tick happened.
        """
        tick0, host0 = self._origin
        nominal = round((ticks - tick0) * _SECOND / self.rate_hz)
        if self._probe is not None:
            return host0 + nominal + self._probe[0]
        return host0 + nominal + round(self._line.at(nominal))

    def to_json(self) -> dict[str, Any]:
        """Rate, offset's uncertainty, epoch and counters."""
        return {
            "rate_hz": self.rate_hz,
            "rate_ppm": round(self.rate_ppm, 3),
            "wrong_rate_hz": self.wrong_rate_hz,
            "uncertainty_us": round(self.uncertainty_ns / 1e3, 1),
            "epoch": self.epoch,
            **self.counters.to_json(),
        }

    def _begin(self, newest: int, host_ns: int) -> None:
        self._newest, self._newest_host = newest, host_ns
        self._origin = (newest, host_ns)
        self._line = _OffsetLine(self._settings)
        self._probe = self._suspect = self._late_since = None

    def _unwrapped(self, raw: Ticks) -> Ticks:
        """Add the turns of the counter: each tick lands in the half turn around the newest."""
        if self._modulus is None or self._newest is None:
            return raw
        half = self._modulus // 2
        base = np.int64(self._newest)
        return np.asarray(base + (raw - base + half) % self._modulus - half)

    def _difference_ns(self, ticks: int, host_ns: int) -> int:
        tick0, host0 = self._origin
        return host_ns - host0 - round((ticks - tick0) * _SECOND / self.rate_hz)

    def _fits(self, newest: int, host_ns: int) -> bool:
        assert self._newest is not None
        step = (newest - self._newest) / self.rate_hz
        return -self._settings.back_s <= step <= self._step_limit(host_ns, self._newest_host)

    def _stood_still(self, newest: int, host_ns: int) -> bool:
        """Whether packets have been late for some time and do not catch up as a backlog does."""
        late = self._difference_ns(newest, host_ns) - self._line.at(host_ns - self._origin[1])
        if late <= self._settings.late_s * _SECOND:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = (host_ns, late)
        else:
            passed = host_ns - self._late_since[0]
            if late >= self._late_since[1] - _CATCHES_UP * passed:
                return passed > self._settings.ahead_s * _SECOND
            self._late_since = (host_ns, late)
        return False

    def _same_clock(self, newest: int, host_ns: int, other: tuple[int, int]) -> bool:
        step = (newest - other[0]) / self.rate_hz
        return -self._settings.back_s <= step <= self._step_limit(host_ns, other[1])

    def _step_limit(self, host_ns: int, before_ns: int) -> float:
        return (host_ns - before_ns) / _SECOND + self._settings.ahead_s


class _OffsetLine:
    """Smallest ``host - device`` of each second, and a line through them. Nanoseconds."""

    def __init__(self, settings: ClockSettings) -> None:
        self._least: deque[tuple[int, int]] = deque(maxlen=settings.seconds_kept)
        self._excess: deque[int] = deque(maxlen=256)
        self._for_rate = settings.seconds_for_rate
        self._lowest = 0.0
        self.slope = 0.0

    def add(self, elapsed: int, difference: int) -> None:
        """Take one packet's difference at ``elapsed`` since the origin."""
        second = elapsed // _SECOND
        if not self._least or second > self._least[-1][0] // _SECOND:
            self._fit()
            self._least.append((elapsed, difference))
            self._lowest = min(least - self.slope * when for when, least in self._least)
        elif difference < self._least[-1][1]:
            self._least[-1] = (elapsed, difference)
            self._lowest = min(self._lowest, difference - self.slope * elapsed)
        self._excess.append(max(0, difference - round(self.at(elapsed))))

    def at(self, elapsed: float) -> float:
        """The offset at ``elapsed``: the line's slope through its lowest point."""
        return self._lowest + self.slope * elapsed

    @property
    def spread_ns(self) -> int:
        """Median of what recent packets took above the least."""
        return int(np.median(self._excess)) if self._excess else 0

    def _fit(self) -> None:
        if len(self._least) < self._for_rate:
            return
        when, least = np.array(self._least, np.float64).T
        when -= when.mean()
        slope = float((when * (least - least.mean())).sum() / (when * when).sum())
        self.slope = min(max(slope, -_MOST_PPM / 1e6), _MOST_PPM / 1e6)
