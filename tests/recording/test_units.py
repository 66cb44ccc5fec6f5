"""Units of behaviour: what they mean, and what is said where they are not the model's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poyo_edge.errors import RecordingError
from poyo_edge.recording.units import (
    dimension,
    dimension_remarks,
    factor_between,
    require_cursor_unit,
    require_unit,
    same_unit,
    scaled_unit,
)
from poyo_edge.spec import OutputScale, factor_to_scale, spread_remarks

CM_S = OutputScale(scale=(10.0,), unit="cm/s")


@pytest.mark.parametrize(
    ("unit", "wanted", "factor"),
    [
        ("m/s", "cm/s", 100.0),
        ("cm/s", "m/s", 0.01),
        ("meters/second", "mm/s", 1000.0),
        ("m s-1", "cm/s", 100.0),
        ("m*s^-1", "cm/s", 100.0),
        ("metres per second", "cm s^-1", 100.0),
        ("M/S", "cm / s", 100.0),
        ("m", "cm", 100.0),
        ("mm", "m", 0.001),
        ("deg", "rad", np.pi / 180),
        ("deg/s", "rad/s", np.pi / 180),
    ],
)
def test_units_of_a_kind_become_each_other(unit: str, wanted: str, factor: float) -> None:
    assert factor_between(unit, wanted) == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize("unit", ["AU", "", "V", "ms", "m/ms", "bool", "m/s/s", "pixels"])
def test_what_is_not_known_is_not_guessed(unit: str) -> None:
    assert dimension(unit) == ""
    assert factor_between(unit, "cm/s") is None


def test_a_position_is_no_velocity() -> None:
    assert factor_between("cm", "cm/s") is None
    assert dimension_remarks("cursor.pos", "cm", CM_S) == [
        "cursor.pos is in cm, a length; the model decodes cm/s, a length per second"
    ]
    assert dimension_remarks("cursor.pos", "", CM_S) == []


def test_the_name_of_a_unit_follows_its_factor() -> None:
    assert scaled_unit("m/s", 100.0) == "cm/s"
    assert scaled_unit("m", 1000.0) == "mm"
    assert scaled_unit("m/s", 3.0) == scaled_unit("AU", 10.0) == ""
    assert scaled_unit("AU", 1.0) == "AU"
    assert same_unit("meters/second", "m/s")
    assert not same_unit("AU", "cm/s")


def test_another_unit_is_refused_with_the_whole_command() -> None:
    with pytest.raises(RecordingError) as refused:
        require_unit(Path("day 1.h5"), "cursor.vel", "m/s", CM_S)
    assert str(refused.value) == (
        "day 1.h5: cursor.vel: expected values in cm/s, as the model decodes, got m/s; run: "
        "poyo-edge convert 'day 1.h5' -o 'day 1.cm_s.h5' --behavior-unit cursor.vel=cm/s (times "
        "100); where the source names a wrong unit and the values are in cm/s already, add "
        "--behavior-scale cursor.vel=1"
    )


@pytest.mark.parametrize("unit", ["cm/s", "centimeters/second", "AU", "", "cm"])
def test_what_is_alike_or_unknown_passes(unit: str) -> None:
    require_unit(Path("a.h5"), "cursor.vel", unit, CM_S)
    require_unit(Path("a.h5"), "cursor.vel", "m/s", OutputScale(scale=(10.0,)))


def test_a_cursor_in_another_unit_of_length_is_refused() -> None:
    with pytest.raises(RecordingError) as refused:
        require_cursor_unit(Path("a.h5"), "cursor.pos", "meters", CM_S)
    assert "expected positions in cm, as the model decodes cm/s, got meters" in str(refused.value)
    assert "-o a.cm.h5 --behavior-unit cursor.pos=cm (times 100)" in refused.value.do
    for unit, output in (("cm", CM_S), ("AU", CM_S), ("m", OutputScale()), ("cm/s", CM_S)):
        require_cursor_unit(Path("a.h5"), "cursor.pos", unit, output)


def test_a_spread_far_from_the_scale_is_said_with_the_factor_that_mends_it() -> None:
    values = np.random.default_rng(0).normal(size=(500, 2)) * [1.0, 0.5]
    factor = factor_to_scale(values, CM_S)
    assert factor is not None
    assert factor_to_scale(values * factor, CM_S) is None
    (said,) = spread_remarks(values, CM_S)
    assert f"--behavior-scale {factor:.3g}, which" in said
    assert "R² suffers" in said
    assert spread_remarks(values * 10, CM_S) == []
    assert factor_to_scale(values * 0, CM_S) is None
