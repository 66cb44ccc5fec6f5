"""Fits of the two tables: gradient steps around a first guess, in the directions of the prior.

Units are written as ``first guess + root @ z``, and the steps are taken in z: directions in which
trained units differ much are learned fast, and a pull of z to 0 is a pull to the first guess. It is
the maximum a posteriori estimate with the spread of the trained units as the prior's.

Legend: U units, D model dim, O outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from poyo_edge.arrays import Float32, Float64, Int64
from poyo_edge.calibration.fit.adapter import Adapter, Weighting
from poyo_edge.calibration.fit.folds import Fold
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.optimizer import AdamW, cosine
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.errors import CheckFailedError, UsageError

_STEPS, _SECONDS, _GROWTH = 80, 120.0, 0.7
_FEWEST_STEPS, _MOST_STEPS = 20, 240
_PULL, _PULL_TO_GUESS = 2.0, 30.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How a fit goes. The defaults are those that held on real recordings (docs/calibration.md)."""

    steps: int | None = None
    """Steps of the learning-rate schedule; None takes 80 for 120 labelled seconds, and more or
    fewer with their number to the power of 0.7. A fit may stop before."""
    judge_every: int = 10
    batch_size: int = 32
    lr_units: float = 0.1
    """Learning rate of the units' z at the first step."""
    lr_session: float = 5e-3
    """Learning rate of the session embedding at the first step."""
    pull: float | None = None
    """What ``mean over units of sum(z²)`` adds to the loss, divided by the labelled seconds; None
    takes 2, and 30 where training says what units of the animal are like (``Prior.knows_animal``):
    they begin nearer to what they are than trained units are to their mean."""
    clip_norm: float = 10.0
    """Larger gradients are scaled down to this norm."""
    most_z: float = 4.0
    """Bound of each z, in standard deviations of trained units."""
    tail_s: float = 0.1
    """The last seconds of a window, in which a labelled sample counts in full."""
    early_weight: float = 0.2
    """What earlier samples of a window count."""
    patience: int = 3
    """Stop after this many judgements without a better one."""
    n_folds: int = 3
    n_blocks: int = 6
    """Blocks of labelled time that are dealt to the folds; fewer, one for each fold at least,
    where they would be shorter than two windows."""
    most_judged: int = 200
    """Held-out samples judged in each fold while fitting."""

    def __post_init__(self) -> None:
        for name in ("judge_every", "batch_size", "patience", "most_judged"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected an integer >= 1, got {getattr(self, name)!r}")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps: expected an integer >= 1 or None, got {self.steps!r}")
        for name in ("lr_units", "lr_session", "clip_norm", "most_z", "tail_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: expected a number > 0, got {getattr(self, name)!r}")
        for name in ("pull", "early_weight"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"{name}: expected a number >= 0, got {value!r}")
        if not 2 <= self.n_folds <= self.n_blocks:
            raise UsageError(
                f"n_folds: expected from 2 to n_blocks ({self.n_blocks}), got {self.n_folds!r}"
            )

    def steps_for(self, seconds: float) -> int:
        """Steps of the schedule for so many labelled seconds."""
        if self.steps is not None:
            return self.steps
        steps = _STEPS * (seconds / _SECONDS) ** _GROWTH
        return int(min(max(steps, _FEWEST_STEPS), _MOST_STEPS))

    def blocks_for(self, seconds: float, window_s: float) -> int:
        """Blocks for so many labelled seconds."""
        return max(self.n_folds, min(self.n_blocks, int(seconds / (2 * window_s))))


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Tables:
    """Unit embeddings (U, D) and session embedding (D,), float32."""

    units: Float32
    session: Float32


class Fit:
    """One fit on one fold. ``step`` is deterministic given seed, fold and number."""

    def __init__(
        self,
        adapter: Adapter,
        prior: Prior,
        labels: Labels,
        fold: Fold,
        settings: FitSettings,
        start: Tables,
        *,
        seed: Sequence[int],
        seconds: float | None = None,
    ) -> None:
        """Prepare a fit.

        ``seconds`` of labels set steps and pull; None takes all of ``labels``.
        """
        seconds = labels.seconds if seconds is None else seconds
        self._adapter = adapter
        self._root = prior.unit_root
        self._labels = labels
        self._fold = fold
        self._settings = settings
        self._start = start
        self._seed = list(seed)
        self._total = settings.steps_for(seconds)
        pull = settings.pull
        if pull is None:
            pull = _PULL_TO_GUESS if prior.knows_animal else _PULL
        self._pull = pull / seconds / len(start.units)
        self._weighting = Weighting(tail_s=settings.tail_s, early=settings.early_weight)
        self.optimizer = AdamW(clip_norm=settings.clip_norm)
        self.moved = {
            "z": np.zeros((len(start.units), prior.unit_root.shape[1]), np.float32),
            "session": np.zeros_like(start.session),
        }
        """How far it has gone from the first guess: the units' z (U, D), the session (D,)."""

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.optimizer.steps

    def step(self) -> float:
        """One optimiser step; returns the loss of its batch.

        Raises:
            CheckFailedError: loss or gradients are not finite.
        """
        tables, z = self.tables(), self.moved["z"]
        batch = self._adapter.batch(self._labels, self._window_ends(), self._weighting)
        loss, by_units, by_session = self._adapter.gradients(batch, tables.units, tables.session)
        gradients = {"z": by_units @ self._root + 2 * self._pull * z, "session": by_session}
        if not (np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients.values())):
            raise CheckFailedError(
                f"calibration: expected finite loss and gradients, got loss {loss} at step "
                f"{self.steps + 1}; check the labels"
            )
        factor = cosine(self.steps, self._total)
        lr = {"z": self._settings.lr_units * factor, "session": self._settings.lr_session * factor}
        self.optimizer.step(self.moved, gradients, lr)
        np.clip(z, -self._settings.most_z, self._settings.most_z, out=z)
        return loss

    def tables(self) -> Tables:
        """The embeddings as they are now."""
        units = self._start.units + self.moved["z"] @ self._root.T
        session = self._start.session + self.moved["session"]
        return Tables(units=units.astype(np.float32), session=session.astype(np.float32))

    def _window_ends(self) -> Int64:
        """Samples at which the windows of the next batch end: one in each of as many stretches.

        Random within equal stretches of the labelled time, a batch has less variance than with
        windows from anywhere.
        """
        train = self._fold.train
        rng = np.random.default_rng([*self._seed, self.steps])
        size = min(self._settings.batch_size, len(train))
        at = ((np.arange(size) + rng.random(size)) * len(train) / size).astype(np.int64)
        return train[np.minimum(at, len(train) - 1)]

    def judged(self) -> Int64:
        """Held-out samples, evenly thinned to those judged while fitting."""
        return self._fold.judge[:: self._stride]

    def judged_blocks(self) -> Int64:
        """The block of each sample of ``judged``."""
        return self._fold.block[:: self._stride]

    @property
    def judged_each_s(self) -> float:
        """Held-out seconds that each sample of ``judged`` stands for."""
        return self._stride * self._labels.period

    @property
    def _stride(self) -> int:
        return max(1, -(-len(self._fold.judge) // self._settings.most_judged))

    def predict_judged(self) -> Float64:
        """Causal predictions (S, O) at ``judged``, in behaviour units."""
        tables = self.tables()
        return self._adapter.predict(self._labels, self.judged(), tables.units, tables.session)
