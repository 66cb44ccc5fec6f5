"""The velocity Kalman filter: what it recovers, and by which formula it runs."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.filters.kalman import VelocityKalman, fit_kalman, fit_kalman_with_lag

A = np.array([[0.95, 0.05], [-0.05, 0.9]])
C = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, -1.0], [0.5, 0.5], [-1.5, 0.3]])
LEVEL = np.array([1.0, 2.0, 3.0, 0.0, -1.0])


def linear_system(n: int, lag: int = 0, seed: int = 0) -> tuple[Float64, Float64]:
    """Counts (n, 5) that tell of the velocity ``lag`` samples later, and velocities (n, 2)."""
    rng = np.random.default_rng(seed)
    velocity = np.zeros((n + lag, 2))
    for k in range(1, n + lag):
        velocity[k] = A @ velocity[k - 1] + rng.normal(0, 0.5, 2)
    counts = velocity[lag:] @ C.T + LEVEL + rng.normal(0, 0.3, (n, 5))
    return counts, velocity[:n]


def test_a_linear_system_is_recovered() -> None:
    counts, velocity = linear_system(20_000)
    fitted = fit_kalman(counts, velocity)
    np.testing.assert_allclose(fitted.transition, A, atol=0.02)
    np.testing.assert_allclose(fitted.transition_noise, 0.25 * np.eye(2), atol=0.02)
    np.testing.assert_allclose(fitted.observation, C, atol=0.02)
    np.testing.assert_allclose(fitted.level, LEVEL, atol=0.02)
    np.testing.assert_allclose(fitted.observation_noise, 0.09 * np.eye(5), atol=0.01)


def test_a_running_filter_is_the_textbooks() -> None:
    counts, velocity = linear_system(500)
    fitted = fit_kalman(counts, velocity)
    running = fitted.begin()
    v, p = np.zeros(2), fitted.transition_noise
    for z in counts[:50]:
        ahead = fitted.transition @ v
        spread = fitted.transition @ p @ fitted.transition.T + fitted.transition_noise
        seen = fitted.observation
        gain = spread @ seen.T @ np.linalg.inv(seen @ spread @ seen.T + fitted.observation_noise)
        v = ahead + gain @ (z - fitted.level - seen @ ahead)
        p = (np.eye(2) - gain @ seen) @ spread
        np.testing.assert_allclose(running.step(z), v, atol=1e-9)


def error_of(fitted: VelocityKalman, counts: Float64, truth: Float64) -> float:
    running = fitted.begin()
    decoded = np.array([running.step(z) for z in counts])
    return float(((decoded - truth)[50:] ** 2).mean())


def test_the_lag_at_which_counts_tell_most_is_found() -> None:
    """Counts tell of the velocity four samples later, so the filter gives that one."""
    counts, velocity = linear_system(4000, lag=4)
    fitted = fit_kalman_with_lag(counts, velocity, most=6)
    np.testing.assert_allclose(fitted.observation, C, atol=0.05)
    with_lag = error_of(fitted, counts[:-4], velocity[4:])
    assert with_lag < 0.2 * error_of(fit_kalman(counts, velocity), counts, velocity)


def test_pairs_over_a_gap_say_nothing_of_the_transition() -> None:
    counts, velocity = linear_system(4000)
    follows = np.ones(3999, np.bool_)
    shuffled = velocity.copy()
    for k in range(500, 4000, 500):
        shuffled[k:] = shuffled[k:] + 40.0
        follows[k - 1] = False
    jumps = fit_kalman(counts, shuffled).transition_noise
    kept = fit_kalman(counts, shuffled, follows).transition_noise
    assert np.trace(kept) < 0.1 * np.trace(jumps)


def test_a_silent_unit_changes_nothing() -> None:
    counts, velocity = linear_system(2000)
    silent = np.column_stack([counts, np.zeros(2000)])
    fitted, other = fit_kalman(counts, velocity), fit_kalman(silent, velocity)
    a, b = fitted.begin(), other.begin()
    for z, more in zip(counts[:20], silent[:20], strict=True):
        np.testing.assert_allclose(a.step(z), b.step(more), atol=1e-6)


def test_what_cannot_be_fitted_is_refused() -> None:
    counts, velocity = linear_system(100)
    with pytest.raises(UsageError, match="more samples than units"):
        fit_kalman(counts[:6], velocity[:6])
    with pytest.raises(UsageError, match="velocities that vary"):
        fit_kalman(counts, np.zeros((100, 2)))
