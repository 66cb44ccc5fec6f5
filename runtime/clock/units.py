"""The unit of a decoder's clock: float64 seconds, or integer ticks of a device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from poyo_edge.errors import UsageError

_MOST_TICKS = 2**62
"""Beyond this, spans of time would not fit into 64 bits."""


class ClockUnits:
    """Turns times and spans into the clock's unit.

    Args:
        tick_rate_hz: ticks per second; None for seconds.

    Raises:
        UsageError: a rate that is no number above 0.
    """

    def __init__(self, tick_rate_hz: float | None) -> None:
        if tick_rate_hz is not None and not (
            isinstance(tick_rate_hz, (int, float, np.integer))
            and math.isfinite(tick_rate_hz)
            and tick_rate_hz > 0
        ):
            raise UsageError(f"tick_rate_hz: expected a number > 0, got {tick_rate_hz!r}")
        self.rate_hz = tick_rate_hz
        self.dtype: type[np.float64] | type[np.int64] = (
            np.float64 if tick_rate_hz is None else np.int64
        )

    def time(self, t: float | int) -> Any:
        """A time as the clock's own scalar.

        Raises:
            UsageError: not finite, too large, or of the wrong kind for this clock.
        """
        whole = isinstance(t, (int, np.integer)) and not isinstance(t, bool)
        if self.rate_hz is None:
            if (whole or isinstance(t, float)) and abs(int(t) if whole else t) < _MOST_TICKS:
                return np.float64(t)
            raise UsageError(f"decode: expected finite float64 seconds, got {t!r}")
        if whole and abs(int(t)) < _MOST_TICKS:
            return np.int64(t)
        raise UsageError(f"decode: expected integer ticks below 2**62, got {t!r}")

    def span(self, seconds: float) -> Any:
        """A span in ticks, whole where the rate allows it, or in seconds."""
        if self.rate_hz is None:
            return np.float64(seconds)
        ticks = seconds * self.rate_hz
        return np.int64(ticks) if float(ticks).is_integer() else np.float64(ticks)

    def seconds(self, time: Any) -> float:
        """A time of the clock in seconds."""
        return float(time) if self.rate_hz is None else float(time) / self.rate_hz
