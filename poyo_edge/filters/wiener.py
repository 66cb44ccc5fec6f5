"""The Wiener filter: ridge regression of behaviour on binned spikes, the baseline of the field.

Legend: S samples, U units, K bins, F features (U·K), O outputs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64

BINS, BIN_S = 10, 0.05
SD_FLOOR = 0.5
"""Spikes a bin, added to each feature's sd: rare spikes must not become loud features."""
RIDGES = 10.0 ** np.arange(1, 5.01, 0.5)
FOLDS = 5


def bin_counts(
    spike_times: Float64,
    spike_units: npt.NDArray[np.int64],
    n_units: int,
    times: Float64,
    *,
    before: int = BINS,
    after: int = 0,
    bin_s: float = BIN_S,
) -> npt.NDArray[np.float32]:
    """Spikes of each unit in the bins around each time, (S, U, before + after) float32.

    Args:
        spike_times: (M,) float64 seconds, ascending.
        spike_units: (M,) rows of the units.
        n_units: U.
        times: (S,) float64 seconds.
        before, after: bins that end, and that begin, at the time; with ``after`` 0 nothing at or
            after it counts.
        bin_s: seconds.
    """
    edges = times[:, None] - bin_s * np.arange(before, -after - 1, -1)
    counts = np.empty((len(times), n_units, before + after), dtype=np.float32)
    for unit in range(n_units):
        found = np.searchsorted(spike_times[spike_units == unit], edges)
        counts[:, unit] = np.diff(found, axis=1)
    return counts


def fit_ridge(x: Float64, y: Float64, times: Float64) -> tuple[Float64, Float64, float]:
    """``(weights, bias, ridge)``: (F, O), (O,), and which of ``RIDGES`` held-out blocks chose.

    Args:
        x: (S, F) features of consecutive samples.
        y: (S, O).
        times: (S,) ascending seconds of the samples.
    """
    errors = _heldout_errors(x, y, times, BINS * BIN_S)
    chosen = int(errors.argmin())
    weights, bias = ridge_path(x, y)[chosen]
    return weights, bias, float(RIDGES[chosen])


def heldout_r2(x: Float64, y: Float64) -> float:
    """Share of the variance of y (S, O) that x (S, F) explain in held-out blocks, at one ridge.
    ``BINS`` samples beside a block are left out."""
    total = float(((y - y.mean(0)) ** 2).sum())
    errors = _heldout_errors(x, y, np.arange(len(x), dtype=np.float64), float(BINS))
    return 1.0 - float(errors.min()) / total if total > 0 else 0.0


def _heldout_errors(x: Float64, y: Float64, at: Float64, gap: float) -> Float64:
    """Summed squared errors of held-out blocks for each of ``RIDGES``, without the samples whose
    place ``at`` (S,), ascending, lies up to ``gap`` beside the block: they share spikes with it."""
    errors = np.zeros(len(RIDGES))
    for block in np.array_split(np.arange(len(x)), FOLDS):
        apart = (at < at[block[0]] - gap) | (at > at[block[-1]] + gap)
        if not apart.any():  # seconds of data: none is far enough
            apart = ~np.isin(np.arange(len(x)), block)
        for i, (weights, bias) in enumerate(ridge_path(x[apart], y[apart])):
            errors[i] += ((y[block] - x[block] @ weights - bias) ** 2).sum()
    return errors


def ridge_path(x: Float64, y: Float64, ridges: Float64 = RIDGES) -> list[tuple[Float64, Float64]]:
    """Weights (F, O) and bias (O,) for each ridge.

    Equations of S or of F unknowns are solved, whichever are fewer (Hastie, Tibshirani and Friedman
    2009, The Elements of Statistical Learning, section 18.3.5).

    Args:
        x: (S, F), scaled here by its sd.
        y: (S, O).
        ridges: > 0.
    """
    mean, size = x.mean(0), x.std(0) + SD_FLOOR
    scaled, level = (x - mean) / size, y.mean(0)
    few = len(scaled) < scaled.shape[1]
    products = scaled @ scaled.T if few else scaled.T @ scaled
    right = y - level if few else scaled.T @ (y - level)
    diagonal, own = np.diag_indices(len(products)), products.diagonal().copy()
    found = []
    for ridge in ridges:
        products[diagonal] = own + ridge
        solved = np.linalg.solve(products, right)
        weights = (scaled.T @ solved if few else solved) / size[:, None]
        found.append((weights, level - mean @ weights))
    return found
