"""Observation: a cursor moves to targets by itself, and a person imagines to move it.

What a person who cannot move is calibrated with: no movement is measured, but what was shown is
known. The cursor follows the minimum-jerk profile (Flash and Hogan 1985) with pauses between.

Legend: N spikes, S samples, D dimensions, K trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from poyo_edge.arrays import Float64, Int64
from poyo_edge.calibration import Calibrator
from poyo_edge.calibration.intention import IntentionLabels, IntentionReport
from poyo_edge.errors import UsageError
from poyo_edge.simulation.array import TICK_HZ, SimulatedArray, as_seconds
from poyo_edge.simulation.person import Person
from poyo_edge.simulation.tasks import Targets, TaskSettings, trials_of
from poyo_edge.trials import Trials

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Spikes, and the velocity that a decoder should give at some times. Seconds of the device."""

    n_units: int
    spike_times: Float64
    """(N,)."""
    spike_rows: Int64
    """(N,) rows of the array's units."""
    times: Float64
    """(S,)."""
    values: Float64
    """(S, D) cm/s."""
    report: IntentionReport | None = None
    """How labels of intention were made; None for others."""

    def give(self, calibrator: Calibrator) -> None:
        """Hand them over as a rig does.

        Raises:
            UsageError: see ``Calibrator.add``.
        """
        if self.report is None:
            calibrator.add(self.spike_times, self.spike_rows, self.times, self.values)
            return
        everything = np.ones(len(self.times), bool)
        labels = IntentionLabels(
            times=self.times, values=self.values, labelled=everything, report=self.report
        )
        calibrator.add_intentions(self.spike_times, self.spike_rows, labels)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """A stretch of spikes and of the cursor that was shown meanwhile. Seconds of the device."""

    unit_ids: tuple[str, ...]
    spike_times: Float64
    """(N,)."""
    spike_rows: Int64
    """(N,) rows of ``unit_ids``."""
    times: Float64
    """(S,) one step apart."""
    position: Float64
    """(S, D) cm."""
    velocity: Float64
    """(S, D) cm/s."""
    trials: Trials

    def labelled(self, velocity: Float64, *, lead_s: float, begins_s: float = 0.0) -> Labelled:
        """The velocities (S, D) that were intended at ``times``, as labels of a decoder.

        Args:
            velocity: intended, cm/s.
            lead_s: how much later a decoder of movement gives them: the neural lead.
            begins_s: leave out what is labelled before, since its window was not heard whole.
        """
        times = self.times + lead_s
        last = self.spike_times[-1] if len(self.spike_times) else 0.0
        keep = (times >= begins_s) & (times <= last)
        return Labelled(
            n_units=len(self.unit_ids),
            spike_times=self.spike_times,
            spike_rows=self.spike_rows,
            times=times[keep],
            values=velocity[keep],
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObservationSettings:
    """How the cursor moves by itself. Ranges are drawn from uniformly."""

    seconds: float = 60.0
    reach_s: Range = (0.4, 0.9)
    """Duration of a reach, as ``poyo-edge simulate`` has it."""
    pause_s: Range = (0.1, 0.5)
    """Rest between a target's appearance and the reach to it."""

    def __post_init__(self) -> None:
        if not 1 <= self.seconds <= 86_400:
            raise UsageError(f"seconds of observation: expected 1 to 86400, got {self.seconds!r}")
        for name in ("reach_s", "pause_s"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < np.inf:
                raise UsageError(f"{name}: expected 0 <= low <= high, got {(low, high)}")
        if self.reach_s[0] <= 0:
            raise UsageError(f"reach_s: expected seconds > 0, got {self.reach_s}")


def observe(
    array: SimulatedArray,
    person: Person,
    task: TaskSettings,
    settings: ObservationSettings | None = None,
    *,
    seed: int | Sequence[int] = 0,
) -> Block:
    """Show a cursor that moves by itself, and record what the array fires meanwhile.

    The person imagines what is shown, at the same time: they know where it goes.

    Args:
        array: fires; it goes on from where it is.
        person: imagines.
        task: whose targets the cursor goes to.
        settings: how it moves.
        seed: of targets, reaches and pauses.
    """
    settings = settings or ObservationSettings()
    n_steps = round(settings.seconds / array.period_s)
    start = array.tick
    position, velocity, trials = _shown(task, settings, n_steps, array.period_s, seed)
    ticks, rows = [], []
    for k in range(n_steps):
        # The intention of a step is that of its middle.
        fired, by = array.step(person.imagine((velocity[k] + velocity[k + 1]) / 2))
        ticks.append(fired)
        rows.append(by.astype(np.int64))
    since = start / TICK_HZ
    return Block(
        unit_ids=array.unit_ids,
        spike_times=as_seconds(np.concatenate(ticks)),
        spike_rows=np.concatenate(rows),
        times=since + np.arange(n_steps, dtype=np.float64) * array.period_s,
        position=position[:-1],
        velocity=velocity[:-1],
        trials=dataclasses.replace(
            trials,
            start=trials.start + since, end=trials.end + since, go_time=trials.go_time + since,
        ),
    )  # fmt: skip


def _shown(
    task: TaskSettings,
    settings: ObservationSettings,
    n_steps: int,
    period_s: float,
    seed: int | Sequence[int],
) -> tuple[Float64, Float64, Trials]:
    """Position and velocity (n_steps + 1, 2) of the cursor, and the reaches that ended."""
    rng = np.random.default_rng(seed)
    targets = Targets(task, rng.integers(1 << 62, size=2).tolist())
    times = np.arange(n_steps + 1, dtype=np.float64) * period_s
    position, velocity = np.zeros((n_steps + 1, 2)), np.zeros((n_steps + 1, 2))
    here, t = np.zeros(2), 0.0
    ended, goes = [], []
    while t < times[-1]:
        target = targets.next()
        go = t + rng.uniform(*settings.pause_s)
        length = rng.uniform(*settings.reach_s)
        during = (times >= go) & (times < go + length)
        way, speed = minimum_jerk((times[during] - go) / length)
        position[(times >= t) & (times < go)] = here
        position[during] = here + way[:, None] * (target - here)
        velocity[during] = speed[:, None] * (target - here) / length
        if go + length <= times[-1]:
            ended.append((t, go + length, target, True))
            goes.append(go)
        here, t = target, go + length
    return position, velocity, dataclasses.replace(
        trials_of(ended, task.radius_cm), go_time=np.array(goes, np.float64)
    )  # fmt: skip


def minimum_jerk(share: Float64) -> tuple[Float64, Float64]:
    """Share of the way (S,), and its derivative by the share of the time (S,) in 0 to 1."""
    way = 10 * share**3 - 15 * share**4 + 6 * share**5
    return way, 30 * share**2 * (1 - share) ** 2
