"""What of a recording is handed to a calibrator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.calibrating.desk import TEST_S, TRAIN_S, write
from helpers.calibrating.teacher import lesson

from poyo_edge.calibration.calibrator import Calibrator
from poyo_edge.calibration.from_recording import add_recording
from poyo_edge.errors import RecordingError
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


def test_labels_in_milliseconds_are_not_handed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "day.h5")
    with h5py.File(path, "r+") as file:
        file["cursor/timestamps"][:] = file["cursor/timestamps"][()] * 1000
    with pytest.raises(RecordingError, match=r"cursor\.vel: expected at least 1 sample each sec"):
        handed_over(path)
