"""Gain, lead, smoothing and speed scaling chosen by simulation, as Willett et al. 2019 choose them.

The simulated person controls a cursor through the decoder itself, from an array that fires with the
noise of a session, and one setting after the other is moved as long as throughput gains from it.
Every candidate has the same targets, aiming and spikes up to what its cursor does, so differences
are of pairs of trials, and a setting leaves its default only for a difference beyond chance.

Legend: K trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import UsageError
from poyo_edge.runtime.control import Controller, ControlSettings
from poyo_edge.runtime.failsafe import Status
from poyo_edge.simulation.array import TICK_HZ, SimulatedArray
from poyo_edge.simulation.closed_loop import ClosedLoop
from poyo_edge.simulation.cursor import CursorSettings
from poyo_edge.simulation.decoding import Decoding
from poyo_edge.simulation.measures import measure
from poyo_edge.simulation.person import PersonSettings
from poyo_edge.simulation.tasks import TaskSettings
from poyo_edge.trials import Trial

CANDIDATES: Mapping[str, tuple[float, ...]] = {
    "gain": (0.55, 0.65, 0.75, 0.87, 1.0, 1.15, 1.3, 1.5),
    "lead_ms": (0.0, 30.0, 60.0, 100.0),
    "smoothing_ms": (0.0, 20.0, 40.0, 80.0),
    "speed_exponent": (0.7, 0.85, 1.0, 1.2, 1.4),
}
"""Setting → what is tried of it, ascending; the search goes from the present one to its
neighbours."""
REFERENCE_CM_S = 10.0
"""The speed that a speed exponent leaves as it is."""
_ROUNDS = 3
_STANDARD_ERRORS = 1.0
"""A candidate is taken when its throughput is higher by so many of the paired difference."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings:
    """What control is tuned for."""

    latency_ms: float = 0.0
    """Of the rig, between a value and the movement of the cursor by it."""
    radii_cm: tuple[float, ...] = (1.2, 0.8)
    """Targets of these sizes count alike."""
    n_trials: int = 40
    """For each candidate and radius."""
    seed: int = 1_000
    """Of spikes, aiming and targets: another one than those that are judged by later."""

    def __post_init__(self) -> None:
        if not 0 <= self.latency_ms <= 5000:
            raise UsageError(f"latency_ms: expected 0 to 5000 ms, got {self.latency_ms!r}")
        if not self.radii_cm or min(self.radii_cm) <= 0:
            raise UsageError(f"radii_cm: expected radii > 0, got {self.radii_cm!r}")
        if not 8 <= self.n_trials <= 10_000:
            raise UsageError(f"n_trials: expected 8 to 10000, got {self.n_trials!r}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One candidate, and what came of it."""

    settings: ControlSettings
    bits_per_s: float
    success: float
    taken: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **{name: getattr(self.settings, name) for name in CANDIDATES},
            "bits_per_s": round(self.bits_per_s, 4),
            "success": round(self.success, 4),
            "taken": self.taken,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What was chosen."""

    settings: ControlSettings
    bits_per_s: float
    """Of the chosen settings, on the trials that chose them: a little too good."""
    bits_per_s_before: float
    """Of the settings that the search began with."""
    tried: tuple[Tried, ...]


class Steering:
    """A ``Controller`` between decoder and cursor of a closed loop, told of its trials."""

    def __init__(self, settings: ControlSettings, *, n_dims: int = 2, period_s: float) -> None:
        self.controller = Controller(settings, n_dims, TICK_HZ)
        self._ticks = round(period_s * TICK_HZ)
        self._tick = 0

    def __call__(self, value: Float64) -> Float64:
        """The velocity (D,) to move the cursor with."""
        self._tick += self._ticks
        return self.controller(value, Status.VALID, self._tick)

    def on_trial(self, trial: Trial) -> None:
        """Take a trial."""
        self.controller.note_trial(trial)

    def on_cursor(self, ticks: Int64, positions: Float64) -> None:
        """Take where the cursor is, ticks (1,) and (1, D)."""
        self.controller.note_cursor(int(ticks[-1]), positions[-1])


def tune(
    array: SimulatedArray,
    decoding: Decoding,
    settings: TuneSettings | None = None,
    *,
    begin: ControlSettings | None = None,
    task: TaskSettings | None = None,
    person: PersonSettings | None = None,
    on_progress: Callable[[Tried], None] | None = None,
) -> Tuned:
    """Choose gain, lead, smoothing and speed exponent for a decoder.

    Args:
        array: what it decodes; begins anew for each candidate.
        decoding: the decoder; begins anew for each candidate.
        settings: what for.
        begin: settings to begin with; what is not tuned stays as it is there.
        task: its radius is one of ``settings.radii_cm``.
        person: who controls.
        on_progress: told of each candidate.
    """
    settings, task = settings or TuneSettings(), task or TaskSettings()
    search = _Search(array, decoding, settings, task, person, on_progress)
    best = begin or ControlSettings()
    before = search.bits(best)
    for _ in range(_ROUNDS):
        found = best
        for name in CANDIDATES:
            found = search.along(found, name)
        if found == best:
            break
        best = found
    return Tuned(
        settings=best,
        bits_per_s=float(search.bits(best).mean()),
        bits_per_s_before=float(before.mean()),
        tried=tuple(search.tried),
    )


class _Search:
    """Knows the throughput of each trial under what was tried."""

    def __init__(
        self,
        array: SimulatedArray,
        decoding: Decoding,
        settings: TuneSettings,
        task: TaskSettings,
        person: PersonSettings | None,
        on_progress: Callable[[Tried], None] | None,
    ) -> None:
        self._array, self._decoding = array, decoding
        self._settings, self._task, self._person = settings, task, person
        self._report = on_progress or (lambda tried: None)
        self._known = dict[ControlSettings, tuple[Float64, float]]()
        self.tried = list[Tried]()

    def bits(self, control: ControlSettings) -> Float64:
        """(K,) bit/s of the trials."""
        if control not in self._known:
            self._known[control] = self._run(control)
        return self._known[control][0]

    def along(self, best: ControlSettings, name: str) -> ControlSettings:
        """Move one setting up or down as long as throughput gains from it."""
        values = CANDIDATES[name]
        at = int(np.abs(np.array(values) - getattr(best, name)).argmin())
        for step in (1, -1):
            moved = False
            while 0 <= at + step < len(values):
                candidate = _with(best, name, values[at + step])
                new = candidate not in self._known
                taken = _gains(self.bits(candidate), self.bits(best))
                if new:
                    self._note(candidate, taken)
                if not taken:
                    break
                best, at, moved = candidate, at + step, True
            if moved:
                break
        return best

    def _note(self, candidate: ControlSettings, taken: bool) -> None:
        bits, success = self._known[candidate]
        self.tried.append(
            Tried(settings=candidate, bits_per_s=float(bits.mean()), success=success, taken=taken)
        )
        self._report(self.tried[-1])

    def _run(self, control: ControlSettings) -> tuple[Float64, float]:
        """Throughput (K,) of the trials, and the share that succeeded."""
        found = [self._controlled(control, radius) for radius in self._settings.radii_cm]
        bits = np.concatenate([one[0] for one in found])
        return bits, float(np.mean([one[1] for one in found]))

    def _controlled(self, control: ControlSettings, radius: float) -> tuple[Float64, float]:
        steering = Steering(control, period_s=self._array.period_s)
        task = dataclasses.replace(self._task, radius_cm=radius)
        loop = ClosedLoop(
            self._array,
            self._decoding,
            task=task,
            person=self._person,
            cursor=CursorSettings(
                latency_ms=self._settings.latency_ms, workspace_cm=task.workspace_cm
            ),
            control=steering,
            seed=self._settings.seed,
            on_trial=steering.on_trial,
            on_cursor=steering.on_cursor,
        )
        found = measure(loop.run(n_trials=self._settings.n_trials), task.hold_s)
        return found.bits_per_s, float(found.success.mean())


def _with(control: ControlSettings, name: str, value: float) -> ControlSettings:
    changed: dict[str, Any] = {name: value}
    if name == "speed_exponent":
        reference = control.speed_reference or REFERENCE_CM_S
        changed["speed_reference"] = None if value == 1 else reference
    return dataclasses.replace(control, **changed)


def _gains(candidate: Sequence[float] | Float64, best: Sequence[float] | Float64) -> bool:
    """Whether the candidate's trials (K,) are better than chance allows."""
    difference = np.asarray(candidate) - np.asarray(best)
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return bool(difference.mean() > _STANDARD_ERRORS * error)
