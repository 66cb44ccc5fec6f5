"""Figures of control by hand, and how labels stand to what another session decodes."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_edge.arrays import Float64
from poyo_edge.calibration.control import control_of, relation

N = 400
TIMES: Float64 = np.arange(N, dtype=np.float64) * 0.05


def moves() -> Float64:
    """Around a circle at 10, with changing turns."""
    angle = 2 * TIMES + 2 * np.sin(TIMES * 1.7)
    return 10 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def turned(values: Float64, degrees: float) -> Float64:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(values @ turn.T)


def test_a_perfect_decoder() -> None:
    found = control_of(moves(), moves(), (moves()[:4], moves()[:4]))
    assert found.angular_error_deg == 0
    assert found.gain == found.held_gain == 1
    assert found.bias_at_rest is None, "nothing rests"


def test_a_turn_is_an_angular_error_and_a_loss_of_gain() -> None:
    found = control_of(moves(), turned(moves(), 60))
    assert found.angular_error_deg == pytest.approx(60, abs=1e-3)
    assert found.gain == pytest.approx(0.5)


def test_rest_has_a_bias_and_noise() -> None:
    rng = np.random.default_rng(0)
    truth = np.concatenate([moves(), np.zeros((N, 2))])
    decoded = truth + rng.normal([3.0, 4.0], 2, truth.shape)
    found = control_of(truth, decoded)
    assert found.bias_at_rest == pytest.approx(5, abs=0.3)
    assert found.noise_at_rest == pytest.approx(2 * np.sqrt(2), abs=0.3)


def test_held_commands_have_a_gain_of_their_own() -> None:
    command = np.array([[10.0, 0.0], [0.0, 10.0]])
    found = control_of(moves(), moves(), (command, command * 0.5))
    assert (found.gain, found.held_gain) == (1, 0.5)


def test_too_few_samples_say_nothing() -> None:
    found = control_of(moves()[:5], moves()[:5])
    assert found.to_json() == dict.fromkeys(found.to_json())


@pytest.mark.parametrize("degrees", [0, 30, 90, -120])
def test_labels_that_are_turned_are_known_by_their_angle(degrees: float) -> None:
    found = relation(TIMES, moves(), TIMES, turned(moves(), degrees), 0.05)
    assert found is not None
    assert found.turned_deg == pytest.approx(abs(degrees), abs=0.1)
    assert found.correlation == pytest.approx(1)
    assert found.lag_s == 0


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_labels_that_are_slow_are_known_by_what_is_decoded_of_them(speed: float) -> None:
    late = TIMES + 0.2
    found = relation(TIMES, moves(), late, speed * turned(moves(), 40) + 3, 0.05)
    assert found is not None
    assert found.speed_ratio == pytest.approx(1 / speed, rel=0.01)


def test_labels_that_are_mirrored_are_turned_by_180() -> None:
    found = relation(TIMES, moves(), TIMES, moves() * [1, -1], 0.05)
    assert found is not None
    assert found.turned_deg == 180


@pytest.mark.parametrize("steps", [-6, 4])
def test_labels_that_are_late_are_known_by_their_lag(steps: int) -> None:
    found = relation(TIMES, moves(), TIMES + steps * 0.05, moves(), 0.05)
    assert found is not None
    assert found.lag_s == pytest.approx(steps * 0.05, abs=0.021)


def test_a_session_that_decodes_nothing_says_nothing_of_the_labels() -> None:
    assert relation(TIMES, np.ones((N, 2)), TIMES, moves(), 0.05) is None
    noise = np.random.default_rng(0).normal(size=(N, 2))
    found = relation(TIMES, noise, TIMES, moves(), 0.05)
    assert found is not None
    assert found.correlation < 0.3
