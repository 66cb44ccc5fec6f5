"""The rules of the gate: what each of them lets through, and what it says."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from poyo_edge.calibration.control import Control, Relation
from poyo_edge.calibration.gate import Compared
from poyo_edge.calibration.refusing import Candidate, refusal

GOOD = Control(
    angular_error_deg=20.0, gain=0.8, held_gain=0.55, bias_at_rest=1.0, noise_at_rest=2.0
)
IN_USE = Control(
    angular_error_deg=22.0, gain=0.8, held_gain=0.5, bias_at_rest=1.0, noise_at_rest=2.0
)
SAME = Relation(correlation=0.9, lag_s=0.02, turned_deg=3.0, speed_ratio=0.85)
SLOW = Relation(correlation=0.9, lag_s=0.0, turned_deg=1.0, speed_ratio=1.5)


def changed(**figures: Any) -> Control:
    return dataclasses.replace(GOOD, **figures)


def candidate(
    control: Control = GOOD, relation: Relation = SAME, *, r2: float = 0.4, **changes: Any
) -> Candidate:
    compared = Compared(
        r2=r2, r2_in_use=0.3, control=control, control_in_use=IN_USE, relation=relation
    )
    made = Candidate(
        session_id="day",
        r2_heldout=r2,
        r2_per_dim=(r2, r2),
        labelled_s=60.0,
        control=control,
        label_speed=20.0,
        of_intention=True,
        compared=compared,
    )
    return dataclasses.replace(made, **changes)


def test_a_good_session_passes_with_either_kind_of_labels() -> None:
    assert refusal(candidate()) is None
    assert refusal(candidate(of_intention=False)) is None
    assert refusal(candidate(compared=None)) is None


def test_a_low_r2_does_not_refuse_a_session_of_intentions() -> None:
    """The best controller that was measured had the lowest R² (docs/calibration.md)."""
    low = candidate(r2=0.1)
    assert refusal(low) is None
    reason = refusal(dataclasses.replace(low, of_intention=False))
    assert reason is not None
    assert "expected an R² of at least 0.300" in reason


@pytest.mark.parametrize(
    ("control", "relation", "said"),
    [
        (changed(angular_error_deg=87.6), SAME, "at most 60° (chance is 90°), got 87.6°"),
        (changed(angular_error_deg=26.0), SAME, "at most 25.0°, 3° above that of the session in"),
        (changed(gain=0.1), SAME, "a gain of at least 0.2 on movements, got 0.10 of the labels'"),
        (changed(held_gain=0.05), SAME, "a gain of at least 0.2 on held commands, got 0.05"),
        (changed(gain=0.6), SAME, "at least 0.72 on movements, 90% of that of the session in use"),
        (changed(held_gain=0.35), SAME, "at least 0.45 on held commands, 90% of that of the"),
        (changed(bias_at_rest=5.5), SAME, "a bias at rest of at most 5, a quarter of the labels'"),
        (changed(noise_at_rest=7.0), SAME, "noise at rest of at most 5, a quarter of the labels'"),
        (GOOD, Relation(correlation=0.9, lag_s=0.0, turned_deg=90.2), "at most 30° against what"),
        (GOOD, Relation(correlation=0.9, lag_s=0.3, turned_deg=1.0), "got labels 0.30 s later"),
        (GOOD, Relation(correlation=0.9, lag_s=-0.2, turned_deg=1.0), "got labels 0.20 s earlier"),
        (GOOD, SLOW, "at 1.25 of their speed at most, got 1.50 (correlation 0.90)"),
    ],
)
def test_what_harms_control_is_refused_with_its_figure(
    control: Control, relation: Relation, said: str
) -> None:
    reason = refusal(candidate(control, relation))
    assert reason is not None
    assert said in reason
    assert reason.startswith("session 'day': expected ")
    assert "\n" not in reason
    assert "--force" in reason


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (changed(angular_error_deg=82.8), "at most 60° (chance is 90°), got 82.8° on 46 s of lab"),
        (changed(held_gain=0.08), "0.2 on held commands, got 0.08 of the labels' speed on 46 s of"),
    ],
)
def test_good_labels_do_not_vouch_for_later_ones(later: Control, said: str) -> None:
    """Shuffled targets after a good observation: all labels together looked well enough."""
    new = candidate(changed(angular_error_deg=53.7, held_gain=0.23))
    assert new.compared is not None
    chance = dataclasses.replace(IN_USE, angular_error_deg=85.8, held_gain=0.09)
    compared = dataclasses.replace(
        new.compared, control=later, control_in_use=chance, relation=None, later_only=True,
        later_s=45.9,
    )  # fmt: skip
    reason = refusal(dataclasses.replace(new, compared=compared))
    assert reason is not None
    assert said in reason
    good = dataclasses.replace(compared, control=GOOD)
    assert refusal(dataclasses.replace(new, compared=good)) is None


@pytest.mark.parametrize(
    ("control", "relation"),
    [
        (changed(angular_error_deg=24.9), SAME),
        (changed(gain=0.73, held_gain=0.46), SAME),
        (changed(bias_at_rest=4.9, noise_at_rest=4.9), SAME),
        (changed(held_gain=None, bias_at_rest=None, noise_at_rest=None), SAME),
        (GOOD, Relation(correlation=0.4, lag_s=0.5, turned_deg=180.0)),
        (GOOD, Relation(correlation=0.9, lag_s=0.14, turned_deg=29.0)),
        (GOOD, dataclasses.replace(SLOW, speed_ratio=1.24)),
        (GOOD, dataclasses.replace(SLOW, correlation=0.4)),
    ],
)
def test_what_is_within_the_limits_passes(control: Control, relation: Relation) -> None:
    """A session in use that agrees with nothing says nothing of a turn."""
    assert refusal(candidate(control, relation)) is None


def test_the_speed_of_measured_behaviour_is_not_doubted() -> None:
    assert refusal(candidate(relation=SLOW, of_intention=False)) is None


def test_a_restless_session_in_use_is_no_reason_against_one_that_is_calmer() -> None:
    new = candidate(changed(noise_at_rest=8.0))
    assert new.compared is not None
    noisy = dataclasses.replace(IN_USE, noise_at_rest=10.0)
    assert refusal(
        dataclasses.replace(new, compared=dataclasses.replace(new.compared, control_in_use=noisy))
    ) is None  # fmt: skip


def test_a_session_in_use_that_hardly_moves_sets_no_gain() -> None:
    new = candidate(changed(held_gain=0.25))
    assert new.compared is not None
    weak = dataclasses.replace(IN_USE, gain=0.1, held_gain=0.1)
    compared = dataclasses.replace(new.compared, control_in_use=weak)
    assert refusal(dataclasses.replace(new, compared=compared)) is None
