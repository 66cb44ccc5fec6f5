"""Labelled seconds of a recording, handed to a calibrator as a rig would hand over trials."""

from __future__ import annotations

import numpy as np

from poyo_edge.calibration.calibrator import Calibrator
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.recording import Recording
from poyo_edge.recording.plausible import SpikeSummary, behavior_doubts, check_plausible
from poyo_edge.recording.units import require_unit


def add_recording(
    calibrator: Calibrator,
    recording: Recording,
    behavior: str,
    *,
    split: str = "train",
    seconds: float | None = None,
) -> int:
    """Add the first ``seconds`` of a split, interval by interval; None adds all of it.

    Nothing outside of the split is used: no spike before an interval, no label after it.

    Returns:
        How many samples were left out because they are NaN.

    Raises:
        RecordingError: no such behaviour or split, another number of dimensions than the model
            decodes, no sample in the split, times that can hardly be meant, or another unit than
            the model's that can be turned into it.
        UsageError: see ``Calibrator.add``; or ``seconds`` is not above 0.
    """
    if seconds is not None and not seconds > 0:
        raise UsageError(f"seconds: expected a number > 0, got {seconds!r}")
    series = recording.behavior(behavior, allow_nan=True)
    if series.values.shape[1] != calibrator.dim_out:
        raise RecordingError(
            recording.path,
            behavior,
            expected=f"{calibrator.dim_out} dimensions, as the model decodes",
            got=series.values.shape[1],
            do="name the behaviour that the model was trained on",
        )
    unit = recording.behavior_units.get(behavior, "")
    require_unit(recording.path, behavior, unit, calibrator.output)
    summary = SpikeSummary.of(recording.spike_times, recording.spike_units, len(recording.unit_ids))
    doubts = [*summary.doubts(), *behavior_doubts(behavior, summary, series.times)]
    # Labels without spikes before them are refused by the calibrator itself.
    check_plausible(recording.path, doubts, (*recording.accepted, "overlap"))
    finite = np.isfinite(series.values).all(1)
    left, added, left_out = np.inf if seconds is None else seconds, 0, 0
    for start, end in recording.intervals(split):
        end = min(end, start + left)
        left -= end - start
        inside = (series.times >= start) & (series.times < end)
        left_out += int((inside & ~finite).sum())
        samples = inside & finite
        spikes = slice(*np.searchsorted(recording.spike_times, [start, end]))
        if samples.any():
            calibrator.add(
                recording.spike_times[spikes],
                recording.spike_units[spikes],
                series.times[samples],
                series.values[samples],
            )
            added += int(samples.sum())
        if left <= 0:
            break
    if not added:
        raise RecordingError(
            recording.path,
            f"{split}_domain",
            expected=f"samples of {behavior} that are no NaN",
            got="none",
            do="choose another split or behaviour",
        )
    return left_out
