"""The closed loop with a perfect decoder: the person reaches targets, and latency costs."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import UsageError
from poyo_edge.simulation.array import TICK_HZ, ArraySettings, SimulatedArray
from poyo_edge.simulation.closed_loop import REST_S, ClosedLoop, Run
from poyo_edge.simulation.cursor import Cursor, CursorSettings
from poyo_edge.simulation.decoding import KnownIntention
from poyo_edge.simulation.measures import decoder_gain, measure
from poyo_edge.simulation.person import Person, PersonSettings
from poyo_edge.trials import Trial

FEW = ArraySettings(n_units=4)


def perfect(n_trials: int = 32, **arguments: object) -> Run:
    array = SimulatedArray.draw(FEW, seed=0)
    loop = ClosedLoop(array, KnownIntention(array), **arguments)  # type: ignore[arg-type]
    return loop.run(n_trials=n_trials)


@pytest.mark.slow
def test_a_person_reaches_all_targets_with_a_perfect_decoder() -> None:
    run = perfect()
    found = measure(run, 0.3)
    assert found.success.all()
    assert 0.6 < found.time_s.mean() < 1.2
    assert found.path_efficiency.mean() > 0.8
    assert decoder_gain(run) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.slow
def test_latency_and_a_wrong_gain_lower_throughput() -> None:
    bits = {
        name: float(measure(perfect(cursor=CursorSettings(**cursor)), 0.3).bits_per_s.mean())
        for name, cursor in {
            "plain": {},
            "late": {"latency_ms": 100.0},
            "later": {"latency_ms": 200.0},
            "slow": {"gain": 0.3},
            "smooth": {"smoothing_ms": 200.0},
        }.items()
    }
    assert bits["plain"] > 1.2 * bits["late"] > 1.2 * 1.2 * bits["later"]
    assert max(bits["slow"], bits["smooth"]) < 0.85 * bits["plain"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_in_one_piece_or_several() -> None:
    whole = perfect(6, seed=3)
    array = SimulatedArray.draw(FEW, seed=0)
    loop = ClosedLoop(array, KnownIntention(array), seed=3)
    parts = [loop.run(n_trials=2) for _ in range(3)]
    np.testing.assert_array_equal(whole.position, np.concatenate([p.position for p in parts]))
    np.testing.assert_array_equal(whole.spike_times, np.concatenate([p.spike_times for p in parts]))
    np.testing.assert_array_equal(whole.trials.end, np.concatenate([p.trials.end for p in parts]))
    assert not np.array_equal(whole.position[:100], perfect(6, seed=4).position[:100])


def test_a_run_of_seconds_ends_after_them() -> None:
    array = SimulatedArray.draw(FEW, seed=0)
    loop = ClosedLoop(array, KnownIntention(array))
    assert len(loop.run(seconds=3.0).times) == 150
    assert loop.now_s == pytest.approx(3.0)
    with pytest.raises(UsageError, match="trials or seconds above 0"):
        loop.run()


def test_listeners_hear_of_trials_and_of_the_cursor() -> None:
    told, shown = list[Trial](), list[tuple[Int64, Float64]]()
    run = perfect(3, on_trial=told.append, on_cursor=lambda *values: shown.append(values))
    assert [(one.number, one.end is None) for one in told] == [
        (0, True), (0, False), (1, True), (1, False), (2, True), (2, False), (3, True),
    ]  # fmt: skip
    ended = [one for one in told if one.end is not None]
    np.testing.assert_allclose([one.start / TICK_HZ for one in ended], run.trials.start)
    np.testing.assert_allclose([(one.end or 0) / TICK_HZ for one in ended], run.trials.end)
    np.testing.assert_allclose([one.target or () for one in ended], run.trials.target)
    assert [one.success for one in ended] == run.trials.success.tolist()
    np.testing.assert_array_equal(np.concatenate([p for _, p in shown]), run.position)
    np.testing.assert_allclose([t[0] / TICK_HZ for t, _ in shown], run.times)


@pytest.mark.slow
def test_a_cursor_that_missed_its_target_is_put_on_it() -> None:
    run = perfect(3, control=lambda value: 0.0 * value)
    begins = np.searchsorted(run.times, run.trials.start[1:] - 0.01)
    np.testing.assert_array_equal(run.position[begins], run.trials.target[:-1])
    np.testing.assert_allclose(run.trials.end - run.trials.start, 5.0)


def test_control_stands_between_decoder_and_cursor() -> None:
    still = perfect(2, control=lambda value: 0.0 * value)
    assert not still.trials.success.any()
    assert not still.velocity.any()
    assert still.decoded.any()


def test_the_person_sees_the_cursor_late_and_rests_without_a_target() -> None:
    run = perfect(1)
    resting = run.times < REST_S + 0.1 - 1e-9  # the target is seen late, too
    assert not run.intended[resting].any()
    assert run.intended[np.flatnonzero(~resting)[0]].any()
    person = Person(PersonSettings(aim_sd=0.0, known_share=0.0, command_s=0.0))
    target = np.array([6.0, 0.0])
    for _ in range(10):
        person.intend(np.zeros(2), target)
    seen = [person.intend(target, target)[0] for _ in range(8)]
    np.testing.assert_allclose(seen, [20.0] * 5 + [0.0] * 3)


def test_the_forward_model_knows_what_is_under_way() -> None:
    """Of 0.25 s of commands of 10 cm/s, a person who knows all subtracts 2.5 cm."""
    settings = PersonSettings(aim_sd=0.0, known_share=1.0, push=((0.0, 0.0), (100.0, 100.0)))
    person = Person(settings)
    for _ in range(40):
        command = person.intend(np.zeros(2), np.array([10.0, 0.0]))
    assert command[0] == pytest.approx(10.0 / 1.25, rel=1e-3)  # u = 10 - 0.25 u


def test_damping_takes_off_speed() -> None:
    """By half of the speed that the person knows of: u = 20 - u / 2."""
    person = Person(PersonSettings(aim_sd=0.0, known_share=1.0, damping=((0.0, 0.0), (20.0, 10.0))))
    for _ in range(40):
        command = person.intend(np.zeros(2), np.array([100.0, 0.0]))
    np.testing.assert_allclose(command, [20 / 1.5, 0.0], rtol=1e-3)


def test_a_latency_of_a_part_of_a_step_lies_between_whole_ones() -> None:
    def after(latency_ms: float, n: int) -> float:
        cursor = Cursor(CursorSettings(latency_ms=latency_ms))
        for _ in range(n):
            cursor.move(np.array([10.0, 0.0]))
        return float(cursor.position[0])

    assert after(0, 5) == pytest.approx(1.0)
    assert after(40, 5) == pytest.approx(0.6)
    assert after(50, 5) == pytest.approx(0.5)
    edge = Cursor(CursorSettings(workspace_cm=1.0))
    for _ in range(10):
        velocity = edge.move(np.array([10.0, 0.0]))
    assert edge.position[0] == 1.0
    assert velocity[0] == 0.0


def test_smoothing_is_of_first_order() -> None:
    cursor = Cursor(CursorSettings(smoothing_ms=100.0, gain=2.0))
    moved = [cursor.move(np.array([5.0, 0.0]))[0] for _ in range(5)]
    np.testing.assert_allclose(moved, 10 * (1 - np.exp(-0.2 * np.arange(1, 6))))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"latency_ms": -1.0}, "latency_ms: expected 0 to 5000 ms"),
        ({"smoothing_ms": float("nan")}, "smoothing_ms: expected 0 to 5000 ms"),
        ({"gain": 0.0}, "gain: expected above 0"),
    ],
)
def test_settings_of_the_cursor_that_make_no_sense_are_refused(
    wrong: dict[str, float], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        CursorSettings(**wrong)


def test_settings_of_the_person_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="known_share: expected 0 to 1"):
        PersonSettings(known_share=1.1)
    with pytest.raises(UsageError, match="push: expected knots"):
        PersonSettings(push=((1.0, 0.0), (0.0, 1.0)))
