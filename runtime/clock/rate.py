"""Does a device's counter run at the rate that the device states?

A crystal is off by parts per million. A counter that is off by more than half a percent was stated
wrongly (20 kHz for 30 kHz, milliseconds for seconds): spikes then land in the wrong windows.
"""

from __future__ import annotations

import logging
from collections import deque

import numpy as np

_log = logging.getLogger(__name__)
_SECOND = 1_000_000_000
_OFF = 0.005
"""Each of the last seconds must be off by more, all in one direction: a delay is off in one."""
_SECONDS = 10


class RateWatch:
    """Compares the ticks of each second with the host's clock.

    Args:
        rate_hz: ticks per second as the device states them.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._last: tuple[int, int] | None = None
        self._ratios: deque[float] = deque(maxlen=_SECONDS)
        self.wrong_hz: float | None = None
        """About what rate was seen, if it is not the stated one."""

    def add(self, newest: int, host_ns: int) -> None:
        """Take the newest unwrapped tick of a packet that arrived at ``host_ns``."""
        if self._last is None:
            self._last = (newest, host_ns)
            return
        passed_ns = host_ns - self._last[1]
        if passed_ns < _SECOND:
            return
        ticks, self._last = newest - self._last[0], (newest, host_ns)
        self._ratios.append(ticks / self._rate_hz * _SECOND / passed_ns)
        if len(self._ratios) < _SECONDS:
            return
        seen = np.array(self._ratios)
        off = (seen < 1 - _OFF).all() or (seen > 1 + _OFF).all()
        self.wrong_hz = float(np.median(seen)) * self._rate_hz if off else None


class WrongRate:
    """Says in the log, each time that it begins, that a device does not run at its stated rate.

    Args:
        rate_hz: ticks per second as they are stated.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._was = False

    def look(self, seen_hz: float | None) -> bool:
        """Whether it is so: about what rate was seen, None where that is the stated one."""
        begins = seen_hz is not None and not self._was
        self._was = seen_hz is not None
        if begins:
            _log.error(
                "the device's clock: expected %g ticks per second, got about %.4g; state its "
                "rate, or spikes land in the wrong windows", self._rate_hz, seen_hz,
            )  # fmt: skip
        return self._was
