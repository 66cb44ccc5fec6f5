"""What a POYO model is made of, as plain data: sizes, time window, output scale."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.records import JsonRecord, is_number, require_fields

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


POYO_1_3M = ModelSpec(
    dim=64, depth=6, dim_head=64, cross_heads=2, self_heads=8, latents_per_step=16, dim_out=2
)
"""The published single-session size: 1.3 million parameters."""

POYO_11_8M = ModelSpec(
    dim=128, depth=24, dim_head=64, cross_heads=4, self_heads=8, latents_per_step=32, dim_out=2
)
"""The published POYO-MP and POYO-1 size: 11.8 million parameters."""
