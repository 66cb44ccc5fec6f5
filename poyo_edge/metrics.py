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
