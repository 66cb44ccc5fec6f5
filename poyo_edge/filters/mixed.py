"""A Wiener filter that a session mixes with its model.

The errors of a model that has learned many sessions, and of a linear filter that knows only this
one, are partly apart, so their weighted mean can be better than either (Wolpert 1992, "Stacked
generalization"; Breiman 1996, "Stacked regressions"). The filter sums a weight for each spike of
the window, by its unit and by the bin that it falls into before the value:

    value = (1 - share) · model + share · (bias + Σ over spikes of weights[unit, bin])

Legend: U units, K bins, O outputs, Q queries, N spikes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32, Float64
from poyo_edge.errors import UsageError
from poyo_edge.filters.wiener import BIN_S


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixedFilter:
    """The filter and its share of the value."""

    share: float
    """Of the filter, above 0 and at most 1; the rest is the model's."""
    weights: Float32
    """(U, K, O) in behaviour units for each spike; the last bin ends at the value."""
    bias: Float32
    """(O,) in behaviour units."""

    def __post_init__(self) -> None:
        shape, bias = self.weights.shape, self.bias.shape
        if len(shape) != 3 or min(shape) < 1 or bias != shape[2:]:
            raise UsageError(
                f"mixed filter: expected weights (units, bins, outputs) and a bias (outputs,), "
                f"got {shape} and {bias}"
            )
        if not 0.0 < self.share <= 1.0:
            raise UsageError(
                f"mixed filter: expected a share above 0 and at most 1, got {self.share!r}"
            )
        if not (np.isfinite(self.weights).all() and np.isfinite(self.bias).all()):
            raise UsageError("mixed filter: expected finite weights and bias, got NaN or Inf")

    def of_units(self, rows: npt.NDArray[np.int64]) -> MixedFilter:
        """The same for some units, whose new rows count along ``rows``."""
        return dataclasses.replace(self, weights=self.weights[rows])

    def mixed_with(
        self,
        model: Float64,
        spike_unit: npt.NDArray[np.int32],
        spike_time: Float32,
        query_time: Float32,
        spike_mask: npt.NDArray[np.bool_] | None = None,
    ) -> Float64:
        """The values of windows, (..., Q, O) float64 in behaviour units.

        Args:
            model: (..., Q, O), what the model decodes.
            spike_unit: (..., N) int32 rows of the session's units.
            spike_time: (..., N) float32 seconds from the start of the window.
            query_time: (..., Q) float32 seconds from the start of the window; no spike at it or
                after it counts.
            spike_mask: (..., N) which spikes count; None takes all.
        """
        n_units, bins, n_outputs = self.weights.shape
        age = query_time[..., None] - spike_time[..., None, :]
        bins_ago = np.ceil(age / np.float32(BIN_S))
        counts = (bins_ago >= 1) & (bins_ago <= bins)
        if spike_mask is not None:
            counts &= spike_mask[..., None, :]
        row = spike_unit[..., None, :].astype(np.int64) * bins + (bins - bins_ago.astype(np.int64))
        each = self.weights.reshape(n_units * bins, n_outputs)[np.where(counts, row, 0)]
        filtered = np.where(counts[..., None], each, np.float32(0)).sum(-2, dtype=np.float64)
        return np.asarray((1.0 - self.share) * model + self.share * (filtered + self.bias))
