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
from poyo_edge.calibration.fit.adapter import (
    SESSION,
    UNITS,
    Adapter,
    Weighting,
    without_units,
)
from poyo_edge.calibration.fit.folds import Fold
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.optimizer import AdamW, cosine
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.calibration.fit.schedule import Schedule, long_schedule, schedule_for
from poyo_edge.core_inputs import ENCODER
from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.filters.mixed import MixedFilter

_GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0
_PULL, _PULL_TO_GUESS = 2.0, 30.0
_DROPPED = 1
"""Sets the random numbers of units that are left out apart from those of places."""
_Z_BESIDE = 3.0
"""Learning rate of z beside that of the encoder's weights: a unit then moves about as far for its
length as they do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How a fit goes. The defaults are those that held on real recordings (docs/calibration.md)."""

    steps: int | None = None
    """Steps of the learning-rate schedule; a fit may stop before. Of this and the other fields
    that may be None, None takes what suits the labels and the model (``fit.schedule``)."""
    judge_every: int | None = None
    """Steps between judgements."""
    batch_size: int | None = None
    """Windows of one step."""
    lr_units: float | None = None
    """Learning rate of the units' z at the first step."""
    lr_session: float | None = None
    """Learning rate of the session embedding at the first step."""
    encoder_steps: int | None = None
    """Steps behind those, in which the encoder's weights are fitted too; 0 fits none."""
    lr_encoder: float | None = None
    """Their learning rate at the first of these steps."""
    judged_on_the_way: int | None = None
    """Held-out samples of each fold in judgements while fitting."""
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
    unit_dropout: float = 0.0
    """Share of the units that a window goes without, at most; for each window it is drawn between 0
    and this. A session that was fitted so loses less with units that fall silent later, and fits
    what it hears less closely."""
    patience: int = 3
    """Stop after this many judgements without a better one."""
    n_folds: int = 3
    n_blocks: int = 6
    """Blocks of labelled time that are dealt to the folds; fewer, one for each fold at least,
    where they would be shorter than two windows."""
    most_judged: int = 200
    """Held-out samples of each fold that the result is judged by."""
    mix: bool = True
    """Whether a Wiener filter on the same labels is mixed in where that decodes held-out blocks
    better (``calibration.fit.beside``)."""

    def __post_init__(self) -> None:
        for name in ("patience", "most_judged"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected an integer >= 1, got {getattr(self, name)!r}")
        for name in ("steps", "judge_every", "batch_size", "judged_on_the_way"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: expected an integer >= 1 or None, got {value!r}")
        if self.encoder_steps is not None and self.encoder_steps < 0:
            raise UsageError(
                f"encoder_steps: expected an integer >= 0 or None, got {self.encoder_steps!r}"
            )
        for name in ("lr_units", "lr_session", "lr_encoder"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name}: expected a number > 0 or None, got {value!r}")
        for name in ("clip_norm", "most_z", "tail_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: expected a number > 0, got {getattr(self, name)!r}")
        if not 0 <= self.unit_dropout < 1:
            raise UsageError(f"unit_dropout: expected 0 <= share < 1, got {self.unit_dropout!r}")
        for name in ("pull", "early_weight"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"{name}: expected a number >= 0, got {value!r}")
        if not 2 <= self.n_folds <= self.n_blocks:
            raise UsageError(
                f"n_folds: expected from 2 to n_blocks ({self.n_blocks}), got {self.n_folds!r}"
            )

    def steps_for(self, seconds: float) -> int:
        """Steps of the long schedule for so many labelled seconds, unless ``steps`` says them."""
        return long_schedule(seconds).steps if self.steps is None else self.steps

    def over(self, schedule: Schedule) -> Schedule:
        """A schedule with what is given here in the place of its own."""
        own = {name: getattr(self, name, None) for name in schedule.__dataclass_fields__}
        given = {name: value for name, value in own.items() if value is not None}
        return dataclasses.replace(schedule, **given)

    def blocks_for(self, seconds: float, window_s: float) -> int:
        """Blocks for so many labelled seconds."""
        return max(self.n_folds, min(self.n_blocks, int(seconds / (2 * window_s))))


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Tables:
    """Unit embeddings (U, D) and session embedding (D,), float32."""

    units: Float32
    session: Float32
    encoder: dict[str, Float32] | None = None
    """The encoder's weights (``ENCODER_WEIGHTS``), where they are not the model's."""
    wiener: MixedFilter | None = None
    """A filter that is mixed with what the model decodes (``calibration.fit.beside``)."""
    from_afar: bool = False
    """Whether they are the start of units whose electrodes nobody knows."""


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
        schedule: Schedule | None = None,
    ) -> None:
        """Prepare a fit.

        ``seconds`` of labels set the pull; None takes all of ``labels``. A ``schedule`` of None is
        the one of ``settings`` for so many seconds.
        """
        seconds = labels.seconds if seconds is None else seconds
        self._schedule = schedule or settings.over(schedule_for(seconds, adapter.spec))
        self._adapter = adapter
        self._root = prior.unit_root
        self._labels = labels
        self._fold = fold
        self._settings = settings
        self._start = start
        self._seed = list(seed)
        self.total = self._schedule.steps
        """Steps of the schedule. Fewer while it runs let the learning rate fall sooner."""
        self.most_judged = self._schedule.judged_on_the_way
        """Most samples that ``judged`` gives."""
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
        """How far it has gone from the first guess: the units' z (U, D), the session (D,), and the
        encoder's weights where they are fitted."""
        self.more = self._schedule.encoder_steps if adapter.fits_encoder else 0
        """Steps behind ``total``, in which the encoder's weights are fitted too."""
        self._encoder = dict[str, Float32]()
        if self.more or start.encoder is not None:
            self._encoder = start.encoder or adapter.encoder_weights()
        if self.more:
            self.moved |= {name: np.zeros_like(array) for name, array in self._encoder.items()}
            self.optimizer.since = dict.fromkeys(self._encoder, self.total)

    def begin_with(self, schedule: Schedule) -> None:
        """Another schedule, without steps for the encoder, before the first step."""
        self._schedule, self.total, self.more = schedule, schedule.steps, 0

    def take(self, steps: int) -> None:
        """Take so many steps in all, those for the encoder last."""
        self.total = min(steps, self._schedule.steps)
        self.more = steps - self.total

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.optimizer.steps

    def step(self) -> float:
        """One optimiser step; returns the loss of its batch.

        Raises:
            CheckFailedError: loss or gradients are not finite.
        """
        tables, z, encoder = self.tables(), self.moved["z"], self.steps >= self.total
        batch = self._adapter.batch(self._labels, self._window_ends(), self._weighting)
        if self._settings.unit_dropout:
            rng = np.random.default_rng([*self._seed, self.steps, _DROPPED])
            batch = without_units(batch, self._labels.n_units, self._settings.unit_dropout, rng)
        own, of_encoder = tables.encoder or (self._encoder if encoder else None), {}
        if own is None:
            loss, units, session = self._adapter.gradients(batch, tables.units, tables.session)
        else:
            given = {ENCODER + name: array for name, array in own.items()}
            given |= {UNITS: tables.units, SESSION: tables.session}
            loss, found = self._adapter.gradients_of(batch, given)
            units, session = found[UNITS], found[SESSION]
            if encoder:
                of_encoder = {name: found[ENCODER + name] for name in self._encoder}
        z_gradient = units @ self._root + 2 * self._pull * z
        gradients = {"z": z_gradient, "session": session, **of_encoder}
        if not (np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients.values())):
            raise CheckFailedError(
                f"calibration: expected finite loss and gradients, got loss {loss} at step "
                f"{self.steps + 1}; check the labels"
            )
        self.optimizer.step(self.moved, gradients, self._rates(encoder))
        np.clip(z, -self._settings.most_z, self._settings.most_z, out=z)
        return loss

    def _rates(self, encoder: bool) -> dict[str, float]:
        """Learning rates of the next step."""
        schedule = self._schedule
        if not encoder:
            factor = cosine(self.steps, self.total)
            return {"z": schedule.lr_units * factor, "session": schedule.lr_session * factor}
        rate = schedule.lr_encoder * cosine(self.steps - self.total, self.more)
        return {"z": _Z_BESIDE * rate, "session": rate, **dict.fromkeys(self._encoder, rate)}

    def tables(self) -> Tables:
        """The embeddings as they are now, and the encoder's weights where they are others."""
        units = self._start.units + self.moved["z"] @ self._root.T
        session = self._start.session + self.moved["session"]
        encoder = self._start.encoder
        if self.more and self.steps > self.total:
            encoder = {name: array + self.moved[name] for name, array in self._encoder.items()}
        return Tables(
            units=units.astype(np.float32), session=session.astype(np.float32), encoder=encoder
        )

    def _window_ends(self) -> Int64:
        """Samples at which the windows of the next batch end: one in each of as many stretches.

        Random within equal stretches of the labelled time, a batch has less variance than with
        windows from anywhere. In the short schedule each stretch is walked in steps of the golden
        ratio of its length from a random place, so that after any number of steps all its parts
        have been seen about equally often (a Kronecker sequence: Kuipers and Niederreiter 1974):
        with independent places, fits of few windows differ from seed to seed by what they saw.
        """
        train = self._fold.train
        size = min(self._schedule.batch_size, len(train))
        if self._schedule.walking:
            begin = np.random.default_rng(self._seed).random(size)
            place = (begin + self.steps * _GOLDEN_RATIO) % 1.0
        else:
            place = np.random.default_rng([*self._seed, self.steps]).random(size)
        at = ((np.arange(size) + place) * len(train) / size).astype(np.int64)
        return train[np.minimum(at, len(train) - 1)]

    def judged(self) -> Int64:
        """Held-out samples, evenly thinned to ``most_judged``."""
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
        return max(1, -(-len(self._fold.judge) // self.most_judged))

    def predict_judged(self) -> Float64:
        """Causal predictions (S, O) at ``judged``, in behaviour units."""
        return self.predict_with(self.tables())

    def predict_with(self, tables: Tables) -> Float64:
        """The same with other embeddings."""
        samples = self.judged()
        return self._adapter.predict(
            self._labels, samples, tables.units, tables.session, tables.encoder, tables.wiener
        )
