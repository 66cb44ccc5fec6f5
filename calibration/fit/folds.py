"""Held-out blocks in time: no window that is learned from touches one that is judged.

Legend: S behaviour samples.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from poyo_edge.arrays import Int64
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.errors import UsageError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fold:
    """Which samples a fit may learn from and which judge it."""

    train: Int64
    """Samples whose windows [t - T, t) touch no held-out block; a window may end at them."""
    judge: Int64
    """Samples whose windows lie inside a held-out block."""
    block: Int64
    """For each sample of ``judge``, the block that it is in."""


def everything(labels: Labels) -> Fold:
    """All samples to learn from, none to judge."""
    none = np.empty(0, np.int64)
    return Fold(train=np.arange(len(labels.times)), judge=none, block=none)


def folds(
    labels: Labels, window_s: float, *, n_folds: int, n_blocks: int, share: float = 1.0
) -> list[Fold]:
    """Cut the labelled time into ``n_blocks`` blocks of equal length and deal them to the folds.

    Blocks are counted in labelled time, so holes in the labels do not make empty ones. Fold i
    holds out blocks i, i + n_folds, …. Each learns from the first ``share`` of its samples.

    Raises:
        UsageError: a fold would have nothing to learn from or nothing to judge by.
    """
    times = labels.times
    number = np.arange(len(times)) * n_blocks // max(1, len(times))
    edges = [(times[number == b][0], times[number == b][-1]) for b in range(n_blocks)]
    inside = np.array([times[i] - window_s >= edges[number[i]][0] for i in range(len(times))])
    out = []
    for fold in range(n_folds):
        held = np.arange(fold, n_blocks, n_folds)
        train = np.ones(len(times), np.bool_)
        for b in held:
            start, end = edges[b]
            train &= (times < start) | (times - window_s > end)
        judge = np.flatnonzero(np.isin(number, held) & inside)
        if not train.any() or len(judge) < 2:
            raise UsageError(
                f"labels: expected enough for {n_blocks} blocks longer than a window "
                f"({window_s} s), got {labels.seconds:.1f} labelled s"
            )
        learned = np.flatnonzero(train)
        learned = learned[: max(1, int(share * len(learned)))]
        out.append(Fold(train=learned, judge=judge, block=number[judge]))
    return out
