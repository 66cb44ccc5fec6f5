"""The velocity Kalman filter, a baseline of the field beside the Wiener filter.

State: the velocity. ``v[k] = A v[k-1] + w`` and ``z[k] = C v[k] + c + q``, with w ~ N(0, W),
q ~ N(0, Q) and z the spikes of each unit in the bin that ends at k; all matrices by least squares
from labelled data (Wu, Gao, Bienenstock, Donoghue and Black 2006, Neural Comput 18:80; velocity
alone as in Kim et al. 2008, J Neural Eng 5:455).

Legend: S samples, U units, D dimensions of the velocity.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from poyo_edge.arrays import Bool, Float64
from poyo_edge.errors import UsageError

_LEAST_VARIANCE = 1e-3
"""Of a unit's count in a bin: one that was silent says nothing, and must not divide by zero."""
_LEARNED = 0.8
"""Share of the samples that a filter learns from while its lag is chosen; the rest judges it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VelocityKalman:
    """A fitted filter. ``begin`` gives one that runs."""

    transition: Float64
    """A, (D, D)."""
    transition_noise: Float64
    """W, (D, D)."""
    observation: Float64
    """C, (U, D)."""
    level: Float64
    """c, (U,)."""
    observation_noise: Float64
    """Q, (U, U)."""

    def begin(self) -> RunningKalman:
        """One at rest."""
        return RunningKalman(self)


class RunningKalman:
    """A filter in use: counts in, velocities out."""

    def __init__(self, fitted: VelocityKalman) -> None:
        self._fitted = fitted
        self._gained = np.linalg.solve(fitted.observation_noise, fitted.observation).T
        self._information = self._gained @ fitted.observation
        self._level = self._gained @ fitted.level
        self._velocity = np.zeros(len(fitted.transition))
        self._covariance = fitted.transition_noise.copy()

    def step(self, counts: Float64) -> Float64:
        """The velocity (D,) from the next bin's counts (U,).

        The gain is written by the information matrix ``Cᵀ Q⁻¹ C`` of (D, D), which equals the usual
        form by the matrix inversion lemma and costs the same for any number of units.
        """
        fitted = self._fitted
        ahead = fitted.transition @ self._velocity
        spread = fitted.transition @ self._covariance @ fitted.transition.T
        spread = spread + fitted.transition_noise
        self._covariance = np.asarray(
            np.linalg.inv(np.linalg.inv(spread) + self._information), np.float64
        )
        surprise = self._gained @ counts - self._level - self._information @ ahead
        self._velocity = np.asarray(ahead + self._covariance @ surprise, np.float64)
        return self._velocity


def fit_kalman(counts: Float64, velocity: Float64, follows: Bool | None = None) -> VelocityKalman:
    """Fit a filter by least squares.

    Args:
        counts: (S, U) spikes in the bin that ends at each sample; bins as long as the samples are
            apart.
        velocity: (S, D).
        follows: (S - 1,) whether a sample comes one period after the one before it; None is all.

    Raises:
        UsageError: shapes that do not agree, fewer samples than units, or a velocity that does not
            vary.
    """
    n_samples, n_units = counts.shape
    if velocity.ndim != 2 or len(velocity) != n_samples or n_samples <= n_units + velocity.shape[1]:
        raise UsageError(
            f"Kalman filter: expected velocities (S, D) for counts (S, U) with more samples than "
            f"units, got {velocity.shape} and {counts.shape}; give more labelled data"
        )
    if (np.ptp(velocity, axis=0) == 0).any():
        raise UsageError("Kalman filter: expected velocities that vary, got a constant dimension")
    pairs = np.ones(n_samples - 1, np.bool_) if follows is None else follows
    before, after = velocity[:-1][pairs], velocity[1:][pairs]
    transition = np.linalg.lstsq(before, after, rcond=None)[0].T
    moved = after - before @ transition.T
    design = np.column_stack([velocity, np.ones(n_samples)])
    found = np.linalg.lstsq(design, counts, rcond=None)[0]
    residual = counts - design @ found
    noise = residual.T @ residual / n_samples
    return VelocityKalman(
        transition=np.asarray(transition, np.float64),
        transition_noise=moved.T @ moved / len(moved),
        observation=np.asarray(found[:-1].T, np.float64),
        level=found[-1],
        observation_noise=noise + _LEAST_VARIANCE * np.eye(n_units),
    )


def fit_kalman_with_lag(
    counts: Float64, velocity: Float64, follows: Bool | None = None, *, most: float
) -> VelocityKalman:
    """Fit a filter whose bins are paired with later velocities; by how much, held-out data says.

    A running filter then gives, after a bin, the velocity that comes so many samples later.

    Args:
        counts, velocity, follows: as of ``fit_kalman``.
        most: samples of lag that are tried at the most.
    """
    n_learned = round(_LEARNED * len(counts))
    pairs = np.ones(len(counts) - 1, np.bool_) if follows is None else follows

    def lagged(lag: int) -> tuple[Float64, Float64, Bool]:
        """Counts and the velocities ``lag`` samples later; pairs over a gap stay few."""
        n = len(counts) - lag
        return counts[:n], velocity[lag:], pairs[lag:]

    def held_out_error(lag: int) -> float:
        z, v, follow = lagged(lag)
        fitted = fit_kalman(z[:n_learned], v[:n_learned], follow[: n_learned - 1])
        running = fitted.begin()
        decoded = np.array([running.step(one) for one in z[n_learned:]])
        truth = v[n_learned:]
        return float(((truth - decoded) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum())

    lags = range(int(most) + 1)
    best = lags[int(np.argmin([held_out_error(lag) for lag in lags]))]
    return fit_kalman(*lagged(best))
