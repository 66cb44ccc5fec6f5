"""The C library and Python's decoder say the same of the same stream, window by window."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import Rig
from helpers.native.comparing import Clock, FrozenCore, Pair, play
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poyo_edge.artifact import Session
from poyo_edge.runtime import FailsafeSettings

VALUE_SD = 1e-6
"""Of the outputs' sd; measured 0: the same bits."""
CLOCKS = [
    Clock(tick_rate_hz=None),
    Clock(tick_rate_hz=None, grid_hz=1e6),
    Clock(tick_rate_hz=30000),
    Clock(tick_rate_hz=30000.5),  # a window of no whole number of ticks
]
WINDOWS = int(os.environ.get("POYOEDGE_SAME_WINDOWS", "0"))
"""Of all clocks, stand-in and ONNX Runtime each; ``just native-same`` takes 10⁵."""


def steps(clocks: list[Clock], otherwise: int) -> int:
    """Windows of one clock."""
    return -(-WINDOWS // len(clocks)) or otherwise


def said_of(pair: Pair, what: str) -> str:
    """What a run by hand prints."""
    counters = {name: n for name, n in pair.native.counters().items() if n}
    statuses = list(pair.native.state().statuses)
    return (
        f"{what}, {pair.clock}: {pair.windows} windows, largest difference {pair.largest}, "
        f"statuses {statuses}, counters {counters}"
    )


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Python logs what goes wrong; here much does."""
    caplog.set_level(logging.CRITICAL)


@pytest.mark.slow
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 2**32 - 1),
    clock=st.sampled_from(CLOCKS),
    capacity=st.sampled_from([1, 64, 300, 1 << 18]),
    failsafe=st.builds(
        FailsafeSettings,
        hold_s=st.sampled_from([0.0, 0.1]),
        decay_s=st.sampled_from([0.0, 0.1, 1.0]),
        missed_spikes=st.sampled_from([2.0, 30.0, float("inf")]),
        silence_s=st.sampled_from([0.0, 0.1]),
    ),
    future_limit_s=st.sampled_from([0.25, 60.0, float("inf")]),
)
def test_any_stream_gives_the_same_values_statuses_and_counters(
    rig: Rig, native_sessions: dict[Path, Session], libpoyoedge: Path, stand_in: Path, seed: int,
    clock: Clock, capacity: int, failsafe: FailsafeSettings, future_limit_s: float,
) -> None:  # fmt: skip
    core = FrozenCore.of(rig.core, native_sessions, stand_in=True)
    pair = Pair(
        core, native_sessions, libpoyoedge, stand_in, clock,
        capacity=capacity, failsafe=failsafe, future_limit_s=future_limit_s,
    )  # fmt: skip
    play(pair, np.random.default_rng(seed), 120)
    assert pair.largest <= VALUE_SD * rig.output_sd
    pair.close()


@pytest.mark.slow
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_long_stream_meets_every_rule(
    rig: Rig, native_sessions: dict[Path, Session], libpoyoedge: Path, stand_in: Path, clock: Clock
) -> None:
    """So the test above is about all of them."""
    core = FrozenCore.of(rig.core, native_sessions, stand_in=True)
    pair = Pair(core, native_sessions, libpoyoedge, stand_in, clock, capacity=700)
    play(pair, np.random.default_rng(2), steps(CLOCKS, 3000))
    print(said_of(pair, "stand-in"))
    counters, state = pair.native.counters(), pair.native.state()
    if clock.tick_rate_hz is not None:
        assert counters.pop("not_finite") == 0
    assert all(counters.values()), counters
    assert all(state.statuses)
    assert pair.largest <= VALUE_SD * rig.output_sd
    pair.close()


def test_what_random_streams_seldom_meet_is_the_same(
    rig: Rig, native_sessions: dict[Path, Session], libpoyoedge: Path, stand_in: Path
) -> None:
    core = FrozenCore.of(rig.core, native_sessions, stand_in=True)
    pair = Pair(core, native_sessions, libpoyoedge, stand_in, CLOCKS[0], capacity=64)
    rows = np.arange(65) % 12
    pair.push(np.array([10.0, *np.linspace(10.1, 10.9, 64)]), rows, None)
    pair.decode(11.0)  # the spike that was lost lay on the window's start
    assert "overflow" in pair.last.flags
    pair.push(np.array([np.nextafter(12.0, 0)]), np.zeros(1, np.int64), None)
    pair.decode(12.0)  # as float32, that is the window's end
    pair.decode(5.0, stream_lost=True)  # another clock: there is nothing to hold
    assert (pair.last.status, pair.last.value.tolist()) == ("INVALID", [0.0, 0.0])
    pair.same_counters()
    assert pair.largest == 0
    pair.close()


@pytest.mark.parametrize("clock", CLOCKS[1:])
def test_with_onnx_runtime_values_are_the_same(
    rig: Rig,
    native_sessions: dict[Path, Session],
    libpoyoedge: Path,
    onnxruntime_so: Path,
    clock: Clock,
) -> None:
    core = FrozenCore.of(rig.core, native_sessions, stand_in=False)
    pair = Pair(core, native_sessions, libpoyoedge, onnxruntime_so, clock)
    play(pair, np.random.default_rng(0), steps(CLOCKS[1:], 400))
    print(said_of(pair, "ONNX Runtime"))
    assert pair.largest <= VALUE_SD * rig.output_sd
    pair.close()


def test_values_are_the_artifacts_within_the_tolerance_of_freezing(
    rig: Rig, native_sessions: dict[Path, Session], libpoyoedge: Path, onnxruntime_so: Path
) -> None:
    from helpers.native.calling import NativeDecoder

    times, rows = rig.stream(1500, 5.0)
    ends = np.arange(1, 40) / 8
    scale = np.abs(rig.core.artifact.manifest.output.arrays(2)[0]).max()
    expected = rig.run(rig.decoder(), times, rows, ends)
    with NativeDecoder(libpoyoedge, next(iter(native_sessions)), onnxruntime_so) as native:
        pushed = 0
        for result in expected:
            heard = int(np.searchsorted(times, result.t))
            native.push(times[pushed:heard], rows[pushed:heard])
            pushed = heard
            value = native.decode(result.t).value
            np.testing.assert_allclose(value, result.value, atol=1e-5 * scale, rtol=0)
