"""Labels that no decoder can be fitted to: what was found, and what would be enough."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from poyo_edge.calibration.fit.checks import least_seconds, remarks, require_usable
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.errors import UsageError
from poyo_edge.spec import OutputScale

T, N_BLOCKS, HZ = 1.0, 6, 20
OUTPUT = OutputScale(scale=(10.0,), offset=(0.0,), unit="cm/s")


def labels(seconds: float = 20.0, *, hz: float = HZ, first: float = 5.0) -> Labels:
    """A slow movement in two dimensions, and a spike every 50 ms."""
    times = first + np.arange(round(seconds * hz)) / hz
    slow = 2 * np.pi * (times - first) / 4.0
    end = first + seconds
    spikes = np.arange(first - T, end, 0.05)
    return Labels(
        n_units=2,
        spike_times=spikes,
        spike_rows=(np.arange(len(spikes)) % 2).astype(np.int32),
        times=times,
        values=np.stack([8 * np.sin(slow), 4 * np.cos(slow)], axis=1),
        stretches=np.array([[first - T, end]]),
    )


def changed(given: Labels | None = None, **fields: Any) -> Labels:
    return dataclasses.replace(given or labels(), **fields)


def require(given: Labels, output: OutputScale = OUTPUT) -> None:
    require_usable(given, T, N_BLOCKS, output)


def refusal(given: Labels, output: OutputScale = OUTPUT) -> str:
    with pytest.raises(UsageError) as refused:
        require(given, output)
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_enough_labels_that_move_are_taken() -> None:
    require(labels())
    assert remarks(labels(), OUTPUT, 0) == []


def test_too_little_data_says_how_much_is_enough() -> None:
    least = least_seconds(T, N_BLOCKS)
    assert least == 12.0
    assert refusal(labels(5.0)) == (
        "labels: expected at least 12 labelled s (one to three minutes are usual), got 5.0; the "
        "first 1 s of each stretch do not count, because their window is not whole"
    )
    refusal(labels(least - 2 / HZ))
    require(labels(least + 1e-9))


def test_no_data_at_all_is_too_little() -> None:
    empty = changed(times=np.empty(0), values=np.empty((0, 2)))
    assert "expected at least 12 labelled s" in refusal(empty)
    assert "got 0.0;" in refusal(empty)


def test_a_hole_is_no_labelled_time() -> None:
    given = labels(11.0)
    late = given.times > given.times[100]
    spread = changed(given, times=given.times + 60.0 * late)
    assert spread.times[-1] - spread.times[0] > 60.0
    assert "got 11.0;" in refusal(spread)


def test_a_dimension_that_stays_where_it_is_is_named() -> None:
    given = labels()
    still = given.values * [1.0, 0.0] + [0.0, 3.0]
    assert refusal(changed(given, values=still)) == (
        "behavior: expected movement in every dimension, a standard deviation of at least 0.1 "
        "(1 % of the model's scale), got 0 in dimension 1; calibrate on trials with movement"
    )


def test_a_hundredth_of_the_scale_is_movement() -> None:
    given = labels()
    of_sd = given.values / given.values.std(0)
    message = refusal(changed(given, values=of_sd * [0.0999, 1]))
    assert "got 0.0999 in dimension 0; calibrate on trials with movement; or, where" in message
    assert "--behavior-scale 14.1 of poyo-edge convert brings them to the model's" in message
    require(changed(given, values=of_sd * [0.1001, 1]))
    wide = OutputScale(scale=(10.0, 200.0), offset=(0.0, 0.0))
    message = refusal(changed(given, values=of_sd), wide)
    assert "at least 2 (1 % of the model's scale), got 1 in dimension 1" in message


def test_a_negative_scale_is_a_scale() -> None:
    still = changed(values=np.zeros_like(labels().values))
    assert "at least 0.1 (1 %" in refusal(still, OutputScale(scale=(-10.0,), offset=(0.0,)))
    require(labels(), OutputScale(scale=(-10.0,), offset=(0.0,)))


def test_labels_without_spikes_name_both_times() -> None:
    early = changed(spike_times=labels().spike_times - 100.0)
    assert refusal(early) == (
        "labels: expected spikes in the window before most labels, got none before 100% of them "
        "(spikes from -96.000 to -75.050 s, labels from 5.000 to 24.950 s); give spikes and "
        "behaviour of the same time on one clock"
    )
    late = changed(spike_times=labels().spike_times + 100.0)
    assert "(spikes from 104.000 to" in refusal(late)
    none = changed(spike_times=np.empty(0), spike_rows=np.empty(0, np.int32))
    message = refusal(none)
    assert "got none before 100% of them (no spikes of its units during" in message
    assert "these labels, labels from 5.000" in message


def test_half_of_the_windows_may_be_silent() -> None:
    given = labels(20.0)
    for end, usable in ((15.5, True), (13.0, False)):
        heard = given.spike_times < end
        part = changed(
            given, spike_times=given.spike_times[heard], spike_rows=given.spike_rows[heard]
        )
        if usable:
            require(part)
        else:
            assert "got none before 55% of them" in refusal(part)


def test_a_spike_at_a_label_is_not_before_it() -> None:
    given = labels(20.0, hz=0.4)
    at = changed(given, spike_times=given.times, spike_rows=np.zeros(len(given.times), np.int32))
    assert "got none before 100% of them" in refusal(at)
    require(changed(at, spike_times=given.times - T))


def test_shuffled_labels_say_how_alike_neighbours_are() -> None:
    given = labels(60.0)
    order = np.random.default_rng(0).permutation(len(given.times))
    message = refusal(changed(given, values=given.values[order]))
    found = re.fullmatch(
        r"behavior: expected samples in order of time \(neighbours correlate by at least 0\.3\), "
        r"got a correlation of (-?0\.\d\d); check that times and values belong together",
        message,
    )
    assert found is not None
    assert abs(float(found[1])) < 0.2


def test_one_smooth_dimension_is_enough() -> None:
    given = labels(60.0)
    noise = np.random.default_rng(0).standard_normal(len(given.times))
    require(changed(given, values=np.stack([given.values[:, 0], 5 * noise], axis=1)))
    require(changed(given, values=np.stack([5 * noise, given.values[:, 1]], axis=1)))


def test_neighbours_across_a_hole_are_none() -> None:
    """Samples in pairs: those of a pair are alike by 0.5, from pair to pair they are not."""
    rng = np.random.default_rng(0)
    start = 5.0 + np.arange(400) * 0.25
    times = np.sort(np.concatenate([start, start + 0.05]))
    first, other = 5 * rng.standard_normal((2, 400, 2))
    values = np.stack([first, (first + np.sqrt(3) * other) / 2], axis=1).reshape(800, 2)
    spikes = np.arange(4.0, times[-1], 0.05)
    given = changed(
        times=times,
        values=values,
        spike_times=spikes,
        spike_rows=np.zeros(len(spikes), np.int32),
    )
    assert given.period == pytest.approx(0.05)
    require(given)


def test_rare_labels_need_not_be_alike() -> None:
    for hz, usable in ((4.0, True), (5.5, False)):
        given = labels(60.0, hz=hz)
        noise = 5 * np.random.default_rng(0).standard_normal(given.values.shape)
        if usable:
            require(changed(given, values=noise))
        else:
            assert "in order of time" in refusal(changed(given, values=noise))


@pytest.mark.parametrize(
    ("factor", "sd", "ratio", "by"), [(10, "44.7", "4.5", "0.224"), (0.1, "0.447", "0.045", "22.4")]
)
def test_another_unit_of_behaviour_is_remarked_upon_with_the_factor(
    factor: float, sd: str, ratio: str, by: str
) -> None:
    odd = changed(values=labels().values * factor)
    assert remarks(odd, OUTPUT, 0) == [
        f"the behaviour has a standard deviation of {sd}, {ratio} times the model's scale "
        f"(10 cm/s): R² suffers where it is not in the unit that the model was trained on; "
        f"convert it with --behavior-scale {by}, which brings it to that scale"
    ]
    scaled = changed(odd, values=odd.values * float(by))
    assert remarks(scaled, OUTPUT, 0) == []


@pytest.mark.parametrize(("sds", "sd", "ratio"), [((0.5, 10.0), "0.5", "0.05")])
def test_another_unit_of_one_dimension_is_remarked_upon(
    sds: tuple[float, float], sd: str, ratio: str
) -> None:
    given = labels()
    odd = changed(given, values=given.values / given.values.std(0) * sds)
    assert remarks(odd, OUTPUT, 0) == [
        f"dimension 0 of the behaviour has a standard deviation of {sd}, {ratio} times the "
        f"model's scale: is it in the unit that the model was trained on (cm/s)?"
    ]
    require(odd)
    without = remarks(odd, OutputScale(scale=(10.0,), offset=(0.0,)), 0)
    assert without[0].endswith("in the unit that the model was trained on?")


def test_the_usual_spread_is_not_remarked_upon() -> None:
    given = labels()
    of_sd = given.values / given.values.std(0)
    for sd, remarked in ((29.9, 0), (30.1, 1), (3.34, 0), (3.32, 1)):
        assert len(remarks(changed(given, values=of_sd * sd), OUTPUT, 0)) == remarked


def test_spikes_left_out_are_remarked_upon() -> None:
    assert remarks(labels(), OUTPUT, 7) == [
        "7 spikes of units that are not in unit_ids were left out"
    ]
