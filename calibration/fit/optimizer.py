"""AdamW and its learning-rate schedule in numpy.

Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2, as in ``torch.optim.AdamW``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from poyo_edge.arrays import Float32

Tables = Mapping[str, Float32]
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class AdamW:
    """The optimiser's state for a few named tables."""

    weight_decay: float = 0.0
    """Share of a value that a step at learning rate 1 takes away."""
    clip_norm: float = math.inf
    """Largest norm of all gradients together; larger ones are scaled down."""
    steps: int = 0
    mean: dict[str, Float32] = dataclasses.field(default_factory=dict)
    square: dict[str, Float32] = dataclasses.field(default_factory=dict)
    since: dict[str, int] = dataclasses.field(default_factory=dict)
    """Steps that had been taken when a table was first moved; 0 of those that are not named."""

    def step(self, tables: dict[str, Float32], gradients: Tables, lr: Mapping[str, float]) -> None:
        """Move the tables in place.

        Args:
            tables: name → values.
            gradients: name → gradient of the same shape.
            lr: name → learning rate.
        """
        self.steps += 1
        norm = math.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
        shrink = min(1.0, self.clip_norm / norm) if norm > 0 else 1.0
        for name, gradient in gradients.items():
            scaled = gradient * np.float32(shrink)
            zeros = np.zeros_like(scaled)
            mean = _BETA1 * self.mean.get(name, zeros) + (1 - _BETA1) * scaled
            square = _BETA2 * self.square.get(name, zeros) + (1 - _BETA2) * scaled**2
            self.mean[name], self.square[name] = mean, square
            steps = self.steps - self.since.get(name, 0)
            unbiased = mean / (1 - _BETA1**steps)
            scale = np.sqrt(square / (1 - _BETA2**steps)) + _EPS
            tables[name] *= np.float32(1 - lr[name] * self.weight_decay)
            tables[name] -= (lr[name] * unbiased / scale).astype(np.float32)


def cosine(step: int, total: int, *, warmup: int = 0, last: float = 0.0) -> float:
    """Factor of the learning rate at a step counted from 0: a rise, then half a cosine down.

    Args:
        step: from 0 to ``total - 1``.
        total: number of steps.
        warmup: steps in which the factor rises to 1.
        last: the factor at the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
