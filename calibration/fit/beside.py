"""A Wiener filter on the same labels and folds as a session: what a lab fits in a second.

Its ridge is chosen inside of what a fold learns from, so the blocks that judge it are as new to it
as they are to the session. What each decodes of these blocks gives the share of a filter that is
mixed with the model, and says whether their mean is better than the model alone (stacking: Wolpert
1992; Breiman 1996). The filter of the session is then fitted to all labels, as the session is.

Legend: S samples, F features, O outputs.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np

from poyo_edge.arrays import Float64, Int64
from poyo_edge.calibration.fit.judging import Judged, Moment
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.search import Search
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.filters.wiener import BIN_S, BINS, bin_counts, ridge_path

RIDGES_PER_HZ = (2.0, 5.0, 16.0, 50.0, 160.0)
"""For each sample in a labelled second: samples close in time say nearly the same. On three motor
sessions of two animals the third was within .01 R² of the best with 60 and 120 s of labels."""
_USUAL = 2
_TOLERATED = 0.04
"""Of the variance of the labels. Where the ridges differ by less, chance says which is best: the
usual one, or the next to it, is taken. With 30 s of labels the best one of three parts decoded the
held-out blocks of these sessions worse than the usual one by .04 R² on average."""
_PARTS = 3
_MOST_SAMPLES, _MOST_PRODUCTS = 6000, 2000
"""Samples that are learned from at the most; the second where there are more features than that. A
filter is to take seconds."""
_LEAST_SHARE, _LEAST_R2 = 0.02, 0.05
"""The second of the filter: one that decodes next to nothing only draws values to their mean."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UsualShare:
    """What the filter's shares are like: held-out blocks of a minute say little about one."""

    mean: float
    spread: float
    """Standard deviation."""
    most: float
    """None is larger."""


USUAL = UsualShare(mean=0.15, spread=0.1, most=0.5)
"""On the *valid* splits of two later sessions of an array, 30 s to 5 minutes of labels, .1 to .25
were best. At least half of a value is the model's."""
USUAL_FROM_AFAR = UsualShare(mean=0.4, spread=0.2, most=0.8)
"""Where training knows units of other animals and none of these. On the *valid* splits of four
sessions with models of another animal, 30 s of labels, .3 was best in one and half or more in
three."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WienerBeside:
    """What the filter makes of the held-out blocks of a search."""

    judged: Judged
    ridges: tuple[float, ...]
    """That each fold chose."""
    filters: tuple[tuple[Float64, Float64], ...]
    """Of each fold: weights (F, O), units first, and bias (O,)."""
    wall_s: float


def wiener_beside(search: Search) -> WienerBeside:
    """Fit a filter for each fold of a search, and judge it on the samples that judge the session.

    No bin reaches further back than a window does, so what is learned from never touches what is
    judged.
    """
    began = time.monotonic()
    labels, window_s = search.labels, search.window_s
    judged = [fit.judged() for fit in search.fits[:-1]]
    counted = _Counted.of(labels, [fold.train for fold in search.folds], judged, window_s)
    decoded, ridges = list[Float64](), list[float]()
    filters = list[tuple[Float64, Float64]]()
    for fold, judge in zip(search.folds, judged, strict=True):
        rows = counted.rows(fold.train)
        ridge = counted.best_ridge(rows)
        ((weights, bias),) = ridge_path(
            counted.features[rows], counted.values[rows], np.array([ridge])
        )
        decoded.append(counted.features[counted.rows(judge)] @ weights + bias)
        ridges.append(ridge)
        filters.append((weights, bias))
    return WienerBeside(
        judged=search.judge(decoded.__getitem__),
        ridges=tuple(ridges),
        filters=tuple(filters),
        wall_s=time.monotonic() - began,
    )


def whole_filter(search: Search, beside: WienerBeside) -> tuple[Float64, Float64]:
    """Weights (F, O), units first, and bias (O,) of the filter on all labels, with the ridge that
    is the median of the folds'."""
    everything = np.arange(len(search.labels.times))
    counted = _Counted.of(search.labels, [everything], [], search.window_s)
    ridge = float(np.median(beside.ridges))
    ((weights, bias),) = ridge_path(counted.features, counted.values, np.array([ridge]))
    return weights, bias


def mix(search: Search, beside: WienerBeside) -> bool:
    """Mix the filter into what a search has chosen, where that decodes held-out blocks better.

    Args:
        search: that has ended; what it has chosen is another moment afterwards.
        beside: the filter on the same folds.

    Returns:
        Whether anything was mixed.
    """
    chosen = search.chosen
    usual = USUAL_FROM_AFAR if search.start.from_afar else USUAL
    share = best_share(chosen.judged, beside.judged.decoded, usual)
    if share < _LEAST_SHARE or search.window_s < BIN_S:
        return False
    alone, filtered = (float(one.r2().mean()) for one in (chosen.judged, beside.judged))
    if not filtered > _LEAST_R2:
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


def best_share(model: Judged, filtered: Float64, usual: UsualShare = USUAL) -> float:
    """The filter's share, 0 to the usual one's ``most``: that of least squares on held-out samples,
    drawn towards the usual one as far as blocks disagree about it.

    Each dimension counts divided by its variance. Without a block in turn, the shares of least
    squares tell their standard error (the jackknife: Efron and Tibshirani 1993, chapter 11); both
    shares are weighted by one over their variances.

    Args:
        model: what the model decodes.
        filtered: (S, O), what the filter makes of the same samples.
        usual: what shares are like.
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
    trust = usual.spread**2 / (usual.spread**2 + variance)
    drawn = trust * share + (1.0 - trust) * usual.mean
    return float(np.clip(drawn, 0.0, usual.most).round(4))


def _filter(share: float, weights: Float64, bias: Float64, n_units: int) -> MixedFilter:
    return MixedFilter(
        share=share,
        weights=weights.reshape(n_units, -1, len(bias)).astype(np.float32),
        bias=bias.astype(np.float32),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Counted:
    """Binned spikes of the samples that are looked at."""

    samples: Int64
    """(S,) ascending, of the labels."""
    times: Float64
    """(S,)."""
    features: Float64
    """(S, F)."""
    values: Float64
    """(S, O)."""
    rate_hz: float
    """Samples that are learned from in a labelled second."""
    window_s: float

    @classmethod
    def of(
        cls, labels: Labels, learned: Sequence[Int64], judged: Sequence[Int64], window_s: float
    ) -> _Counted:
        """Samples that folds learn from, thinned evenly, and all that judge them."""
        n_bins = max(1, min(BINS, int(window_s / BIN_S + 1e-9)))
        n_features = labels.n_units * n_bins
        most = _MOST_PRODUCTS if n_features > _MOST_PRODUCTS else _MOST_SAMPLES
        some = np.unique(np.concatenate(learned))
        stride = max(1, -(-len(some) // most))
        samples = np.unique(np.concatenate([some[::stride], *judged]))
        counts = bin_counts(
            labels.spike_times, labels.spike_rows.astype(np.int64), labels.n_units,
            labels.times[samples], before=n_bins, bin_s=min(BIN_S, window_s),
        )  # fmt: skip
        return cls(
            samples=samples,
            times=labels.times[samples],
            features=counts.reshape(len(samples), n_features).astype(np.float64),
            values=labels.values[samples],
            rate_hz=1.0 / (stride * labels.period),
            window_s=window_s,
        )

    def rows(self, samples: Int64) -> Int64:
        """Rows of those samples that are looked at."""
        return np.flatnonzero(np.isin(self.samples, samples, assume_unique=True))

    def best_ridge(self, rows: Int64) -> float:
        """Chosen on parts in time of some rows, each of which the others learn."""
        ridges = self.rate_hz * np.array(RIDGES_PER_HZ)
        errors, n_judged = np.zeros(len(ridges)), 0
        spread = np.maximum(self.values[rows].var(0), np.finfo(np.float64).tiny)
        for part in np.array_split(rows, _PARTS):
            if not len(part):
                continue
            start, end = self.times[part[[0, -1]]]
            times = self.times[rows]
            others = rows[(times < start - self.window_s) | (times > end + self.window_s)]
            if not len(others):
                continue
            x, truth = self.features[part], self.values[part]
            found = ridge_path(self.features[others], self.values[others], ridges)
            errors += [((truth - x @ w - b) ** 2 / spread).sum() for w, b in found]
            n_judged += truth.size
        if not n_judged:  # some seconds of labels: nothing can be chosen
            return float(ridges[_USUAL])
        good = np.flatnonzero(errors <= errors.min() + _TOLERATED * n_judged)
        return float(ridges[good[np.abs(good - _USUAL).argmin()]])
