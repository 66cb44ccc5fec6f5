"""A mixed filter that knows the names of its units."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from poyo_edge.errors import UsageError
from poyo_edge.filters.mixed import MixedFilter


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NamedFilter:
    """A filter, and whose spikes it weighs."""

    unit_ids: tuple[str, ...]
    """(U,), in the order of its weights."""
    mixed: MixedFilter

    def __post_init__(self) -> None:
        n_units, n_rows = len(set(self.unit_ids)), len(self.mixed.weights)
        if not n_units == len(self.unit_ids) == n_rows:
            raise UsageError(
                f"mixed filter: expected {n_rows} unit ids, each once, got {len(self.unit_ids)}, "
                f"{n_units} of them different"
            )

    def of(self, unit_ids: Sequence[str]) -> MixedFilter:
        """The same for other units, in their order; one that it does not know weighs nothing."""
        row = {unit: i for i, unit in enumerate(self.unit_ids)}
        rows = np.array([row.get(unit, len(row)) for unit in unit_ids], np.int64)
        nothing = np.zeros((1, *self.mixed.weights.shape[1:]), np.float32)
        padded = dataclasses.replace(
            self.mixed, weights=np.concatenate([self.mixed.weights, nothing])
        )
        return padded.of_units(rows)
