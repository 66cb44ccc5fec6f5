"""Held-out judgement: what was decoded on blocks that nothing was learned from.

Legend: S judged samples, O outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from poyo_edge.arrays import Float64, Int64
from poyo_edge.calibration.fit.fitting import Tables
from poyo_edge.metrics import r2_per_dim
from poyo_edge.records import AnyFloat, JsonRecord

_RESAMPLED = 500
_LEVEL = (2.5, 97.5)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point(JsonRecord):
    """One judgement of all folds."""

    step: int
    loss: AnyFloat | None
    """Mean loss of the steps since the last judgement; None before the first step."""
    r2: AnyFloat
    """Of all held-out samples together, mean over dimensions."""
    r2_per_dim: tuple[AnyFloat, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Held-out truth and predictions of all folds."""

    truth: Float64
    """(S, O) in behaviour units."""
    decoded: Float64
    """(S, O)."""
    block: Int64
    """(S,) the block of each sample."""

    def r2(self) -> Float64:
        """R² of each dimension over all blocks together, (O,)."""
        return r2_per_dim(self.truth, self.decoded)

    def point(self, step: int, losses: list[float]) -> Point:
        """The judgement in figures."""
        per_dim = self.r2()
        return Point(
            step=step,
            loss=float(np.mean(losses)) if losses else None,
            r2=float(per_dim.mean()),
            r2_per_dim=tuple(per_dim.tolist()),
        )

    def interval(self, seed: int = 0) -> Float64:
        """95 % interval of the R² of each dimension, (2, O): blocks drawn with replacement."""
        draws = [r2_per_dim(self.truth[rows], self.decoded[rows]) for rows in self._draws(seed)]
        return np.asarray(np.percentile(np.array(draws), _LEVEL, axis=0))

    def clearly_worse(self, other: Judged, *, margin: float = 0.01, seed: int = 0) -> bool:
        """Whether this decodes the same samples worse than ``other``, beyond chance.

        Beyond chance is a difference of mean R² larger than its standard error, and than
        ``margin``; blocks are drawn with replacement, the same for both.
        """
        gap = float((other.r2() - self.r2()).mean())
        draws = [
            float((r2_per_dim(truth, theirs) - r2_per_dim(truth, ours)).mean())
            for truth, theirs, ours in (
                (self.truth[rows], other.decoded[rows], self.decoded[rows])
                for rows in self._draws(seed)
            )
        ]
        return gap > max(margin, float(np.std(draws)))

    def _draws(self, seed: int) -> list[Int64]:
        """Samples of blocks drawn with replacement, in which every dimension varies."""
        rng = np.random.default_rng(seed)
        blocks = [np.flatnonzero(self.block == b) for b in np.unique(self.block)]
        draws = [
            np.concatenate([blocks[i] for i in rng.integers(len(blocks), size=len(blocks))])
            for _ in range(_RESAMPLED)
        ]
        return [rows for rows in draws if (np.ptp(self.truth[rows], axis=0) > 0).all()]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moment:
    """One judgement, and what had been learned by then."""

    point: Point
    judged: Judged
    tables: tuple[Tables, ...]
    """Of each fold's fit, and last that on all labels."""


def latest_good(moments: Sequence[Moment], margin: float = 0.01) -> Moment:
    """The latest moment that is not clearly worse than the best one, by ``margin`` at least.

    Held-out R² of a minute of labels is noisy, and the learning rate falls towards the end of the
    schedule: the highest point of the curve is often luck, its end seldom is. A fit that really
    gets worse (published curves peak and fall) is left where it was best.
    """
    best = max(moments, key=lambda moment: moment.point.r2)
    later = moments[moments.index(best) + 1 :]
    good = [one for one in later if not one.judged.clearly_worse(best.judged, margin=margin)]
    return good[-1] if good else best
