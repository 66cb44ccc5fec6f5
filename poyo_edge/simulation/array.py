"""A simulated array of electrodes: spikes from what a person intends, step by step.

A recording knows the movement that follows, and a unit with lead L fires at t for the velocity at
t + L. In a closed loop nobody knows what will follow, so the same array fires from intentions: an
intention formed at t is of the movement at t + ``delay_s``, and a unit with lead L follows it after
``delay_s - L``. ``delay_s`` is the longest lead. So spikes and movement stand to each other as in
recordings, and a decoder of movement gives an intention ``delay_s`` after it was formed: labels of
intention have to be moved by that much, as on a rig.

Spikes are Poisson with refractoriness. Rates share fluctuations (noise correlations) by a few
factors that multiply them (Goris, Movshon and Simoncelli 2014), each an autoregressive process.

Legend: U units, D dimensions, F factors, N spikes.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64, Rows
from poyo_edge.errors import UsageError
from poyo_edge.simulation.tuning import Shape, Tuning, TuningRanges

TICK_HZ = 30_000
"""Ticks per second of the device's counter."""
_AGES_EACH_S = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How an array changes in an hour. Nothing does by default."""

    direction_deg: float = 0.0
    """Sd of the random walk of a preferred direction after an hour, degrees."""
    log_rate: float = 0.0
    """Sd of the random walk of a rate's logarithm after an hour."""
    lost: float = 0.0
    """Share of the units that is lost within an hour."""
    exchanged: float = 0.0
    """Share of the units in whose place another one is heard after an hour."""
    rate_factor: float = 1.0
    """All rates are multiplied by this within an hour, evenly."""

    def __post_init__(self) -> None:
        for name in ("direction_deg", "log_rate"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UsageError(f"{name}: expected a number >= 0, got {getattr(self, name)!r}")
        for name in ("lost", "exchanged"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 0 to 1, got {getattr(self, name)!r}")
        if not 0 < self.rate_factor < np.inf:
            raise UsageError(f"rate_factor: expected a number > 0, got {self.rate_factor!r}")

    @property
    def none(self) -> bool:
        """Whether nothing changes."""
        return self == Drift()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ArraySettings:
    """What a simulated array is made of. The tuning is that of ``poyo-edge simulate``."""

    n_units: int = 60
    ranges: TuningRanges = dataclasses.field(default_factory=TuningRanges)
    shape: Shape = "rectified"
    n_factors: int = 0
    """Latent factors that rates share."""
    shared_sd: float = 0.0
    """Sd of a rate's logarithm that comes from the factors."""
    shared_s: float = 0.1
    """Time constant of the factors."""
    refractory_s: float = 0.002
    drift: Drift = dataclasses.field(default_factory=Drift)

    def __post_init__(self) -> None:
        if self.n_units < 1 or self.n_factors < 0:
            raise UsageError(
                f"n_units, n_factors: expected >= 1 and >= 0, got {self.n_units}, {self.n_factors}"
            )
        if not 0 <= self.shared_sd < 5 or (self.shared_sd > 0) != (self.n_factors > 0):
            raise UsageError(
                f"n_factors, shared_sd: expected both 0 or both above it, got {self.n_factors}, "
                f"{self.shared_sd}"
            )
        if not 0 < self.shared_s < np.inf or not 0 <= self.refractory_s < 0.02:
            raise UsageError(
                f"shared_s, refractory_s: expected > 0 and 0 to 0.02, got {self.shared_s}, "
                f"{self.refractory_s}"
            )


class SimulatedArray:
    """An array that fires from intentions, step by step. Made by ``draw``, or by
    ``fitted.from_recording``.

    Args:
        tuning: of its units.
        unit_ids: their names.
        loadings: (U, F) of the logarithms of rates on the shared factors; F may be 0.
        settings: refractoriness, time constant of the factors and drift; sizes are of ``tuning``.
        seed: of spikes, fluctuations and drift.
        period_s: length of a step.
    """

    def __init__(
        self,
        tuning: Tuning,
        unit_ids: Sequence[str],
        loadings: Float64,
        *,
        settings: ArraySettings,
        seed: int | Sequence[int],
        period_s: float = 0.02,
    ) -> None:
        if len(unit_ids) != len(tuning) or loadings.shape[0] != len(tuning):
            raise UsageError(
                f"array: expected an id and loadings for each of {len(tuning)} units, got "
                f"{len(unit_ids)} and {loadings.shape}"
            )
        self.settings = settings
        self.unit_ids = tuple(unit_ids)
        self.delay_s = float(tuning.lead.max())
        """Seconds from an intention to the movement that it is of."""
        self.period_s = period_s
        self._per_step = round(period_s * TICK_HZ)
        if abs(self._per_step / TICK_HZ - period_s) > 1e-9:
            raise UsageError(f"period_s: expected whole ticks of 1/{TICK_HZ} s, got {period_s}")
        self._first, self._loadings = tuning, loadings
        self._drifts = not settings.drift.none
        self.restart(seed)

    @classmethod
    def draw(
        cls,
        settings: ArraySettings | None = None,
        *,
        seed: int = 0,
        name: str = "array",
        period_s: float = 0.02,
    ) -> SimulatedArray:
        """Units that no session knows: the same ones for the same seed.

        Args:
            settings: what they are drawn from.
            seed: of the tuning and of what is fired.
            name: units are called ``NAME/unit_000`` and so on.
            period_s: length of a step.
        """
        settings = settings or ArraySettings()
        rng = np.random.default_rng([seed, 0])
        tuning = Tuning.draw(settings.n_units, settings.ranges, rng, settings.shape)
        spread = settings.shared_sd / np.sqrt(max(1, settings.n_factors))
        loadings = rng.normal(0.0, spread, (settings.n_units, settings.n_factors))
        ids = [f"{name}/unit_{i:03d}" for i in range(settings.n_units)]
        return cls(tuning, ids, loadings, settings=settings, seed=[seed, 1], period_s=period_s)

    def restart(self, seed: int | Sequence[int]) -> None:
        """Begin anew at tick 0, at rest, without the drift so far, with another seed of noise."""
        self.tuning = copy.deepcopy(self._first)
        self._rng = np.random.default_rng(seed)
        self._drift_rng = np.random.default_rng([*np.atleast_1d(seed).tolist(), 2])
        self._factors = np.zeros(self._loadings.shape[1])
        self._steps = 0
        self._last = np.full(len(self.tuning), -(1 << 40))
        self._note_delays()
        self._intended = np.zeros((self._depth, self.tuning.weights.shape[1]))

    @property
    def tick(self) -> int:
        """Where the counter stands: the end of the last step."""
        return self._steps * self._per_step

    def step(self, intended: Float64) -> tuple[Int64, Rows]:
        """What is fired in the next step.

        Args:
            intended: (D,) velocity in cm/s that is intended throughout the step.

        Returns:
            Ticks (N,), ascending, of ``TICK_HZ``, and rows (N,) of ``unit_ids``.
        """
        self._intended[1:] = self._intended[:-1]
        self._intended[0] = intended
        seen = (
            self._newer[:, None] * self._intended[self._behind]
            + self._older[:, None] * self._intended[self._behind + 1]
        )
        rates = self.tuning.rates(seen)
        if len(self._factors):
            rates = rates * self._shared()
        fired = self._fired(rates)
        self._steps += 1
        if self._drifts and self._steps % max(1, round(_AGES_EACH_S / self.period_s)) == 0:
            self.age(max(_AGES_EACH_S, self.period_s))
        return fired

    def intention(self) -> Float64:
        """The intention (D,) that was formed ``delay_s`` before the end of the last step: the
        velocity of the movement at that end."""
        steps = self.delay_s / self.period_s
        whole = int(np.floor(steps + 1e-9))
        part = max(0.0, steps - whole)
        return np.asarray((1 - part) * self._intended[whole] + part * self._intended[whole + 1])

    def age(self, seconds: float) -> None:
        """Let the array drift by so many seconds at once."""
        drift, rng, hours = self.settings.drift, self._drift_rng, seconds / 3600.0
        n, root = len(self.tuning), np.sqrt(hours)
        self.tuning.turn(rng.normal(0.0, np.deg2rad(drift.direction_deg) * root, n))
        self.tuning.scale *= np.exp(rng.normal(0.0, drift.log_rate * root, n))
        self.tuning.scale *= drift.rate_factor**hours
        self.tuning.scale[rng.random(n) < -np.expm1(np.log1p(-drift.lost) * hours)] = 0.0
        other = np.flatnonzero(rng.random(n) < -np.expm1(np.log1p(-drift.exchanged) * hours))
        if len(other):
            self.tuning.exchange(other, self.tuning.like(rng.integers(n, size=len(other)), rng))
            self._note_delays()

    def _note_delays(self) -> None:
        """Between which two steps of the past each unit's intention lies, and their weights."""
        behind = np.maximum(self.delay_s - self.tuning.lead, 0.0) / self.period_s
        self._behind = np.floor(behind + 1e-9).astype(np.int64)
        self._older = np.maximum(behind - self._behind, 0.0)
        self._newer = 1.0 - self._older
        self._depth = int(np.ceil(self.delay_s / self.period_s)) + 3

    def _shared(self) -> Float64:
        """(U,) factors of the rates, 1 in the mean."""
        kept = np.exp(-self.period_s / self.settings.shared_s)
        noise = self._rng.normal(size=len(self._factors))
        self._factors = kept * self._factors + np.sqrt(1 - kept**2) * noise
        size = (self._loadings**2).sum(1)
        return np.asarray(np.exp(self._loadings @ self._factors - size / 2))

    def _fired(self, rates: Float64) -> tuple[Int64, Rows]:
        """Poisson spikes at rates (U,) in Hz within the step; a unit's keep their distance."""
        dead = self.settings.refractory_s
        free = rates / np.maximum(1.0 - rates * dead, 0.2)
        counts = self._rng.poisson(free * self.period_s)
        rows = np.repeat(np.arange(len(rates), dtype=np.int32), counts)
        # Ticks of one unit are drawn one per slot of the clock; two in one are one spike.
        slots = self._rng.integers(self._per_step, size=len(rows))
        slots += rows * np.int64(self._per_step)
        slots.sort()  # by unit, then by time
        rows_long, slots = np.divmod(slots, self._per_step)
        rows = rows_long.astype(np.int32)
        ticks = self.tick + slots
        before = np.empty_like(ticks)
        before[1:] = ticks[:-1]
        first = np.ones(len(rows), np.bool_)
        first[1:] = rows[1:] != rows[:-1]
        before[first] = self._last[rows[first]]
        keep = ticks - before >= max(1, round(dead * TICK_HZ))
        ticks, rows = ticks[keep], rows[keep]
        self._last[rows] = ticks  # of a unit's, the last one stays
        order = np.argsort(ticks, kind="stable")
        return ticks[order], rows[order]


def as_seconds(ticks: npt.NDArray[np.int64]) -> Float64:
    """(N,) ticks as float64 seconds."""
    return np.asarray(ticks / TICK_HZ)
