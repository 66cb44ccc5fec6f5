"""How long a fit is: steps and windows for so many labelled seconds and so large a model.

There are two schedules. The long one takes steps of 32 windows and is judged often; where a window
is cheap, nothing is gained by less. It has a second stage, for the encoder's weights. The short one
takes steps of 4 windows, whose number is what a large model can afford (docs/performance.md has
both). Which one a fit gets follows from the labels and the model alone, never from the machine, so
that the same labels give the same session.
"""

from __future__ import annotations

import dataclasses
import math

from poyo_edge.spec import ModelSpec

_SECONDS, _GROWTH = 120.0, 0.7
_CHEAP_FLOP = 2e8
"""Of one window of a small model: 2 layers of 64 dimensions have 0.7e8, the published 1.3M 5e8."""
_DEAR_FLOP = 2e9
"""From here on the folds take most of the time by far: the published 11.8M has 9e9."""
_SHARE_OF_FOLDS, _SHARE_WHERE_DEAR = 0.5, 0.25
_SPIKES = 800
"""In a window, when windows of models are compared."""
_FEWEST_FROM_PRIOR = 40
"""Long steps where no unit is known: the way from the prior is long."""
_ENCODER_STEPS, _LR_ENCODER, _MOST_LR_ENCODER, _LR_ENCODER_FROM_PRIOR = 60, 3e-4, 1e-3, 2e-3
"""Of the second stage, for 120 labelled seconds: steps; learning rate where units are known, in
proportion to the seconds up to the most; and that in an animal that training has not seen, where
keys and values differ more from those of the model."""
_ENCODER_STEPS_FROM_AFAR = 180
"""The same where training knows units of other animals, and none of these."""
_ENCODER_FROM_S = 60.0
"""Labelled seconds that the second stage needs where units are known."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Steps of one fit. The learning rates fall to 0 within them."""

    steps: int
    batch_size: int
    """Windows of one step of the fit on all labels."""
    share_of_folds: float = 1.0
    """Of them that a fold's fit takes, which has fewer labels to learn from."""
    judge_every: int
    judged_on_the_way: int
    """Held-out samples of each fold in judgements before the result's."""
    lr_units: float
    lr_session: float
    walking: bool = False
    """Whether windows walk evenly over the labels (``Fit``), or lie anywhere in their stretch."""
    encoder_steps: int = 0
    """Steps behind these, in which the encoder's weights are fitted too."""
    lr_encoder: float = 3e-4

    @property
    def windows(self) -> int:
        """Of the steps for the embeddings."""
        return self.steps * self.batch_size

    def of_a_fold(self) -> Schedule:
        """The same for a fold's fit."""
        windows = max(1, round(self.share_of_folds * self.batch_size))
        return dataclasses.replace(self, batch_size=windows, share_of_folds=1.0)


_LONG = Schedule(
    steps=80,
    batch_size=32,
    judge_every=10,
    judged_on_the_way=200,
    lr_units=0.1,
    lr_session=5e-3,
)
_SHORT = Schedule(
    steps=240,
    batch_size=4,
    judge_every=80,
    judged_on_the_way=80,
    lr_units=0.05,
    lr_session=2.5e-3,
    walking=True,
)
"""Both for 120 labelled seconds."""
_FEWEST_LONG_STEPS, _FEWEST_SHORT_STEPS, _MOST_GROWTH = 20, 60, 3.0


def long_schedule(seconds: float, *, from_prior: bool = False) -> Schedule:
    """Steps of 32 windows, 80 for 120 labelled seconds, in proportion to their number^0.7."""
    fewest = _FEWEST_FROM_PRIOR if from_prior else _FEWEST_LONG_STEPS
    return dataclasses.replace(_LONG, steps=max(fewest, int(_LONG.steps * _growth(seconds))))


def with_encoder(
    schedule: Schedule, seconds: float, *, from_prior: bool = False, from_afar: bool = False
) -> Schedule:
    """The same with a second stage where labels allow: 60 steps for 120 labelled seconds (180 for
    an animal that training does not know beside others), in proportion to their number^0.35."""
    if not from_prior and seconds < _ENCODER_FROM_S:
        return schedule
    steps = _ENCODER_STEPS_FROM_AFAR if from_afar else _ENCODER_STEPS
    known = min(_LR_ENCODER * seconds / _SECONDS, _MOST_LR_ENCODER)
    return dataclasses.replace(
        schedule,
        encoder_steps=int(steps * math.sqrt(_growth(seconds))),
        lr_encoder=_LR_ENCODER_FROM_PRIOR if from_prior else known,
    )


def short_schedule(seconds: float) -> Schedule:
    """Steps of 4 windows, 240 for 120 labelled seconds; more with their number^0.7, fewer with
    that^0.35."""
    growth = _growth(seconds)
    share = math.sqrt(growth) if growth < 1.0 else growth
    return dataclasses.replace(_SHORT, steps=max(_FEWEST_SHORT_STEPS, int(_SHORT.steps * share)))


def schedule_for(
    seconds: float, spec: ModelSpec, *, from_prior: bool = False, from_afar: bool = False
) -> Schedule:
    """The long schedule where it costs little, with a second stage for small models, else the
    short one.

    It costs little where the model is small, or where labels are so few that the long schedule
    takes no more windows than the short one does for 120 s. Folds of larger models take half as
    many windows as the fit on all labels, those of the largest a quarter.

    Args:
        seconds: labelled.
        spec: of the model.
        from_prior: whether no unit is known, so that few labels need more steps.
        from_afar: whether, besides, training has found what units of other animals are like.
    """
    whole = long_schedule(seconds, from_prior=from_prior)
    if spec.products_flop(_SPIKES) <= _CHEAP_FLOP:
        return with_encoder(whole, seconds, from_prior=from_prior, from_afar=from_afar)
    few = long_schedule(seconds).windows <= _SHORT.windows
    dear = spec.products_flop(_SPIKES) > _DEAR_FLOP
    return dataclasses.replace(
        whole if few else short_schedule(seconds),
        share_of_folds=_SHARE_WHERE_DEAR if dear else _SHARE_OF_FOLDS,
    )


def _growth(seconds: float) -> float:
    return min(math.pow(seconds / _SECONDS, _GROWTH), _MOST_GROWTH)
