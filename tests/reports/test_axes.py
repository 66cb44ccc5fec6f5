"""Axes start where they should, and round numbers stand at them."""

from __future__ import annotations

import math

import pytest

from poyo_edge.reports.axes import Axis, axis, log_axis


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (-0.1, 1.0, ["0", "0.25", "0.5", "0.75", "1"]),
        (0.0, 200.0, ["0", "50", "100", "150", "200"]),
        (-3.0, 3.0, ["−2", "0", "2"]),
    ],
)
def test_round_numbers_within_the_range(low: float, high: float, expected: list[str]) -> None:
    of = Axis(label="x", low=low, high=high)
    assert [of.said(tick) for tick in of.ticks()] == expected


def test_what_starts_at_zero_starts_there_and_the_rest_has_air() -> None:
    of = axis("x", [3.0, 10.0], include=(0.0,))
    assert of.low == 0.0
    assert of.high > 10.0
    assert of.floor == 0.0
    assert axis("x", [-2.0, -1.0]).high > -1.0


@pytest.mark.parametrize("values", [[], [5.0], [5.0, 5.0], [math.nan, math.inf], [0.0], [1e12]])
def test_odd_values_give_an_axis_all_the_same(values: list[float]) -> None:
    for of in (axis("x", values), log_axis("x", values)):
        assert math.isfinite(of.low) and of.low < of.high
        place = of.placed(0.0, 100.0)
        assert all(0 <= place(tick) <= 100 + 1e-9 for tick in of.ticks())
        assert all(of.said(tick) for tick in of.ticks())


@pytest.mark.parametrize(("low", "high"), [(0.5, 40.0), (1.0, 9.0), (0.001, 1e5), (1e-9, 1e9)])
def test_a_logarithmic_axis_has_few_numbers_in_order(low: float, high: float) -> None:
    ticks = log_axis("ms", [low, high]).ticks()
    assert ticks == sorted(ticks)
    assert 2 <= len(ticks) <= 7


def test_names_stand_where_they_are_put() -> None:
    of = Axis(label="row", low=-2.6, high=-0.4, named={-1.0: "1", -2.0: "2"})
    assert [of.said(tick) for tick in of.ticks()] == ["1", "2"]
