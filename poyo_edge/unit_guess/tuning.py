"""How units go with behaviour: with that which was measured, or with what others say of it.

A pooled linear decoder of known electrodes gives a guess of the behaviour without labels; how each
unit goes with the guess of all others tells what it is tuned to.

Legend: M spikes, U units, K intervals, N bins, O outputs, T tunings (lags times outputs), W taps.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Bool, Float64
from poyo_edge.unit_guess.statistics import BIN_S, binned

SMOOTHED = 3
"""Bins that are averaged, up to the one at hand."""
LAGS = (-1, 2, 5)
"""Bins by which behaviour is later than activity."""
TAPS = (0, 3, 6)
"""Bins back at which the linear decoder looks."""
_SD_FLOOR, _RIDGE = 0.05, 0.01


class Smoothed:
    """Standardised, smoothed counts of a session, in stretches without a hole."""

    def __init__(
        self,
        spike_times: Float64,
        spike_units: npt.NDArray[np.integer],
        n_units: int,
        intervals: Iterable[tuple[float, float]] | Float64,
    ) -> None:
        spans = [(float(a), float(b)) for a, b in intervals]
        counts = [binned(spike_times, spike_units, n_units, a, b) for a, b in spans]
        everything = np.concatenate([np.zeros((0, n_units)), *counts])
        mean, sd = everything.mean(0), np.maximum(everything.std(0), _SD_FLOOR)
        self.pieces = [_average((one - mean) / sd) for one in counts]
        """(N, U) each."""
        self.ends = [
            start + BIN_S * np.arange(1, len(one) + 1)
            for (start, _), one in zip(spans, counts, strict=True)
        ]
        """(N,) seconds each, at which the bins end."""

    def taps(self) -> Float64:
        """What a linear decoder sees, (N, W, U); the first bins of a stretch see zeros."""
        return np.concatenate([_taps(one) for one in self.pieces])

    def behavior(self, times: Float64, values: Float64) -> tuple[Float64, Bool]:
        """Behaviour (N, O) at the ends of all bins, and where it was measured, (N,)."""
        at = np.concatenate(self.ends)
        after = np.clip(np.searchsorted(times, at - BIN_S / 2), 0, len(times) - 1)
        found = np.stack([np.interp(at, times, one) for one in values.T], axis=-1)
        return found, np.abs(times[after] - at) < BIN_S

    def tuning(self, reference: Float64, known: Bool, own: Float64 | None = None) -> Float64:
        """Correlation of each unit with a reference at each lag, (U, T); T runs over lags first.

        Args:
            reference: (N, O) at the ends of all bins.
            known: (N,) where it is known.
            own: (N, U, O), what of the reference comes from each unit and is taken out for it.
        """
        x, shifted = list[Float64](), {lag: list[npt.NDArray[np.int64]]() for lag in LAGS}
        first, valid = 0, list[Bool]()
        for piece in self.pieces:
            rows = np.arange(len(piece))
            inside = np.ones(len(piece), dtype=bool)
            for lag in LAGS:
                at = np.clip(rows + lag, 0, max(0, len(piece) - 1))
                inside &= (rows + lag == at) & (known[first + at] if len(piece) else False)
                shifted[lag].append(first + at)
            x.append(piece)
            valid.append(inside)
            first += len(piece)
        keep = np.concatenate(valid)
        x_NU, found = np.concatenate(x)[keep], list[Float64]()
        for lag in LAGS:
            rows = np.concatenate(shifted[lag])[keep]
            for output in range(reference.shape[1]):
                r_NU = np.broadcast_to(reference[rows, output, None], x_NU.shape)
                if own is not None:
                    r_NU = r_NU - own[rows, :, output]
                found.append(_correlation(x_NU, r_NU))
        return np.stack(found, axis=-1)


def tuning_names(kind: str, dim_out: int) -> tuple[str, ...]:
    """Names of the tunings, in their order."""
    return tuple(f"{kind}_{lag}_{output}" for lag in LAGS for output in range(dim_out))


def fit_axes(sessions: Iterable[tuple[Float64, Float64, Bool]]) -> Float64:
    """Weights (W, U, O) of a ridge regression pooled over sessions.

    Args:
        sessions: of each, taps (N, W, U), behaviour (N, O), and where it is known (N,).
    """
    square: Float64 | None = None
    for taps, values, known in sessions:
        x = taps[known].reshape(int(known.sum()), -1)
        y = values[known] - values[known].mean(0)
        if square is None:
            square, product, total = x.T @ x, x.T @ y, len(x)
        else:
            square, product, total = square + x.T @ x, product + x.T @ y, total + len(x)
    assert square is not None
    ridge = _RIDGE * max(1, total) * np.eye(len(square))
    weights = np.linalg.solve(square + ridge, product)
    return np.asarray(weights.reshape(len(TAPS), -1, product.shape[1]), dtype=np.float64)


def _average(counts: Float64) -> Float64:
    """Means of ``SMOOTHED`` bins, each up to its own (N, U)."""
    sums = np.cumsum(np.concatenate([np.zeros((SMOOTHED, counts.shape[1])), counts]), axis=0)
    return np.asarray((sums[SMOOTHED:] - sums[:-SMOOTHED]) / SMOOTHED, dtype=np.float64)


def _taps(smoothed: Float64) -> Float64:
    found = np.zeros((len(smoothed), len(TAPS), smoothed.shape[1]))
    for i, back in enumerate(TAPS):
        found[back:, i] = smoothed[: max(0, len(smoothed) - back)]
    return found


def _correlation(x_NU: Float64, r_NU: Float64) -> Float64:
    """Of each column, (U,); 0 where one of the two does not vary."""
    x, r = x_NU - x_NU.mean(0), r_NU - r_NU.mean(0)
    size = np.sqrt((x**2).mean(0) * (r**2).mean(0))
    found = np.divide((x * r).mean(0), size, out=np.zeros(x.shape[1]), where=size > 1e-9)
    return np.asarray(found, dtype=np.float64)
