"""Is the stream still the one that the session was calibrated on? Looked at once a window.

What is compared are averages over ``horizon_s``: the rate of each unit, the share of spikes whose
unit the session knows, and the range of the decoded values. Windows that are silent, or were not
heard whole, say nothing about drift and are left out.

Legend: U units, O outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.artifact import Activity
from poyo_edge.errors import UsageError
from poyo_edge.runtime.intake import Counters

DRIFT, COVERAGE, OUTPUT_RANGE, SLOW = "drift", "coverage", "output_range", "slow"
_LEAST_RATE_HZ = 0.5
"""Units that were and are slower than this say nothing about drift."""
_MISSED_SPIKES = 10.0
"""A unit that owes so many spikes in a row is silent."""
_MOST_SD = 4.0
"""One window moves a unit's mean by no more sd than this: an artefact is no drift."""
_LATENCIES = 100
"""Decodes of which at most one may take longer than the budget: their 99th percentile."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """From when on a stream is no longer what it was. Each default is explained in the docs."""

    horizon_s: float = 20.0
    """Seconds that averages run over, and that pass before the first verdict."""
    drift_sd: float = 1.0
    """A unit has drifted when its mean rate is off by so many sd of a window's rate."""
    most_drifted: float = 0.15
    """Largest share of units that may have drifted."""
    least_coverage: float = 0.7
    """Smallest share of spikes whose unit the session must know."""
    most_outside: float = 0.3
    """Largest share of windows with a value outside the range of calibration, widened by half."""
    latency_budget_ms: float | None = None
    """Largest 99th percentile of decoding; None asks for none."""
    verify_s: float | None = 5.0
    """Seconds within which a session is told from another by its units' rates; None does not."""

    def __post_init__(self) -> None:
        for name in ("horizon_s", "drift_sd"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: expected a number > 0, got {getattr(self, name)!r}")
        if self.verify_s is not None and not 1 <= self.verify_s < math.inf:
            raise UsageError(f"verify_s: expected seconds >= 1 or None, got {self.verify_s!r}")
        for name in ("most_drifted", "least_coverage", "most_outside"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}: expected a share, 0 to 1, got {getattr(self, name)!r}")
        budget = self.latency_budget_ms
        if budget is not None and not budget > 0:
            raise UsageError(f"latency_budget_ms: expected ms > 0 or None, got {budget!r}")

    def windows_per_part(self, window_s: float) -> int:
        """Windows that make a part of at least a second, which rates are compared over."""
        return max(1, math.ceil(1.0 / window_s - 1e-9))

    def parts_to_hear(self, window_s: float) -> int:
        """Parts after which a session is judged; one of ``verify_s`` is left for odd windows."""
        part_s = self.windows_per_part(window_s) * window_s
        return max(2, int((self.verify_s or 0.0) / part_s + 1e-9) - 1)


class LatencyBudget:
    """Whether the 99th percentile of the last hundred decodes stayed within a budget."""

    def __init__(self, budget_ms: float | None) -> None:
        self._budget_ns = None if budget_ms is None else budget_ms * 1e6
        self._count = self._over = 0
        self.exceeded = False

    def add(self, latency_ns: int) -> None:
        """Count one decode."""
        if self._budget_ns is None:
            return
        self._count += 1
        self._over += latency_ns > self._budget_ns
        if self._over > _LATENCIES // 100:
            self.exceeded = True
        if self._count == _LATENCIES:
            self.exceeded = self._over > _LATENCIES // 100
            self._count = self._over = 0


class HealthMonitor:
    """Follows one session's stream. Not thread-safe: the decoder calls it while it decodes."""

    def __init__(
        self,
        unit_ids: Sequence[str],
        activity: Activity | None,
        window_s: float,
        settings: HealthSettings,
    ) -> None:
        self.settings = settings
        self.drift_excused = False
        """Whether control is known to be as good as ever, whatever the rates: no flag of drift."""
        self._unit_ids, self._activity, self._window_s = tuple(unit_ids), activity, window_s
        self._n_horizon = max(1, round(settings.horizon_s / window_s))
        n_parts, in_part = settings.parts_to_hear(window_s), settings.windows_per_part(window_s)
        self._n_first = self._n_horizon if settings.verify_s is None else n_parts * in_part
        self._patience = (
            np.full(len(self._unit_ids), np.inf) if activity is None else _owed(activity)
        )
        if activity is not None:
            self._mean = activity.rate_hz.astype(np.float64)
            # A unit that calibration hardly heard has no spread to speak of: half that of chance.
            chance = np.sqrt(np.maximum(self._mean, _LEAST_RATE_HZ) / window_s)
            self._sd = np.maximum(activity.rate_sd_hz, chance / 2)
            self._most_hz = self._mean + _MOST_SD * self._sd
            half = (activity.output_high - activity.output_low).astype(np.float64) / 2
            self._least, self._most = activity.output_low - half, activity.output_high + half
        self.begin()

    def begin(self) -> None:
        """Judge by what is heard from now on alone, as when a session comes into use."""
        self.flags: tuple[str, ...] = ()
        """Of the last look: drift, coverage, output_range."""
        self._rate = np.zeros(len(self._unit_ids))
        self._quiet = np.zeros(len(self._unit_ids))
        n_outputs = 0 if self._activity is None else len(self._least)
        self._low, self._high = np.full(n_outputs, np.inf), np.full(n_outputs, -np.inf)
        self._outside = 0.0
        self._heard = self._unknown = 0.0
        self._counted: tuple[int, int] | None = None
        self._next: Any = None
        self.n_windows = 0
        """Windows looked at so far."""

    def restart(self) -> None:
        """Look next one window after the next decode, for example on a new clock."""
        self._next = self._counted = None

    def note_value(self, value: Float64) -> None:
        """Take a decoded value (O,) into the range of this window."""
        if self._activity is not None:
            np.minimum(self._low, value, out=self._low)
            np.maximum(self._high, value, out=self._high)

    def due(self, now: Any, window: Any) -> bool:
        """Whether a whole window has passed since the last look; ``look`` is to follow."""
        if self._next is None:
            self._next = now + window
            return False
        if now < self._next:
            return False
        self._next = now + window
        return True

    def look(self, rows: npt.NDArray[np.int32], counters: Counters) -> None:
        """Take in one whole window.

        Args:
            rows: (N,) unit of each of its spikes.
            counters: of the intake.
        """
        self.n_windows += 1
        share = 1.0 / min(self.n_windows, self._n_horizon)
        rate = np.bincount(rows, minlength=len(self._rate)) / self._window_s
        if self._activity is not None:
            np.minimum(rate, self._most_hz, out=rate)
        self._rate += share * (rate - self._rate)
        self._quiet += self._window_s
        self._quiet[rows] = 0.0
        heard, unknown = counters.received, counters.unknown_unit
        if self._counted is not None:
            self._heard += share * (heard - self._counted[0] - self._heard)
            self._unknown += share * (unknown - self._counted[1] - self._unknown)
        self._counted = heard, unknown
        if self._activity is not None:
            outside = bool((self._low < self._least).any() or (self._high > self._most).any())
            self._outside += share * (outside - self._outside)
            self._low.fill(np.inf)
            self._high.fill(-np.inf)
        if self.n_windows >= self._n_horizon:
            self.flags = tuple(self._found())
        else:
            self.flags = (COVERAGE,) * (self.n_windows >= self._n_first and self._strangers())

    @property
    def coverage(self) -> float | None:
        """Share of spikes whose unit the session knows; None before any were heard."""
        return None if self._heard <= 0 else 1.0 - self._unknown / self._heard

    def rate_z(self) -> Float64 | None:
        """(U,) how far mean rates are from calibration, in sd of a window's rate, 4 at most;
        None if the session does not say how its units fired."""
        if self._activity is None or not self.n_windows:
            return None
        return np.asarray((self._rate - self._mean) / self._sd)

    def to_json(self) -> dict[str, Any]:
        """What ``Decoder.health`` says of the stream, as JSON values."""
        z = self.rate_z()
        drifted, silent = self._drifted(z), self._silent()
        judged = self.n_windows >= self._n_horizon
        coverage = self.coverage
        return {
            "judged": judged,
            "reference": self._activity is not None,
            "windows": self.n_windows,
            "drifted_share": self._drifted_share(drifted),
            "drifted_units": [] if drifted is None else self._names(drifted),
            "silent_units": self._names(silent),
            "rate_z": {}
            if z is None
            else {unit: round(float(one), 3) for unit, one in zip(self._unit_ids, z, strict=True)},
            "coverage": None if coverage is None else round(coverage, 4),
            "outside_share": None if self._activity is None else round(self._outside, 4),
            "drift_excused": self.drift_excused,
            "flags": list(self.flags),
        }

    def _found(self) -> list[str]:
        settings, found = self.settings, list[str]()
        share = self._drifted_share(self._drifted(self.rate_z()))
        drifted = share is not None and share > settings.most_drifted
        if drifted and not self.drift_excused:
            found.append(DRIFT)
        if self._strangers():
            found.append(COVERAGE)
        if self._outside > settings.most_outside:
            found.append(OUTPUT_RANGE)
        return found

    def _strangers(self) -> bool:
        """Whether the session does not know the units of many spikes."""
        coverage = self.coverage
        return coverage is not None and coverage < self.settings.least_coverage

    def _telling(self) -> npt.NDArray[np.bool_]:
        """(U,) units that fire, or did, often enough to say something."""
        assert self._activity is not None
        return np.asarray(np.maximum(self._rate, self._activity.rate_hz) >= _LEAST_RATE_HZ)

    def _drifted(self, z: Float64 | None) -> npt.NDArray[np.bool_] | None:
        if z is None:
            return None
        return np.asarray((np.abs(z) > self.settings.drift_sd) & self._telling()) | self._silent()

    def _drifted_share(self, drifted: npt.NDArray[np.bool_] | None) -> float | None:
        """Share of the units that say something."""
        if drifted is None:
            return None
        return round(float(drifted.sum()) / max(1, int(self._telling().sum())), 4)

    def _silent(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self._quiet > self._patience)

    def _names(self, which: npt.NDArray[np.bool_]) -> list[str]:
        return [self._unit_ids[row] for row in np.flatnonzero(which)]


def _owed(activity: Activity) -> Float64:
    """(U,) seconds in which a unit would have fired ten times; infinite for the slowest."""
    rate = activity.rate_hz.astype(np.float64)
    return np.where(rate >= _LEAST_RATE_HZ, _MISSED_SPIKES / np.maximum(rate, 1e-9), np.inf)
