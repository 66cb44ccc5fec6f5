"""Decoders beside each other: paired, deterministic, and with figures of each."""

from __future__ import annotations

import json

import numpy as np
import pytest

from poyo_edge.arrays import Float64, Int64, Rows
from poyo_edge.errors import UsageError
from poyo_edge.simulation.array import ArraySettings, SimulatedArray
from poyo_edge.simulation.decoding import Decoding, KnownIntention
from poyo_edge.simulation.study import OURS, Condition, Study, conditions, run_study
from poyo_edge.simulation.tasks import TaskSettings


class Dull(KnownIntention):
    """One that gives a part of the intention only, and calls itself POYO."""

    name = OURS

    def step(self, end: int, ticks: Int64, rows: Rows) -> Float64:
        return 0.4 * super().step(end, ticks, rows)


def subject(seed: int) -> tuple[SimulatedArray, list[Decoding]]:
    array = SimulatedArray.draw(ArraySettings(n_units=3), seed=seed)
    return array, [Dull(array), KnownIntention(array)]


def study(n_trials: int = 8) -> tuple[Study, list[tuple[int, int]]]:
    told = list[tuple[int, int]]()
    found = run_study(
        subject,
        conditions([0.0, 100.0], [1.2], [0.0], [1.0]),
        n_trials=n_trials,
        seeds=(0, 1),
        on_progress=lambda done, total, note: told.append((done, total)),
    )
    return found, told


def test_all_decoders_are_tried_under_all_conditions() -> None:
    found, told = study()
    values = found.to_json()
    assert told == [(i, 8) for i in range(1, 9)]
    rows = [(row["decoder"], row["latency_ms"], row["n_trials"]) for row in values["conditions"]]
    assert rows == [(OURS, 0, 16), ("perfect", 0, 16), (OURS, 100, 16), ("perfect", 100, 16)]
    assert all(row["success"] == 1.0 for row in values["conditions"])
    slow, fast = values["conditions"][:2]
    assert slow["bits_per_s"] < fast["bits_per_s"]
    assert slow["decoder_gain"] == pytest.approx(0.4)
    low, high = fast["bits_per_s_95"]
    assert low < fast["bits_per_s"] < high
    assert {len(paths) for paths in found.paths.values()} == {8}
    assert values["step"]["perfect"]["held_gain_1s"] == pytest.approx(1.0)
    assert json.loads(json.dumps(values)) == values


@pytest.mark.slow
def test_the_ratio_is_of_pairs_and_to_the_better() -> None:
    found, _ = study()
    plain = found.to_json()["against"][0]
    ours, theirs = (found.measures[name, Condition()].bits_per_s for name in (OURS, "perfect"))
    assert plain["better"] == "perfect"
    assert plain["ratio"] == pytest.approx(ours.mean() / theirs.mean(), abs=1e-4)
    low, high = plain["ratio_95"]
    assert low < plain["ratio"] < high < 1.0


@pytest.mark.slow
def test_where_nobody_reaches_anything_there_is_no_ratio() -> None:
    found = run_study(subject, [Condition(radius_cm=1e-12)], n_trials=1)
    assert found.to_json()["against"][0]["ratio"] is None
    assert found.to_json()["against"][0]["ratio_95"] is None
    assert found.to_json()["conditions"][0]["time_s"] is None


@pytest.mark.slow
def test_the_same_seeds_give_the_same_study() -> None:
    assert study()[0].to_json() == study()[0].to_json()


@pytest.mark.slow
def test_trials_of_a_seed_are_paired_between_decoders() -> None:
    found, _ = study(4)
    paths = list(found.paths.values())
    for one, other in zip(*paths, strict=True):
        np.testing.assert_array_equal(one.target, other.target)


def test_conditions_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="latency: expected at least one value"):
        conditions([], [1.2], [0.0], [1.0])
    with pytest.raises(UsageError, match="radius_cm: expected a number > 0"):
        Condition(radius_cm=-1.0).require_possible(TaskSettings())
    with pytest.raises(UsageError, match="latency_ms: expected 0 to 5000"):
        Condition(latency_ms=-1.0).require_possible(TaskSettings())
