"""Targets that a person moved to, inferred afterwards from how they moved: no trial is known.

A hidden Markov model as in Wilson et al., "Long-term unsupervised recalibration of cursor BCIs"
(bioRxiv 2023.02.03.527022, PRI-T). States are places on a grid. At each step the decoded velocity
points to the target with a von Mises distributed error, whose concentration grows with the distance
by a logistic weight: on the target, a direction says nothing. Three things are ours. The
concentration grows with the speed too. In place of a click there is a slow cursor: often on the
target, seldom far from it. And a target is left sooner when the cursor is on it, since what has
been reached is left. Every place is as likely to come next, so a step costs O(places), not their
square.

Viterbi's algorithm gives the sequence of targets, the forward-backward algorithm how sure each is.
Where the cursor came to rest on a target, the target is taken to be there.

Legend: N samples, T steps, S places of the grid, B distance bins, K targets; two dimensions.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Bool, Float64, Int64
from poyo_edge.errors import UsageError
from poyo_edge.records import JsonRecord
from poyo_edge.trials import Trials

UInt8 = npt.NDArray[np.uint8]
_BINS = 40
_LONGEST_GAP_S = 0.5
"""Between two samples; what follows a longer one is inferred apart."""
_LEAST_STEPS = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSettings(JsonRecord):
    """What is believed about targets. Lengths are shares of the grid's longer side."""

    n_places: int = 20
    """Places along each side of the grid."""
    low: tuple[float, float] | None = None
    """Lower corner of where targets can be, in the cursor's unit; None takes the cursor's range."""
    high: tuple[float, float] | None = None
    """Upper corner."""
    step_s: float = 0.1
    """Samples are averaged over so long."""
    concentration: float = 3.0
    """Of a fast movement's direction far from the target (κ). The likeliest value is far too high,
    since a target that was inferred agrees with what it was inferred from."""
    turn: float = 0.06
    """Distance at which a direction has half of its concentration."""
    reach: float = 0.06
    """Nearer than this the cursor is on the target."""
    slow: float = 0.25
    """A step is slow below this share of the fast steps' speed (their 90th percentile)."""
    slow_near: float = 0.6
    """Probability of a slow step on the target."""
    slow_far: float = 0.05
    """Probability of a slow step far from it."""
    leave_near_hz: float = 1.5
    """How often a target is left while the cursor is on it, per second."""
    leave_far_hz: float = 0.05
    """How often a target is given up elsewhere, per second."""

    def __post_init__(self) -> None:
        if not 4 <= self.n_places <= 64:
            raise UsageError(f"n_places: expected 4 to 64, got {self.n_places!r}")
        if (self.low is None) != (self.high is None):
            raise UsageError("low, high: expected both corners or none, got one")
        if self.low is not None and self.high is not None:
            corners = np.array([self.low, self.high], np.float64)
            if not (np.isfinite(corners).all() and (corners[1] > corners[0]).all()):
                raise UsageError(f"low, high: expected low < high, got {self.low} and {self.high}")
        if not 0.02 <= self.step_s <= 0.5:
            raise UsageError(f"step_s: expected 0.02 to 0.5 s, got {self.step_s!r}")
        if not 0 < self.concentration <= 100:
            raise UsageError(f"concentration: expected 0 to 100, got {self.concentration!r}")
        for name in ("turn", "reach", "slow", "slow_near", "slow_far"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"{name}: expected between 0 and 1, got {getattr(self, name)!r}")
        for name in ("leave_near_hz", "leave_far_hz"):
            if not 0 < getattr(self, name) * self.step_s < 0.9:
                raise UsageError(
                    f"{name}: expected above 0 and less than 0.9 in a step, got "
                    f"{getattr(self, name)!r}"
                )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InferredTargets:
    """What was inferred, step by step and target by target."""

    times: Float64
    """(T,) seconds, the middle of each step."""
    cursor: Float64
    """(T, 2) mean position in a step."""
    place: Float64
    """(T, 2) the inferred target of each step."""
    sure: Float64
    """(T,) posterior probability that the target is within ``radius`` of ``place``."""
    start: Float64
    """(K,) seconds."""
    end: Float64
    """(K,) seconds."""
    target: Float64
    """(K, 2) in the unit of the cursor."""
    confidence: Float64
    """(K,) mean of ``sure`` over a target's steps."""
    reached: Bool
    """(K,) whether the cursor ended slow and within ``radius``: something else than the decoded
    direction says where the target was."""
    radius: float
    """Of what counts as on the target, in the unit of the cursor."""

    def __len__(self) -> int:
        return len(self.start)

    def trials(self, *, least_confidence: float = 0.0, reached_only: bool = False) -> Trials:
        """Those that are sure enough, as a recording's table.

        ``go_time`` is the start: when the way to the target was seen to begin, which is after the
        person reacted.
        """
        keep = self.confidence >= least_confidence
        keep &= self.reached | (not reached_only)
        return Trials(
            start=self.start[keep],
            end=self.end[keep],
            go_time=self.start[keep],
            target=self.target[keep],
            success=self.reached[keep],
            radius=np.full(int(keep.sum()), self.radius),
        )


def infer_targets(
    times: Float64,
    cursor: Float64,
    velocity: Float64,
    *,
    settings: InferenceSettings | None = None,
) -> InferredTargets:
    """Find what a person moved to.

    Ten minutes of samples take about a second and some 110 MB.

    Args:
        times: (N,) ascending seconds. Leave out samples that nobody should act on.
        cursor: (N, 2) where the cursor was.
        velocity: (N, 2) what was decoded for that time, in the same axes as the cursor.
        settings: what is believed about targets.

    Raises:
        UsageError: shapes, NaN, order, too few samples, or a cursor that did not move.
    """
    settings = settings or InferenceSettings()
    times, cursor, velocity = _checked(times, cursor, velocity)
    stretches = [
        _steps(times[a:b], cursor[a:b], velocity[a:b], settings.step_s)
        for a, b in _stretches(times)
    ]
    stretches = [steps for steps in stretches if len(steps[0]) >= _LEAST_STEPS]
    if not stretches:
        raise UsageError(
            f"targets: expected {_LEAST_STEPS * settings.step_s:g} s of samples without a hole, "
            f"got none; collect for longer"
        )
    grid = _Grid(settings, np.concatenate([at for _, at, _ in stretches]))
    speeds = np.concatenate([_norm(v) for _, _, v in stretches])
    fast = max(float(np.percentile(speeds, 90)), 1e-9)
    seen = [_Seen(grid, settings, fast, *steps) for steps in stretches]
    return _joined([_inferred(one, grid, settings) for one in seen], grid)


class _Grid:
    """Places where a target can be."""

    def __init__(self, settings: InferenceSettings, cursor: Float64) -> None:
        low, high = settings.low, settings.high
        corners = np.array([low, high] if low and high else [cursor.min(0), cursor.max(0)])
        side = float(np.ptp(corners, axis=0).max())
        if not side > 0:
            raise UsageError("targets: expected a cursor that moves, got one that stands still")
        axes = [np.linspace(a, b, settings.n_places) for a, b in corners.T.tolist()]
        self.places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        """(S, 2)."""
        spacing = float(np.ptp(corners, axis=0).max()) / (settings.n_places - 1)
        self.reach = max(settings.reach * side, spacing)
        self.turn = settings.turn * side
        self.edges = np.linspace(0, float(np.hypot(*np.ptp(corners, axis=0))) + 1e-9, _BINS + 1)
        """(B + 1,) of distance bins: what depends on the distance is a table of B values."""
        self.middles = (self.edges[1:] + self.edges[:-1]) / 2

    def near(self) -> Float64:
        """(B,) from 1 on a target to 0 far from it, 0.5 at ``reach``."""
        return _logistic((self.reach - self.middles) / (self.reach / 4))

    def weight(self) -> Float64:
        """(B,) share of the concentration that a direction has at a distance."""
        return _logistic((self.middles - self.turn) / (self.turn / 4))


class _Seen:
    """A stretch without a hole, as the grid sees it."""

    def __init__(
        self,
        grid: _Grid,
        settings: InferenceSettings,
        fast: float,
        times: Float64,
        cursor: Float64,
        velocity: Float64,
    ) -> None:
        self.times, self.cursor = times, cursor
        speed = _norm(velocity)
        self.slow: Bool = np.asarray(speed < settings.slow * fast)
        """(T,)."""
        self.speed: Float64 = np.minimum(speed / fast, 1.0)
        """(T,) as a share of the fast steps': errors that do not grow with the speed turn a slow
        velocity further."""
        way = grid.places.astype(np.float32) - cursor.astype(np.float32)[:, None]
        distance = np.sqrt((way**2).sum(-1))
        width = np.float32(grid.edges[1])
        self.bin: UInt8 = np.minimum((distance / width).astype(np.uint8), _BINS - 1)
        """(T, S) distance bin of the cursor from each place."""
        unit = velocity / np.maximum(speed, 1e-9)[:, None]
        along = (way * unit.astype(np.float32)[:, None]).sum(-1)
        self.cos = along / np.maximum(distance, np.float32(1e-6))
        """(T, S) cosine between what was decoded and the way to each place."""


def _emission(seen: _Seen, grid: _Grid, settings: InferenceSettings) -> Float64:
    """(T, S) log probability of what was seen, for a target at each place."""
    kappa = settings.concentration * np.outer(seen.speed, grid.weight())
    p_slow = settings.slow_far + (settings.slow_near - settings.slow_far) * grid.near()
    moving = np.log1p(-p_slow) - np.log(np.i0(kappa))
    # A slow step has no direction to speak of.
    kappa[seen.slow], moving[seen.slow] = 0.0, np.log(p_slow)
    step = np.arange(len(kappa))[:, None]
    return np.asarray(kappa[step, seen.bin] * seen.cos + moving[step, seen.bin])


def _leaving(grid: _Grid, settings: InferenceSettings) -> Float64:
    """(B,) probability that a target at a distance is left before the next step."""
    far, near = settings.leave_far_hz, settings.leave_near_hz
    return np.asarray((far + (near - far) * grid.near()) * settings.step_s)


def _posterior(log_emission: Float64, leaving: Float64, distance: UInt8) -> Float64:
    """(T, S) probabilities by the forward-backward algorithm; ``leaving`` (B,) in bins of the
    ``distance`` (T, S)."""
    emission = np.exp(log_emission - log_emission.max(1, keepdims=True))
    n_steps, n_places = emission.shape
    forward = np.empty_like(emission)
    p = np.full(n_places, 1 / n_places)
    for t in range(n_steps):
        if t:
            gone = p * leaving[distance[t - 1]]
            p = p - gone + gone.sum() / n_places
        p = p * emission[t]
        p /= p.sum()
        forward[t] = p
    b = np.ones(n_places)
    for t in range(n_steps - 2, -1, -1):
        b = b * emission[t + 1]
        b = b + leaving[distance[t]] * (b.mean() - b)
        b /= b.max()
        forward[t] *= b
    return np.asarray(forward / forward.sum(1, keepdims=True))


def _viterbi(log_emission: Float64, leaving: Float64, distance: UInt8) -> Int64:
    """(T,) the likeliest sequence of places; arguments as of ``_posterior``."""
    n_steps, n_places = log_emission.shape
    stay, go = np.log1p(-leaving), np.log(leaving) - np.log(n_places)
    came = np.empty((n_steps, n_places), np.bool_)
    gone_from = np.zeros(n_steps, np.int64)
    score = log_emission[0].copy()
    for t in range(1, n_steps):
        before = distance[t - 1]
        away = score + go[before]
        gone_from[t] = away.argmax()
        best, kept = away[gone_from[t]], score + stay[before]
        came[t] = kept < best
        score = np.maximum(kept, best) + log_emission[t]
    path = np.empty(n_steps, np.int64)
    path[-1] = score.argmax()
    for t in range(n_steps - 1, 0, -1):
        path[t - 1] = gone_from[t] if came[t, path[t]] else path[t]
    return path


def _inferred(seen: _Seen, grid: _Grid, settings: InferenceSettings) -> InferredTargets:
    log_emission = _emission(seen, grid, settings)
    leaving = _leaving(grid, settings)
    posterior = _posterior(log_emission, leaving, seen.bin)
    path = _viterbi(log_emission, leaving, seen.bin)
    first = np.flatnonzero(np.diff(path, prepend=-1))
    last = np.append(first[1:], len(path))
    half = settings.step_s / 2
    edges = seen.times - half
    targets, places = np.empty((len(first), 2)), np.empty((len(path), 2))
    sure, reached = np.empty(len(path)), np.zeros(len(first), np.bool_)
    for k, (a, b) in enumerate(zip(first, last, strict=True)):
        around = _norm(grid.places - grid.places[path[a]]) <= grid.reach
        mass = posterior[a:b, around]
        at = (mass.sum(0) @ grid.places[around]) / max(float(mass.sum()), 1e-300)
        targets[k] = places[a:b] = at
        sure[a:b] = mass.sum(1)
        ended = slice(max(a, b - 3), b)
        close = _norm(seen.cursor[ended] - at) <= grid.reach
        rested = close & seen.slow[ended]
        reached[k] = bool(rested.any())
        if reached[k]:
            rest = seen.cursor[ended][rested].mean(0)
            targets[k] = places[a:b] = np.clip(rest, grid.places[0], grid.places[-1])
    return InferredTargets(
        times=seen.times,
        cursor=seen.cursor,
        place=places,
        sure=sure,
        start=edges[first],
        end=np.append(edges[first[1:]], seen.times[-1] + half),
        target=targets,
        confidence=np.add.reduceat(sure, first) / (last - first),
        reached=reached,
        radius=grid.reach,
    )


def _joined(found: list[InferredTargets], grid: _Grid) -> InferredTargets:
    names = [f.name for f in dataclasses.fields(InferredTargets)]
    whole = {
        name: np.concatenate([getattr(one, name) for one in found])
        for name in names
        if name != "radius"
    }
    return InferredTargets(**whole, radius=grid.reach)


def _checked(
    times: Float64, cursor: Float64, velocity: Float64
) -> tuple[Float64, Float64, Float64]:
    times = np.asarray(times, np.float64)
    cursor, velocity = np.asarray(cursor, np.float64), np.asarray(velocity, np.float64)
    n = len(times) if times.ndim == 1 else -1
    for name, values in (("cursor", cursor), ("velocity", velocity)):
        if values.shape != (n, 2):
            raise UsageError(f"{name}: expected ({n}, 2) for the times given, got {values.shape}")
        if not np.isfinite(values).all():
            raise UsageError(f"{name}: expected finite values, got NaN or Inf; leave them out")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise UsageError("times: expected finite ascending seconds, got others; sort the samples")
    return times, cursor, velocity


def _stretches(times: Float64) -> list[tuple[int, int]]:
    cuts = np.flatnonzero(np.diff(times) > _LONGEST_GAP_S) + 1
    bounds = [0, *cuts.tolist(), len(times)]
    return list(itertools.pairwise(bounds))


def _steps(
    times: Float64, cursor: Float64, velocity: Float64, step_s: float
) -> tuple[Float64, Float64, Float64]:
    """Means of steps: times (T,), cursor (T, 2), velocity (T, 2)."""
    if not len(times):
        return times, cursor, velocity
    number = ((times - times[0]) / step_s + 1e-6).astype(np.int64)
    steps, first, count = np.unique(number, return_index=True, return_counts=True)
    means = [np.add.reduceat(v, first, axis=0) / count[:, None] for v in (cursor, velocity)]
    return times[0] + (steps + 0.5) * step_s, means[0], means[1]


def _logistic(x: Float64) -> Float64:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _norm(vectors: Float64) -> Float64:
    return np.asarray(np.sqrt((vectors**2).sum(-1)))
