"""What stands behind a calibration: parts of units, units alike, R² against labelled seconds."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from helpers.calibrating.teacher import QUICK, Lesson, lesson, new_session, prior, r2_of, session_of

from poyo_edge.calibration.examining import alike
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.errors import UsageError


def with_a_silent_and_a_doubled_unit() -> Lesson:
    given = lesson()
    truth = new_session(8)
    copied = given.spike_rows == 0
    order = np.argsort(np.concatenate([given.spike_times, given.spike_times[copied]]))
    times = np.concatenate([given.spike_times, given.spike_times[copied]])[order]
    rows = np.concatenate([given.spike_rows, np.full(copied.sum(), 7)])[order]
    return dataclasses.replace(given, truth=truth, spike_times=times, spike_rows=rows)


def test_examining_comes_after_a_fit() -> None:
    with pytest.raises(UsageError, match=r"^examine: expected a fit before it, got none; "):
        lesson().calibrator(QUICK).examine()


def test_each_unit_is_examined() -> None:
    given = with_a_silent_and_a_doubled_unit()
    calibrator = given.calibrator(QUICK)
    session = calibrator.fit(start=given.truth, max_seconds=1e-9)
    assert session.quality.silent_units == ("day/new_6",)
    examined = calibrator.examine(shares=())
    assert examined.alike == (("day/new_0", "day/new_7", 1.0),)
    by_name = {unit.unit: unit for unit in examined.units}
    assert set(by_name) == set(given.unit_ids)
    parts = [unit.part for unit in examined.units]
    assert parts == sorted(parts, reverse=True)
    counts = np.bincount(given.spike_rows, minlength=8)
    distances = prior().distance(session.unit_embedding)
    heard_s = given.spike_times[-1] - given.times[0]
    for i, name in enumerate(given.unit_ids):
        assert by_name[name].rate_hz == pytest.approx(counts[i] / heard_s, rel=1e-2)
        assert by_name[name].distance == pytest.approx(float(distances[i]), abs=1e-3)
    assert by_name["day/new_6"].rate_hz == 0.0
    values = examined.to_json()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert set(values) == {"units", "alike", "r2_by_seconds"}
    assert set(values["units"][0]) == {"unit", "rate_hz", "part", "distance"}


def fast_units(hole_s: float) -> Labels:
    """Two units of 500 spikes/s that have nothing in common, in pieces of ten seconds."""
    rng = np.random.default_rng(0)
    starts = np.arange(4, dtype=np.float64) * (10.0 + hole_s)
    times = np.concatenate([start + 10 * rng.random(10_000) for start in starts])
    return Labels(
        n_units=2,
        spike_times=np.sort(times),
        spike_rows=rng.integers(0, 2, len(times)).astype(np.int32),
        times=starts,
        values=np.zeros((len(starts), 2)),
        stretches=np.stack([starts, starts + 10.0], axis=1),
    )


def test_units_are_alike_by_spikes_at_the_same_time() -> None:
    given = fast_units(0.0)
    assert alike(given, ("a", "b")) == ()
    both = np.sort(np.concatenate([given.spike_times, given.spike_times + 1e-4]))
    rows = np.tile([0, 1], len(given.spike_times)).astype(np.int32)
    doubled = dataclasses.replace(given, spike_times=both, spike_rows=rows)
    ((one, other, correlation),) = alike(doubled, ("a", "b"))
    assert (one, other) == ("a", "b")
    assert correlation > 0.9


def test_holes_make_no_units_alike() -> None:
    assert alike(fast_units(60.0), ("a", "b")) == ()


@pytest.mark.slow
def test_a_units_part_is_what_is_lost_without_it() -> None:
    given = lesson()
    calibrator = given.calibrator(QUICK)
    session = calibrator.fit(start=given.truth, max_seconds=1e-9)
    assert session.quality.r2_heldout == pytest.approx(1.0)
    for unit in calibrator.examine(shares=()).units:
        row = given.unit_ids.index(unit.unit)
        kept = np.delete(np.arange(6), row)
        part = session_of(given.truth.unit_embedding[kept], given.truth.session_embedding)
        named = dataclasses.replace(
            part,
            header=dataclasses.replace(
                part.header, unit_ids=tuple(np.array(given.unit_ids)[kept].tolist())
            ),
        )
        assert unit.part == pytest.approx(1 - r2_of(named, given), abs=0.35)
        assert unit.part > 0.1


def test_a_unit_far_from_the_trained_ones_is_seen() -> None:
    given = lesson()
    far = given.truth.unit_embedding.copy()
    far[2] = prior().unit_mean + 3 * prior().unit_root.sum(1)
    start = dataclasses.replace(given.truth, unit_embedding=far)
    calibrator = given.calibrator(QUICK)
    calibrator.fit(start=start, max_seconds=1e-9)
    distances = {unit.unit: unit.distance for unit in calibrator.examine(shares=()).units}
    assert distances["day/new_2"] == pytest.approx(3.0, rel=1e-3)
    assert max(d for name, d in distances.items() if name != "day/new_2") < 1.0


@pytest.mark.slow
def test_r2_by_seconds_ends_with_the_whole() -> None:
    calibrator = lesson().calibrator(QUICK)
    quality = calibrator.fit().quality
    points = calibrator.examine(shares=(0.3, 0.6)).r2_by_seconds
    seconds = [point[0] for point in points]
    assert len(seconds) == 3
    assert seconds == sorted(seconds)
    assert seconds[-1] < quality.labelled_s, "a fold learns from a part of the labels"
    assert seconds[0] == pytest.approx(0.3 * seconds[-1], abs=0.2)
    assert points[-1][1] == quality.r2_heldout
    assert len({r2 for _, r2 in points}) == 3
    for share in (0.0, 1.0, 1.5, math.nan):
        with pytest.raises(UsageError, match=r"^shares: expected numbers between 0 and 1, got "):
            calibrator.examine(shares=(0.5, share))


@pytest.mark.slow
def test_a_single_unit_can_be_calibrated_and_examined() -> None:
    given = lesson(n_units=1)
    calibrator = given.calibrator(QUICK)
    session = calibrator.fit(start=given.truth, max_seconds=1e-9)
    (unit,) = calibrator.examine(shares=()).units
    assert unit.part == pytest.approx(session.quality.r2_heldout, abs=0.01)
