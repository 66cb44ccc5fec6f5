"""The closed loop: person → array → decoder → cursor → person, as fast as the machine allows.

In each step of 20 ms the person looks at the cursor (late) and intends a velocity, the array fires,
the decoder gives the value of the window that ends with the step, and in the next step the cursor
moves by it. For POYO that is the ``DecodeLoop`` and the ``Decoder`` of a rig (``decoding``).

Legend: S steps, D dimensions, N spikes, K trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import UsageError
from poyo_edge.simulation.array import TICK_HZ, SimulatedArray, as_seconds
from poyo_edge.simulation.cursor import Control, Cursor, CursorSettings
from poyo_edge.simulation.decoding import Decoding
from poyo_edge.simulation.observing import Block
from poyo_edge.simulation.person import Person, PersonSettings
from poyo_edge.simulation.tasks import Task, TaskSettings
from poyo_edge.trials import Trial, Trials

REST_S = 1.5
"""At rest before the first target: a window of a second has been heard by then."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What happened in a stretch of a closed loop. Seconds of the device's clock."""

    period_s: float
    delay_s: float
    """From an intention to the movement that it is of."""
    times: Float64
    """(S,) begin of each step."""
    position: Float64
    """(S, D) cm, of the cursor at that time."""
    velocity: Float64
    """(S, D) cm/s, of the cursor in the step."""
    decoded: Float64
    """(S, D) cm/s, what the decoder gave at that time."""
    intended: Float64
    """(S, D) cm/s, what the person intended in the step."""
    target: Float64
    """(S, D) cm, of the target that was shown; NaN where there was none."""
    trials: Trials
    """(K,) that ended in this stretch."""
    unit_ids: tuple[str, ...]
    spike_times: Float64
    """(N,)."""
    spike_rows: Int64
    """(N,) rows of ``unit_ids``."""

    def block(self) -> Block:
        """The same as a block of a recording: what a rig knows of it, without intentions."""
        return Block(
            unit_ids=self.unit_ids,
            spike_times=self.spike_times,
            spike_rows=self.spike_rows,
            times=self.times,
            position=self.position,
            velocity=self.velocity,
            trials=self.trials,
        )


class ClosedLoop:
    """A person, an array, a decoder and a cursor that go on from run to run.

    Args:
        array: begins anew with the seed.
        decoding: begins anew.
        task: whose targets are shown.
        person: who controls.
        cursor: what happens to values on their way.
        control: stands between decoder and cursor, called once for each value.
        seed: of spikes, aiming and targets; the same targets for any decoder.
        on_trial: told of each trial when its target is shown and again when it ends, in ticks.
        on_cursor: told of ticks (1,) and positions (1, D) of the cursor, each step.
        steered: asked each step, with the cursor (D,), for an intention (D,) in cm/s that takes the
            place of the person's; None leaves it to the person.
    """

    def __init__(
        self,
        array: SimulatedArray,
        decoding: Decoding,
        *,
        task: TaskSettings | None = None,
        person: PersonSettings | None = None,
        cursor: CursorSettings | None = None,
        control: Control | None = None,
        seed: int = 0,
        on_trial: Callable[[Trial], None] | None = None,
        on_cursor: Callable[[Int64, Float64], None] | None = None,
        steered: Callable[[Float64], Float64 | None] = lambda _: None,
    ) -> None:
        self.array, self.decoding = array, decoding
        self.task_settings = task or TaskSettings()
        period = array.period_s
        settings = cursor or CursorSettings(workspace_cm=self.task_settings.workspace_cm)
        array.restart([seed, 1])
        decoding.restart()
        self.person = Person(person, seed=[seed, 2], period_s=period)
        self.cursor = Cursor(settings, period_s=period, control=control)
        self.task = Task(self.task_settings, [seed, 3], starts_at=REST_S)
        self._on_trial, self._on_cursor, self._steered = on_trial, on_cursor, steered
        self._value = np.zeros(2)
        self._told = False

    @property
    def now_s(self) -> float:
        """Where the device's clock stands."""
        return self.array.tick / TICK_HZ

    def run(self, *, n_trials: int | None = None, seconds: float | None = None) -> Run:
        """Go on until so many more trials have ended, or so long.

        Raises:
            UsageError: neither is given, or not above 0.
        """
        if not (n_trials or seconds) or (n_trials or 1) <= 0 or (seconds or 1) <= 0:
            raise UsageError(
                f"run: expected trials or seconds above 0, got {n_trials!r} and {seconds!r}"
            )
        before, known = self.task.n_ended, self.task.n_kept
        until = self.now_s + (seconds or np.inf) - 1e-9
        kept = _Kept()
        while self.now_s < until and (n_trials is None or self.task.n_ended < before + n_trials):
            self._step(kept)
        return kept.run(self, known)

    def forget(self) -> None:
        """Let go of the trials so far, as a loop without an end has to; ``Run`` no longer holds
        them."""
        self.task.forget()

    def _step(self, kept: _Kept) -> None:
        t, tick = self.now_s, self.array.tick
        target = self._look(t, tick, self.cursor.position)
        cursor = self.cursor.position
        intended = self.person.intend(cursor, target)
        if (other := self._steered(cursor)) is not None:
            intended = other
        velocity = self.cursor.move(self._value)
        if self._on_cursor is not None:
            self._on_cursor(np.array([tick]), cursor[None])
        kept.steps.append((t, cursor, velocity, self._value, intended, target))
        ticks, rows = self.array.step(intended)
        kept.ticks.append(ticks)
        kept.rows.append(rows.astype(np.int64))
        self._value = self.decoding.step(self.array.tick, ticks, rows)

    def _look(self, t: float, tick: int, cursor: Float64) -> Float64 | None:
        """The target that is shown now, once the task has looked at the cursor."""
        if t < REST_S - 1e-9:
            return None
        if not self._told:
            self._tell(tick)
        target, number = self.task.target, self.task.n_ended
        if self.task.look(t, cursor):
            if not self.task.taken:
                self.cursor.position = target.copy()
            self._tell(tick, ended=(number, target, self.task.taken))
            self._tell(tick)
        return self.task.target

    def _tell(self, tick: int, ended: tuple[int, Float64, bool] | None = None) -> None:
        self._told = True
        if self._on_trial is None:
            return
        if ended is None:
            self._began = tick
        number, target = (self.task.n_ended, self.task.target) if ended is None else ended[:2]
        self._on_trial(
            Trial(
                number=number,
                start=self._began,
                go_time=self._began,
                end=None if ended is None else tick,
                target=tuple(target.tolist()),
                radius=self.task_settings.radius_cm,
                success=None if ended is None else ended[2],
            )
        )


class _Kept:
    """What a run keeps of its steps."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, Float64, Float64, Float64, Float64, Float64 | None]] = []
        self.ticks: list[Int64] = []
        self.rows: list[Int64] = []

    def run(self, loop: ClosedLoop, before: int) -> Run:
        """All of it, with the trials that are kept after the first ``before``."""
        times, position, velocity, decoded, intended, target = zip(*self.steps, strict=True)
        nothing = np.full(len(position[0]), np.nan)
        trials = loop.task.trials()
        return Run(
            period_s=loop.array.period_s,
            delay_s=loop.array.delay_s,
            times=np.array(times),
            position=np.array(position),
            velocity=np.array(velocity),
            decoded=np.array(decoded),
            intended=np.array(intended),
            target=np.array([nothing if one is None else one for one in target]),
            trials=Trials(
                **{f.name: getattr(trials, f.name)[before:] for f in dataclasses.fields(Trials)}
            ),
            unit_ids=loop.array.unit_ids,
            spike_times=as_seconds(np.concatenate(self.ticks)),
            spike_rows=np.concatenate(self.rows),
        )
