"""Labels of intention: the formulas by hand, and trials and cursors that cannot be used."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from poyo_edge.arrays import Float64
from poyo_edge.calibration.intention import (
    IntentionLabels,
    IntentionSettings,
    Kind,
    intention_labels,
    settings_for,
)
from poyo_edge.errors import UsageError
from poyo_edge.trials import Trials

HZ = 50
TIMES = np.arange(0, 4.0, 1 / HZ)
N_TRIALS = 2


def trials(**changes: Any) -> Trials:
    """From 0 to 2 s to (8, 0), and from 2 to 4 s back to (0, 0); go half a second after start."""
    made = Trials(
        start=np.array([0.0, 2.0]),
        end=np.array([1.99, 3.99]),
        go_time=np.array([0.5, 2.5]),
        target=np.array([[8.0, 0.0], [0.0, 0.0]]),
        success=np.array([True, True]),
        radius=np.array([1.0, 1.0]),
    )
    return dataclasses.replace(made, **changes)


def cursor() -> Float64:
    """Toward each target at 8 cm/s for a second after go, and still before and after."""
    x = np.interp(TIMES, [0.5, 1.5, 2.5, 3.5], [0.0, 8.0, 8.0, 0.0])
    return np.stack([x, np.zeros_like(x)], axis=1)


def made(kind: Kind, given: Trials | None = None, **settings: Any) -> IntentionLabels:
    wanted = IntentionSettings(kind=kind, reaction_s=0.2, **settings)
    return intention_labels(given or trials(), TIMES, cursor(), wanted)


def at(labels: IntentionLabels, t: float) -> list[float]:
    row = int(np.searchsorted(TIMES, t - 1e-9))
    assert labels.labelled[row], t
    return [round(float(x), 3) for x in labels.values[row]]


def test_observation_is_the_velocity_of_the_shown_cursor() -> None:
    labels = made("observation")
    assert at(labels, 1.0) == [8.0, 0.0]
    assert at(labels, 3.0) == [-8.0, 0.0]
    assert at(labels, 1.8) == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["observation", "refit"])
def test_where_a_task_puts_the_cursor_between_trials_is_no_movement(kind: Kind) -> None:
    """The first trial failed: at its end the cursor is put on the target, and back at the start."""
    x = np.interp(TIMES, [0.5, 1.5, 2.5, 3.5], [0.0, 4.0, 0.0, -8.0])
    x[99], x[100:125] = 8.0, 0.0
    shown = np.stack([x, np.zeros_like(x)], axis=1)
    given = trials(
        target=np.array([[8.0, 0.0], [-8.0, 0.0]]), success=np.array([False, True]),
        end=np.array([TIMES[99], TIMES[199]]),
    )  # fmt: skip
    wanted = IntentionSettings(kind=kind, reaction_s=0.0)
    labels = intention_labels(given, TIMES, shown, wanted)
    speed = np.linalg.norm(labels.values[labels.labelled], axis=1)
    assert labels.labelled.sum() > 150
    assert speed.max() <= 8.0 + 1e-6


def test_proportional_grows_with_the_distance_and_saturates() -> None:
    labels = made("proportional", per_s=3.0, speed=15.0)
    assert at(labels, 0.8) == [15.0, 0.0], "5.6 cm away it would be 16.8"
    assert at(labels, 1.0) == [12.0, 0.0], "4 cm away"
    assert at(labels, 1.3) == [4.8, 0.0], "1.6 cm away"
    assert at(labels, 3.0) == [-12.0, 0.0]


def test_constant_is_one_speed_toward_the_target() -> None:
    labels = made("constant", speed=9.0)
    assert at(labels, 0.8) == at(labels, 1.3) == [9.0, 0.0]
    assert at(labels, 3.0) == [-9.0, 0.0]


def test_refit_keeps_the_speed_and_turns_it_to_the_target() -> None:
    shown = np.tile([3.0, 4.0], (len(TIMES), 1))
    labels = intention_labels(
        trials(), TIMES, cursor(), IntentionSettings(kind="refit"), velocity=shown
    )
    assert at(labels, 1.0) == [5.0, 0.0]
    assert at(labels, 3.0) == [-5.0, 0.0]


@pytest.mark.parametrize("kind", ["proportional", "constant", "refit"])
def test_labels_are_zero_on_the_target_and_before_go(kind: Kind) -> None:
    labels = made(kind)
    assert at(labels, 1.44) == [0.0, 0.0], "half a cm away, the radius is 1"
    assert at(labels, 0.4) == [0.0, 0.0]
    assert at(labels, 2.3) == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["observation", "proportional", "constant", "refit"])
def test_the_reaction_time_after_start_and_go_is_not_labelled(kind: Kind) -> None:
    labels = made(kind)
    spans = [(0.2, 0.5), (0.7, 1.99), (2.2, 2.5), (2.7, 3.99)]
    later = TIMES + 1e-9
    expected = np.any([(later >= begin) & (later < end) for begin, end in spans], axis=0)
    assert np.array_equal(labels.labelled, expected)
    assert not labels.values[~labels.labelled].any()
    assert labels.report.labelled_s == pytest.approx(expected.sum() / HZ)


def test_scales_that_are_not_given_come_from_the_distance_of_the_targets() -> None:
    report = made("constant").report
    assert report.speed == pytest.approx(2.5 * 8.0)
    unknown = made("constant", trials(radius=np.full(2, np.nan)))
    assert at(unknown, 1.38) == [0.0, 0.0], "0.96 cm away: the radius is taken as 1.2"
    assert at(unknown, 1.30) == [20.0, 0.0], "1.6 cm away"


def test_a_slow_cursor_does_not_make_labels_slow() -> None:
    """A decoder whose gain has collapsed must not teach the next one so."""
    half = cursor() * [0.5, 1.0]
    unsuccessful = trials(success=np.zeros(2, bool))
    slow = intention_labels(unsuccessful, TIMES, half, IntentionSettings(kind="constant"))
    assert slow.report.speed >= 2.5 * 4.0
    assert np.linalg.norm(slow.values, axis=1).max() == pytest.approx(slow.report.speed)


def test_trials_without_go_begin_at_their_start() -> None:
    labels = made("constant", trials(go_time=np.full(2, np.nan)), speed=9.0)
    assert at(labels, 0.3) == [9.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target": np.array([[8.0, 0.0], [np.nan, np.nan]])}, "it has no target"),
        (
            {"start": np.array([0.0, 5.0]), "end": np.array([1.99, 6.0]),
             "go_time": np.array([0.5, 5.5])},
            "no cursor was shown in it",
        ),
        ({"go_time": np.array([0.5, 3.9])}, "it ended within the reaction time"),
        (
            {"end": np.array([1.99, 9.0]), "success": np.array([True, False])},
            "the cursor is missing for 5.02 s of it",
        ),
    ],
)  # fmt: skip
def test_a_trial_that_cannot_be_used_is_left_out_with_its_reason(
    changes: dict[str, Any], reason: str
) -> None:
    """The last of them is a task that died in the middle of a trial."""
    labels = made("constant", trials(**changes))
    assert labels.report.trials_used == 1
    assert labels.report.trials_left_out == 1
    assert labels.report.first_reason == reason
    assert not labels.labelled[TIMES > 2.0].any()


def test_a_trial_in_which_the_cursor_stands_still_is_left_out() -> None:
    position = cursor()
    position[TIMES >= 2.0] = position[TIMES < 2.0][-1]
    given = trials(success=np.array([True, False]))
    labels = intention_labels(given, TIMES, position, IntentionSettings(kind="constant"))
    assert labels.report.first_reason == "the cursor stands still in it"


def refused(given: Trials, times: Float64, position: Float64) -> str:
    with pytest.raises(UsageError) as error:
        intention_labels(given, times, position, IntentionSettings(kind="proportional"))
    return str(error.value)


def test_trials_without_targets_are_refused() -> None:
    none = trials(target=np.full((2, 2), np.nan))
    assert "trials: expected targets, got none in 2 trials" in refused(none, TIMES, cursor())


def test_labels_without_movement_are_refused() -> None:
    still = np.zeros((len(TIMES), 2))
    assert "expected a cursor that moves, got one that stands still" in refused(
        trials(), TIMES, still
    )


def test_targets_outside_the_workspace_are_refused() -> None:
    metres = trials(target=np.array([[800.0, 0.0], [0.0, 0.0]]))
    said = refused(metres, TIMES, cursor())
    assert "expected targets in the cursor's workspace, got 1 of 2 outside" in said
    assert "[800.0, 0.0] in trial 0" in said


def test_a_cursor_that_was_never_at_the_targets_that_were_reached_is_refused() -> None:
    other = np.stack([8.0 - cursor()[:, 0], cursor()[:, 1]], axis=1)
    far = trials(target=np.array([[8.0, 0.0], [0.0, 0.0]]))
    late = np.stack([np.interp(TIMES - 1.0, TIMES, other[:, 0]), other[:, 1]], axis=1)
    said = refused(far, TIMES, np.where(TIMES[:, None] < 2, other * 0.2, late * 0.2 + [6.0, 0.0]))
    assert "expected it at the targets that were reached" in said


@pytest.mark.parametrize(
    ("times", "position", "said"),
    [
        (TIMES, cursor()[:, :1], "as wide as the targets, got (200, 1)"),
        (TIMES[:-1], cursor(), "one for each time"),
        (TIMES[::-1], cursor(), "ascending times"),
        (TIMES, np.full((200, 2), np.nan), "finite positions"),
        (TIMES + 100.0, cursor(), "give both on one clock"),
    ],
)
def test_a_cursor_that_cannot_be_is_refused(times: Float64, position: Float64, said: str) -> None:
    assert said in refused(trials(), times, position)


def test_no_trial_that_can_be_used_says_why_the_first_cannot() -> None:
    short = trials(go_time=np.array([1.9, 3.9]))
    assert "got none of 2, the first because it ended within the reaction time" in refused(
        short, TIMES, cursor()
    )


@pytest.mark.parametrize("word", ["intention", "intention:", "intention:mean", "vel"])
def test_unknown_kinds_are_refused_with_those_that_there_are(word: str) -> None:
    with pytest.raises(UsageError, match=r"expected one of .*intention:refit") as refusal:
        settings_for(word)
    assert word in str(refusal.value)
    assert settings_for("behavior") is None


@pytest.mark.parametrize(
    "wrong", [{"reaction_s": -1.0}, {"per_s": 0.0}, {"speed": np.inf}, {"lead_s": 3.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        IntentionSettings(kind="constant", **wrong)
