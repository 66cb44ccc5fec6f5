"""What a task tells while decoding goes on becomes labels of intention."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_edge.calibration.intention import IntentionSettings
from poyo_edge.calibration.task_log import TaskLog
from poyo_edge.errors import UsageError
from poyo_edge.trials import Trial

RATE = 1000


def log() -> TaskLog:
    """Ten seconds of a cursor that goes to (10, 0) in each."""
    made = TaskLog(IntentionSettings(kind="constant", speed=5.0, reaction_s=0.2), RATE)
    for start in range(0, 10_000, 500):
        ticks = np.arange(start, start + 500, 20)
        made.on_cursor(ticks, np.stack([ticks % 1000 / 100, np.zeros(len(ticks))], axis=1))
    return made


def trial(number: int, end: int | None = 900, **changes: object) -> Trial:
    start = number * 1000
    values = {
        "number": number, "start": start, "end": None if end is None else start + end,
        "target": (10.0, 0.0), "radius": 1.0, "success": True, **changes,
    }  # fmt: skip
    return Trial(**values)  # type: ignore[arg-type]


def test_trials_and_cursor_become_labels_in_seconds() -> None:
    made = log()
    for number in range(3):
        assert not made.on_trial(trial(number, None, success=None))
        assert made.on_trial(trial(number))
        assert not made.on_trial(trial(number)), "told again"
    labels = made.labels()
    assert made.labelled_s == pytest.approx(3 * 0.7)
    assert labels.report.trials_used == 3
    assert labels.times[-1] == pytest.approx(9.98)
    of = labels.labelled
    assert labels.times[of].min() == pytest.approx(0.2)
    assert labels.times[of].max() == pytest.approx(2.9)
    assert set(labels.values[of][:, 0].round(6)) == {0.0, 5.0}


def test_the_newest_message_stands_for_a_trial() -> None:
    made = log()
    made.on_trial(trial(0, None, target=(0.0, 10.0), success=None))
    made.on_trial(trial(0))
    labels = made.labels()
    assert labels.values[labels.labelled][0].tolist() == [5.0, 0.0]


def test_trials_that_did_not_end_or_overlap_are_left_out() -> None:
    made = log()
    made.on_trial(trial(0))
    made.on_trial(trial(1, None))
    made.on_trial(trial(2, 1500))
    made.on_trial(trial(3, 900))
    report = made.labels().report
    assert report.trials_used == 2
    assert report.trials_left_out == 2
    assert report.first_reason == "it did not end"


def test_what_is_noted_later_is_not_in_a_copy() -> None:
    made = log()
    made.on_trial(trial(0))
    copy = made.so_far()
    made.on_trial(trial(1))
    assert copy.labels().report.trials_used == 1
    assert made.labels().report.trials_used == 2


def test_without_cursor_or_ended_trials_there_are_no_labels() -> None:
    with pytest.raises(UsageError, match="expected the shown cursor, got none"):
        TaskLog(IntentionSettings(kind="constant"), RATE).labels()
    with pytest.raises(UsageError, match="expected trials that ended, got none"):
        log().labels()
    made = log()
    made.on_trial(trial(0, None))
    with pytest.raises(UsageError, match="got 1, of which the first: it did not end"):
        made.labels()


def test_a_cursor_of_another_width_is_refused() -> None:
    made = log()
    with pytest.raises(UsageError, match="expected 2 coordinates, as before, got 3"):
        made.on_cursor(np.array([10_000]), np.zeros((1, 3)))
    with pytest.raises(UsageError, match="a position for each of 2 times"):
        made.on_cursor(np.array([10_000, 10_020]), np.zeros((1, 2)))
    made.on_trial(trial(0, target=(1.0, 2.0, 3.0)))
    with pytest.raises(UsageError, match="expected 3 coordinates, as the target of trial 0 has"):
        made.labels()


def test_an_old_cursor_is_forgotten() -> None:
    made = log()
    made.on_cursor(np.array([4_000_000]), np.zeros((1, 2)))
    assert made._cursor is not None
    assert len(made._cursor.rows()) == 1
