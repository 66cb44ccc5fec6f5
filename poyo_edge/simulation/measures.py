"""What a stretch of closed-loop control was worth.

- success: trials whose target was taken in time.
- time: from the target's appearance to the end of the hold, of successful trials.
- movement time: the same without the hold. Dial-in time: from the first touch of the target to the
  begin of the hold that counted (Willett et al. 2019).
- path efficiency: from the cursor's start to its end as the crow flies, over the way it went, of
  the whole trial with its hold (Simeral et al. 2011).
- throughput: ``log2(1 + D / W)`` bits over the movement time (ISO 9241-411, the Shannon form of
  MacKenzie 1992), with D from the cursor's start to the target's centre and W its width, twice the
  radius; a failed trial has 0. The mean over trials.
- angular error: between the cursor's velocity and the way to the target, until it is touched, while
  the cursor moves faster than ``MOVES_CM_S``. Gain: slope of the decoded value along what was
  intended ``delay_s`` before, through the origin.

Legend: K trials, S steps.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from poyo_edge.arrays import Bool, Float64
from poyo_edge.metrics import angular_error, fitts_bits
from poyo_edge.simulation.closed_loop import Run

MOVES_CM_S = 1.0
_DRAWS = 1000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measures:
    """Of each trial (K,). Where a trial has none, such as the time of one that failed, NaN."""

    success: Bool
    time_s: Float64
    dial_in_s: Float64
    path_efficiency: Float64
    bits_per_s: Float64
    angular_error_deg: Float64
    decoder_gain: Float64
    """Of the whole run, the same for each of its trials."""

    def summary(self) -> dict[str, Any]:
        """Means, as JSON values; None where no trial has one."""
        values: dict[str, Any] = {"n_trials": len(self.success)}
        for field in dataclasses.fields(self):
            mean = mean_of(np.asarray(getattr(self, field.name), np.float64))
            values[field.name] = None if np.isnan(mean) else round(float(mean), 4)
        return values


def joined(parts: list[Measures]) -> Measures:
    """The trials of several runs, one after the other."""
    return Measures(**{
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(Measures)
    })  # fmt: skip


def measure(run: Run, hold_s: float) -> Measures:
    """Measure each trial of a run.

    Args:
        run: the whole of its trials.
        hold_s: how long a target had to be held.
    """
    rows = [_trial(run, k, hold_s) for k in range(len(run.trials))]
    columns = np.array(rows, np.float64).reshape(-1, 5).T
    return Measures(
        success=run.trials.success,
        time_s=columns[0],
        dial_in_s=columns[1],
        path_efficiency=columns[2],
        bits_per_s=columns[3],
        angular_error_deg=columns[4],
        decoder_gain=np.full(len(rows), decoder_gain(run)),
    )


def decoder_gain(run: Run) -> float:
    """Slope through the origin of decoded values on the intentions ``delay_s`` before."""
    shifted = intended_at(run, run.times - run.delay_s)
    heard = np.isfinite(shifted).all(1)
    power = float((shifted[heard] ** 2).sum())
    return float((run.decoded[heard] * shifted[heard]).sum() / power) if power else np.nan


def intended_at(run: Run, times: Float64) -> Float64:
    """(S, D) mean intention within the step that ends at each of the times (S,); NaN before all."""
    middle = times - run.period_s / 2
    columns = [np.interp(middle, run.times + run.period_s / 2, column, left=np.nan)
               for column in run.intended.T]  # fmt: skip
    return np.stack(columns, axis=1)


def interval(values: Float64, rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the mean of values (K,), NaN left out, by drawing trials anew."""
    drawn = values[rng.integers(len(values), size=(_DRAWS, len(values)))]
    means = [mean_of(one) for one in drawn]
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(low), float(high)


def _trial(run: Run, k: int, hold_s: float) -> tuple[float, float, float, float, float]:
    """Time, dial-in time, path efficiency, bits/s and angular error of trial k."""
    trials, slack = run.trials, run.period_s / 2
    start, end = trials.start[k], trials.end[k]
    inside = (run.times >= start - slack) & (run.times <= end + slack)
    path, times, velocity = run.position[inside], run.times[inside], run.velocity[inside]
    way = trials.target[k] - path
    distance = np.sqrt((way**2).sum(1))
    touched = np.flatnonzero(distance <= trials.radius[k])
    angle = _angle(velocity, way, touched[0] if len(touched) else len(path))
    if not trials.success[k]:
        return np.nan, np.nan, np.nan, 0.0, angle
    held = end - hold_s
    length = np.sqrt((np.diff(path, axis=0) ** 2).sum(1)).sum()
    crow = np.sqrt(((path[-1] - path[0]) ** 2).sum())
    moved = max(held - start, run.period_s)
    return (
        end - start,
        max(0.0, held - times[touched[0]]),
        float(crow / length) if length > 0 else np.nan,
        float(fitts_bits(distance[0], trials.radius[k])) / moved,
        angle,
    )


def _angle(velocity: Float64, way: Float64, until: int) -> float:
    """Mean angle in degrees between velocities and ways (S, D) of the first steps."""
    velocity, way = velocity[:until], way[:until]
    speed, distance = np.sqrt((velocity**2).sum(1)), np.sqrt((way**2).sum(1))
    moves = (speed > MOVES_CM_S) & (distance > 0)
    if not moves.any():
        return np.nan
    return float(np.rad2deg(angular_error(velocity[moves], way[moves])).mean())


def mean_of(values: Float64) -> float:
    """Mean of the values that are no NaN; NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan
