"""A velocity made slower, faster or smoother, without knowing where it leads.

Legend: D dimensions of the velocity.
"""

from __future__ import annotations

import math

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.runtime.control.settings import ControlSettings

MOST_SPEED = 1e100
"""Faster ones are cut to it, so that nothing that follows is infinite."""
_LAST_BITS = 8


def speed_of(velocity: Float64) -> float:
    """Length of a velocity (D,)."""
    return math.hypot(*velocity.tolist())


def bounded(velocity: Float64) -> Float64:
    """A velocity (D,) whose every part is within ``MOST_SPEED``."""
    return np.clip(velocity, -MOST_SPEED, MOST_SPEED)


def at_most(velocity: Float64, cap: float) -> Float64:
    """A velocity (D,) that is no faster than ``cap``, in its own direction."""
    speed = speed_of(velocity)
    if speed <= cap:
        return velocity
    for _ in range(_LAST_BITS):  # rounding may leave it too long by one of them
        velocity = velocity * (cap / speed_of(velocity) * (1 - 2**-52))
        if speed_of(velocity) <= cap:
            return velocity
    return 0.0 * velocity  # so slow that no number is a little slower


class Smoothing:
    """First order: ``y += dt / (lag + dt) * (x - y)``.

    The group delay of this filter at low frequencies is ``alpha / (1 - alpha) * dt`` with
    ``alpha = lag / (lag + dt)``, which is ``lag`` at every period ``dt``, and so under skipped
    windows too.
    """

    def __init__(self, lag_s: float) -> None:
        self._lag = lag_s
        self._last: Float64 | None = None

    def reset(self, to: Float64 | None = None) -> None:
        """Go on from a velocity (D,); None is rest."""
        self._last = to

    def __call__(self, velocity: Float64, dt: float) -> Float64:
        """The next one (D,), ``dt`` seconds after the last."""
        if not self._lag:
            return velocity
        last = np.zeros_like(velocity) if self._last is None else self._last
        self._last = last + (velocity - last) * (dt / (self._lag + dt))
        return self._last


def scaled(velocity: Float64, settings: ControlSettings) -> Float64:
    """A velocity (D,) with its speed raised to the exponent, and the deadband taken off."""
    speed = speed_of(velocity)
    if not speed:
        return velocity
    wanted = speed
    if settings.speed_exponent != 1 and settings.speed_reference is not None:
        reference = settings.speed_reference
        exponent = settings.speed_exponent * (math.log(speed) - math.log(reference))
        wanted = reference * math.exp(min(exponent, math.log(MOST_SPEED)))
    wanted = max(0.0, wanted - settings.deadband)
    return velocity if wanted == speed else velocity * (min(wanted, MOST_SPEED) / speed)
