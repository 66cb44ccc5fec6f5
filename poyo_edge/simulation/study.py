"""Decoders beside each other in one closed loop: the same labels, spikes, targets and conditions.

For each seed an array is drawn (or the fitted one begins anew), a person observes a cursor, each
decoder is calibrated on that block, and each then controls a cursor under each condition. What is
drawn for a seed does not depend on the decoder, so trials are paired.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from poyo_edge.arrays import Bool, Float64
from poyo_edge.errors import UsageError
from poyo_edge.simulation.array import SimulatedArray
from poyo_edge.simulation.closed_loop import ClosedLoop, Run
from poyo_edge.simulation.cursor import CursorSettings
from poyo_edge.simulation.decoding import Decoding
from poyo_edge.simulation.measures import Measures, interval, joined, mean_of, measure
from poyo_edge.simulation.person import PersonSettings
from poyo_edge.simulation.step_test import StepResponse, step_test
from poyo_edge.simulation.tasks import TaskSettings

OURS = "poyo"
SHOWN_TRIALS = 16
"""Of the first seed and condition, whose paths are kept for a picture."""
_DRAWS = 2000

Subject = Callable[[int], tuple[SimulatedArray, Sequence[Decoding]]]
"""Seed → an array, and decoders that were calibrated on it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One way that a decoder is tried in."""

    latency_ms: float = 0.0
    smoothing_ms: float = 0.0
    gain: float = 1.0
    radius_cm: float = 1.2

    def to_json(self) -> dict[str, float]:
        """Name → value."""
        return dataclasses.asdict(self)

    def require_possible(self, task: TaskSettings) -> None:
        """Refuse what no cursor or task can be set with.

        Raises:
            UsageError: with the value.
        """
        self.cursor(task)
        self.task(task)

    def cursor(self, task: TaskSettings) -> CursorSettings:
        """What happens to values on their way."""
        return CursorSettings(
            latency_ms=self.latency_ms,
            smoothing_ms=self.smoothing_ms,
            gain=self.gain,
            workspace_cm=task.workspace_cm,
        )

    def task(self, task: TaskSettings) -> TaskSettings:
        """The task, with targets of this size."""
        return dataclasses.replace(task, radius_cm=self.radius_cm)


def conditions(
    latencies_ms: Sequence[float],
    radii_cm: Sequence[float],
    smoothings_ms: Sequence[float],
    gains: Sequence[float],
) -> list[Condition]:
    """All combinations, latencies last to change but one: radii, smoothings and gains vary inside.

    Raises:
        UsageError: an empty list.
    """
    lists = {"latency": latencies_ms, "radius": radii_cm, "smoothing": smoothings_ms, "gain": gains}
    for name, values in lists.items():
        if not values:
            raise UsageError(f"{name}: expected at least one value, got none")
    return [
        Condition(latency_ms=latency, radius_cm=radius, smoothing_ms=smoothing, gain=gain)
        for radius, smoothing, gain, latency in itertools.product(
            radii_cm, smoothings_ms, gains, latencies_ms
        )
    ]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Path:
    """The way of the cursor in one trial."""

    position: Float64
    """(S, D) cm."""
    target: Float64
    """(D,) cm."""
    radius: float
    success: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """What came of all decoders under all conditions."""

    measures: Mapping[tuple[str, Condition], Measures]
    steps: Mapping[str, Sequence[StepResponse]]
    """Decoder → one for each seed."""
    paths: Mapping[str, Sequence[Path]]
    """Decoder → trials of the first seed under the first condition."""

    def to_json(self) -> dict[str, Any]:
        """``conditions``, ``against`` and ``step``, as JSON values."""
        return {
            "conditions": [
                {"decoder": name, **condition.to_json(), **found.summary(),
                 "bits_per_s_95": [round(x, 4) for x in interval(found.bits_per_s, _rng())]}
                for (name, condition), found in self.measures.items()
            ],
            "against": self._against(),
            "step": {name: _mean_step(found) for name, found in self.steps.items()},
        }  # fmt: skip

    def _against(self) -> list[dict[str, Any]]:
        """Throughput of POYO over that of the better of the others, trials paired."""
        names = list(dict.fromkeys(name for name, _ in self.measures))
        others = [name for name in names if name != OURS]
        if OURS not in names or not others:
            return []
        rows = []
        for condition in dict.fromkeys(condition for _, condition in self.measures):
            bits = {name: self.measures[name, condition].bits_per_s for name in names}
            better = max(others, key=lambda name: mean_of(bits[name]))
            low, high = _ratio_interval(bits[OURS], bits[better])
            theirs = mean_of(bits[better])
            ratio = mean_of(bits[OURS]) / theirs if theirs > 0 else np.nan
            rows.append({
                **condition.to_json(),
                "better": better,
                "ratio": round(ratio, 4) if np.isfinite(ratio) else None,
                "ratio_95": [round(low, 4), round(high, 4)] if np.isfinite([low, high]).all()
                else None,
            })  # fmt: skip
        return rows


def run_study(
    subject: Subject,
    tried: Sequence[Condition],
    *,
    task: TaskSettings | None = None,
    person: PersonSettings | None = None,
    n_trials: int = 64,
    seeds: Sequence[int] = (0,),
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Study:
    """Let each decoder control a cursor under each condition, for each seed.

    Args:
        subject: gives the array and its decoders.
        tried: the conditions.
        task: its radius is that of the condition.
        person: who controls.
        n_trials: for each decoder, condition and seed.
        seeds: of arrays, spikes, aiming and targets.
        on_progress: called with runs done, runs in all (0 while unknown), and a note.
    """
    task, report = task or TaskSettings(), on_progress or (lambda done, total, note: None)
    parts = dict[tuple[str, Condition], list[Measures]]()
    steps, paths = dict[str, list[StepResponse]](), dict[str, list[Path]]()
    done = 0
    for seed in seeds:
        array, decoders = subject(seed)
        total = len(seeds) * len(decoders) * len(tried)
        for decoding in decoders:
            steps.setdefault(decoding.name, []).append(step_test(array, decoding, seed=seed))
        for condition, decoding in itertools.product(tried, decoders):
            run = _controlled(array, decoding, condition, task, person, n_trials, seed)
            found = measure(run, task.hold_s)
            parts.setdefault((decoding.name, condition), []).append(found)
            if condition is tried[0] and seed == seeds[0]:
                paths[decoding.name] = paths_of(run)[:SHOWN_TRIALS]
            done += 1
            bits = mean_of(found.bits_per_s)
            report(done, total, f"{decoding.name}, +{condition.latency_ms:g} ms: {bits:.2f} bit/s")
    return Study(
        measures={key: joined(found) for key, found in parts.items()}, steps=steps, paths=paths
    )


def paths_of(run: Run) -> list[Path]:
    """The ways of a run's trials."""
    trials, found = run.trials, list[Path]()
    for k in range(len(trials)):
        inside: Bool = (run.times >= trials.start[k] - 1e-6) & (run.times <= trials.end[k] + 1e-6)
        found.append(
            Path(
                position=run.position[inside],
                target=trials.target[k],
                radius=float(trials.radius[k]),
                success=bool(trials.success[k]),
            )
        )
    return found


def _controlled(
    array: SimulatedArray,
    decoding: Decoding,
    condition: Condition,
    task: TaskSettings,
    person: PersonSettings | None,
    n_trials: int,
    seed: int,
) -> Run:
    loop = ClosedLoop(
        array,
        decoding,
        task=condition.task(task),
        person=person,
        cursor=condition.cursor(task),
        seed=seed,
    )
    return loop.run(n_trials=n_trials)


def _mean_step(found: Sequence[StepResponse]) -> dict[str, float]:
    values = [one.to_json() for one in found]
    return {name: round(float(np.mean([v[name] for v in values])), 4) for name in values[0]}


def _ratio_interval(ours: Float64, theirs: Float64) -> tuple[float, float]:
    """95 % interval of the ratio of means, by drawing pairs of trials (K,) anew."""
    rows = _rng().integers(len(ours), size=(_DRAWS, len(ours)))
    below = theirs[rows].mean(1)
    ratios = ours[rows].mean(1)[below > 0] / below[below > 0]
    if not len(ratios):
        return np.nan, np.nan
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def _rng() -> np.random.Generator:
    """The same draws each time: intervals of the same trials are the same."""
    return np.random.default_rng(0)
