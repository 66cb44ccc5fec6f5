"""How a model is trained: sizes, behaviour, optimiser and data options, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from poyo_edge.errors import UsageError
from poyo_edge.spec import ModelSpec, OutputScale


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained."""

    spec: ModelSpec
    behavior: str = "cursor.vel"
    scale: OutputScale | None = None
    """Scale and offset of the behaviour; None takes the standard deviation in the train split."""
    split: str = "train"
    steps: int = 1000
    batch_size: int = 32
    lr: float = 2e-3
    """Peak of the one-cycle schedule."""
    warmup_share: float = 0.1
    """Part of the steps in which the learning rate rises."""
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ffn_dropout: float = 0.2
    lin_dropout: float = 0.4
    atn_dropout: float = 0.0
    unit_dropout: tuple[int, int, int] | None = None
    """Fewest, most frequent and largest number of units kept in a window; None keeps all."""
    tail_s: float = 0.1
    """The end of the window in which samples weigh ``tail_weight`` instead of 1."""
    tail_weight: float = 5.0
    seed: int = 0
    threads: int | None = None
    """Threads of torch while training on a CPU; None leaves them as they are."""

    def __post_init__(self) -> None:
        spec = self.spec
        if spec.ffn_mult != 4 or spec.rotating_pairs * 4 != spec.dim_head:
            raise UsageError(
                f"spec: expected ffn_mult 4 and rotating_pairs = dim_head / 4, as torch_brain "
                f"builds its models, got {spec.ffn_mult}, {spec.rotating_pairs}, {spec.dim_head}"
            )
        for name in ("steps", "batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: expected an integer >= 1, got {value}")
        for name in ("lr", "clip_norm", "tail_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name}: expected a number > 0, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay: expected a number >= 0, got {self.weight_decay}")
        for name in ("ffn_dropout", "lin_dropout", "atn_dropout", "warmup_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 0 <= number < 1, got {getattr(self, name)}")
        fewest, mode, most = self.unit_dropout or (1, 2, 2)
        if not 0 < fewest < mode <= most:
            raise UsageError(
                f"unit_dropout: expected 0 < fewest < most frequent <= largest, "
                f"got {self.unit_dropout}"
            )


DEMO_RECIPE = Recipe(
    spec=ModelSpec(
        dim=32,
        depth=2,
        dim_head=32,
        cross_heads=2,
        self_heads=4,
        latents_per_step=4,
        dim_out=2,
        rotating_pairs=8,
    ),
    scale=OutputScale(scale=(10.0,), unit="cm/s"),
    steps=600,
    batch_size=32,
    lr=4e-3,
    ffn_dropout=0.0,
    lin_dropout=0.1,
    unit_dropout=(30, 59, 60),
    tail_weight=10.0,
    threads=1,
)
"""Small enough for a CPU and two minutes, for simulated sessions of 60 units.

One thread: on a model this small a second one saves little when the machine is idle, and waits
for the first most of the time when it is not.
"""
