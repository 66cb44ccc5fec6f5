"""Labelled seconds of a recording, handed to a calibrator as a rig would hand over trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.artifact import Artifact, Session
from poyo_edge.calibration.calibrator import Calibrator
from poyo_edge.calibration.fit.start import unlabelled_session
from poyo_edge.calibration.intention import IntentionLabels, IntentionSettings, intention_labels
from poyo_edge.calibration.lead import with_lead
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.recording import Recording
from poyo_edge.recording.given import require_measured
from poyo_edge.recording.plausible import SpikeSummary, behavior_doubts, check_plausible
from poyo_edge.recording.recording import first_seconds
from poyo_edge.recording.units import require_cursor_unit, require_unit


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
        RecordingError: no such behaviour or split, one that a decoder gave, another number of
            dimensions than the model decodes, no sample in the split, times that can hardly be
            meant, or another unit than the model's that can be turned into it.
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
    require_measured(recording.path, behavior)
    unit = recording.behavior_units.get(behavior, "")
    require_unit(recording.path, behavior, unit, calibrator.output)
    _require_plausible(recording, behavior, series.times)
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


def add_intentions(
    calibrator: Calibrator,
    recording: Recording,
    cursor: str,
    settings: IntentionSettings,
    *,
    split: str = "train",
    seconds: float | None = None,
) -> IntentionLabels:
    """Add labels of intention of the first ``seconds`` of a split; None takes all of it.

    Nothing outside of the split is used: no trial that is not whole in it, no spike outside.

    Args:
        calibrator: takes them.
        recording: with trials and a cursor.
        cursor: the shown positions, such as "cursor.pos".
        settings: which labels.
        split: name of a split.
        seconds: see above.

    Raises:
        RecordingError: no such cursor or split, no trials, or a cursor in another unit of length
            than the model's.
        UsageError: see ``intention_labels`` and ``Calibrator.add``.
    """
    if seconds is not None and not seconds > 0:
        raise UsageError(f"seconds: expected a number > 0, got {seconds!r}")
    trials = recording.trials()
    if trials is None or not len(trials):
        raise RecordingError(
            recording.path,
            "trials",
            expected="trials with targets, which labels of intention need",
            got="none",
            do="convert or record the session with its trials",
        )
    shown = recording.behavior(cursor, allow_nan=True)
    if shown.values.shape[1] != calibrator.dim_out:
        raise RecordingError(
            recording.path,
            cursor,
            expected=f"{calibrator.dim_out} dimensions, as the model decodes",
            got=shown.values.shape[1],
            do="name the cursor that the model moves",
        )
    unit = recording.behavior_units.get(cursor, "")
    require_cursor_unit(recording.path, cursor, unit, calibrator.output)
    _require_plausible(recording, cursor, shown.times)
    parts = first_seconds(recording.intervals(split), seconds)
    inside = np.zeros(len(trials), bool)
    samples, spikes = np.zeros(len(shown.times), bool), np.zeros(len(recording.spike_times), bool)
    for start, end in parts:
        inside |= (trials.start >= start) & (trials.end <= end)
        samples |= (shown.times >= start) & (shown.times < end)
        spikes |= (recording.spike_times >= start) & (recording.spike_times < end)
    samples &= np.isfinite(shown.values).all(1)
    made = intention_labels(
        trials.rows(inside), shown.times[samples], shown.values[samples], settings
    )
    times, rows = recording.spike_times[spikes], recording.spike_units[spikes]
    made = with_lead(made, settings, times, rows, len(recording.unit_ids))
    calibrator.add_intentions(times, rows, made, heard=parts)
    return made


def _require_plausible(recording: Recording, series: str, times: Float64) -> None:
    summary = SpikeSummary.of(recording.spike_times, recording.spike_units, len(recording.unit_ids))
    doubts = [*summary.doubts(), *behavior_doubts(series, summary, times)]
    # Labels without spikes before them are refused by the calibrator itself.
    check_plausible(recording.path, doubts, (*recording.accepted, "overlap"))


def from_unlabelled(
    artifact: str | Path, recording: Recording, *, split: str, seconds: float | None
) -> tuple[Session, int, float]:
    """A session guessed from the first seconds of a split, as ``unlabelled_session`` has it.

    Returns:
        The session, the electrodes that training has seen, and the seconds that were heard.

    Raises:
        RecordingError: no such split.
        ArtifactError, UsageError: see ``unlabelled_session``.
    """
    heard = first_seconds(recording.intervals(split), seconds)
    session, known = unlabelled_session(
        Artifact.open(artifact),
        recording.unit_ids,
        recording.spike_times,
        recording.spike_units,
        heard,
        session_id=recording.session_id,
        subject=recording.subject_id or None,
    )
    return session, known, float((heard[:, 1] - heard[:, 0]).sum())
