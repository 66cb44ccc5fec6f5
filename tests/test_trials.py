"""What a trial can be, and what one message after another says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from poyo_edge.errors import UsageError
from poyo_edge.trials import Trial, Trials, TrialsError, TrialUpdate

SOUND: dict[str, Any] = {"start": [0.0, 2.0], "end": [1.5, 3.0], "target": [[8.0, 0.0], [0.0, 8.0]]}


def test_only_start_and_end_must_be_known() -> None:
    trials = Trials.of([0.0, 2.0], [1.0, 3.0])
    assert trials.has_target.tolist() == [False, False]
    assert trials.success_rate is None
    assert trials.to_json() == {"n": 2, "with_target": 0, "with_radius": 0, "success_rate": None}


def test_the_share_of_successes_is_of_those_of_which_somebody_said() -> None:
    trials = Trials.of(**SOUND, success=[True, False], judged=[True, False])
    assert trials.success_rate == 1.0
    assert len(trials.rows(np.array([False, True]))) == 1


@pytest.mark.parametrize(
    ("change", "field", "row", "message"),
    [
        ({"start": [0.0, 1.0]}, "start", 1, "a start at or after the end of the trial before"),
        ({"end": [1.5, 2.0]}, "end", 1, "an end after the start"),
        ({"end": [np.nan, 3.0]}, "end", 0, "a finite end"),
        ({"go_time": [1.6, 2.5]}, "go_time", 0, "a go_time within the trial"),
        ({"go_time": [np.inf, 2.5]}, "go_time", 0, "a go_time within the trial"),
        ({"target": [[8.0, np.nan], [0.0, 8.0]]}, "target", 0, "finite coordinates, or of NaN"),
        ({"target": [[8.0, 0.0]]}, "target", None, r"target \(2, D\).*, got \(1, 2\)"),
        ({"target": np.zeros((2, 17))}, "target", None, "D up to 16"),
        ({"radius": [1.0, 0.0]}, "radius", 1, "a radius > 0"),
        ({"success": [True]}, "success", None, r"success of shape \(2,\), got \(1,\)"),
    ],
)
def test_trials_that_cannot_be_are_one_sentence_with_field_and_row(
    change: dict[str, Any], field: str, row: int | None, message: str
) -> None:
    with pytest.raises(TrialsError, match=message) as caught:
        Trials.of(**{**SOUND, **change})
    assert (caught.value.field, caught.value.row) == (field, row)


def test_a_later_message_adds_to_what_is_known() -> None:
    first = TrialUpdate(7, {"start": 10, "target": (8.0, 0.0)}).onto(None)
    again = TrialUpdate(7, {"end": 50, "success": True}).onto(first)
    assert again == Trial(number=7, start=10, end=50, target=(8.0, 0.0), success=True)
    assert TrialUpdate.of(again).onto(None) == again
    assert TrialUpdate.of(Trial(number=7, start=11)).onto(again) == Trial(number=7, start=11)


def test_a_trial_of_which_nobody_said_when_it_began_is_refused() -> None:
    with pytest.raises(UsageError, match="trial 7: expected its start in the first message"):
        TrialUpdate(7, {"end": 5}).onto(None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"end": 4}, r"expected end at or after its start \(5\), got 4"),
        ({"go_time": 4}, "expected go_time at or after its start"),
        ({"go_time": 9, "end": 8}, "expected go_time at or before its end"),
        ({"target": (np.inf, 0.0)}, "target: expected"),
        ({"target": ()}, "expected a target of finite coordinates"),
        ({"radius": 0.0}, "expected a radius > 0"),
        ({"success": 1}, "success: expected bool"),
    ],
)
def test_a_trial_that_cannot_be_is_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Trial(number=1, start=5, **given)
