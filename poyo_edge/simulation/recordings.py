"""Simulated recordings of motor cortex: random movements, cosine-tuned Poisson units.

Movements are those of ``motions``; reaches follow the minimum-jerk profile of Flash and Hogan
(1985). Rates depend on the velocity that follows (the neural lead), by the cosine tuning with
speed modulation of Moran and Schwartz (1999):
``rate(t) = base + gain * (cos(direction - preferred) + speed_share) * speed / typical``,
never below zero, with ``direction`` and ``speed`` taken at ``t + lead``. Units that fire richly are
those of ``array``: rates that bend or saturate, refractoriness, fluctuations that units share, and
drift within the session.

Legend: G points of the fine time grid, U units.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import UsageError
from poyo_edge.recording import write_recording
from poyo_edge.simulation.array import ArraySettings, Drift, SimulatedArray, as_seconds
from poyo_edge.simulation.motions import GRID_HZ, MOTIONS, Motion, Movements, Range, move
from poyo_edge.simulation.tuning import Shape, TuningRanges
from poyo_edge.trials import Trials

CLOCK_HZ = 10_000
"""Ticks per second of the clock that spike times are rounded to."""
Firing = Literal["plain", "rich"]
FIRINGS: tuple[str, ...] = get_args(Firing)
Subjects = Literal["one", "each"]
SUBJECTS: tuple[str, ...] = get_args(Subjects)
_RICH_SHAPES: tuple[Shape, ...] = ("softplus", "saturating")
"""Of the rates: one of them for each session."""
_RICH_FACTORS, _RICH_SHARED_SD, _RICH_SHARED_S = 4, 0.25, 0.2
_RICH_DRIFT = Drift(direction_deg=30.0, log_rate=0.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a simulated session is made of. Ranges are drawn from uniformly."""

    duration_s: float = 300.0
    n_units: int = 60
    behavior_hz: float = 50.0
    motion: Motion = "reaches"
    """What is moved: "reaches" alone, or "mixed", with velocities that are held, drift, jump and
    wander between them, which a model has to have seen to hold a command."""
    firing: Firing = "plain"
    """How units fire: "plain", Poisson spikes at rates that are linear above zero, or "rich", with
    what makes real ones hard: see above."""
    subjects: Subjects = "one"
    """Whose the sessions are: "one" animal's, or "each" an animal's of its own, so that nothing
    takes their units for the same ones by name. Tuning is drawn anew for each session in any case.
    """
    reach_s: Range = (0.4, 0.9)
    """Duration of a reach."""
    pause_s: Range = (0.1, 0.5)
    """Rest between reaches."""
    workspace_cm: float = 8.0
    """Targets lie in a square from -workspace_cm to +workspace_cm."""
    base_hz: Range = (2.0, 10.0)
    """Rate of a unit at rest."""
    gain_hz: Range = (6.0, 18.0)
    """Rate added at ``typical_cm_s`` in the preferred direction."""
    speed_share: Range = (0.0, 0.4)
    """Part of the gain that follows speed alone."""
    lead_s: Range = (0.05, 0.15)
    """How long before the movement a unit fires."""
    typical_cm_s: float = 15.0
    valid_share: float = 0.1
    """Part of the session in the valid split; it lies between train and test."""
    test_share: float = 0.2
    """Part of the session in the test split, at its end."""

    def __post_init__(self) -> None:
        for name in ("reach_s", "pause_s", "base_hz", "gain_hz", "speed_share", "lead_s"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < np.inf:
                raise UsageError(f"{name}: expected 0 <= low <= high, got {(low, high)}")
        for name in ("duration_s", "n_units", "behavior_hz", "workspace_cm", "typical_cm_s"):
            if not 0 < getattr(self, name) < np.inf:
                raise UsageError(f"{name}: expected a number > 0, got {getattr(self, name)}")
        if self.motion not in MOTIONS:
            raise UsageError(f"motion: expected one of {list(MOTIONS)}, got {self.motion!r}")
        if self.firing not in FIRINGS:
            raise UsageError(f"firing: expected one of {list(FIRINGS)}, got {self.firing!r}")
        if self.subjects not in SUBJECTS:
            raise UsageError(f"subjects: expected one of {list(SUBJECTS)}, got {self.subjects!r}")
        if self.reach_s[0] <= 0:
            raise UsageError(f"reach_s: expected seconds > 0, got {self.reach_s}")
        shares = (self.valid_share, self.test_share)
        if min(shares) <= 0 or sum(shares) >= 1:
            raise UsageError(f"valid_share, test_share: expected > 0, sum < 1, got {shares}")


def simulate_study(
    folder: str | Path,
    *,
    n_sessions: int = 4,
    seed: int = 0,
    simulation: Simulation | None = None,
    first: int = 0,
) -> list[Path]:
    """Write sessions "sim_00", "sim_01", … with different units and movements each.

    Args:
        folder: where ``sim_00.h5`` and the others go; created when absent.
        n_sessions: number of sessions.
        seed: sessions of different seeds or different number share nothing.
        simulation: what each session is made of.
        first: number of the first one.

    Returns:
        The paths, in the order of the sessions.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = {index: f"sim_{index:02d}" for index in range(first, first + n_sessions)}
    return [
        _write_session(folder / f"{name}.h5", name, [seed, index], simulation or Simulation())
        for index, name in names.items()
    ]


def simulate_recording(
    path: str | Path, *, session_id: str, seed: int, simulation: Simulation | None = None
) -> Path:
    """Write one session. The same seed and simulation give the same arrays.

    Args:
        path: the file to write.
        session_id: name of the session; units are named ``SESSION/unit_000`` and so on.
        seed: of movement, tuning and spikes.
        simulation: what the session is made of.

    Returns:
        The path.
    """
    return _write_session(Path(path), session_id, [seed], simulation or Simulation())


def _write_session(path: Path, session_id: str, seed: list[int], simulation: Simulation) -> Path:
    rng = np.random.default_rng(seed)
    position, velocity, trials = _moved(simulation, rng)
    if simulation.firing == "rich":
        spike_times, spike_units = _rich_spikes(velocity, simulation, rng)
    else:
        rates = _Tuning.draw(simulation, rng).rates(velocity, simulation.typical_cm_s)
        spike_times, spike_units = _spikes(rates, rng)
    n_samples = int(simulation.duration_s * simulation.behavior_hz)
    times = np.arange(n_samples) / simulation.behavior_hz
    grid = np.arange(len(position)) / GRID_HZ
    own = simulation.subjects == "each"
    return write_recording(
        path,
        session_id=session_id,
        subject_id="_".join(["simulated", *map(str, seed)]) if own else "simulated",
        unit_ids=[f"{session_id}/unit_{i:03d}" for i in range(simulation.n_units)],
        spike_times=spike_times,
        spike_units=spike_units,
        behaviors={
            "cursor.pos": (times, _sampled(times, grid, position)),
            "cursor.vel": (times, _sampled(times, grid, velocity)),
        },
        domains=_domains(simulation),
        trials=trials,
    )


def _domains(simulation: Simulation) -> dict[str, list[Range]]:
    end = simulation.duration_s
    test = end * (1 - simulation.test_share)
    valid = test - end * simulation.valid_share
    return {
        "all": [(0.0, end)],
        "train": [(0.0, valid)],
        "valid": [(valid, test)],
        "test": [(test, end)],
    }


def _moved(simulation: Simulation, rng: np.random.Generator) -> tuple[Float64, Float64, Trials]:
    """Position (G, 2) in cm and velocity (G, 2) in cm/s.

    Each reach that ends in time is a trial; it begins as the movement does, and is a success.
    """
    path = Movements(
        rng,
        workspace_cm=simulation.workspace_cm,
        reach_s=simulation.reach_s,
        pause_s=simulation.pause_s,
    )
    moved = move(path, simulation.motion, round(simulation.duration_s * GRID_HZ))
    start, end = np.array([r[:2] for r in moved.reaches]).reshape(-1, 2).T / GRID_HZ
    trials = Trials.of(
        start,
        end,
        go_time=start,
        target=np.array([r[2] for r in moved.reaches]).reshape(-1, 2),
        success=np.ones(len(start), np.bool_),
    )
    return moved.position, moved.velocity, trials


class _Tuning(NamedTuple):
    """Tuning of all units, each array (U,) float64."""

    direction: Float64
    base: Float64
    gain: Float64
    speed_share: Float64
    lead: Float64

    @classmethod
    def draw(cls, simulation: Simulation, rng: np.random.Generator) -> _Tuning:
        ranges = (
            (0.0, 2 * np.pi),
            simulation.base_hz,
            simulation.gain_hz,
            simulation.speed_share,
            simulation.lead_s,
        )
        return cls(*(rng.uniform(low, high, simulation.n_units) for low, high in ranges))

    def rates(self, velocity: Float64, typical_cm_s: float) -> Float64:
        """(U, G) float64 rates in Hz for velocities (G, 2) in cm/s."""
        rows = np.empty((len(self.base), len(velocity)))
        for row, angle, base, gain, share, lead in zip(rows, *self, strict=True):
            ahead = _shifted(velocity, round(lead * GRID_HZ))
            along = ahead @ np.array([np.cos(angle), np.sin(angle)])
            drive = (along + share * np.hypot(*ahead.T)) / typical_cm_s
            np.maximum(base + gain * drive, 0.0, out=row)
        return rows


def _shifted(velocity: Float64, n_points: int) -> Float64:
    """What comes ``n_points`` later; at rest after the end."""
    return np.concatenate([velocity[n_points:], np.zeros((min(n_points, len(velocity)), 2))])


def _spikes(rates: Float64, rng: np.random.Generator) -> tuple[Float64, Int64]:
    """Poisson spikes on the clock's ticks, sorted by time: (M,) seconds and (M,) unit rows.

    A unit fires at most once in a tick.
    """
    per_point = CLOCK_HZ // GRID_HZ
    ticks, units = [], []
    for unit, rate in enumerate(rates):
        counts = rng.poisson(rate / GRID_HZ)
        points = np.repeat(np.arange(len(rate)), counts)
        tick = np.unique(points * per_point + rng.integers(per_point, size=len(points)))
        ticks.append(tick)
        units.append(np.full(len(tick), unit, dtype=np.int64))
    tick, unit_rows = np.concatenate(ticks), np.concatenate(units)
    order = np.argsort(tick, kind="stable")
    return tick[order] / CLOCK_HZ, unit_rows[order]


def _rich_spikes(
    velocity: Float64, simulation: Simulation, rng: np.random.Generator
) -> tuple[Float64, Int64]:
    """The same of a simulated array whose person intends the velocities (G, 2) that follow."""
    settings = ArraySettings(
        n_units=simulation.n_units,
        ranges=TuningRanges(
            base_hz=simulation.base_hz,
            gain_hz=simulation.gain_hz,
            speed_share=simulation.speed_share,
            lead_s=simulation.lead_s,
            typical_cm_s=simulation.typical_cm_s,
        ),
        shape=_RICH_SHAPES[rng.integers(len(_RICH_SHAPES))],
        n_factors=_RICH_FACTORS,
        shared_sd=_RICH_SHARED_SD,
        shared_s=_RICH_SHARED_S,
        drift=_RICH_DRIFT,
    )
    array = SimulatedArray.draw(settings, seed=int(rng.integers(1 << 31)))
    per_step = round(array.period_s * GRID_HZ)
    intended = _shifted(velocity, round(array.delay_s * GRID_HZ))
    # The middle of a step stands for it.
    fired = [array.step(one) for one in intended[per_step // 2 :: per_step]]
    ticks, rows = (np.concatenate(part) for part in zip(*fired, strict=True))
    within = as_seconds(ticks) < simulation.duration_s
    return as_seconds(ticks[within]), rows[within].astype(np.int64)


def _sampled(times: Float64, grid: Float64, values: Float64) -> npt.NDArray[np.float32]:
    """Values (G, 2) at the times, (S, 2) float32."""
    columns = [np.interp(times, grid, column) for column in values.T]
    return np.stack(columns, axis=-1).astype(np.float32)
