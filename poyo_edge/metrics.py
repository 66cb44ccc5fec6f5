"""How well decoded behaviour follows the true one."""

from __future__ import annotations

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError


def r2_per_dim(truth: Float64, decoded: Float64) -> Float64:
    """Coefficient of determination of each dimension, (O,) float64.

    Args:
        truth: (S, O), all finite.
        decoded: (S, O).

    Raises:
        UsageError: shapes differ, fewer than two samples, or a dimension that does not vary.
    """
    if truth.shape != decoded.shape or truth.ndim != 2 or len(truth) < 2:
        raise UsageError(
            f"R²: expected two arrays (samples >= 2, dimensions) of one shape, "
            f"got {truth.shape} and {decoded.shape}"
        )
    spread = ((truth - truth.mean(0)) ** 2).sum(0)
    if (spread == 0).any():
        still = np.flatnonzero(spread == 0).tolist()
        raise UsageError(f"R²: expected behaviour that varies, got constant dimensions {still}")
    return np.asarray(1.0 - ((truth - decoded) ** 2).sum(0) / spread)


def angular_error(velocity: Float64, wanted: Float64) -> Float64:
    """Angle between two vectors in each row, (S,) radians from 0 to π; NaN where one is zero.

    Args:
        velocity: (S, D).
        wanted: (S, D).
    """
    sizes = np.linalg.norm(velocity, axis=1) * np.linalg.norm(wanted, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (velocity * wanted).sum(1) / sizes
    return np.asarray(np.arccos(np.clip(cosine, -1.0, 1.0)))


def fitts_bits(distance: Float64 | float, radius: Float64 | float) -> Float64:
    """Index of difficulty of a movement in bits: ``log2(distance / (2 radius) + 1)``.

    The Shannon form of Fitts's law (MacKenzie 1992; ISO 9241-9), with the target's diameter as its
    width.
    """
    return np.asarray(np.log2(np.asarray(distance) / (2.0 * np.asarray(radius)) + 1.0))
