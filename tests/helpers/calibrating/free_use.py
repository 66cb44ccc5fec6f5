"""A simulated person who uses a cursor freely, through a decoder that is late, noisy or turned."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.simulation.person import Person
from poyo_edge.simulation.tasks import Task, TaskSettings

PERIOD_S = 0.02
DECODER_S = 0.14
"""From an intention to its decoded value."""
REACTION_S = 0.26
"""From a target's appearance to what is decoded: late vision, one step, and the decoder."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FreeUse:
    """Samples each 20 ms, and what nobody tells the inference."""

    times: Float64
    cursor: Float64
    """(N, 2) cm."""
    decoded: Float64
    """(N, 2) cm/s."""
    intended: Float64
    """(N, 2) cm/s, ``DECODER_S`` before."""
    target: Float64
    """(N, 2) cm, of the movement that is decoded: that of ``REACTION_S`` before."""


@functools.cache
def free_use(
    seed: int = 1,
    *,
    minutes: float = 3.0,
    noise: float = 2.0,
    turned_deg: float = 0.0,
    gain: float = 1.0,
) -> FreeUse:
    """Random targets; noise (cm/s) lasts for 0.1 s and more. Read only."""
    rng = np.random.default_rng(seed)
    task, person = Task(TaskSettings(kind="random"), seed), Person(seed=seed)
    n, late = round(60 * minutes / PERIOD_S), round(DECODER_S / PERIOD_S)
    turn = np.deg2rad(turned_deg)
    mixing = gain * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    here, error = np.zeros(2), np.zeros(2)
    cursor, decoded, target = np.empty((n, 2)), np.empty((n, 2)), np.empty((n, 2))
    intended = np.zeros((n + late, 2))
    for i in range(n):
        task.look(i * PERIOD_S, here)
        cursor[i], target[i] = here, task.target
        intended[i + late] = person.intend(here, task.target)
        error = 0.82 * error + np.sqrt(1 - 0.82**2) * noise * rng.normal(size=2)
        decoded[i] = mixing @ intended[i] + error
        here = np.clip(here + decoded[i] * PERIOD_S, -10, 10)
    reaction = round(REACTION_S / PERIOD_S)
    return FreeUse(
        times=np.arange(n, dtype=np.float64) * PERIOD_S + 5.0,
        cursor=cursor,
        decoded=decoded,
        intended=intended[:n],
        target=np.concatenate([np.repeat(target[:1], reaction, 0), target[:-reaction]]),
    )
