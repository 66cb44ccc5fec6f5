"""Hold, then decay, then zero."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from poyo_edge.errors import UsageError
from poyo_edge.runtime.failsafe import Failsafe, FailsafeSettings, Status

GOOD = np.array([2.0, -4.0])


def after_a_good_value(**settings: float) -> Failsafe:
    failsafe = Failsafe(2, FailsafeSettings(**settings))
    failsafe.note_good(GOOD, 0.0)
    return failsafe


@pytest.mark.parametrize(
    ("t", "share", "status"),
    [
        (0.0, 1.0, Status.HELD),
        (0.02, 1.0, Status.HELD),
        (0.1, 1.0, Status.HELD),
        (0.1001, math.exp(-0.001), Status.INVALID),
        (0.2, math.exp(-1), Status.INVALID),
        (0.4, math.exp(-3), Status.INVALID),
        (0.6, math.exp(-5), Status.INVALID),
        (0.6001, 0.0, Status.INVALID),
        (1e9, 0.0, Status.INVALID),
    ],
)
def test_a_good_value_is_held_then_fades_then_is_zero(
    t: float, share: float, status: Status
) -> None:
    value, given = after_a_good_value().instead(t)
    assert given is status
    assert value == pytest.approx(share * GOOD, rel=1e-12, abs=0)


def test_without_any_good_value_the_output_is_zero_and_invalid() -> None:
    value, status = Failsafe(3, FailsafeSettings()).instead(5.0)
    assert (value.tolist(), status) == ([0.0, 0.0, 0.0], Status.INVALID)


def test_a_forgotten_value_is_not_held() -> None:
    failsafe = after_a_good_value()
    failsafe.forget()
    value, status = failsafe.instead(0.01)
    assert (value.tolist(), status) == ([0.0, 0.0], Status.INVALID)


def test_hold_and_decay_can_be_set() -> None:
    failsafe = after_a_good_value(hold_s=0.5, decay_s=2.0)
    assert failsafe.instead(0.5)[1] is Status.HELD
    value, _ = failsafe.instead(2.5)
    assert value == pytest.approx(GOOD * math.exp(-1))


def test_without_decay_the_output_falls_to_zero_at_once() -> None:
    failsafe = after_a_good_value(hold_s=0.0, decay_s=0.0)
    assert failsafe.instead(0.0)[1] is Status.HELD
    assert failsafe.instead(0.001)[0].tolist() == [0.0, 0.0]


def test_what_callers_do_to_a_value_does_not_change_what_is_held() -> None:
    failsafe, value = Failsafe(2, FailsafeSettings()), GOOD.copy()
    failsafe.note_good(value, 0.0)
    value *= 0
    held, _ = failsafe.instead(0.05)
    assert held.tolist() == GOOD.tolist()
    held *= 0
    assert failsafe.instead(0.05)[0].tolist() == GOOD.tolist()


@pytest.mark.parametrize("name", ["hold_s", "decay_s"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_settings_that_make_no_sense_are_refused(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(UsageError, match=re.escape(f"{name}: expected seconds >= 0, got {value}")):
        FailsafeSettings(**settings)
