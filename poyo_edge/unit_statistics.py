"""What unlabelled activity says about each unit: the same numbers in training and on the device.

Legend: M spikes, U units, K intervals, N bins, F statistics, C keys, A animals, D model dim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32, Float64, Int64
from poyo_edge.errors import UsageError

BIN_S, SLOW_BINS = 0.05, 10
"""Bins of 50 ms, and of ten of them."""
NAMES = (
    "log_rate",
    "log_sd",
    "log_fano_slow",
    "lag_1",
    "with_population",
    "session_log_rate",
)
"""log(1/s) of the rate; log of the counts' standard deviation; log of variance over mean of counts
in 0.5 s; correlation of neighbouring bins; correlation with all other units in 0.5 s; and the mean
of ``log_rate`` over the session's units."""
LEAST_S = 10.0
"""Seconds below which nothing can be said."""
GUESS = "guess"
"""Before the names of a ``UnitGuess`` in files, and the key of what is no tensor."""
GUESS_NAMES = ("keys", "subjects", "statistics")
GUESS_TENSORS = ("mean", "sd", "shared", "weight", "session_shared")
MOST_SD = 4.0
"""Statistics farther from those of trained units count as that far."""
_RATE_FLOOR, _SD_FLOOR = 0.1, 0.02


def unit_statistics(
    spike_times: Float64,
    spike_units: npt.NDArray[np.integer],
    n_units: int,
    intervals: Iterable[tuple[float, float]] | Float64,
) -> Float64:
    """Statistics of each unit's activity, (U, F) float64, in the order of ``NAMES``.

    Args:
        spike_times: (M,) seconds, ascending.
        spike_units: (M,) rows of the units.
        n_units: U.
        intervals: (K, 2) seconds in which spikes were recorded.

    Raises:
        UsageError: less than ``LEAST_S`` in the intervals.
    """
    pieces = [_binned(spike_times, spike_units, n_units, a, b) for a, b in intervals]
    counts = np.concatenate([np.zeros((0, n_units)), *pieces])
    if len(counts) * BIN_S < LEAST_S:
        raise UsageError(
            f"unit statistics: expected at least {LEAST_S:g} s of spikes, got "
            f"{len(counts) * BIN_S:.2f} s"
        )
    rate, sd = counts.mean(0) / BIN_S, counts.std(0)
    centred = (counts - counts.mean(0)) / np.maximum(sd, _SD_FLOOR)
    whole = len(counts) // SLOW_BINS * SLOW_BINS
    slow = counts[:whole].reshape(-1, SLOW_BINS, n_units).sum(1)
    log_rate = np.log(rate + _RATE_FLOOR)
    return np.stack(
        [
            log_rate,
            np.log(sd + _SD_FLOOR),
            np.log((slow.var(0) + _SD_FLOOR) / (slow.mean(0) + _SD_FLOOR)),
            (centred[1:] * centred[:-1]).mean(0),
            _with_others(slow),
            np.full(n_units, log_rate.mean()),
        ],
        axis=-1,
    )


def _binned(
    times: Float64, units: npt.NDArray[np.integer], n_units: int, start: float, end: float
) -> Float64:
    """Counts (N, U) of whole bins from ``start`` on."""
    n_bins = int((end - start) / BIN_S + 1e-6)
    first, last = np.searchsorted(times, [start, start + n_bins * BIN_S])
    bins: Int64 = ((times[first:last] - start) / BIN_S).astype(np.int64)
    flat = np.minimum(bins, n_bins - 1) * n_units + units[first:last]
    counts = np.bincount(flat, minlength=n_bins * n_units)
    return counts.reshape(n_bins, n_units).astype(np.float64)


def _with_others(slow: Float64) -> Float64:
    """Correlation of each unit with the standardised sum of all others, (U,)."""
    scaled = (slow - slow.mean(0)) / np.maximum(slow.std(0), _SD_FLOOR)
    others = scaled.sum(1, keepdims=True) - scaled
    size = np.maximum(others.std(0), _SD_FLOOR)
    return np.asarray((scaled * (others - others.mean(0)) / size).mean(0), dtype=np.float64)


def electrode_of(unit_id: str) -> str:
    """The part of a unit's id that stays from day to day: what follows the last "/"."""
    return unit_id.rpartition("/")[2]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitGuess:
    """What training has found that units of a new session are like, before any label.

    An embedding is guessed as ``shared[key] + ((statistics - mean) / sd) @ weight``, and the
    session's as that of its subject; what is not known by name takes the mean of those that are.
    """

    keys: tuple[str, ...]
    """(C,) "SUBJECT/ELECTRODE"."""
    subjects: tuple[str, ...]
    """(A,) animals."""
    statistics: tuple[str, ...]
    """(F,) names of the statistics."""
    mean: Float32
    """(F,) of the statistics of all trained units, and their spread."""
    sd: Float32
    shared: Float32
    """(C, D)."""
    weight: Float32
    """(F, D)."""
    session_shared: Float32
    """(A, D)."""

    def __post_init__(self) -> None:
        dim = self.shared.shape[-1]
        wanted = {
            "mean": (len(NAMES),), "sd": (len(NAMES),), "weight": (len(NAMES), dim),
            "shared": (len(self.keys), dim), "session_shared": (len(self.subjects), dim),
        }  # fmt: skip
        for name, shape in wanted.items():
            found = getattr(self, name)
            if found.shape != shape or not np.isfinite(found).all():
                raise UsageError(f"{name}: expected finite values {shape}, got {found.shape}")
        if self.statistics != NAMES or not self.keys or not self.subjects:
            raise UsageError(
                f"statistics: expected {', '.join(NAMES)} and at least one key and subject, got "
                f"{', '.join(self.statistics)}; use the version of poyo-edge that wrote them"
            )

    def units(
        self, unit_ids: Sequence[str], subject: str | None, statistics: Float64 | None
    ) -> Float32:
        """Embeddings of units, (U, D) float32.

        Args:
            unit_ids: ids of the units.
            subject: the animal; None takes units of that electrode in any.
            statistics: (U, F) of ``unit_statistics``; None leaves them out.
        """
        rows: dict[str, list[int]] = {}
        for row, key in enumerate(self.keys):
            owner, _, electrode = key.rpartition("/")
            if subject is None or owner == subject:
                rows.setdefault(electrode, []).append(row)
        everything = list(range(len(self.keys)))
        found = np.stack(
            [self.shared[rows.get(electrode_of(unit), everything)].mean(0) for unit in unit_ids]
        )
        if statistics is not None:
            scaled = np.clip((statistics - self.mean) / self.sd, -MOST_SD, MOST_SD)
            found = found + scaled @ self.weight
        return np.asarray(found, dtype=np.float32)

    def session(self, subject: str | None) -> Float32:
        """Embedding of a session, (D,) float32."""
        if subject in self.subjects:
            return np.asarray(self.session_shared[self.subjects.index(subject)])
        return np.asarray(self.session_shared.mean(0), dtype=np.float32)

    def knows(self, unit_ids: Sequence[str], subject: str | None) -> int:
        """How many of the units sit at an electrode that was trained."""
        known = {key for key in self.keys if subject is None or key.startswith(f"{subject}/")}
        return sum(electrode_of(unit) in {electrode_of(key) for key in known} for unit in unit_ids)
