"""What of a recording is handed to a calibrator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.calibrating.desk import TEST_S, TRAIN_S, write, write_task
from helpers.calibrating.teacher import lesson

from poyo_edge.arrays import Float64
from poyo_edge.calibration.calibrator import Calibrator
from poyo_edge.calibration.from_recording import add_intentions, add_recording
from poyo_edge.calibration.intention import IntentionLabels, IntentionSettings
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.recording import Recording
from poyo_edge.spec import OutputScale


def handed_over(path: Path, **arguments: Any) -> list[tuple[Any, ...]]:
    """What is added to a calibrator of a recording's train split."""
    opened, pieces = Recording.open(path), list[tuple[Any, ...]]()
    calibrator = lesson().calibrator()
    calibrator.add = lambda *piece: pieces.append(piece)  # type: ignore[method-assign]
    add_recording(calibrator, opened, "cursor.vel", **arguments)
    return pieces


def test_only_the_split_is_handed_over_interval_by_interval(tmp_path: Path) -> None:
    domains = {"train": [(2.0, 5.0), (7.0, 11.5)], "test": [(5.0, 7.0)]}
    given = lesson(duration_s=TRAIN_S + TEST_S)
    pieces = handed_over(write(tmp_path / "day.h5", domains=domains))
    for (start, end), piece in zip(domains["train"], pieces, strict=True):
        for found, of in ((piece[0], given.spike_times), (piece[2], given.times)):
            assert np.array_equal(found, of[(of >= start) & (of < end)])
        assert len(piece[0]) == len(piece[1])
        assert len(piece[2]) == len(piece[3])


@pytest.mark.parametrize(
    ("seconds", "ends"),
    [(1.5, [3.5]), (3.0, [5.0]), (4.5, [5.0, 8.5]), (7.5, [5.0, 11.5]), (99.0, [5.0, 11.5])],
)
def test_the_first_seconds_are_of_the_split(
    tmp_path: Path, seconds: float, ends: list[float]
) -> None:
    path = write(tmp_path / "day.h5", domains={"train": [(2.0, 5.0), (7.0, 11.5)]})
    pieces = handed_over(path, seconds=seconds)
    assert [piece[2][-1] for piece in pieces] == pytest.approx([end - 0.1 for end in ends])
    assert all(piece[0][-1] < end for piece, end in zip(pieces, ends, strict=True))


@pytest.mark.parametrize("behavior", ["decoded.value", "controlled.value"])
def test_what_a_decoder_gave_is_no_label(tmp_path: Path, behavior: str) -> None:
    given = lesson(duration_s=TRAIN_S + TEST_S)
    path = write(tmp_path / "day.h5", behaviors={behavior: (given.times, given.values)})
    with pytest.raises(RecordingError, match="what a decoder gave while this was recorded"):
        add_recording(lesson().calibrator(), Recording.open(path), behavior)


def test_samples_that_are_nan_are_left_out(tmp_path: Path) -> None:
    given = lesson(duration_s=TRAIN_S + TEST_S)
    values = given.values.copy()
    values[30:40, 1] = np.nan
    path = write(tmp_path / "day.h5", behaviors={"cursor.vel": (given.times, values)})
    (piece,) = handed_over(path, seconds=10.0)
    assert np.array_equal(piece[2], np.delete(given.times[:100], np.arange(30, 40)))
    assert np.isfinite(piece[3]).all()


def test_labels_in_another_unit_than_the_models_are_not_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Calibrator, "output", OutputScale(scale=(10.0,), unit="cm/s"))
    units = {"cursor.vel": "m/s"}
    with pytest.raises(RecordingError, match=r"values in cm/s, .*, got m/s; run: poyo-edge conve"):
        handed_over(write(tmp_path / "day.h5", behavior_units=units))
    for unit in ("cm/s", "AU"):
        assert handed_over(write(tmp_path / "day.h5", behavior_units={"cursor.vel": unit}))


def test_a_cursor_in_metres_makes_no_labels_of_intention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Calibrator, "output", OutputScale(scale=(10.0,), unit="cm/s"))
    path = write_task(tmp_path / "day.h5", behavior_units={"cursor.pos": "m"})
    with pytest.raises(RecordingError, match=r"expected positions in cm, as .*, got m; run: poyo-"):
        add_intentions(
            lesson().calibrator(), Recording.open(path), "cursor.pos",
            IntentionSettings(kind="proportional"),
        )  # fmt: skip


def test_labels_in_milliseconds_are_not_handed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "day.h5")
    with h5py.File(path, "r+") as file:
        file["cursor/timestamps"][:] = file["cursor/timestamps"][()] * 1000
    with pytest.raises(RecordingError, match=r"cursor\.vel: expected at least 1 sample each sec"):
        handed_over(path)


OBSERVED = IntentionSettings(kind="observation", reaction_s=0.0, lead_s=0.0)


def intended(
    path: Path, settings: IntentionSettings = OBSERVED, **arguments: Any
) -> tuple[IntentionLabels, list[tuple[Float64, ...]]]:
    """What was made of a recording's trials and cursor, and what was handed over."""
    opened, pieces = Recording.open(path), list[tuple[Any, ...]]()
    calibrator = lesson().calibrator()
    calibrator.add = lambda *piece: pieces.append(piece)  # type: ignore[method-assign]
    return add_intentions(calibrator, opened, "cursor.pos", settings, **arguments), pieces


def test_trials_are_read_as_they_were_written(tmp_path: Path) -> None:
    trials = Recording.open(write_task(tmp_path / "task.h5")).trials()
    assert trials is not None
    assert len(trials) == 13
    assert trials.start[:2].tolist() == [0.0, 2.0]
    assert trials.has_target.all()
    assert trials.success.all()
    assert np.isnan(trials.go_time).all()
    assert Recording.open(write(tmp_path / "day.h5")).trials() is None


def test_only_whole_trials_of_the_split_are_labelled_with_its_spikes(tmp_path: Path) -> None:
    domains = {"train": [(2.0, 7.0), (9.0, 15.0)], "test": [(7.0, 9.0)]}
    made, pieces = intended(write_task(tmp_path / "task.h5", domains=domains))
    assert made.report.trials_used == 4, "those from 2, 4, 10 and 12 s on; 14 s ends at 15.9"
    for (start, end), piece in zip(domains["train"], pieces, strict=True):
        assert ((piece[0] >= start) & (piece[0] < end)).all()
        assert ((piece[2] >= start) & (piece[2] < end)).all()
    assert pieces[0][2][0] == 2.0
    assert pieces[1][2][0] == 10.0


def test_labels_that_are_moved_out_of_the_split_are_left_out(tmp_path: Path) -> None:
    domains = {"train": [(2.0, 6.0)]}
    late = IntentionSettings(kind="observation", reaction_s=0.0, lead_s=0.5)
    _, (piece,) = intended(write_task(tmp_path / "task.h5", domains=domains), late)
    assert piece[2][0] == pytest.approx(2.5)
    assert piece[2][-1] < 6.0


def test_the_first_seconds_of_intentions_are_of_the_split(tmp_path: Path) -> None:
    path = write_task(tmp_path / "task.h5", domains={"train": [(2.0, 7.0), (9.0, 15.0)]})
    made, (piece,) = intended(path, seconds=4.5)
    assert made.report.trials_used == 2
    assert piece[0][-1] < 6.5
    with pytest.raises(UsageError, match="seconds: expected a number > 0"):
        intended(path, seconds=0.0)


def test_a_recording_without_trials_is_refused(tmp_path: Path) -> None:
    path = write_task(tmp_path / "task.h5", trials=None)
    with pytest.raises(RecordingError, match="trials: expected trials with targets"):
        intended(path)
