"""What a POYO model is made of, as plain data: sizes, time window, output scale."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.records import JsonRecord, is_number, require_fields

MOST_OFF = 3.0
"""Times that a behaviour's spread may be away from the model's scale before somebody is told."""
_ODD_DIMENSION = 10.0
"""Likewise, of one dimension where the others are near."""
_MOST_LATENTS = 65536
_MOST = 1 << 16
"""Of any size of a model: some hundred times the largest published one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(JsonRecord):
    """Sizes and time window of one POYO model.

    Names follow torch_brain's ``POYO`` where it has one; ``window_s`` is its ``sequence_length``.
    """

    dim: int
    depth: int
    dim_head: int
    cross_heads: int
    self_heads: int
    latents_per_step: int
    dim_out: int
    ffn_mult: int = 4
    rotating_pairs: int = 16
    window_s: float = 1.0
    latent_step_s: float = 0.125

    def __post_init__(self) -> None:
        require_fields(self)
        for name in (
            "dim",
            "dim_head",
            "cross_heads",
            "self_heads",
            "latents_per_step",
            "dim_out",
            "ffn_mult",
        ):
            _require_size(name, getattr(self, name), minimum=1)
        _require_size("depth", self.depth, minimum=0)
        _require_size("rotating_pairs", self.rotating_pairs, minimum=1)
        if self.dim_head % 2 or 2 * self.rotating_pairs > self.dim_head:
            raise UsageError(
                f"dim_head: expected an even number >= 2 * rotating_pairs "
                f"({2 * self.rotating_pairs}), got {self.dim_head}"
            )
        for name in ("window_s", "latent_step_s"):
            value = getattr(self, name)
            if value <= 0:
                raise UsageError(f"{name}: expected seconds > 0, got {value!r}")
        if self.latent_step_s > self.window_s:
            raise UsageError(
                f"latent_step_s: expected at most window_s ({self.window_s}), "
                f"got {self.latent_step_s}"
            )
        if self.window_s / self.latent_step_s * self.latents_per_step > _MOST_LATENTS:
            raise UsageError(
                f"latents: expected at most {_MOST_LATENTS} in a window, "
                f"got {self.latents_per_step} each {self.latent_step_s} s in {self.window_s} s"
            )

    @property
    def latent_steps(self) -> int:
        """Number of latent time steps in a window (torch_brain counts with ``arange``)."""
        return len(np.arange(0, self.window_s, self.latent_step_s))

    @property
    def n_latents(self) -> int:
        """Number of latents L in a window."""
        return self.latent_steps * self.latents_per_step

    def products_flop(self, n_spikes: int) -> float:
        """Floating point operations of the matrix products of one window with one query."""
        latents, dim = self.n_latents, self.dim
        cross, self_ = self.cross_heads * self.dim_head, self.self_heads * self.dim_head
        feed_forward = 3 * self.ffn_mult * dim * dim
        layer = 4 * dim * self_ + 2 * latents * self_ + feed_forward
        encoder = 2 * (n_spikes + 1) * cross + cross * dim + feed_forward
        decoder = 2 * dim * cross
        return 2.0 * latents * (encoder + self.depth * layer + decoder)

    @property
    def window_seconds(self) -> float:
        """The window as float (a JSON file may hold the integer 1)."""
        return float(self.window_s)


def _require_size(name: str, value: int, *, minimum: int) -> None:
    if not minimum <= value <= _MOST:
        raise UsageError(f"{name}: expected an integer from {minimum} to {_MOST}, got {value!r}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OutputScale(JsonRecord):
    """From the model's scale to behaviour: ``value = prediction * scale + offset``.

    ``scale`` and ``offset`` hold one number for all outputs or one per output.
    """

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    unit: str = ""

    def __post_init__(self) -> None:
        for name in ("scale", "offset"):
            values = getattr(self, name)
            if not values or not all(map(is_number, values)):
                raise UsageError(f"{name}: expected finite numbers, got {values!r}")
        if any(v == 0 for v in self.scale):
            raise UsageError(f"scale: expected numbers other than 0, got {self.scale!r}")

    def arrays(self, dim_out: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """``(scale, offset)``, each (dim_out,) float64.

        Raises:
            UsageError: the number of values is neither 1 nor ``dim_out``.
        """
        out = []
        for name in ("scale", "offset"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.size not in (1, dim_out):
                raise UsageError(f"{name}: expected 1 or {dim_out} numbers, got {values.size}")
            out.append(np.broadcast_to(values, (dim_out,)).copy())
        return out[0], out[1]


def spread_remarks(values: Float64, output: OutputScale) -> list[str]:
    """What to say of behaviour (S, D), finite, whose spread is far from the model's scale."""
    factor = factor_to_scale(values, output)
    if factor is None:
        return _odd_dimension(values, output)
    sd = float(np.sqrt(np.square(values.std(0)).mean()))
    scale = float(np.sqrt(np.square(output.scale).mean()))
    unit = f" {output.unit}" if output.unit else ""
    return [
        f"the behaviour has a standard deviation of {sd:.3g}, {1 / factor:.2g} times the model's "
        f"scale ({scale:.3g}{unit}): R² suffers where it is not in the unit that the model was "
        f"trained on; convert it with --behavior-scale {factor:.3g}, which brings it to that scale"
    ]


def _odd_dimension(values: Float64, output: OutputScale) -> list[str]:
    scale, _ = output.arrays(values.shape[1])
    ratio = values.std(0) / np.abs(scale)
    odd = np.flatnonzero((ratio > _ODD_DIMENSION) | (ratio < 1 / _ODD_DIMENSION))
    if not len(odd):
        return []
    unit = f" ({output.unit})" if output.unit else ""
    return [
        f"dimension {odd[0]} of the behaviour has a standard deviation of "
        f"{values[:, odd[0]].std():.3g}, {ratio[odd[0]]:.2g} times the model's scale: is it in "
        f"the unit that the model was trained on{unit}?"
    ]


def factor_to_scale(values: Float64, output: OutputScale) -> float | None:
    """By what to multiply behaviour (S, D) so that its spread is the model's scale.

    None where the two are within ``MOST_OFF`` times of each other, or nothing moves.
    """
    scale, _ = output.arrays(values.shape[1])
    ratio = float(np.sqrt(np.square(values.std(0) / scale).mean()))
    if not ratio > 0 or 1 / MOST_OFF <= ratio <= MOST_OFF:
        return None
    return 1 / ratio


POYO_1_3M = ModelSpec(
    dim=64, depth=6, dim_head=64, cross_heads=2, self_heads=8, latents_per_step=16, dim_out=2
)
"""The published single-session size: 1.3 million parameters."""

POYO_11_8M = ModelSpec(
    dim=128, depth=24, dim_head=64, cross_heads=4, self_heads=8, latents_per_step=32, dim_out=2
)
"""The published POYO-MP and POYO-1 size: 11.8 million parameters."""
