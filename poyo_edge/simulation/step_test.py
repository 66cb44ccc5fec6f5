"""The step test: a velocity that is intended from one moment on and held, as decoders give it.

Reaches end, and a decoder that has learned it lets go of a command that does not: the held gain
says so, which R² on reaches does not.

Legend: S steps, R repeats, D dimensions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.simulation.array import SimulatedArray
from poyo_edge.simulation.decoding import Decoding

REST_S, HELD_S = 2.0, 1.5
_SETTLED_S = 1.1
"""Seconds of rest that are not looked at: a window of a second, and what it ends with."""
_HELD_FROM_S, _HELD_TO_S = 0.9, 1.1
_RISEN = 0.9


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepResponse:
    """Means over all directions and repeats. Speeds in cm/s."""

    command_cm_s: float
    times: Float64
    """(S,) seconds since the command."""
    along: Float64
    """(S,) decoded along the command."""
    rise_ms: float
    """From the intention to 90 % of the greatest value: the delay of the array is in it."""
    peak_gain: float
    """Greatest value over the command."""
    overshoot: float
    """What the greatest value is above the command, as a share of it; 0 if it never is."""
    held_gain_1s: float
    """Value a second after the command over the command, the mean of 0.9 to 1.1 s."""
    rest_sd: float
    """Sd of each dimension while nothing is intended."""
    rest_bias: float
    """Length of the mean value while nothing is intended."""

    def to_json(self) -> dict[str, Any]:
        """All but the curve, as JSON values."""
        names = ("command_cm_s", "rise_ms", "peak_gain", "overshoot", "held_gain_1s", "rest_sd",
                 "rest_bias")  # fmt: skip
        return {name: round(float(getattr(self, name)), 4) for name in names}


def step_test(
    array: SimulatedArray,
    decoding: Decoding,
    *,
    command_cm_s: float = 20.0,
    n_directions: int = 8,
    repeats: int = 3,
    seed: int = 0,
) -> StepResponse:
    """Hold commands in all directions, each after rest, and look at what is decoded.

    Args:
        array: begins anew with the seed.
        decoding: begins anew.
        command_cm_s: the speed that is held.
        n_directions: evenly around the circle.
        repeats: of each direction.
        seed: of the spikes.
    """
    if not command_cm_s > 0 or n_directions < 1 or repeats < 1:
        raise UsageError(
            f"step test: expected a speed, directions and repeats above 0, got {command_cm_s}, "
            f"{n_directions}, {repeats}"
        )
    array.restart([seed, 5])
    decoding.restart()
    n_rest, n_held = round(REST_S / array.period_s), round(HELD_S / array.period_s)
    curves, rests = [], []
    for angle in np.tile(2 * np.pi * np.arange(n_directions) / n_directions, repeats):
        toward = np.array([np.cos(angle), np.sin(angle)])
        rests.append(_decoded(array, decoding, np.zeros(2), n_rest))
        curves.append(_decoded(array, decoding, command_cm_s * toward, n_held) @ toward)
    times = (np.arange(n_held, dtype=np.float64) + 1) * array.period_s
    along = np.mean(curves, axis=0)
    rest = np.array(rests)[:, round(_SETTLED_S / array.period_s) :].reshape(-1, 2)
    held = (times >= _HELD_FROM_S) & (times <= _HELD_TO_S)
    peak = float(along[times <= 1.0].max())
    return StepResponse(
        command_cm_s=command_cm_s,
        times=times,
        along=along,
        rise_ms=1e3 * float(times[int((along >= _RISEN * peak).argmax())]),
        peak_gain=peak / command_cm_s,
        overshoot=max(0.0, peak / command_cm_s - 1.0),
        held_gain_1s=float(along[held].mean()) / command_cm_s,
        rest_sd=float(rest.std(0).mean()),
        rest_bias=float(np.hypot(*rest.mean(0))),
    )


def _decoded(array: SimulatedArray, decoding: Decoding, intended: Float64, n: int) -> Float64:
    """(n, D) of an intention that is held for n steps."""
    values = []
    for _ in range(n):
        ticks, rows = array.step(intended)
        values.append(decoding.step(array.tick, ticks, rows))
    return np.array(values)
