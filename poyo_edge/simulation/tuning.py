"""How the units of a simulated array are tuned: from velocities to firing rates.

Cosine tuning with speed modulation (Moran and Schwartz 1999): the drive of a unit is
``weights · v + speed_weight · |v|`` in Hz, and its rate is a ``Shape`` of base and drive.

Legend: U units, D dimensions of the velocity.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import numpy as np

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import UsageError

Range = tuple[float, float]
Shape = Literal["rectified", "softplus", "exponential", "saturating"]
SHAPES: tuple[str, ...] = get_args(Shape)
_SOFT_HZ = 2.0
"""Width of the knee of "softplus"."""
_MOST_HZ = 400.0
"""No unit fires faster."""
_LEAST_HZ = 0.1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TuningRanges:
    """What the tuning of units is drawn from, uniformly; as ``simulate`` draws its recordings."""

    base_hz: Range = (2.0, 10.0)
    """Rate at rest."""
    gain_hz: Range = (6.0, 18.0)
    """Rate added at ``typical_cm_s`` in the preferred direction."""
    speed_share: Range = (0.0, 0.4)
    """Part of the gain that follows speed alone."""
    lead_s: Range = (0.05, 0.15)
    """How long before the movement a unit fires."""
    typical_cm_s: float = 15.0

    def __post_init__(self) -> None:
        for name in ("base_hz", "gain_hz", "speed_share", "lead_s"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < np.inf:
                raise UsageError(f"{name}: expected 0 <= low <= high, got {(low, high)}")
        if not 0 < self.typical_cm_s < np.inf:
            raise UsageError(f"typical_cm_s: expected a number > 0, got {self.typical_cm_s}")


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Tuning:
    """Tuning of all units. It changes where an array drifts."""

    base: Float64
    """(U,) Hz at rest."""
    weights: Float64
    """(U, D) Hz for each cm/s."""
    speed_weight: Float64
    """(U,) Hz for each cm/s of speed, in any direction."""
    lead: Float64
    """(U,) seconds that a unit fires before the movement."""
    scale: Float64
    """(U,) factor of the rate, 1 before any drift; 0 for a unit that is lost."""
    typical_cm_s: float
    shape: Shape = "rectified"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UsageError(f"shape: expected one of {list(SHAPES)}, got {self.shape!r}")

    @classmethod
    def draw(
        cls, n_units: int, ranges: TuningRanges, rng: np.random.Generator, shape: Shape
    ) -> Tuning:
        """Units with preferred directions in the plane, drawn independently."""
        angle = rng.uniform(0.0, 2 * np.pi, n_units)
        base, gain, share, lead = (
            rng.uniform(*limits, n_units)
            for limits in (ranges.base_hz, ranges.gain_hz, ranges.speed_share, ranges.lead_s)
        )
        slope = gain / ranges.typical_cm_s
        return cls(
            base=base,
            weights=slope[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1),
            speed_weight=slope * share,
            lead=lead,
            scale=np.ones(n_units),
            typical_cm_s=ranges.typical_cm_s,
            shape=shape,
        )

    def __len__(self) -> int:
        return len(self.base)

    def rates(self, velocity: Float64) -> Float64:
        """(U,) Hz, where each unit sees its own velocity (U, D) in cm/s."""
        speed = np.sqrt(np.einsum("ud,ud->u", velocity, velocity))
        drive = np.einsum("ud,ud->u", self.weights, velocity) + self.speed_weight * speed
        return self.scale * self._shaped(drive)

    def _shaped(self, drive: Float64) -> Float64:
        """(U,) Hz of the drive (U,) in Hz.

        - rectified: ``max(0, base + drive)``.
        - softplus: the same with a knee of 2 Hz.
        - exponential: ``base · exp(…)``, equal to "rectified" at rest and at the typical speed in
          the preferred direction.
        - saturating: drives upward end at twice the rate that the typical speed adds.
        """
        base, shape = self.base, self.shape
        if shape == "rectified":
            rate = base + drive
        elif shape == "softplus":
            rate = _SOFT_HZ * np.logaddexp(0.0, (base + drive) / _SOFT_HZ)
        else:
            gain = np.maximum(self.typical_cm_s * np.sqrt((self.weights**2).sum(1)), _LEAST_HZ)
            if shape == "exponential":
                low = np.maximum(base, _LEAST_HZ)
                rate = low * np.exp(np.minimum(drive / gain * np.log1p(gain / low), 10.0))
            else:
                top = 2.0 * gain
                rate = base + np.where(drive > 0, top * np.tanh(drive / top), drive)
        return np.clip(rate, 0.0, _MOST_HZ)

    def turn(self, angles: Float64) -> None:
        """Turn preferred directions by angles (U,) in radians, in the plane."""
        cos, sin = np.cos(angles), np.sin(angles)
        x, y = self.weights[:, 0].copy(), self.weights[:, 1].copy()
        self.weights[:, 0], self.weights[:, 1] = cos * x - sin * y, sin * x + cos * y

    def like(self, rows: Int64, rng: np.random.Generator) -> Tuning:
        """Other units (K,), as fit to this array as those in ``rows``: turned anywhere."""
        others = Tuning(
            base=self.base[rows],
            weights=self.weights[rows],
            speed_weight=self.speed_weight[rows],
            lead=self.lead[rows],
            scale=np.ones(len(rows)),
            typical_cm_s=self.typical_cm_s,
            shape=self.shape,
        )
        others.turn(rng.uniform(0.0, 2 * np.pi, len(rows)))
        return others

    def exchange(self, rows: Int64, others: Tuning) -> None:
        """Other units take the place of those in ``rows`` (K,); ``others`` are K units."""
        for name in ("base", "weights", "speed_weight", "lead", "scale"):
            getattr(self, name)[rows] = getattr(others, name)
