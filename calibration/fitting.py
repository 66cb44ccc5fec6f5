"""Fits of the two tables: gradient steps around the prior, judged on held-out blocks.

Embeddings are written as ``mean + root @ z`` of the trained ones (``prior.py``), and the steps
are taken in z: directions in which trained units differ much are learned fast, and a pull of z to
0 is a pull to what trained units look like.

Legend: U units, D model dim, O outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from poyo_edge.calibration.adapter import Adapter, Feeds, Weighting
from poyo_edge.calibration.folds import Fold
from poyo_edge.calibration.labels import Labels
from poyo_edge.calibration.optimizer import AdamW, cosine
from poyo_edge.calibration.prior import Prior
from poyo_edge.errors import CheckFailedError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How a fit goes. The defaults are those that held on real recordings (docs/calibration.md)."""

    steps: int = 80
    """Steps of the learning-rate schedule; a fit may stop before."""
    warmup: int = 5
    judge_every: int = 10
    batch_size: int = 32
    lr_units: float = 0.1
    """Peak learning rate of the units' z."""
    lr_session: float = 0.05
    pull: float = 1e-3
    """What ``mean(z²)`` of the units adds to the loss."""
    clip_norm: float = 1.0
    most_z: float = 4.0
    """Bound of each z: trained units lie within it."""
    unit_dropout: float = 0.1
    """Part of the units left out of a batch, spikes and boundary tokens alike."""
    tail_s: float = 0.1
    early_weight: float = 0.2
    """Samples before the last ``tail_s`` of a window weigh this much."""
    patience: int = 3
    """Stop after this many judgements without a better one."""
    n_folds: int = 3
    n_blocks: int = 6
    most_judged: int = 200
    """Held-out samples judged in each fold while fitting."""


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Start:
    """Where a fit begins, in z: units (U, D) and session (D,)."""

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
        start: Start,
        *,
        seed: Sequence[int],
    ) -> None:
        self._adapter = adapter
        self._prior = prior
        self._labels = labels
        self._fold = fold
        self._settings = settings
        self._seed = list(seed)
        self._weighting = Weighting(tail_s=settings.tail_s, early=settings.early_weight)
        self.optimizer = AdamW(clip_norm=settings.clip_norm)
        self.z = {"units": start.units.copy(), "session": start.session.copy()}

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.optimizer.steps

    def step(self) -> float:
        """One optimiser step; returns the loss of its batch.

        Raises:
            CheckFailedError: loss or gradients are not finite.
        """
        settings, prior = self._settings, self._prior
        rng = np.random.default_rng([*self._seed, self.steps])
        size = min(settings.batch_size, len(self._fold.train))
        ends = np.sort(rng.choice(self._fold.train, size, replace=False))
        batch = self._adapter.batch(self._labels, ends, self._weighting)
        units, session = self.embeddings()
        kept = self._kept(rng, len(units))
        loss, by_units, by_session = self._adapter.gradients(
            only_units(batch, kept, len(units)), units[kept], session
        )
        gradient = np.zeros_like(units)
        gradient[kept] = by_units
        z_units = self.z["units"]
        gradients = {
            "units": gradient @ prior.unit_root + 2 * settings.pull / z_units.size * z_units,
            "session": by_session @ prior.session_root,
        }
        if not (np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients.values())):
            raise CheckFailedError(
                f"calibration: expected finite loss and gradients, got loss {loss} at step "
                f"{self.steps + 1}; check the labels"
            )
        factor = cosine(self.steps, settings.steps, warmup=settings.warmup)
        lr = {"units": settings.lr_units * factor, "session": settings.lr_session * factor}
        self.optimizer.step(self.z, gradients, lr)
        for z in self.z.values():
            np.clip(z, -settings.most_z, settings.most_z, out=z)
        return loss

    def embeddings(self) -> tuple[Float32, Float32]:
        """Unit embeddings (U, D) and session embedding (D,) as they are now."""
        return self._prior.embeddings(self.z["units"], self.z["session"])

    def judged(self) -> Ints:
        """Held-out samples, evenly thinned to those judged while fitting."""
        return self._fold.judge[:: self._stride]

    def judged_blocks(self) -> Ints:
        """The block of each sample of ``judged``."""
        return self._fold.block[:: self._stride]

    @property
    def _stride(self) -> int:
        return max(1, -(-len(self._fold.judge) // self._settings.most_judged))

    def predict_judged(self) -> Float64:
        """Causal predictions (S, O) at ``judged``, in behaviour units."""
        return self._adapter.predict(self._labels, self.judged(), *self.embeddings())

    def state(self) -> Start:
        """A copy of z as it is now."""
        return Start(units=self.z["units"].copy(), session=self.z["session"].copy())

    def _kept(self, rng: np.random.Generator, n_units: int) -> Ints:
        dropped = rng.random(n_units) < self._settings.unit_dropout
        kept = np.flatnonzero(~dropped)
        return kept if len(kept) else np.arange(n_units)


def only_units(batch: Feeds, kept: Ints, n_units: int) -> Feeds:
    """A batch without the spikes of all other units; rows count along ``kept``."""
    if len(kept) == n_units:
        return batch
    row = np.full(n_units, -1, np.int32)
    row[kept] = np.arange(len(kept))
    units = row[batch["spike_unit"]]
    return {
        **batch,
        "spike_unit": np.maximum(units, 0),
        "spike_mask": batch["spike_mask"] & (units >= 0),
    }
