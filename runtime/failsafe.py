"""When nothing good can leave the decoder, and what does then: hold, then decay, then zero."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.runtime.ring import Times

STREAM_LOST = "stream_lost"
"""Flag: the whole array has been silent for longer than its rates allow, or its feed has ended."""
_RATE_S = 20.0
"""The rate heard is an average over about so long."""


class Status(str, enum.Enum):
    """How far a decoded value can be trusted."""

    VALID = "VALID"
    WARMUP = "WARMUP"
    """Decoded, but the stream has not been heard for a whole window yet, or not for long enough to
    tell that it is the session's."""
    DEGRADED = "DEGRADED"
    """Decoded, with a reservation that ``flags`` name: spikes that are missing (``silent``,
    ``gap``, ``over_budget``, ``overflow``), a backend that another one stood in for
    (``fallback``), or a stream that is not what the session knows (``drift``, ``coverage``, …).
    ``Decoder.decode`` says so, and the loop of a rig of what a decoder cannot see
    (``clock_rate``)."""
    HELD = "HELD"
    """Not decoded: the last good value, for at most ``hold_s``."""
    INVALID = "INVALID"
    """Not decoded for longer: the last good value fading to zero."""

    def __str__(self) -> str:
        return self.value


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FailsafeSettings:
    """When a stream is lost, how long to hold then, and how to decay. Seconds of device time."""

    hold_s: float = 0.1
    decay_s: float = 0.1
    """The time constant; after five of them the value is zero."""
    missed_spikes: float = 30.0
    """A silence in which the session's rates would have given so many spikes is a lost stream: of
    independent units one in e^30. ``math.inf`` never calls it lost."""
    silence_s: float = 0.1
    """No shorter silence is a lost stream: packets may come late or in blocks."""

    def __post_init__(self) -> None:
        for name in ("hold_s", "decay_s", "silence_s"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"{name}: expected seconds >= 0, got {value!r}")
        if not self.missed_spikes > 0:
            raise UsageError(f"missed_spikes: expected spikes > 0, got {self.missed_spikes!r}")


class Failsafe:
    """Remembers the last good value and says what to give instead of a bad one."""

    def __init__(self, dim_out: int, settings: FailsafeSettings) -> None:
        self.settings = settings
        self._zero: Float64 = np.zeros(dim_out)
        self._good: Float64 | None = None
        self._good_t = 0.0

    def note_good(self, value: Float64 | None, t: float) -> None:
        """Remember a good value (O,) decoded at ``t`` seconds; None for one of a wrong session."""
        self._good, self._good_t = None if value is None else value.copy(), t

    def forget(self) -> None:
        """Hold nothing from before, for example after the clock was reset."""
        self._good = None

    def instead(self, t: float) -> tuple[Float64, Status]:
        """The value (O,) to give at ``t`` seconds when nothing good is there, and its status."""
        if self._good is None:
            return self._zero.copy(), Status.INVALID
        age = t - self._good_t
        if age <= self.settings.hold_s:
            return self._good.copy(), Status.HELD
        fading = age - self.settings.hold_s
        if self.settings.decay_s == 0 or fading > 5 * self.settings.decay_s:
            return self._zero.copy(), Status.INVALID
        return self._good * math.exp(-fading / self.settings.decay_s), Status.INVALID


class SilenceWatch:
    """Whether a silence of the whole array is longer than its rates allow. Looked at once a window.

    The rate is the session's own or, where that is smaller or not known, the one heard so far.

    Args:
        stated_hz: spikes per second of all units together at calibration; None if not known.
        settings: when a stream is lost.
        window: length of a window, in the clock's unit.
        unit_s: seconds of one such unit.
    """

    def __init__(
        self, stated_hz: float | None, settings: FailsafeSettings, window: float, unit_s: float
    ) -> None:
        self._stated_hz, self._heard_hz = stated_hz, math.inf
        self._settings, self._window, self._unit_s = settings, window, unit_s
        self._last: Any = None
        self._heard_at: Any = None
        self._lost_at: Any = None

    def restart(self) -> None:
        """Go on with another clock, or after another session; the rate heard stays."""
        self._last = self._heard_at = self._lost_at = None

    def look(
        self, now: Any, last: Any, times: Times, flags: list[str], *, lost: bool = False
    ) -> None:
        """Flag a window that ends at ``now`` if the stream is lost, or was within it.

        Args:
            now: end of the window.
            last: time of the newest spike.
            times: (N,) spikes of the window, ascending.
            flags: of the window so far; extended.
            lost: it is known to be lost.
        """
        if "clock_reset" in flags:
            self.restart()
        before, self._last = self._last, last
        if lost or self._too_long(float(now - last) * self._unit_s):
            flags.append(STREAM_LOST)
            self._lost_at = self._heard_at = now  # such a time says nothing about rates
            return
        if before is not None and last > before:
            at = int(times.searchsorted(before, side="right"))
            # A silence that no window ended in, as when the clock jumps ahead.
            if 0 < at < len(times) and self._too_long(float(times[at] - before) * self._unit_s):
                self._lost_at = times[at]
        since_loss = math.inf if self._lost_at is None else now - self._lost_at
        if since_loss < self._window and "gap" not in flags:
            flags.append("gap")
        if "warmup" not in flags and last != before:
            self._hear(now, len(times))

    def _too_long(self, silent_s: float) -> bool:
        stated_hz = math.inf if self._stated_hz is None else self._stated_hz
        rate_hz, settings = min(stated_hz, self._heard_hz), self._settings
        if not math.isfinite(rate_hz):
            return False
        return silent_s >= settings.silence_s and silent_s * rate_hz >= settings.missed_spikes

    def _hear(self, now: Any, n_spikes: int) -> None:
        """Follow the rate by a whole window that new spikes came in."""
        before, self._heard_at = self._heard_at, now
        since = 0.0 if before is None else float(now - before)
        rate_hz = n_spikes / (max(since, float(self._window)) * self._unit_s)
        if not math.isfinite(self._heard_hz):
            self._heard_hz = rate_hz
        share = -math.expm1(-since * self._unit_s / _RATE_S)
        self._heard_hz += share * (rate_hz - self._heard_hz)
