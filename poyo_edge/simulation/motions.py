"""How a simulated cursor moves: reaches that end, and movements that do not.

A model that has seen reaches alone has learned that movements end within a second, and lets go of
a command that is held. So ``mixed`` has other movements beside the reaches: velocities that are
held, drift slowly, jump, die away, swing, or wander, of all speeds and for all lengths. They are
of no task and follow no target.

Legend: G points of the fine time grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np

from poyo_edge.arrays import Float64

GRID_HZ = 1000
"""Points per second of the grid on which movement and rates are computed."""
Range = tuple[float, float]
Motion = Literal["reaches", "mixed"]
MOTIONS: tuple[str, ...] = get_args(Motion)

_REACH_SHARE = 0.3
"""Part of the time of ``mixed`` that is reaches and the rest between them."""
_IN_A_ROW = 4
"""Reaches, and other movements, that follow each other."""
_SPEED_CM_S = (1.0, 28.0)
_LENGTH_S = (0.15, 3.0)
_RAMP_S = 0.2
"""Every second change of velocity is a jump; others take up to so long."""
_WANDER_HZ = 100


class Moved(NamedTuple):
    """A movement on the grid, and the reaches in it."""

    position: Float64
    """(G, 2) cm."""
    velocity: Float64
    """(G, 2) cm/s."""
    reaches: list[tuple[int, int, Float64]]
    """First point, point behind the last one, and target (2,) of each reach."""


def minimum_jerk(n_points: int) -> tuple[Float64, Float64]:
    """Share of the way (n, 1) and its derivative (n, 1) in 1/s of a reach of n grid points."""
    s = (np.arange(n_points) / n_points)[:, None]
    way = 10 * s**3 - 15 * s**4 + 6 * s**5
    return way, 30 * s**2 * (1 - s) ** 2 * GRID_HZ / n_points


class Movements:
    """Movements one after the other, from the middle of the workspace at rest.

    Args:
        rng: draws all of them.
        workspace_cm: targets lie in a square from -workspace_cm to +workspace_cm.
        reach_s: duration of a reach.
        pause_s: rest behind it.
    """

    def __init__(
        self, rng: np.random.Generator, *, workspace_cm: float, reach_s: Range, pause_s: Range
    ) -> None:
        self._rng, self._workspace = rng, workspace_cm
        self._reach_s, self._pause_s = reach_s, pause_s
        self._positions, self._velocities = list[Float64](), list[Float64]()
        self._here, self._last = np.zeros(2), np.zeros(2)
        self._reaches = list[tuple[int, int, Float64]]()
        self.n_points = 0

    def reach(self) -> None:
        """To a random target by the minimum-jerk profile, and a pause there."""
        rng, here = self._rng, self._here
        target = rng.uniform(-self._workspace, self._workspace, 2)
        n_reach = max(1, round(rng.uniform(*self._reach_s) * GRID_HZ))
        n_pause = round(rng.uniform(*self._pause_s) * GRID_HZ)
        way, speed = minimum_jerk(n_reach)
        self._reaches.append((self.n_points, self.n_points + n_reach, target))
        self._add(
            np.concatenate([here + way * (target - here), np.repeat(target[None], n_pause, 0)]),
            np.concatenate([speed * (target - here), np.zeros((n_pause, 2))]),
        )
        self._here = target

    def other(self) -> None:
        """One of the movements that are no reach; it leads back when it begins outside."""
        rng = self._rng
        kind = _KINDS[rng.choice(len(_KINDS), p=_SHARES)]
        angle, speed = rng.uniform(0.0, 2 * np.pi), _speed(rng)
        toward = np.array([np.cos(angle), np.sin(angle)])
        outside = (np.abs(self._here) > self._workspace) & (toward * self._here > 0)
        n_points = round(np.exp(rng.uniform(*np.log(_LENGTH_S))) * GRID_HZ)
        velocity = kind(rng, speed * np.where(outside, -toward, toward), n_points)
        if rng.random() < 0.5:
            n_ramp = min(n_points, round(rng.uniform(0.0, _RAMP_S) * GRID_HZ))
            share = np.linspace(0.0, 1.0, n_ramp)[:, None]
            velocity[:n_ramp] = (1 - share) * self._last + share * velocity[:n_ramp]
        position = self._here + np.cumsum(velocity, axis=0) / GRID_HZ
        self._add(position, velocity)
        self._here = position[-1]

    def moved(self, n_points: int) -> Moved:
        """The first so many points, and the reaches that end in them."""
        return Moved(
            np.concatenate(self._positions)[:n_points],
            np.concatenate(self._velocities)[:n_points],
            [one for one in self._reaches if one[1] <= n_points],
        )

    def _add(self, position: Float64, velocity: Float64) -> None:
        self._positions.append(position)
        self._velocities.append(velocity)
        self._last = velocity[-1]
        self.n_points += len(velocity)


def move(path: Movements, motion: Motion, n_points: int) -> Moved:
    """Move for so many points of the grid.

    Args:
        path: where it begins.
        motion: "reaches", or "mixed" for other movements between them.
        n_points: G.
    """
    reached = 0
    while path.n_points < n_points:
        before = path.n_points
        if motion == "reaches":
            path.reach()
        elif reached <= _REACH_SHARE * path.n_points:
            for _ in range(_IN_A_ROW):
                path.reach()
            reached += path.n_points - before
        else:
            for _ in range(_IN_A_ROW):
                path.other()
    return path.moved(n_points)


_Kind = Callable[[np.random.Generator, Float64, int], Float64]
"""Draws velocities (n, 2) of about a given one (2,)."""


def _hold(rng: np.random.Generator, velocity: Float64, n: int) -> Float64:
    return np.repeat(velocity[None], n, axis=0)


def _rest(rng: np.random.Generator, velocity: Float64, n: int) -> Float64:
    return np.zeros((n, 2))


def _die_away(rng: np.random.Generator, velocity: Float64, n: int) -> Float64:
    times = np.arange(n)[:, None] / GRID_HZ
    return np.asarray(velocity * np.exp(-times / rng.uniform(0.15, 1.0)))


def _swing(rng: np.random.Generator, velocity: Float64, n: int) -> Float64:
    times = np.arange(n)[:, None] / GRID_HZ
    turns = rng.uniform(0.2, 1.5) * times
    return np.asarray(velocity * np.cos(2 * np.pi * turns + rng.uniform(0.0, 2 * np.pi, 2)))


def _wander(rng: np.random.Generator, velocity: Float64, n: int) -> Float64:
    """An autoregressive process about half of the velocity, or about rest."""
    every = GRID_HZ // _WANDER_HZ
    n_steps = n // every + 2
    kept = np.exp(-1.0 / (_WANDER_HZ * rng.uniform(0.1, 0.6)))
    sd = float(np.hypot(*velocity)) / 2
    values = rng.normal(0.0, sd, (n_steps, 2))
    values[1:] *= np.sqrt(1 - kept**2)
    for before, now in itertools.pairwise(values):
        now += kept * before
    values += velocity / 2 * (rng.random() < 0.5)
    fine = np.arange(n) / every
    return np.stack([np.interp(fine, np.arange(n_steps), column) for column in values.T], axis=1)


def _speed(rng: np.random.Generator) -> float:
    """As many slow ones as their share of the logarithm, and as many fast ones as of the range."""
    low, high = _SPEED_CM_S
    if rng.random() < 0.5:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(rng.uniform(low, high))


_KINDS: tuple[_Kind, ...] = (_hold, _die_away, _wander, _swing, _rest)
_SHARES = (0.33, 0.2, 0.33, 0.1, 0.04)
