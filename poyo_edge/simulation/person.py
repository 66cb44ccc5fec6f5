"""A simulated person who moves a cursor by intending velocities.

The piecewise-linear feedback control model of Willett et al. 2019 (Sci Rep 9:8881, Fig. 2): the
person sees cursor and target late, knows by a forward model what their own commands under way will
do, pushes toward the target by a function of the distance (``f_targ``, saturating) and brakes by a
function of the speed (``f_vel``). Noise of aiming is autoregressive and grows with the speed that
is intended; the noise of the decoder is that of the array and the decoder themselves, which stand
in this loop in place of the noise model of the paper.

The default person is fixed: delay, forward model and aiming noise as a first study of this project
had them, the push and the size of the noise chosen so that its table comes out again (docs). Every
decoder is compared with this one person.

Legend: D dimensions, K knots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError

Knots = tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PersonSettings:
    """A person. Distances in cm, speeds in cm/s."""

    vision_s: float = 0.1
    """Visual feedback is so late."""
    known_share: float = 0.8
    """Share of the commands under way that the forward model knows; 1 is a perfect one."""
    command_s: float = 0.15
    """How long the person believes that commands take to become movement, as their own arm's do;
    of added latency and of a decoder's smoothing they know nothing."""
    push: Knots = ((0.0, 0.0), (6.0, 20.0))
    """``f_targ``: distance → speed; the last one holds beyond."""
    damping: Knots = ((0.0, 0.0), (20.0, 0.0))
    """``f_vel``: speed → speed that is taken off; none by default."""
    aim_sd: float = 0.3
    """Sd of the aiming noise in each dimension, as a share of the intended speed."""
    imagine_sd: float = 0.0
    """The same while the person only imagines a movement that is shown."""
    aim_s: float = 0.2
    """Time constant of the aiming noise."""

    def __post_init__(self) -> None:
        for name in ("vision_s", "command_s", "aim_sd", "imagine_sd"):
            if not 0 <= getattr(self, name) <= 2:
                raise UsageError(f"{name}: expected 0 to 2, got {getattr(self, name)!r}")
        if not 0 <= self.known_share <= 1:
            raise UsageError(f"known_share: expected 0 to 1, got {self.known_share!r}")
        if not 0 < self.aim_s < np.inf:
            raise UsageError(f"aim_s: expected seconds > 0, got {self.aim_s!r}")
        for name in ("push", "damping"):
            knots = np.array(getattr(self, name), np.float64)
            if knots.ndim != 2 or knots.shape[1] != 2 or (np.diff(knots[:, 0]) <= 0).any():
                raise UsageError(f"{name}: expected knots (x, y) with ascending x, got {knots}")


class Person:
    """Intends velocities, step by step.

    Args:
        settings: who it is.
        n_dims: D.
        seed: of the aiming noise.
        period_s: length of a step.
    """

    def __init__(
        self,
        settings: PersonSettings | None = None,
        *,
        n_dims: int = 2,
        seed: int | Sequence[int] = 0,
        period_s: float = 0.02,
    ) -> None:
        self.settings = settings or PersonSettings()
        self._period_s = period_s
        self._rng = np.random.default_rng(seed)
        self._push = np.array(self.settings.push, np.float64).T
        self._damping = np.array(self.settings.damping, np.float64).T
        self._late = _Late(self.settings.vision_s / period_s, n_dims)
        self._late_target = _Late(self.settings.vision_s / period_s, n_dims)
        self._began = False
        under_way_s = self.settings.vision_s + self.settings.command_s
        self._weights = _part_of_steps(under_way_s / period_s) * period_s
        self._commands = np.zeros((len(self._weights), n_dims))
        self._aim = np.zeros(n_dims)
        self._kept = float(np.exp(-period_s / self.settings.aim_s))

    def intend(self, cursor: Float64, target: Float64 | None) -> Float64:
        """The velocity (D,) in cm/s that is intended for the next step.

        Args:
            cursor: (D,) cm, where it stands now; the person sees it later.
            target: (D,) cm, or None while there is none: the person rests.
        """
        if not self._began:
            self._late.fill(cursor)
            self._began = True
        seen, before = self._late.push(cursor)
        nothing = np.full(len(cursor), np.nan)
        shown, _ = self._late_target.push(nothing if target is None else target)
        wanted = np.zeros(len(cursor))
        if np.isfinite(shown).all():
            known = self.settings.known_share
            here = seen + known * (self._weights @ self._commands)
            moving = (1 - known) * (seen - before) / self._period_s + known * self._commands[0]
            wanted = self._policy(shown - here, moving)
        command = self._noisy(wanted, self.settings.aim_sd)
        self._commands[1:] = self._commands[:-1]
        self._commands[0] = command
        return command

    def imagine(self, shown: Float64) -> Float64:
        """A velocity (D,) in cm/s that is shown, as the person imagines it."""
        return self._noisy(shown, self.settings.imagine_sd)

    def _noisy(self, wanted: Float64, share: float) -> Float64:
        noise = self._rng.normal(size=len(wanted))
        self._aim = self._kept * self._aim + np.sqrt(1 - self._kept**2) * noise
        return np.asarray(wanted + share * _norm(wanted) * self._aim)

    def _policy(self, way: Float64, moving: Float64) -> Float64:
        """Push along the way (D,) in cm, less damping along the movement (D,) in cm/s."""
        distance, speed = _norm(way), _norm(moving)
        found = np.zeros(len(way))
        if distance > 0:
            found += way / distance * np.interp(distance, *self._push)
        if speed > 0:
            found -= moving / speed * np.interp(speed, *self._damping)
        return found


class _Late:
    """Values (D,) as they were some steps ago, a part of a step included."""

    def __init__(self, steps: float, n_dims: int) -> None:
        self._whole = int(np.floor(steps + 1e-9))
        self._part = max(0.0, steps - self._whole)
        self._past = np.full((self._whole + 3, n_dims), np.nan)

    def fill(self, value: Float64) -> None:
        """It has been this (D,) for long."""
        self._past[:] = value

    def push(self, value: Float64) -> tuple[Float64, Float64]:
        """The late value (D,), and the one a step before it; NaN before the first one."""
        self._past[1:] = self._past[:-1]
        self._past[0] = value
        return self._at(self._whole), self._at(self._whole + 1)

    def _at(self, steps: int) -> Float64:
        newer, older = self._past[steps], self._past[steps + 1]
        if not self._part:
            return np.asarray(newer)
        return np.asarray((1 - self._part) * newer + self._part * older)


def _part_of_steps(steps: float) -> Float64:
    """How much of each past step lies within so many: ones, and a part in the end."""
    whole = int(np.floor(steps + 1e-9))
    return np.append(np.ones(whole), max(0.0, steps - whole))


def _norm(vector: Float64) -> float:
    return float(np.sqrt(vector @ vector))
