"""What leaves the decoder when nothing good can: hold, then decay, then zero."""

from __future__ import annotations

import dataclasses
import enum
import math

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError


class Status(str, enum.Enum):
    """How far a decoded value can be trusted."""

    VALID = "VALID"
    WARMUP = "WARMUP"
    """Decoded, but the stream has not been heard for a whole window yet."""
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
    """Seconds of device time: how long to hold, and the time constant of the decay after it."""

    hold_s: float = 0.1
    decay_s: float = 0.1

    def __post_init__(self) -> None:
        for name in ("hold_s", "decay_s"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"{name}: expected seconds >= 0, got {value!r}")


class Failsafe:
    """Remembers the last good value and says what to give instead of a bad one."""

    def __init__(self, dim_out: int, settings: FailsafeSettings) -> None:
        self.settings = settings
        self._zero: Float64 = np.zeros(dim_out)
        self._good: Float64 | None = None
        self._good_t = 0.0

    def note_good(self, value: Float64, t: float) -> None:
        """Remember a good value (O,) decoded at ``t`` seconds."""
        self._good, self._good_t = value.copy(), t

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
