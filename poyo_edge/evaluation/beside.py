"""A Wiener filter and a GRU on the labelled seconds that a session was calibrated on.

Both are causal: at a time t they read the bins before t, and nothing at or after it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import RecordingError
from poyo_edge.evaluation.baselines import GRU_BINS, FittedNetwork, Labelled, fit_gru, wiener
from poyo_edge.metrics import r2_per_dim
from poyo_edge.recording import Recording
from poyo_edge.recording.recording import first_seconds, within

VALID_SHARE = 0.15
"""Of the labelled seconds, at their end: where the GRU stops. The filter is fitted to all."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What the two decode of a split that they have not learned from."""

    labelled: Labelled
    """What they were fitted to."""
    gru: FittedNetwork
    r2: dict[str, float]
    """"wiener" and "gru" → causal R², the mean of the dimensions."""


def fit_beside(
    recording: Recording, behavior: str, *, seconds: float, split: str = "test", seed: int = 0
) -> Beside:
    """Fit both to the first labelled seconds of the train split, as ``add_recording`` takes them.

    Args:
        recording: spikes and behaviour.
        behavior: GROUP.KEY.
        seconds: labelled seconds to learn from.
        split: what is judged, at every sample.
        seed: of the GRU.

    Raises:
        RecordingError: no such behaviour or split, or fewer than ten samples to learn from.
    """
    labelled = labelled_seconds(recording, behavior, seconds=seconds)
    if len(labelled.times) < 10:
        raise RecordingError(
            recording.path, "train_domain", expected=f"ten samples of {behavior} in {seconds:g} s",
            got=len(labelled.times), do="take more seconds",
        )  # fmt: skip
    test = labelled_seconds(recording, behavior, split=split)
    last = round(len(labelled.times) * (1 - VALID_SHARE))
    network = fit_gru(_part(labelled, slice(last)), _part(labelled, slice(last, None)), seed=seed)
    decoded = {
        "wiener": wiener(labelled, labelled, test, acausal=False, seed=seed),
        "gru": network(test.counts(GRU_BINS, acausal=False)),
    }
    return Beside(
        labelled=labelled,
        gru=network,
        r2={name: float(np.mean(r2_per_dim(test.values, one))) for name, one in decoded.items()},
    )


def labelled_seconds(
    recording: Recording, behavior: str, *, seconds: float = np.inf, split: str = "train"
) -> Labelled:
    """The finite samples of the first seconds of a split, and all spikes.

    Raises:
        RecordingError: no such behaviour or split.
    """
    series = recording.behavior(behavior, allow_nan=True)
    taken = within(series.times, first_seconds(recording.intervals(split), seconds))
    taken &= np.isfinite(series.values).all(1)
    return Labelled(
        spike_times=recording.spike_times,
        spike_units=recording.spike_units,
        n_units=len(recording.unit_ids),
        times=series.times[taken],
        values=_double(series.values[taken]),
    )


def _part(labelled: Labelled, rows: slice) -> Labelled:
    return labelled._replace(times=labelled.times[rows], values=labelled.values[rows])


def _double(values: object) -> Float64:
    return np.asarray(values, np.float64)
