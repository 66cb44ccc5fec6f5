"""Gain, lead, smoothing and speed scaling chosen by simulation, as Willett et al. 2019 choose them.

The simulated person controls a cursor through the decoder itself, from an array that fires with the
noise of a session. Settings depend on each other (a decoder that shrinks slow movements wants an
exponent below 1 and another gain with it), so combinations are drawn over the whole range and the
better ones go on to more trials, as in successive halving (Jamieson and Talwalkar 2016). Then the
top of a quadratic surface through all trials is tried, a few times (Box and Wilson 1951): a surface
stands on hundreds of trials, a candidate on a few that chance has a large part in. All have the
same targets, aiming and spikes up to what their cursor does. The chosen one stands only if it is
better than what the search began with beyond chance, in trials that did not choose it.

Legend: K trials, N candidates, R settings that are tuned.
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

RANGES: Mapping[str, tuple[float, float]] = {
    "gain": (0.6, 1.7),
    "lead_ms": (0.0, 100.0),
    "smoothing_ms": (0.0, 60.0),
    "speed_exponent": (0.55, 1.3),
}
"""Setting → what it is drawn from; gain and exponent evenly in their logarithm."""
REFERENCE_CM_S = 10.0
"""The speed that a speed exponent leaves as it is."""
_N_DRAWN = 31
_ROUNDS = ((0.1, 10), (0.3, 3), (0.75, 1))
"""Share of the trials that each candidate gets, and how many go on."""
_SURFACE_AFTER, _N_TOPS, _N_LOOKED_AT = 1, 4, 4096
"""After that round so many tops of the surface, each found among so many random points."""
_RIDGE = 0.5
"""Trials that say that the surface is flat, for each of its terms but the mean."""
_NONE_SHARE = 1 / 3
"""Of the candidates have no lead, and of them no smoothing: simpler is often better."""
_STANDARD_ERRORS = 1.0
"""The chosen one is better when its throughput is higher by so many of the paired difference."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings:
    """What control is tuned for."""

    latency_ms: float = 0.0
    """Of the rig, between a value and the movement of the cursor by it."""
    radii_cm: tuple[float, ...] = (1.2, 0.8)
    """Targets of these sizes count alike."""
    n_trials: int = 40
    """For each radius, of what is chosen and what it is compared with in the end; less before."""
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
    n_trials: int
    """Of all sizes together."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **{name: getattr(self.settings, name) for name in RANGES},
            "bits_per_s": round(self.bits_per_s, 4),
            "success": round(self.success, 4),
            "n_trials": self.n_trials,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What was chosen."""

    settings: ControlSettings
    bits_per_s: float
    """Of the chosen settings, in trials that did not choose them."""
    bits_per_s_before: float
    """Of the settings that the search began with, in the same trials."""
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
    begin, rng = begin or ControlSettings(), np.random.default_rng(settings.seed)
    left = [begin, *_drawn(begin, rng)]
    for number, (_, go_on) in enumerate(_ROUNDS):
        for candidate in left:
            search.round(candidate, number)
        if number == _SURFACE_AFTER:
            left += search.tops(begin, rng)
        left = sorted(left, key=search.mean, reverse=True)[:go_on]
    (chosen,) = left
    n_trials, last = settings.n_trials, len(_ROUNDS)
    before = search.run(begin, n_trials, last)
    after = before if chosen == begin else search.run(chosen, n_trials, last)
    better = chosen != begin and _gains(after, before)
    return Tuned(
        settings=chosen if better else begin,
        bits_per_s=float((after if better else before).mean()),
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
        self._known = dict[ControlSettings, list[Float64]]()
        self.tried = list[Tried]()

    def mean(self, control: ControlSettings) -> float:
        """bit/s in all trials so far."""
        return float(np.concatenate(self._known[control]).mean())

    def round(self, control: ControlSettings, number: int) -> None:
        """Run the trials of a round of ``_ROUNDS``."""
        self.run(control, max(4, round(_ROUNDS[number][0] * self._settings.n_trials)), number)

    def tops(self, begin: ControlSettings, rng: np.random.Generator) -> list[ControlSettings]:
        """New candidates, each at the top of the surface through all trials before it."""
        found = list[ControlSettings]()
        for _ in range(_N_TOPS):
            points = rng.random((_N_LOOKED_AT, len(RANGES)))
            top = _at(begin, points[np.argmax(self._surface(points))])
            if top not in self._known:
                for number in range(_SURFACE_AFTER + 1):
                    self.round(top, number)
                found.append(top)
        return found

    def _surface(self, points: Float64) -> Float64:
        """Throughput (N,) at shares (N, R) of the ranges, by a ridge regression on all trials."""
        tried = [one for one in self._known if one.speed_reference == REFERENCE_CM_S]
        bits = [np.concatenate(self._known[one]) for one in tried]
        at = _terms(
            np.array([[_share(name, getattr(one, name)) for name in RANGES] for one in tried])
        )
        n_trials = np.array([len(one) for one in bits], float)
        weighted = at.T * n_trials
        ridge = _RIDGE * np.diag(np.r_[0.0, np.ones(at.shape[1] - 1)])
        weights = np.linalg.solve(weighted @ at + ridge, weighted @ [one.mean() for one in bits])
        return _terms(points) @ weights

    def run(self, control: ControlSettings, n_trials: int, number: int) -> Float64:
        """Throughput (K,) of so many more trials for each size; a round has its own targets."""
        found = [
            self._controlled(control, radius, n_trials, number)
            for radius in self._settings.radii_cm
        ]
        bits = np.concatenate([one[0] for one in found])
        self._known.setdefault(control, []).append(bits)
        self.tried.append(
            Tried(
                settings=control,
                bits_per_s=float(bits.mean()),
                success=float(np.mean([one[1] for one in found])),
                n_trials=len(bits),
            )
        )
        self._report(self.tried[-1])
        return bits

    def _controlled(
        self, control: ControlSettings, radius: float, n_trials: int, number: int
    ) -> tuple[Float64, float]:
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
            seed=self._settings.seed + number,
            on_trial=steering.on_trial,
            on_cursor=steering.on_cursor,
        )
        found = measure(loop.run(n_trials=n_trials), task.hold_s)
        return found.bits_per_s, float(found.success.mean())


def _drawn(begin: ControlSettings, rng: np.random.Generator) -> list[ControlSettings]:
    """Settings from all over ``RANGES``, evenly: each has its own part of every range."""
    shares = np.stack(
        [(rng.permutation(_N_DRAWN) + rng.random(_N_DRAWN)) / _N_DRAWN for _ in RANGES], axis=1
    )
    return [_at(begin, row) for row in shares]


def _at(begin: ControlSettings, shares: Float64) -> ControlSettings:
    """Settings at shares (R,) of the ranges; what is not tuned stays as it is there."""
    values: dict[str, Any] = {
        name: _value(name, share) for name, share in zip(RANGES, shares.tolist(), strict=True)
    }
    return dataclasses.replace(begin, **values, speed_reference=REFERENCE_CM_S)


def _terms(shares: Float64) -> Float64:
    """1, each share (N, R), and each product of two, (N, 1 + R + R (R + 1) / 2)."""
    from_middle = 2 * shares - 1
    left, right = np.triu_indices(shares.shape[1])
    ones = np.ones((len(shares), 1))
    return np.hstack([ones, from_middle, from_middle[:, left] * from_middle[:, right]])


def _value(name: str, share: float) -> float:
    """What lies at a share of a setting's range, rounded to what a person would write."""
    low, high = RANGES[name]
    if name.endswith("_ms"):
        share = max(0.0, share - _NONE_SHARE) / (1 - _NONE_SHARE)
        return float(5 * round((low + share * (high - low)) / 5))
    return round(float(low * (high / low) ** share), 2)


def _share(name: str, value: float) -> float:
    """The share of a setting's range at which a value lies."""
    low, high = RANGES[name]
    if name.endswith("_ms"):
        return _NONE_SHARE + (1 - _NONE_SHARE) * (value - low) / (high - low)
    return float(np.log(value / low) / np.log(high / low))


def _gains(candidate: Sequence[float] | Float64, best: Sequence[float] | Float64) -> bool:
    """Whether the candidate's trials (K,) are better than chance allows."""
    difference = np.asarray(candidate) - np.asarray(best)
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return bool(difference.mean() > _STANDARD_ERRORS * error)
