"""How a session's units fired while it was calibrated: what the runtime's health is held against.

Legend: M spikes, U units, S behaviour samples, O outputs, K stretches of recorded time, W windows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32, Float64
from poyo_edge.errors import FileProblemError, UsageError
from poyo_edge.files import tensors

if TYPE_CHECKING:
    from poyo_edge.recording import Recording

_RANGE_PERCENT = (0.5, 99.5)
_FEWEST_WINDOWS = 10
_ARTEFACT, _MOST_ARTEFACTS = 2.0, 0.1
"""Windows of more than so many times the usual spikes are none, unless this share of them is."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activity:
    """Rates of the units over windows of calibration, and the range of what was moved."""

    rate_hz: Float32
    """(U,) mean rate."""
    rate_sd_hz: Float32
    """(U,) standard deviation of the rate from window to window."""
    output_low: Float32
    """(O,) 0.5th percentile of the behaviour, in behaviour units."""
    output_high: Float32
    """(O,) 99.5th percentile of it."""

    def __post_init__(self) -> None:
        n_units, n_outputs = len(self.rate_hz), len(self.output_low)
        shapes = [array.shape for array in self.arrays().values()]
        if shapes != [(n_units,), (n_units,), (n_outputs,), (n_outputs,)]:
            raise UsageError(f"activity: expected shapes (U,), (U,), (O,), (O,), got {shapes}")

    def arrays(self) -> dict[str, Float32]:
        """Name → array, as a session file holds them."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def activity_of(
    spike_times: Float64,
    spike_rows: npt.NDArray[np.integer],
    behavior: Float64,
    *,
    n_units: int,
    stretches: Float64,
    window_s: float,
) -> Activity | None:
    """Measure the activity of labelled data; None where it is shorter than ten windows.

    A few windows of more than twice the usual spikes are left out: they are artefacts.

    Args:
        spike_times: (M,) ascending seconds.
        spike_rows: (M,) rows of the session's units.
        behavior: (S, O) in behaviour units.
        n_units: number of units U.
        stretches: (K, 2) seconds, start and end of what was recorded without a hole.
        window_s: length of the model's window.
    """
    starts = [
        np.arange(int((end - start) / window_s)) * window_s + start for start, end in stretches
    ]
    begins = np.sort(np.concatenate([*starts, np.empty(0)]))
    behavior = behavior[np.isfinite(behavior).all(1)]
    if len(begins) < _FEWEST_WINDOWS or not len(behavior):
        return None
    window = begins.searchsorted(spike_times, side="right") - 1
    inside = (window >= 0) & (spike_times < begins[window] + window_s)
    place = window[inside] * n_units + spike_rows[inside]
    all_WU = np.bincount(place, minlength=len(begins) * n_units).reshape(-1, n_units)
    counts_WU = _without_artefacts(all_WU)
    low, high = np.percentile(behavior, _RANGE_PERCENT, axis=0).astype(np.float32)
    return Activity(
        rate_hz=(counts_WU.mean(0) / window_s).astype(np.float32),
        rate_sd_hz=(counts_WU.std(0) / window_s).astype(np.float32),
        output_low=low,
        output_high=high,
    )


def _without_artefacts(counts_WU: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """The windows, (W, U) spikes, in which not all units fire at once, as when a cable moves."""
    total = counts_WU.sum(1)
    usual = total <= _ARTEFACT * np.median(total)
    return counts_WU[usual] if usual.mean() >= 1 - _MOST_ARTEFACTS else counts_WU


def recording_activity(
    recording: Recording, unit_ids: Sequence[str], behavior: str, split: str, window_s: float
) -> Activity | None:
    """Measure the activity in a split of a recording; None where it is shorter than ten windows.

    Args:
        recording: whose units are ``unit_ids``, in any order; other units are left out.
        unit_ids: of the session.
        behavior: "GROUP.KEY".
        split: name of the split, like "train".
        window_s: length of the model's window.

    Raises:
        RecordingError: no such behaviour or split.
    """
    row_of = {unit: row for row, unit in enumerate(unit_ids)}
    rows = np.array([row_of.get(unit, -1) for unit in recording.unit_ids], np.int64)
    spike_rows = rows[recording.spike_units]
    known = spike_rows >= 0
    series = recording.behavior(behavior, allow_nan=True)
    return activity_of(
        recording.spike_times[known],
        spike_rows[known],
        series.values[recording.within(series.times, split)],
        n_units=len(unit_ids),
        stretches=recording.intervals(split),
        window_s=window_s,
    )


def activity_from(
    arrays: Mapping[str, npt.NDArray[np.float32]],
    n_units: int,
    path: str | Path,
    error: type[FileProblemError],
) -> Activity:
    """The activity in the tensors of a session file.

    Raises:
        FileProblemError: of the class ``error``; one is missing, of a wrong shape or not finite.
    """
    values = dict(arrays)
    shapes: dict[str, tuple[int | None, ...]] = {
        "rate_hz": (n_units,),
        "rate_sd_hz": (n_units,),
        "output_low": (None,),
    }
    shapes["output_high"] = (len(values.get("output_low", ())),)
    return Activity(
        **{
            name: tensors.require_tensor(values, name, shape, path, error)
            for name, shape in shapes.items()
        }
    )
