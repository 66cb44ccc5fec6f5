"""Is a checkpoint alive, and would its weights survive FP16?

Training runs have been published whose matrices had collapsed to almost nothing; such a
checkpoint loads and exports like any other and decodes badly. This is where it shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from poyo_edge.records import JsonRecord

DEAD_RMS = 1e-5
"""A matrix whose entries have a smaller root mean square passes on nothing."""
DEGENERATE_RANK = 2.0
"""A matrix whose singular values count for fewer directions than this is degenerate."""
_LOOKUP_TABLES = ("unit_emb.weight", "session_emb.weight", "token_type_emb.weight")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WeightHealth(JsonRecord):
    """What was found in the weights."""

    n_matrices: int
    dead: tuple[str, ...]
    """Matrices with a root mean square below ``DEAD_RMS``."""
    degenerate: tuple[str, ...]
    """Matrices that are not dead, but point in fewer than ``DEGENERATE_RANK`` directions."""
    fp16_zero: int
    """Weights other than 0 that FP16 rounds to 0."""
    fp16_subnormal: int
    """Weights that FP16 keeps with fewer than 11 bits."""
    fp16_inf: int
    """Weights beyond the range of FP16."""

    @property
    def sentence(self) -> str:
        """One line for people."""
        return (
            f"{self.n_matrices} matrices: {len(self.dead)} dead, {len(self.degenerate)} degenerate"
            f"; in FP16 {self.fp16_zero} weights become 0, {self.fp16_subnormal} subnormal, "
            f"{self.fp16_inf} infinite"
        )


def weight_health(weights: Mapping[str, npt.NDArray[np.floating]]) -> WeightHealth:
    """Examine a ``state_dict`` (name → array, without vocabularies)."""
    layers = {
        name: np.asarray(array, np.float64)
        for name, array in weights.items()
        if array.ndim == 2 and name not in _LOOKUP_TABLES
    }
    dead = tuple(name for name, w in layers.items() if np.sqrt((w**2).mean()) < DEAD_RMS)
    degenerate = tuple(
        name
        for name, w in layers.items()
        if name not in dead and min(w.shape) > 2 and _directions(w) < DEGENERATE_RANK
    )
    values = np.concatenate([np.abs(np.asarray(array)).ravel() for array in weights.values()])
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    smallest = np.finfo(np.float16).smallest_normal
    return WeightHealth(
        n_matrices=len(layers),
        dead=dead,
        degenerate=degenerate,
        fp16_zero=int(((half == 0) & (values != 0)).sum()),
        fp16_subnormal=int(((half != 0) & (half < smallest)).sum()),
        fp16_inf=int(np.isinf(half).sum()),
    )


def _directions(matrix: npt.NDArray[np.float64]) -> float:
    """Participation ratio of the squared singular values: how many directions carry the energy."""
    energy = np.linalg.svd(matrix, compute_uv=False) ** 2
    return float(energy.sum() ** 2 / (energy**2).sum())
