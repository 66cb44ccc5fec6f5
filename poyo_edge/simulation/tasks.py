"""Tasks of a cursor: targets that appear one after the other, and are taken by staying in them.

Center-out (Georgopoulos et al. 1982), random targets, and a grid. A target is taken when the
cursor's centre has been within its radius for the hold time without a break; a trial that takes
longer than the timeout has failed, and the cursor is put on the target that it missed: each trial
begins where the one before was to end, and is of the same difficulty whatever went before. The next
one begins at once.

Legend: K trials, D dimensions (2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.trials import Trials

Kind = Literal["center-out", "random", "grid"]
KINDS: tuple[str, ...] = get_args(Kind)
_SLACK_S = 1e-9


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """A task. Distances in cm from the middle of the workspace."""

    kind: Kind = "center-out"
    """center-out: to one of the targets on a circle, and back to the middle, in turn; random:
    anywhere in the workspace; grid: to squares of a grid that fills the workspace."""
    n_targets: int = 8
    """On the circle; of a grid, along one side."""
    distance_cm: float = 7.0
    """Radius of the circle; half the side of the square that random and grid targets lie in."""
    radius_cm: float = 1.2
    """Of each target."""
    hold_s: float = 0.3
    timeout_s: float = 5.0
    workspace_cm: float = 10.0
    """The cursor stays in a square from minus to plus this."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"task: expected one of {list(KINDS)}, got {self.kind!r}")
        if not 2 <= self.n_targets <= 64:
            raise UsageError(f"n_targets: expected 2 to 64, got {self.n_targets!r}")
        for name in ("distance_cm", "radius_cm", "workspace_cm", "timeout_s"):
            if not 0 < getattr(self, name) < np.inf:
                raise UsageError(f"{name}: expected a number > 0, got {getattr(self, name)!r}")
        if not 0 <= self.hold_s < self.timeout_s:
            raise UsageError(
                f"hold_s: expected 0 up to the timeout of {self.timeout_s:g} s, got {self.hold_s!r}"
            )
        if self.distance_cm > self.workspace_cm:
            raise UsageError(
                f"distance_cm: expected targets in the workspace of ±{self.workspace_cm:g} cm, got "
                f"{self.distance_cm:g} cm; lessen the distance or widen the workspace"
            )


class Targets:
    """Draws targets, the same ones for the same seed whatever the cursor does.

    Center-out targets come in blocks that hold each direction once.
    """

    def __init__(self, settings: TaskSettings, seed: int | Sequence[int]) -> None:
        self.settings = settings
        self._rng = np.random.default_rng(seed)
        self._block: list[int] = []
        self._out = False
        self._last = np.zeros(2)

    def next(self) -> Float64:
        """Centre (2,) of the next target in cm."""
        draw = {"center-out": self._circle, "random": self._anywhere, "grid": self._square}
        self._last = draw[self.settings.kind]()
        return self._last

    def _circle(self) -> Float64:
        self._out = not self._out
        if not self._out:
            return np.zeros(2)
        if not self._block:
            self._block = self._rng.permutation(self.settings.n_targets).tolist()
        angle = 2 * np.pi * self._block.pop() / self.settings.n_targets
        return self.settings.distance_cm * np.array([np.cos(angle), np.sin(angle)])

    def _anywhere(self) -> Float64:
        """Not where the last target was: the centres are further apart than two radii."""
        side, apart = self.settings.distance_cm, 2 * self.settings.radius_cm
        for _ in range(1000):
            target = self._rng.uniform(-side, side, 2)
            if np.hypot(*(target - self._last)) > apart:
                return target
        return -self._last

    def _square(self) -> Float64:
        """Another square of the grid than the last."""
        n, side = self.settings.n_targets, self.settings.distance_cm
        while True:
            place = self._rng.integers(n, size=2)
            target = side * (2 * (place + 0.5) / n - 1)
            if np.abs(target - self._last).max() > side / n / 2:
                return np.asarray(target)


class Task:
    """Targets, and what becomes of each: told where the cursor is, step by step.

    Args:
        settings: of the task.
        seed: of the targets.
        starts_at: seconds at which the first target appears.
    """

    def __init__(
        self, settings: TaskSettings, seed: int | Sequence[int], *, starts_at: float = 0.0
    ) -> None:
        self.settings = settings
        self._targets = Targets(settings, seed)
        self._start = starts_at
        self._inside: float | None = None
        self._ended: list[tuple[float, float, Float64, bool]] = []
        self._forgotten = 0
        self.taken = False
        """Whether the target of the trial that ended last was taken."""
        self.target = self._targets.next()
        """(2,) centre of the target that is shown."""

    @property
    def n_ended(self) -> int:
        """Trials that are over."""
        return self._forgotten + len(self._ended)

    @property
    def n_kept(self) -> int:
        """Of them, those that ``trials`` still gives."""
        return len(self._ended)

    @property
    def start(self) -> float:
        """Seconds at which the trial that runs began."""
        return self._start

    def look(self, t: float, cursor: Float64) -> bool:
        """Whether the trial ends with the cursor (2,) at ``t``; then the next target is shown."""
        way = cursor - self.target
        inside = bool(way @ way <= self.settings.radius_cm**2)
        if not inside:
            self._inside = None
        elif self._inside is None:
            self._inside = t
        taken = self._inside is not None and t - self._inside >= self.settings.hold_s - _SLACK_S
        if not taken and t - self._start < self.settings.timeout_s - _SLACK_S:
            return False
        self.taken = taken
        self._ended.append((self._start, t, self.target, taken))
        self._start, self._inside, self.target = t, None, self._targets.next()
        return True

    def forget(self) -> None:
        """Let go of the trials that are over; they still count."""
        self._forgotten += len(self._ended)
        self._ended = []

    def trials(self) -> Trials:
        """Those that are over and not forgotten; each began when its target appeared, which was
        the signal to go."""
        return trials_of(self._ended, self.settings.radius_cm)


def trials_of(ended: Sequence[tuple[float, float, Float64, bool]], radius_cm: float) -> Trials:
    """Trials of (start, end, target (2,), success), each with its go at the start."""
    start = np.array([one[0] for one in ended], np.float64)
    return Trials(
        start=start,
        end=np.array([one[1] for one in ended], np.float64),
        go_time=start.copy(),
        target=np.array([one[2] for one in ended], np.float64).reshape(-1, 2),
        success=np.array([one[3] for one in ended], np.bool_),
        radius=np.full(len(ended), radius_cm),
    )
