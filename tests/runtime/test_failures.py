"""A backend that fails: what leaves the decoder is held, then fades, and is never NaN."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from poyo_edge.errors import BackendError
from poyo_edge.runtime import Decoder, DecoderSettings, FailsafeSettings, Status
from poyo_edge.runtime.backends import Backend
from poyo_edge.runtime.core import Core

if TYPE_CHECKING:
    from conftest import Rig


class Stub(Backend):
    """A backend that can be told to fail."""

    name = "stub"

    def __init__(self, core: Core) -> None:
        self.backend = core.backend
        self.failure: Callable[[], float] | None = None

    def run(self, feeds: Any) -> npt.NDArray[np.float32]:
        prediction = self.backend.run(feeds)
        if self.failure is not None:
            prediction[..., 1] = self.failure()
        return prediction


def raising(error: Exception) -> Callable[[], float]:
    def fail() -> float:
        raise error

    return fail


FAILURES: dict[str, Callable[[], float]] = {
    "raises": raising(BackendError("no device")),
    "raises something else": raising(RuntimeError("device lost")),
    "gives NaN": lambda: float("nan"),
    "gives Inf": lambda: float("-inf"),
}


def with_stub(rig: Rig, **arguments: Any) -> tuple[Decoder, Stub]:
    stub = Stub(rig.core)
    core = dataclasses.replace(rig.core, backend=stub)
    return Decoder(core, rig.a, **arguments), stub


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_backend_is_held_then_fades_then_is_zero_and_recovers(
    rig: Rig, failure: str
) -> None:
    times, rows = rig.stream(900, 3.0)
    ends = np.round(1.0 + np.arange(64 + 1) / 64, 6)
    decoder, stub = with_stub(rig)
    decoder.push(times, rows)
    last_good = [decoder.decode(t) for t in (0.75, 1.0)][-1]
    stub.failure = FAILURES[failure]
    failing = [decoder.decode(t) for t in ends[1:]]
    for result in failing:
        age = float(result.t) - 1.0
        assert np.isfinite(result.value).all()
        assert "backend" in result.flags
        assert result.status is (Status.HELD if age <= 0.1 else Status.INVALID)
        if age <= 0.1:
            assert np.array_equal(result.value, last_good.value)
    sizes = [float(np.abs(result.value).max()) for result in failing]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[5] == sizes[0] > sizes[6] > sizes[20] > 0
    assert sizes[-1] == 0
    assert decoder.stats()["counters"]["backend_failures"] == len(failing)
    stub.failure = None
    recovered = decoder.decode(2.5)
    assert (recovered.status, recovered.flags) == (Status.VALID, ("unverified",))
    assert np.array_equal(recovered.value, rig.batch(times, rows, 2.5))


def test_a_backend_that_never_worked_gives_zero(rig: Rig) -> None:
    decoder, stub = with_stub(rig)
    stub.failure = FAILURES["raises"]
    result = decoder.decode(1.0)
    assert (result.value.tolist(), result.status) == ([0.0, 0.0], Status.INVALID)


def test_a_value_from_before_a_clock_reset_is_not_held(rig: Rig) -> None:
    decoder, stub = with_stub(rig)
    decoder.decode(100.0)
    stub.failure = FAILURES["gives NaN"]
    result = decoder.decode(0.0)
    assert (result.value.tolist(), result.status) == ([0.0, 0.0], Status.INVALID)


def test_hold_time_can_be_set(rig: Rig) -> None:
    failsafe = FailsafeSettings(hold_s=0.5, decay_s=0.0)
    decoder, stub = with_stub(rig, settings=DecoderSettings(failsafe=failsafe))
    decoder.decode(1.0)
    stub.failure = FAILURES["raises"]
    statuses = [decoder.decode(t).status for t in (1.25, 1.5, 1.75)]
    assert statuses == [Status.HELD, Status.HELD, Status.INVALID]


def test_hold_time_is_counted_in_device_ticks(rig: Rig) -> None:
    decoder, stub = with_stub(rig, tick_rate_hz=30_000)
    decoder.decode(30_000)
    stub.failure = FAILURES["raises"]
    statuses = [decoder.decode(t).status for t in (32_999, 33_001)]
    assert statuses == [Status.HELD, Status.INVALID]


def test_a_caller_that_changes_a_value_does_not_change_what_is_held(rig: Rig) -> None:
    decoder, stub = with_stub(rig)
    good = decoder.decode(1.0)
    expected = good.value.copy()
    good.value[:] = np.nan
    stub.failure = FAILURES["raises"]
    assert np.array_equal(decoder.decode(1.05).value, expected)


def test_a_failure_is_logged_when_it_begins_and_not_per_window(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    decoder, stub = with_stub(rig)
    with caplog.at_level(logging.INFO):
        for failing in (True, True, True, False, True, True):
            stub.failure = FAILURES["raises"] if failing else None
            decoder.decode(1.0)
    assert len(caplog.records) == 2
    assert "no device" in caplog.messages[0]
