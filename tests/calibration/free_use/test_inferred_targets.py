"""Targets are found from cursor and decoded velocity alone, and are labels of what was meant."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from helpers.calibrating.free_use import FreeUse, free_use

from poyo_edge.arrays import Float64
from poyo_edge.calibration.free_use.inferred_labels import judge, labels_from, require_ours
from poyo_edge.calibration.free_use.inferred_targets import (
    InferenceSettings,
    InferredTargets,
    infer_targets,
)
from poyo_edge.errors import UsageError

RADIUS_CM = 1.2


def inferred(use: FreeUse, settings: InferenceSettings | None = None) -> InferredTargets:
    return infer_targets(use.times, use.cursor, use.decoded, settings=settings)


def at(use: FreeUse, values: Float64, times: Float64) -> Float64:
    """(T, 2) values of the sample at each time."""
    found = np.searchsorted(use.times, times)
    return np.asarray(values[np.minimum(found, len(values) - 1)])


def angles(a: Float64, b: Float64) -> Float64:
    """Degrees between vectors (N, 2)."""
    turn = np.angle((a[:, 0] + 1j * a[:, 1]) * np.conj(b[:, 0] + 1j * b[:, 1]))
    return np.asarray(np.abs(np.rad2deg(turn)))


def near(use: FreeUse, found: InferredTargets, within: float) -> float:
    """Share of the steps whose inferred target is so near to the true one."""
    away = np.linalg.norm(found.place - at(use, use.target, found.times), axis=1)
    return float((away <= within).mean())


def test_most_targets_are_found_without_knowing_of_a_trial() -> None:
    use = free_use()
    found = inferred(use)
    assert near(use, found, RADIUS_CM) > 0.6
    assert near(use, found, 2 * RADIUS_CM) > 0.8


@pytest.mark.slow
def test_the_way_to_an_inferred_target_is_nearer_to_what_was_meant_than_what_was_decoded() -> None:
    """Through a decoder that turns by 25° and has half of its gain."""
    use = free_use(turned_deg=25.0, gain=0.5)
    found = inferred(use)
    true = at(use, use.target, found.times) - found.cursor
    far = np.linalg.norm(true, axis=1) > 2 * RADIUS_CM
    decoded = np.stack([use.decoded[i : i + 5].mean(0) for i in range(0, len(use.times), 5)])
    told = angles(found.place - found.cursor, true)[far]
    assert np.median(told) < 20
    assert told.mean() < angles(decoded, true)[far].mean()


def test_a_target_that_is_reached_ends_where_the_cursor_rested() -> None:
    use = free_use()
    found = inferred(use)
    assert found.reached.mean() > 0.7
    for k in np.flatnonzero(found.reached):
        last = (found.times >= found.end[k] - 0.35) & (found.times < found.end[k])
        away = np.linalg.norm(found.cursor[last] - found.target[k], axis=1)
        assert away.min() <= found.radius + 1e-9


@pytest.mark.slow
def test_confidence_says_where_to_believe() -> None:
    use = free_use(noise=4.0)
    found = inferred(use)
    sure = np.repeat(found.confidence, np.diff(np.r_[np.searchsorted(found.times, found.start),
                                                     len(found.times)]))  # fmt: skip
    away = np.linalg.norm(found.place - at(use, use.target, found.times), axis=1)
    believed = sure > np.median(sure)
    assert away[believed].mean() < away[~believed].mean()
    assert ((found.sure >= 0) & (found.sure <= 1 + 1e-9)).all()


def test_trials_cover_the_time_once_and_can_be_chosen() -> None:
    found = inferred(free_use())
    everything = found.trials()
    assert len(everything) == len(found)
    assert (everything.start[1:] == everything.end[:-1]).all()
    chosen = found.trials(least_confidence=0.7, reached_only=True)
    assert 0 < len(chosen) < len(everything)
    assert chosen.success.all()
    assert (chosen.radius == found.radius).all()


def test_a_hole_parts_what_is_inferred() -> None:
    use = free_use()
    gone = (use.times > 60) & (use.times < 90)
    found = infer_targets(use.times[~gone], use.cursor[~gone], use.decoded[~gone])
    assert not ((found.times > 60.2) & (found.times < 89.8)).any()
    assert ((found.end <= 60.2) | (found.start >= 89.8)).all()


@pytest.mark.slow
def test_the_grid_is_the_cursors_range_or_what_is_said() -> None:
    use = free_use()
    low, high = use.cursor.min(0) - 1e-9, use.cursor.max(0) + 1e-9
    found = inferred(use)
    assert ((found.target >= low) & (found.target <= high)).all()
    said = inferred(use, InferenceSettings(low=(-3.0, -3.0), high=(3.0, 3.0)))
    assert np.abs(said.target).max() <= 3.0 + 1e-9
    assert near(use, said, RADIUS_CM) < near(use, found, RADIUS_CM)


@pytest.mark.slow
def test_ten_minutes_are_inferred_within_a_few_seconds() -> None:
    use = free_use(minutes=10.0)
    began = time.process_time()
    inferred(use)
    assert time.process_time() - began < 10.0  # about one, on a machine that does nothing else


@pytest.mark.slow
def test_labels_are_of_what_was_meant_when_it_is_decoded() -> None:
    use = free_use(turned_deg=25.0, gain=0.5)
    labels = labels_from(inferred(use), use.times, use.cursor, use.decoded)
    meant = at(use, use.intended, labels.times)
    decoded = at(use, use.decoded, labels.times)
    assert correlation(labels.values, meant) > 0.7  # what was meant has noise of its own
    assert abs(turn(labels.values, meant)) < 0.7 * abs(turn(decoded, meant))
    assert labels.lead_s > 0.05
    slope = float((labels.values * meant).sum() / (meant**2).sum())
    assert slope > 0.6, "the speed of a decoder that is too slow is not that of the labels"
    short = labels_from(inferred(use), use.times, use.cursor, use.decoded, most_lead_s=0.11)
    assert short.lead_s == 0.1 < labels.lead_s, "through this decoder it looks longer than it is"
    assert 0.15 < labels.held_out.mean() < 0.45
    assert labels.times[labels.held_out].min() > labels.times[~labels.held_out].max()


def correlation(a: Float64, b: Float64) -> float:
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def turn(a: Float64, b: Float64) -> float:
    """Degrees by which vectors (N, 2) are turned in the mean, longer ones counting for more."""
    product = ((a[:, 0] + 1j * a[:, 1]) * np.conj(b[:, 0] + 1j * b[:, 1])).sum()
    return float(np.rad2deg(np.angle(product)))


def test_a_cursor_that_something_else_moves_is_refused() -> None:
    use = free_use()
    with pytest.raises(UsageError, match="expected one that what is decoded moves"):
        require_ours(use.times, use.cursor[::-1], use.decoded)
    with pytest.raises(UsageError, match="with axes in its order"):
        labels_from(inferred(use), use.times, use.cursor[:, ::-1] * [1, -1], use.decoded)


def test_too_few_targets_give_no_labels() -> None:
    use = free_use()
    short = dataclasses.replace(
        use, times=use.times[:500], cursor=use.cursor[:500], decoded=use.decoded[:500]
    )
    with pytest.raises(UsageError, match="expected at least 16 that were reached and are sure"):
        labels_from(inferred(short), short.times, short.cursor, short.decoded)


def test_what_cannot_be_inferred_from_is_refused() -> None:
    use = free_use()
    few = use.times[:20], use.cursor[:20], use.decoded[:20]
    with pytest.raises(UsageError, match="expected 1 s of samples without a hole"):
        infer_targets(*few)
    with pytest.raises(UsageError, match="stands still"):
        infer_targets(use.times, np.zeros_like(use.cursor), use.decoded)
    with pytest.raises(UsageError, match=r"cursor: expected \(9000, 2\)"):
        infer_targets(use.times, use.cursor[:, :1], use.decoded)
    with pytest.raises(UsageError, match="finite values"):
        infer_targets(use.times, use.cursor, np.full_like(use.decoded, np.nan))
    with pytest.raises(UsageError, match="ascending"):
        infer_targets(use.times[::-1], use.cursor, use.decoded)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n_places": 3}, "n_places: expected 4 to 64"),
        ({"low": (0.0, 0.0)}, "expected both corners"),
        ({"low": (1.0, 0.0), "high": (0.0, 1.0)}, "expected low < high"),
        ({"step_s": 1.0}, "step_s: expected 0.02 to 0.5"),
        ({"concentration": 0.0}, "concentration: expected 0 to 100"),
        ({"slow": 1.5}, "slow: expected between 0 and 1"),
        ({"leave_near_hz": 20.0}, "leave_near_hz: expected above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        InferenceSettings(**wrong)  # type: ignore[arg-type]


def held() -> Float64:
    """(S, 2) labels in all directions, at rest now and then."""
    at = np.arange(300) / 10
    speed = np.maximum(0.0, np.sin(3 * at)) * 15
    return np.asarray(speed[:, None] * np.stack([np.cos(at), np.sin(at)], 1))


def verdict_of(new: Float64, in_use: Float64, targets: int = 20) -> str:
    return judge(held(), new, in_use, targets=targets, period_s=0.1).reason


def test_a_session_nearer_to_the_targets_passes() -> None:
    noise = np.random.default_rng(0).normal(size=(300, 2))
    assert verdict_of(held() + noise, 0.5 * held() + 2 * noise) == ""


def test_the_session_in_use_stays_where_the_new_one_is_no_better_toward_the_targets() -> None:
    noise = np.random.default_rng(0).normal(size=(300, 2))
    good = held() + noise
    turned = held() @ np.array([[0.9, 0.436], [-0.436, 0.9]])
    assert "expected an angular error" in verdict_of(turned, good)
    assert "expected a gain of 0.5 to 2" in verdict_of(0.3 * held(), good)
    assert "expected an error below" in verdict_of(good, good), "a tie keeps it"
    assert "expected an error below" in verdict_of(held() + 0.98 * noise, good), "so does chance"
    assert verdict_of(held() + 0.96 * noise, good) == ""
    assert "expected at least 6 held-out targets" in verdict_of(held(), 0.5 * good, targets=5)


def test_agreeing_with_the_session_in_use_is_worth_nothing() -> None:
    """What the decoder gives again, however exactly, is no nearer to the targets than it was."""
    in_use = 0.5 * held() @ np.array([[0.9, 0.436], [-0.436, 0.9]])
    assert verdict_of(in_use.copy(), in_use) != ""
