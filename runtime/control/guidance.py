"""What depends on where the target is: assist, error attenuation, and a click by dwelling.

Legend: D dimensions of the velocity.
"""

from __future__ import annotations

from poyo_edge.arrays import Float64
from poyo_edge.runtime.control.settings import ControlSettings
from poyo_edge.runtime.control.shaping import bounded, speed_of

ARRIVE_S = 0.25
"""The automatic command is no faster than what leads to the target in so long."""


class Fading:
    """The share of the automatic command: falls with whole trials, or with minutes."""

    def __init__(self, settings: ControlSettings) -> None:
        self._settings = settings
        self.trials = 0
        self.seconds = 0.0
        """Since the first trial."""

    @property
    def share(self) -> float:
        """0 to ``assist``."""
        settings, gone = self._settings, 0.0
        if settings.assist_fade_trials is not None:
            gone = self.trials / settings.assist_fade_trials
        elif settings.assist_fade_minutes is not None:
            gone = self.seconds / 60 / settings.assist_fade_minutes
        return settings.assist * max(0.0, 1.0 - gone)


def attenuated(velocity: Float64, to_target: Float64, share: float) -> Float64:
    """A velocity (D,) with less of what is off the line ``to_target`` (D,)."""
    distance = speed_of(to_target)
    if not distance or not share:
        return velocity
    line = to_target / distance
    along = line * float(velocity @ line)
    return along + (1.0 - share) * (velocity - along)


def assisted(velocity: Float64, to_target: Float64, share: float, speed: float) -> Float64:
    """The person's velocity (D,) and the automatic one, which leads ``to_target`` (D,)."""
    distance = speed_of(to_target)
    if not share:
        return velocity
    wanted = min(speed, distance / ARRIVE_S)
    automatic = to_target * (wanted / distance) if distance else 0.0 * velocity
    return bounded((1.0 - share) * velocity + share * automatic)


class Dwell:
    """A click when the cursor has been within the target for so long; once for each visit."""

    def __init__(self, hold_s: float | None) -> None:
        self._hold = hold_s
        self.clicks = 0
        self.forget()

    def forget(self) -> None:
        """The cursor is nowhere."""
        self._inside_s: float | None = None
        self._clicked = False

    def look(self, distance: float | None, radius: float | None, dt: float) -> bool:
        """Whether it clicks now: ``distance`` from the target's centre, ``dt`` after the last."""
        if self._hold is None:
            return False
        if distance is None or radius is None or distance > radius:
            self.forget()
            return False
        self._inside_s = 0.0 if self._inside_s is None else self._inside_s + dt
        if self._clicked or self._inside_s < self._hold - 1e-9:
            return False
        self._clicked = True
        self.clicks += 1
        return True
