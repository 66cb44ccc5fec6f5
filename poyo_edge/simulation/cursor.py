"""From a decoded velocity to a cursor: control, gain, smoothing, added latency, and an edge.

Legend: D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError

Control = Callable[[Float64], Float64]
"""What stands between decoder and cursor: a decoded velocity (D,) in, a velocity (D,) out, once for
each step."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CursorSettings:
    """What happens to a value on its way to the cursor."""

    latency_ms: float = 0.0
    """Added between a value and the movement of the cursor by it."""
    smoothing_ms: float = 0.0
    """Time constant of first-order smoothing; 0 is none."""
    gain: float = 1.0
    workspace_cm: float = 10.0
    """The cursor stays in a square from minus to plus this."""

    def __post_init__(self) -> None:
        for name, unit in (("latency_ms", "ms"), ("smoothing_ms", "ms")):
            if not 0 <= getattr(self, name) <= 5000:
                raise UsageError(f"{name}: expected 0 to 5000 {unit}, got {getattr(self, name)!r}")
        if not 0 < self.gain <= 100:
            raise UsageError(f"gain: expected above 0 up to 100, got {self.gain!r}")
        if not 0 < self.workspace_cm < np.inf:
            raise UsageError(f"workspace_cm: expected a number > 0, got {self.workspace_cm!r}")


class Cursor:
    """A cursor that is moved by velocities, step by step.

    Args:
        settings: what happens on the way.
        n_dims: D.
        period_s: length of a step.
        control: called with each value before gain and smoothing; None passes it on.
    """

    def __init__(
        self,
        settings: CursorSettings,
        *,
        n_dims: int = 2,
        period_s: float = 0.02,
        control: Control | None = None,
    ) -> None:
        self.settings = settings
        self.position = np.zeros(n_dims)
        """(D,) cm."""
        self._control, self._period_s = control, period_s
        self._kept = (
            np.exp(-period_s * 1e3 / settings.smoothing_ms) if settings.smoothing_ms else 0.0
        )
        self._smooth = np.zeros(n_dims)
        steps = settings.latency_ms / 1e3 / period_s
        self._whole = int(np.floor(steps + 1e-9))
        self._part = max(0.0, steps - self._whole)
        self._past = np.zeros((self._whole + 2, n_dims))

    def move(self, value: Float64) -> Float64:
        """Move for a step by a decoded velocity (D,); the velocity (D,) that it had on the way.

        A latency that is no whole number of steps moves the cursor by two values in a step.
        """
        given = value if self._control is None else self._control(value)
        wanted = self.settings.gain * np.asarray(given, np.float64)
        self._smooth = self._kept * self._smooth + (1 - self._kept) * wanted
        self._past[1:] = self._past[:-1]
        self._past[0] = self._smooth
        velocity = (1 - self._part) * self._past[self._whole]
        velocity = velocity + self._part * self._past[self._whole + 1]
        before, edge = self.position, self.settings.workspace_cm
        self.position = np.clip(before + velocity * self._period_s, -edge, edge)
        return np.asarray((self.position - before) / self._period_s)
