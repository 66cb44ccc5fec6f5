"""An array that fires as a session's units did, from the session and its decoder alone.

Without a recording nobody knows how units are tuned. But the decoder does: more spikes of a unit
move the decoded velocity one way, which is taken for its preferred direction. How far its rate goes
up and down is in the session's record (``Activity``): what its variance has beyond that of Poisson
spikes is taken for movement, a fifth of it for speed in any direction. One factor for all units
then gives a held command the gain at its peak that fitted sessions have. That is a model of a
session's noise and directions, not of its array: control through it is worse than through the
array itself, and an array fitted to a recording is closer to the truth.

Legend: U units, R repeats, D dimensions.
"""

from __future__ import annotations

import numpy as np

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import UsageError
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.simulation.array import ArraySettings, SimulatedArray
from poyo_edge.simulation.decoding import LoopDecoding
from poyo_edge.simulation.step_test import step_test
from poyo_edge.simulation.tuning import Tuning

_LEAD_S = 0.1
_LATELY_S = 0.3
"""What is told of a movement that goes on now."""
_REPEATS = 16
_WANDERS = 0.3
"""Sd of the logarithm of the rates to which spikes are added: near rest a decoder shrinks them."""
_SPEED_SHARE = 0.2
"""Part of a unit's modulation that follows speed in any direction, as in ``simulate``."""
_MEAN_SPEED = 0.5
"""Of a session, as a share of its typical speed."""
_TYPICAL_CM_S = 15.0
_STEPS = 5
_LEAST_HZ = 0.2
"""Modulation that is given to a unit whose variance is that of chance."""
_PEAK = 1.05, 1.25
"""Gain of a held command at its peak, as of sessions on the arrays that they were fitted to."""


def array_from_session(
    decoder: Decoder, *, seed: int = 0, period_s: float = 0.02
) -> SimulatedArray:
    """An array of the session's units.

    Args:
        decoder: opened with ``tick_rate_hz=TICK_HZ`` and the session; decodes two dimensions.
        seed: of what the array fires.
        period_s: length of a step.

    Raises:
        UsageError: the session does not know how its units fired.
    """
    activity = decoder.session.activity
    if activity is None:
        raise UsageError(
            f"session {decoder.session_id!r}: expected one that knows how its units fired, got an "
            f"older one; calibrate again, or give its recording, to fit an array to"
        )
    base = activity.rate_hz.astype(np.float64)
    window_s = decoder.window_s
    beyond = activity.rate_sd_hz.astype(np.float64) ** 2 - base / window_s
    depth = np.sqrt(np.maximum(beyond, _LEAST_HZ**2))
    moved = _moved_by_units(decoder, base, np.random.default_rng([seed, 10]))
    size = np.maximum(np.sqrt((moved**2).sum(1)), 1e-12)
    typical = float((activity.output_high - activity.output_low).mean()) / 4 or _TYPICAL_CM_S
    weights = depth[:, None] * moved / size[:, None] / typical
    # What hardly moves the cursor says little of a direction, and is modulated by something else.
    weights *= np.minimum(1.0, size / np.median(size))[:, None]
    factor = 1.0
    for _ in range(_STEPS):
        array = _array(decoder, base, factor * weights, typical, seed, period_s)
        found = step_test(
            array, LoopDecoding(decoder, array.unit_ids, rate_hz=1 / period_s),
            command_cm_s=typical, repeats=1, seed=seed,
        )  # fmt: skip
        if _PEAK[0] <= found.peak_gain <= _PEAK[1]:
            break
        factor *= float(np.clip(np.mean(_PEAK) / max(found.peak_gain, 0.1), 0.5, 2.0))
    return array


def _array(
    decoder: Decoder, base: Float64, weights: Float64, typical: float, seed: int, period_s: float
) -> SimulatedArray:
    n_units = len(base)
    speed_weight = _SPEED_SHARE * np.sqrt((weights**2).sum(1))
    tuning = Tuning(
        # The record has the mean of a session in which units follow speed too.
        base=np.maximum(base - speed_weight * _MEAN_SPEED * typical, 0.0),
        weights=weights.copy(),
        speed_weight=speed_weight,
        lead=np.full(n_units, _LEAD_S),
        scale=np.ones(n_units),
        typical_cm_s=typical,
    )
    return SimulatedArray(
        tuning, decoder.unit_ids, np.zeros((n_units, 0)),
        settings=ArraySettings(n_units=n_units), seed=[seed, 1], period_s=period_s,
    )  # fmt: skip


def _moved_by_units(decoder: Decoder, base: Float64, rng: np.random.Generator) -> Float64:
    """(U, D): how some more spikes of each unit, lately, move the decoded value in the mean."""
    rate_hz, window_s = decoder.tick_rate_hz, decoder.window_s
    assert rate_hz is not None
    apart = int(3 * window_s * rate_hz)
    n_units, end = len(base), apart
    moved = np.zeros((n_units, decoder.artifact.manifest.spec.dim_out))
    decoder.reset()
    for _ in range(_REPEATS):
        wandering = base * np.exp(rng.normal(0.0, _WANDERS, n_units))
        counts = rng.poisson(wandering * window_s)
        rows = np.repeat(np.arange(n_units), counts)
        times = np.sort(rng.uniform(0, window_s, len(rows)))
        rows = rng.permutation(rows)
        before = _decoded(decoder, end, times, rows)
        end += apart
        for unit in range(n_units):
            more = max(1, round(float(np.sqrt(base[unit] * _LATELY_S))) + 1)
            extra = window_s - _LATELY_S * (np.arange(more) + 0.5) / more
            moved[unit] += (
                _decoded(decoder, end, np.r_[times, extra], np.r_[rows, np.full(more, unit)])
                - before
            )
            end += apart
    decoder.reset()
    return moved / _REPEATS


def _decoded(decoder: Decoder, end: int, times: Float64, rows: Int64) -> Float64:
    """The value (D,) of the window that ends at a tick, with spikes at seconds from its start."""
    rate_hz = decoder.tick_rate_hz
    assert rate_hz is not None
    ticks = end - int(decoder.window_s * rate_hz) + (times * rate_hz).astype(np.int64)
    decoder.reset()
    decoder.push(ticks, decoder.units.own(rows.astype(np.int32)))
    return decoder.decode(end).value
