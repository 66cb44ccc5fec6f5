"""Mixes a Wiener filter into a fitted session where held-out blocks say that it decodes better so.

The model and the filter are fitted to the same labels and folds (``fit.beside``). What each decodes
of blocks that neither has seen gives the filter's share by least squares, and says whether the mean
is better than the model alone, beyond chance (stacking: Wolpert 1992; Breiman 1996). The filter of
the session is then fitted to all labels, as the session is.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.calibration.fit.beside import WienerBeside, whole_filter
from poyo_edge.calibration.fit.judging import Judged, Moment
from poyo_edge.calibration.fit.search import Search
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.filters.wiener import BIN_S

_MOST_SHARE = 0.5
"""At least half of a value is the model's: a filter must not hide a model that decodes nothing."""
_LEAST_GAIN = 0.005
"""Of held-out R², mean over dimensions, below which nothing is mixed."""


def mix(search: Search, beside: WienerBeside) -> bool:
    """Mix the filter into what a search has chosen, where that decodes held-out blocks better.

    Args:
        search: that has ended; what it has chosen is another moment afterwards.
        beside: the filter on the same folds.

    Returns:
        Whether anything was mixed.
    """
    chosen = search.chosen
    share = best_share(chosen.judged, beside.judged.decoded)
    if share <= 0.0 or search.window_s < BIN_S:
        return False
    decoded = (1.0 - share) * chosen.judged.decoded + share * beside.judged.decoded
    judged = dataclasses.replace(chosen.judged, decoded=decoded)
    if not chosen.judged.clearly_worse(judged, margin=_LEAST_GAIN):
        return False
    filters = [*beside.filters, whole_filter(search, beside)]
    tables = tuple(
        dataclasses.replace(one, wiener=_filter(share, weights, bias, search.labels.n_units))
        for one, (weights, bias) in zip(chosen.tables, filters, strict=True)
    )
    point = judged.point(chosen.point.step, [])
    point = dataclasses.replace(point, loss=chosen.point.loss)
    search.settle_on(Moment(point=point, judged=judged, tables=tables))
    return True


def best_share(model: Judged, filtered: Float64) -> float:
    """The filter's share with the least squared error on held-out samples, each dimension divided
    by its variance; 0 to ``_MOST_SHARE``.

    Args:
        model: what the model decodes.
        filtered: (S, O), what the filter makes of the same samples.
    """
    spread = np.maximum(model.truth.var(0), np.finfo(np.float64).tiny)
    apart = filtered - model.decoded
    power = float((apart**2 / spread).sum())
    if not power > 0.0:
        return 0.0
    share = float(((model.truth - model.decoded) * apart / spread).sum()) / power
    return float(np.clip(round(share, 4), 0.0, _MOST_SHARE))


def _filter(share: float, weights: Float64, bias: Float64, n_units: int) -> MixedFilter:
    return MixedFilter(
        share=share,
        weights=weights.reshape(n_units, -1, len(bias)).astype(np.float32),
        bias=bias.astype(np.float32),
    )
