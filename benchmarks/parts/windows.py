"""Random windows. Legend: B batch, N spikes."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from poyo_edge.spec import ModelSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A random window, or a batch of them with equally many spikes; queried at the end."""

    spike_time: npt.NDArray[np.float32]
    """(B, N) seconds from the start, ascending."""
    spike_unit: npt.NDArray[np.int32]
    """(B, N) rows of the session's units."""
    n_units: int


def random_window(
    spec: ModelSpec, n_units: int, n_spikes: int, rng: np.random.Generator, *, batch: int = 1
) -> Window:
    """Spikes at uniform times, of units with unequal rates."""
    rate, shape = rng.gamma(1.0, size=n_units), (batch, n_spikes)
    return Window(
        spike_time=np.sort(rng.uniform(0, spec.window_seconds, shape)).astype(np.float32),
        spike_unit=rng.choice(n_units, shape, p=rate / rate.sum()).astype(np.int32),
        n_units=n_units,
    )
