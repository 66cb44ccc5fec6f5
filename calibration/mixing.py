"""Mixes a Wiener filter into a fitted session where held-out blocks say that it decodes better so.

The model and the filter are fitted to the same labels and folds (``fit.beside``). What each decodes
of blocks that neither has seen gives the filter's share, and says whether the mean is better than
the model alone (stacking: Wolpert 1992; Breiman 1996). The filter of the session is then fitted to
all labels, as the session is.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.calibration.fit.beside import WienerBeside, whole_filter
from poyo_edge.calibration.fit.judging import Judged, Moment
from poyo_edge.calibration.fit.search import Search
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.filters.wiener import BIN_S

_MOST_SHARE = 0.5
"""At least half of a value is the model's: a filter must not hide a model that decodes nothing."""
_LEAST_SHARE, _LEAST_R2 = 0.02, 0.05
"""The second of the filter: one that decodes next to nothing only draws values to their mean."""
_USUAL_SHARE, _USUAL_SPREAD = 0.15, 0.1
"""What shares are like, mean and standard deviation: held-out blocks of a minute say little about
them. On the *valid* splits of two sessions, 30 s to 5 minutes, .1 to .25 were best."""


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
    if share < _LEAST_SHARE or search.window_s < BIN_S:
        return False
    alone, filtered = (float(one.r2().mean()) for one in (chosen.judged, beside.judged))
    if not (alone > 0.0 and filtered > _LEAST_R2):
        return False
    decoded = (1.0 - share) * chosen.judged.decoded + share * beside.judged.decoded
    judged = dataclasses.replace(chosen.judged, decoded=decoded)
    if not judged.r2().mean() > alone:
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
    """The filter's share, 0 to ``_MOST_SHARE``: that of least squares on held-out samples, drawn
    towards the usual one as far as blocks disagree about it.

    Each dimension counts divided by its variance. Without a block in turn, the shares of least
    squares tell their standard error (the jackknife: Efron and Tibshirani 1993, chapter 11); both
    shares are weighted by one over their variances.

    Args:
        model: what the model decodes.
        filtered: (S, O), what the filter makes of the same samples.
    """
    spread = np.maximum(model.truth.var(0), np.finfo(np.float64).tiny)
    apart = filtered - model.decoded
    power = (apart**2 / spread).sum(1)
    gain = ((model.truth - model.decoded) * apart / spread).sum(1)
    if not power.sum() > 0.0:
        return 0.0
    share = float(gain.sum() / power.sum())
    blocks = [model.block == block for block in np.unique(model.block)]
    rest = np.array([(gain[~b].sum(), power[~b].sum()) for b in blocks]).reshape(-1, 2)
    without = rest[rest[:, 1] > 0, 0] / rest[rest[:, 1] > 0, 1]
    variance = math.inf
    if len(without) > 1:
        variance = (len(without) - 1) * float(without.var())
    trust = _USUAL_SPREAD**2 / (_USUAL_SPREAD**2 + variance)
    return float(np.clip(trust * share + (1.0 - trust) * _USUAL_SHARE, 0.0, _MOST_SHARE).round(4))


def _filter(share: float, weights: Float64, bias: Float64, n_units: int) -> MixedFilter:
    return MixedFilter(
        share=share,
        weights=weights.reshape(n_units, -1, len(bias)).astype(np.float32),
        bias=bias.astype(np.float32),
    )
