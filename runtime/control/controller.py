"""From a decoded velocity to the one that a cursor is moved with.

The order: bias, error attenuation, gain, lead, smoothing, speed scaling and deadband, assist, speed
cap, slow start.

Legend: D dimensions of the velocity.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.runtime.control.bias import Bias
from poyo_edge.runtime.control.guidance import Dwell, Fading, assisted, attenuated
from poyo_edge.runtime.control.settings import ControlSettings
from poyo_edge.runtime.control.shaping import Lead, Smoothing, at_most, bounded, scaled, speed_of
from poyo_edge.runtime.control.task import Task, is_same
from poyo_edge.runtime.failsafe import Status
from poyo_edge.trials import Trial

_GAP_S = 1.0
"""After a hole of so long between two values the cursor starts slowly again."""
_NOT_DECODED = (Status.HELD, Status.INVALID)


class Controller:
    """Called with each value, in the order in which they are decoded.

    With settings in which everything is off, what comes out is the very object that went in. What
    the decoder did not decode (HELD, INVALID) leaves as it came, shortened where it is faster than
    what left before: it is never amplified, smoothed or assisted, and zero stays zero.

    Where nobody tells the cursor's position, or has not for ``task.CURSOR_S``, assist, attenuation
    and dwell do nothing: this sums up no velocities of its own, as it cannot know where a task
    stops or puts back its cursor.

    Args:
        settings: what to do.
        n_dims: D; the value is a velocity in the target's space, so targets have as many.
        tick_rate_hz: of the ticks of values, trials and positions.
    """

    def __init__(self, settings: ControlSettings, n_dims: int, tick_rate_hz: float) -> None:
        if n_dims < 1 or not tick_rate_hz > 0:
            raise UsageError(
                f"controller: expected n_dims >= 1 and tick_rate_hz > 0, got {n_dims!r} and "
                f"{tick_rate_hz!r}"
            )
        self.settings, self.n_dims = settings, n_dims
        self._rate = tick_rate_hz
        self.reset()

    def reset(self) -> None:
        """Forget all that was heard and learned, as if it were new."""
        settings = self.settings
        self._zero: Float64 = np.zeros(self.n_dims)
        self._lead = Lead(settings.lead_ms / 1e3)
        self._smoothing = Smoothing(settings.smoothing_ms / 1e3)
        self._bias = Bias(self.n_dims, settings.bias, settings.bias_n)
        self._fading, self._dwell = Fading(settings), Dwell(settings.dwell_s)
        self._task = Task(self.n_dims, self._rate)
        self._session: str | None = None
        self.new_clock()

    def new_clock(self) -> None:
        """Ticks begin anew: trials, positions and movement are forgotten, what was learned not."""
        self._task.forget()
        self._bias.drop()
        self._last: int | None = None
        self.rest()

    def rest(self) -> None:
        """The cursor stands, whatever is decoded; it starts slowly from here."""
        self._lead.reset()
        self._smoothing.reset()
        self._dwell.forget()
        self._out: Float64 = self._zero
        self._faulty, self._began = True, 0
        self.ramp, self.assist, self.click = 0.0, 0.0, False

    def pause(self, tick: int) -> None:
        """A value at a tick that is not looked at: nothing is learned, and the cursor stands."""
        self._last = tick
        self._bias.drop()
        self.rest()

    def note_trial(self, trial: Trial) -> None:
        """Take a trial, when it is told and each time that more is known of it.

        Raises:
            UsageError: a target of another number of dimensions than the values.
        """
        if not self.settings.active:  # it only says when a swap may be made
            trial = dataclasses.replace(trial, target=None)
        before = self._task.trial
        if not self._task.note_trial(trial):
            return
        known = before is not None and is_same(trial, before)
        over = before is not None and before.end is not None
        if not known:
            if over:
                self._bias.ends()
            self._bias.begins(trial=True)
            self._dwell.forget()
        if trial.end is not None and not (known and over):
            self._bias.ends()
            self._bias.begins(trial=False)
            self._fading.trials += 1

    def note_cursor(self, tick: int, position: npt.ArrayLike) -> None:
        """Take the cursor's position (D,) at a tick.

        Raises:
            UsageError: of another number of dimensions, or not finite.
        """
        if self.settings.active:
            self._task.note_cursor(tick, position)

    def running(self, tick: int) -> Trial | None:
        """The trial that runs at a tick."""
        return self._task.running(tick)

    def __call__(
        self, value: Float64, status: Status, tick: int, *, session_id: str = ""
    ) -> Float64:
        """The velocity (D,) to act on.

        Args:
            value: (D,) as the decoder gave it, finite.
            status: of the value.
            tick: of the device, ascending.
            session_id: what it was decoded with; another one than before is a swap.
        """
        if not self.settings.active:
            return value
        dt = self._elapsed(tick, session_id)
        self.click, self.assist = False, 0.0
        if status in _NOT_DECODED:
            kept = at_most(bounded(value), speed_of(self._out))
            self.rest()
        elif status is Status.WARMUP and self.settings.slow_start_s:
            self.rest()
            kept = self._zero
        else:
            kept = self._moved(value, status, dt, tick)
        self._out = kept
        return kept.copy()

    def to_json(self) -> dict[str, Any] | None:
        """Settings and state as JSON values; None while everything is off."""
        if not self.settings.active:
            return None
        return {
            "settings": self.settings.to_json(),
            "latency_ms": self.settings.smoothing_ms - self.settings.lead_ms,
            "bias": self._bias.value.tolist(),
            "bias_known": self._bias.known,
            "assist": self._fading.share,
            "whole_trials": self._fading.trials,
            "clicks": self._dwell.clicks,
            "ramp": self.ramp,
        }

    def _elapsed(self, tick: int, session_id: str) -> float:
        """Seconds since the last value, having noticed swaps and holes."""
        if self._session is not None and session_id != self._session:
            self._bias.forget()
            self.rest()
        self._session = session_id
        last, self._last = self._last, tick
        if last is None or tick < last:
            return 0.0
        dt = (tick - last) / self._rate
        if dt > _GAP_S:
            self.rest()
            return 0.0
        if self._task.trial is not None:
            self._fading.seconds += dt
        return dt

    def _moved(self, value: Float64, status: Status, dt: float, tick: int) -> Float64:
        settings, velocity = self.settings, bounded(value)
        if status is not Status.WARMUP:
            self._learn(velocity, dt, tick)
        if settings.bias != "off":
            velocity = velocity - self._bias.value
        trial = self._task.running(tick)
        to_target = self._to_target(trial, tick)
        if to_target is not None:
            velocity = attenuated(velocity, to_target, settings.attenuation)
        velocity = self._lead(bounded(velocity * settings.gain), dt)
        velocity = self._smoothing(bounded(velocity), dt)
        velocity = scaled(velocity, settings)
        if to_target is not None and trial is not None and settings.assist_speed is not None:
            told = trial.go_time is None or tick >= trial.go_time
            self.assist = self._fading.share if told else 0.0
            velocity = assisted(velocity, to_target, self.assist, settings.assist_speed)
        if settings.speed_cap is not None:
            velocity = at_most(velocity, settings.speed_cap)
        self._click_if(to_target, trial, dt)
        return velocity * self._ramped(tick)

    def _to_target(self, trial: Trial | None, tick: int) -> Float64 | None:
        """From the cursor to the target (D,); None where one of them is not known."""
        if trial is None or trial.target is None:
            return None
        cursor = self._task.cursor(tick, self._out)
        if cursor is None:
            return None
        return bounded(np.asarray(trial.target, np.float64)) - cursor

    def _click_if(self, to_target: Float64 | None, trial: Trial | None, dt: float) -> None:
        radius = self.settings.dwell_radius
        if trial is not None and trial.radius is not None:
            radius = trial.radius
        distance = None if to_target is None else speed_of(to_target)
        self.click = self._dwell.look(distance, radius, dt)

    def _learn(self, velocity: Float64, dt: float, tick: int) -> None:
        resting_s = self._task.resting_s(tick)
        if resting_s is not None or self._task.running(tick) is not None:
            self._bias.add(velocity, dt, resting_s or 0.0)
        else:
            self._bias.drop()

    def _ramped(self, tick: int) -> float:
        if self._faulty:
            self._faulty, self._began = False, tick
        whole = self.settings.slow_start_s
        since = (tick - self._began) / self._rate
        self.ramp = min(1.0, since / whole) if whole else 1.0
        return self.ramp
