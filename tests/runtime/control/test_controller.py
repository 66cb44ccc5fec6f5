"""From a decoded velocity to the cursor's: each part by itself, and what none may ever do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.runtime import Status
from poyo_edge.runtime.control import Controller, ControlSettings
from poyo_edge.runtime.control.bias import SETTLE_S
from poyo_edge.runtime.control.guidance import ARRIVE_S
from poyo_edge.runtime.control.task import CURSOR_S, LONGEST_TRIAL_S
from poyo_edge.trials import Trial

RATE, STEP = 1000.0, 20
"""Ticks per second, and ticks between values: 50 Hz."""
RIGHT = np.array([10.0, 0.0])


def made(**values: Any) -> Controller:
    return Controller(ControlSettings(**values), 2, RATE)


def played(
    controller: Controller, values: Any, *, start: int = 0, step: int = STEP,
    status: Status = Status.VALID,
) -> Float64:  # fmt: skip
    """What comes out (N, 2) of values (N, 2)."""
    ticks = range(start, start + step * len(values), step)
    return np.stack([controller(v, status, t) for v, t in zip(values, ticks, strict=True)])


def speeds(values: Float64) -> list[float]:
    return [float(np.hypot(*value)) for value in values]


def test_off_gives_the_very_object_that_came() -> None:
    controller = made()
    for status in Status:
        value = np.array([0.1, -0.0])
        assert controller(value, status, 7) is value
    assert controller.to_json() is None


def test_gain_multiplies_and_the_decoders_own_value_stays() -> None:
    value = RIGHT.copy()
    assert made(gain=1.5)(value, Status.VALID, 0).tolist() == [15.0, 0.0]
    assert value.tolist() == RIGHT.tolist()


@pytest.mark.parametrize("lag_ms", [20.0, 60.0, 150.0])
@pytest.mark.parametrize("step", [5, 20, 50])
def test_smoothing_is_late_by_what_it_says_at_every_rate(lag_ms: float, step: int) -> None:
    """The group delay at low frequencies is how far a ramp comes out behind itself."""
    t = np.arange(400)[:, None] * step / RATE
    out = played(made(smoothing_ms=lag_ms), t * RIGHT, step=step)
    late_s = (t[-1] * RIGHT - out[-1])[0] / RIGHT[0]
    assert late_s == pytest.approx(lag_ms / 1e3, rel=1e-3)
    alpha = ControlSettings(smoothing_ms=lag_ms).smoothing_share(step / RATE)
    assert alpha / (1 - alpha) * step / RATE == pytest.approx(lag_ms / 1e3)
    slow = 0.2  # Hz
    wave = np.sin(2 * np.pi * slow * np.arange(int(20 * RATE / step)) * step / RATE)
    z = np.exp(2j * np.pi * slow * step / RATE)
    response = (1 - alpha) / (1 - alpha / z)
    got = played(made(smoothing_ms=lag_ms), wave[:, None] * RIGHT, step=step)[:, 0] / RIGHT[0]
    n = len(wave) // 2
    t_s = np.arange(len(wave))[n:] * step / RATE
    expected = abs(response) * np.sin(2 * np.pi * slow * t_s + np.angle(response))
    assert np.abs(got[n:] - expected).max() < 1e-3


def test_the_deadband_is_taken_off_and_a_cap_is_never_passed() -> None:
    values = np.outer([0.5, 1.0, 3.0, 50.0], [0.6, 0.8])
    assert speeds(played(made(deadband=1.0), values)) == pytest.approx([0, 0, 2, 49])
    assert speeds(played(made(speed_cap=2.0), values)) == pytest.approx([0.5, 1, 2, 2])


def test_scaling_leaves_the_reference_as_it_is() -> None:
    values = np.outer([0.0, 5.0, 20.0, 40.0], [0.6, 0.8])
    out = played(made(speed_exponent=2.0, speed_reference=20.0), values)
    assert speeds(out) == pytest.approx([0.0, 1.25, 20.0, 80.0])
    np.testing.assert_allclose(out[1] / 1.25, [0.6, 0.8])


def test_a_fault_ends_in_a_slow_start_and_so_does_a_swap() -> None:
    controller = made(slow_start_s=0.1)
    warm = played(controller, [RIGHT] * 3, status=Status.WARMUP)
    assert speeds(warm) == [0, 0, 0]
    out = played(controller, [RIGHT] * 8, start=60)
    assert speeds(out) == pytest.approx([0, 2, 4, 6, 8, 10, 10, 10])
    controller(RIGHT, Status.HELD, 220)
    assert speeds(played(controller, [RIGHT] * 6, start=240)) == pytest.approx([0, 2, 4, 6, 8, 10])
    swapped = [controller(RIGHT, Status.VALID, t, session_id="b")[0] for t in (360, 380, 400)]
    assert swapped == pytest.approx([0, 2, 4])
    after_a_hole = controller(RIGHT, Status.VALID, 2000, session_id="b")
    assert after_a_hole.tolist() == [0, 0]


@pytest.mark.parametrize("status", [Status.HELD, Status.INVALID])
def test_what_was_not_decoded_is_never_amplified_and_zero_stays_zero(status: Status) -> None:
    controller = made(gain=3.0, smoothing_ms=100.0, assist=1.0, assist_speed=50.0)
    controller.note_trial(Trial(number=1, start=0, target=(50.0, 0.0), radius=1.0))
    controller.note_cursor(0, (0.0, 0.0))
    played(controller, [RIGHT] * 10)
    assert controller(RIGHT, status, 200).tolist() == RIGHT.tolist()  # not 3 times, not assisted
    assert controller(RIGHT / 2, status, 220).tolist() == (RIGHT / 2).tolist()
    assert controller(RIGHT, status, 240).tolist() == pytest.approx((RIGHT / 2).tolist())
    assert controller(np.zeros(2), status, 260).tolist() == [0.0, 0.0]
    assert controller(RIGHT, status, 280).tolist() == [0.0, 0.0]


def trials(n: int, *, length: int = 1000, rest: int = 1000) -> list[tuple[int, int]]:
    return [(i * (length + rest), i * (length + rest) + length) for i in range(n)]


@pytest.mark.parametrize("source", ["trials", "rest"])
def test_the_bias_is_the_mean_over_whole_trials_or_rests(source: str) -> None:
    controller = made(bias=source, bias_n=4)
    bias = np.array([1.5, -0.5])
    for number, (start, end) in enumerate(trials(5)):
        way = (-1) ** number * RIGHT  # the targets balance each other
        controller.note_trial(Trial(number=number, start=start))
        out = played(controller, [way + bias] * 50, start=start)
        known = number >= 4
        assert out[-1].tolist() == pytest.approx((way + bias * (not known)).tolist())
        controller.note_trial(Trial(number=number, start=start, end=end))
        moving = [way] * int(SETTLE_S * RATE / STEP)  # still, and it is left out
        played(controller, [*moving, *[bias] * (50 - len(moving))], start=end)
    controller.note_trial(Trial(number=5, start=10_000))
    assert controller(bias, Status.VALID, 10_000).tolist() == pytest.approx([0, 0], abs=1e-9)
    controller(bias, Status.VALID, 10_020, session_id="another")
    assert controller.to_json()["bias_known"] == 0  # type: ignore[index]


def test_without_whole_trials_nothing_is_learned() -> None:
    bias = np.array([1.5, -0.5])
    controller = made(bias="trials", bias_n=1)
    played(controller, [bias] * 200)
    for number in range(3):  # whose ends nobody tells
        controller.note_trial(Trial(number=number, start=4000 + 1000 * number))
        out = played(controller, [bias] * 50, start=4000 + 1000 * number)
    assert out[-1].tolist() == bias.tolist()
    assert controller.to_json()["bias_known"] == 0  # type: ignore[index]


def test_assist_leads_to_the_target_and_fades_with_trials() -> None:
    controller = made(assist=0.5, assist_speed=20.0, assist_fade_trials=2)
    shares = []
    for number in range(4):
        start = 10 * STEP * number
        told = Trial(number=number, start=start, go_time=start + STEP, target=(0.0, 50.0))
        controller.note_trial(told)
        controller.note_cursor(start, (0.0, 0.0))
        before = controller(RIGHT, Status.VALID, start)
        assert before.tolist() == RIGHT.tolist(), "before it was told to go"
        out = controller(RIGHT, Status.VALID, start + STEP)
        shares.append(controller.assist)
        wanted = (1 - shares[-1]) * RIGHT + shares[-1] * np.array([0.0, 20.0])
        np.testing.assert_allclose(out, wanted, atol=0.1)  # the cursor has moved a little
        end = Trial(number=number, start=start, end=start + 2 * STEP)
        controller.note_trial(end)
        assert controller(RIGHT, Status.VALID, start + 3 * STEP).tolist() == RIGHT.tolist()
    assert shares == [0.5, 0.25, 0.0, 0.0]


def test_the_automatic_command_arrives_and_stands() -> None:
    controller = made(assist=1.0, assist_speed=30.0)
    at, tick = np.array([0.0, 0.0]), 0
    controller.note_trial(Trial(number=1, start=0, target=(6.0, -4.0), radius=0.5))
    for _ in range(200):
        controller.note_cursor(tick, at)
        velocity = controller(-RIGHT, Status.VALID, tick)
        assert np.hypot(*velocity) <= 30 * (1 + 1e-12)
        at, tick = at + velocity * STEP / RATE, tick + STEP
    assert at.tolist() == pytest.approx([6.0, -4.0], abs=1e-6)
    assert ARRIVE_S > STEP / RATE, "or it would overshoot"


def test_assist_fades_with_minutes() -> None:
    controller = made(assist=0.8, assist_speed=10.0, assist_fade_minutes=0.1)
    controller(RIGHT, Status.VALID, 0)
    controller.note_trial(Trial(number=1, start=0))
    for tick in range(STEP, 3001, STEP):
        controller(RIGHT, Status.VALID, tick)
    assert controller.to_json()["assist"] == pytest.approx(0.4, abs=0.01)  # type: ignore[index]


def test_attenuation_takes_away_what_leads_past_the_target() -> None:
    controller = made(attenuation=0.75)
    controller.note_trial(Trial(number=1, start=0, target=(20.0, 0.0)))
    controller.note_cursor(0, (0.0, 0.0))
    out = controller(np.array([6.0, 8.0]), Status.VALID, 0)
    assert out.tolist() == pytest.approx([6.0, 2.0])


def test_a_cursor_or_a_trial_that_is_old_leads_nowhere() -> None:
    controller = made(assist=1.0, assist_speed=20.0)
    controller.note_trial(Trial(number=1, start=0, target=(0.0, 50.0)))
    assert controller(RIGHT, Status.VALID, 0).tolist() == RIGHT.tolist(), "nobody told where it is"
    controller.note_cursor(20, (0.0, 0.0))
    assert controller(RIGHT, Status.VALID, 20)[1] > 0
    later = 20 + int(CURSOR_S * RATE) + STEP
    assert controller(RIGHT, Status.VALID, later).tolist() == RIGHT.tolist()
    late = int(LONGEST_TRIAL_S * RATE) + STEP  # its task has died
    controller.note_cursor(late, (0.0, 0.0))
    assert controller(RIGHT, Status.VALID, late).tolist() == RIGHT.tolist()
    assert controller.running(late) is None


def test_dwelling_clicks_once_for_each_visit() -> None:
    controller = made(dwell_s=0.1)
    controller.note_trial(Trial(number=1, start=0, target=(5.0, 0.0), radius=1.0))
    clicked = []
    path = [0, 5, 5, 5, 5, 5, 5, 5, 5, 5, 9, 5, 5, 5, 5, 5, 5]
    for i, x in enumerate(path):
        controller.note_cursor(i * STEP, (float(x), 0.0))
        controller(np.zeros(2), Status.VALID, i * STEP)
        if controller.click:
            clicked.append(i)
    assert clicked == [6, 16]
    assert controller.to_json()["clicks"] == 2  # type: ignore[index]


def test_a_target_or_a_cursor_of_another_width_is_refused() -> None:
    controller = made(assist=1.0, assist_speed=20.0)
    with pytest.raises(UsageError, match="trial 3: expected a target of 2 values"):
        controller.note_trial(Trial(number=3, start=0, target=(1.0, 2.0, 3.0)))
    for position in [(1.0,), (1.0, math.nan), "here", [[1.0, 2.0]]]:
        with pytest.raises(UsageError, match="cursor: expected 2 finite values"):
            controller.note_cursor(0, position)  # type: ignore[arg-type]
    off = made()
    off.note_trial(Trial(number=3, start=0, target=(1.0, 2.0, 3.0)))
    assert off.running(1) is not None, "a swap waits for its end all the same"


def test_reset_forgets_all_and_a_new_clock_what_has_ticks() -> None:
    controller = made(bias="rest", bias_n=1, assist=0.5, assist_speed=5.0, assist_fade_trials=4)
    for number, (start, end) in enumerate(trials(2)):
        controller.note_trial(Trial(number=number, start=start))
        controller.note_trial(Trial(number=number, start=start, end=end))
        played(controller, [np.array([1.0, 0.0])] * 50, start=end)
    controller.note_trial(Trial(number=2, start=4000, target=(9.0, 9.0)))
    assert controller.running(4000) is not None
    controller.new_clock()
    assert controller.running(4000) is None
    kept = controller.to_json()
    assert kept is not None
    assert (kept["bias"], kept["whole_trials"]) == ([1.0, 0.0], 2)
    controller.reset()
    new = controller.to_json()
    assert new is not None
    assert (new["bias"], new["whole_trials"]) == ([0.0, 0.0], 0)


SPEEDS = st.floats(-1e308, 1e308, allow_nan=False)
SETTINGS = st.builds(
    ControlSettings,
    gain=st.floats(0, 100), smoothing_ms=st.floats(0, 2000), deadband=st.floats(0, 1e12),
    speed_cap=st.floats(1e-9, 1e12), speed_exponent=st.floats(0.2, 5),
    speed_reference=st.floats(1e-9, 1e12), slow_start_s=st.floats(0, 60),
    bias=st.sampled_from(["off", "trials", "rest"]), bias_n=st.integers(1, 3),
    assist=st.floats(0, 1), assist_speed=st.floats(1e-9, 1e12), attenuation=st.floats(0, 1),
    dwell_s=st.floats(0.001, 1), dwell_radius=st.floats(1e-9, 1e12),
)  # fmt: skip
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("value"), SPEEDS, SPEEDS, st.sampled_from(list(Status))),
        st.tuples(st.just("trial"), SPEEDS, SPEEDS, st.booleans()),
        st.tuples(st.just("cursor"), SPEEDS, SPEEDS, st.integers(-500, 500)),
        st.tuples(st.just("tick"), st.integers(-100, 5000)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(control=SETTINGS, events=EVENTS)
def test_whatever_comes_what_leaves_is_finite_and_below_the_cap(
    control: ControlSettings, events: list[tuple[Any, ...]]
) -> None:
    controller, tick, number = Controller(control, 2, RATE), 1000, 0
    cap = control.speed_cap
    assert cap is not None
    for kind, *what in events:
        tick += STEP
        if kind == "tick":
            tick += what[0]
        elif kind == "cursor":
            controller.note_cursor(tick + what[2], what[:2])
        elif kind == "trial":
            number += 1
            end = tick + 100 if what[2] else None
            controller.note_trial(
                Trial(number=number, start=tick, target=(what[0], what[1]), end=end)
            )
        else:
            value, status = np.array(what[:2]), what[2]
            out = controller(value, status, tick)
            assert np.isfinite(out).all()
            assert math.hypot(*out.tolist()) <= cap
            if status in (Status.HELD, Status.INVALID):
                assert (np.abs(out) <= np.abs(value)).all()
                assert out.any() <= value.any()


def test_a_task_that_was_started_again_may_use_a_number_again() -> None:
    controller = Controller(ControlSettings(assist=1.0, assist_speed=5.0), 2, 1000.0)
    controller.note_trial(Trial(number=1, start=0, end=100, target=(1.0, 0.0)))
    controller.note_trial(Trial(number=1, start=500, target=(0.0, 1.0)))
    running = controller.running(600)
    assert running is not None and running.start == 500
