"""Is this the session of the animal that is heard? Told from the first seconds of spikes.

The rates of all units, each against the others, are a session's fingerprint: within a day they keep
their pattern, another day, another animal or shuffled rows have another one. What is compared is
the correlation over units of log(1 + rate), so that a common gain, as of a pause in the task, says
nothing. Seconds of artefacts are no evidence: of what was heard, the half that fits best is pooled.

A right session does not reach 1: rates of a second are noisy. What it should reach follows from the
record alone, r = sqrt(V / (V + N)), with V the variance over units of log(1 + mean rate) and N the
mean over units of (sd / (1 + mean rate))² / sqrt(n) for n windows; sqrt(n), not n, since windows
that follow each other are alike, and the sd at most the mean, as artefacts made it more. The
margins below were chosen on recordings: see "The session is checked first" in docs/reliability.md.

Legend: U units.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Rows
from poyo_edge.artifact import Activity
from poyo_edge.runtime.health import HealthSettings

VERIFYING, WRONG_SESSION, UNVERIFIED = "verifying", "wrong_session", "unverified"
"""States, and flags: not told yet; not the units of the session; nothing to tell them by."""
VERIFIED, OFF = "verified", "off"

_MARGIN, _OF_FEW = 0.08, 0.78
"""A right session may stay so far below what is expected; of few units, by that / sqrt(U)."""
_CLEARLY = 0.4
"""Share of the way from there to 1 at which fewer seconds are enough."""
_CHANCE_SD = 2.0
"""Unrelated units correlate with an sd of 1 / sqrt(U); the limit must lie so many above 0."""
_STEADY_UNITS = 0.25
"""Share of units with an sd of at most their mean; with fewer (place cells) seconds say little."""
_SPIKES_OWED = 5.0
"""A unit that should have fired so often should have been heard."""

_MOST_SILENT = 0.15
"""Largest share of these that may be silent and left out: some electrodes have failed."""

_log = logging.getLogger(__name__)


class SessionCheck:
    """Follows one session's first seconds. Not thread-safe: the decoder calls it while it decodes.

    Args:
        session_id: for messages.
        unit_ids: of the session.
        activity: how they fired at calibration.
        window_s: length of the model's window.
        settings: how long to wait.
    """

    def __init__(
        self,
        session_id: str,
        unit_ids: Sequence[str],
        activity: Activity | None,
        window_s: float,
        settings: HealthSettings,
    ) -> None:
        self.session_id, self._unit_ids = session_id, tuple(unit_ids)
        self._group = settings.windows_per_part(window_s)
        self._part_s = self._group * window_s
        self._n_parts = settings.parts_to_hear(window_s)
        self._n_early = max(2, self._n_parts - 1)
        self._longest_s = max(settings.verify_s or 0.0, (self._n_parts + 1) * self._part_s)
        n_units = len(self._unit_ids)
        self._mean = self._spread = np.zeros(n_units)
        if activity is not None:
            self._mean = activity.rate_hz.astype(np.float64)
            chance = np.sqrt(np.maximum(self._mean, 0.0))
            sd = np.minimum(activity.rate_sd_hz, np.maximum(self._mean, chance))
            sd = np.maximum(sd, chance / 2)
            self._spread = (sd / (1 + self._mean)) ** 2
        self._heard: tuple[Float64, ...] = ()
        """(U,) rates in Hz of the last parts; NaN for units that were not listened to."""
        self._counts, self._n_counted = np.zeros(n_units), 0
        self._since_s: float | None = None
        self._agreement: float | None = None
        self._limit: float | None = None
        self.reason = ""
        """Of being unverified or wrong, in words."""
        self._margin = max(_MARGIN, _OF_FEW / math.sqrt(max(1, n_units)))
        self._beyond_telling = self._why_not(activity, settings)
        self.state = self._initial()

    @property
    def flags(self) -> tuple[str, ...]:
        """Of a value decoded now."""
        return () if self.state in (VERIFIED, OFF) else (self.state,)

    def restart(self) -> None:
        """The stream begins anew, for example on another clock: what is known stays known."""
        self._heard, self._n_counted, self._since_s = (), 0, None
        self._counts.fill(0.0)

    def take_over(self, before: SessionCheck, new_row: Rows) -> None:
        """Judge by what was heard with the session before, which this one replaces.

        Args:
            before: its check.
            new_row: (U of before,) rows of its units in this session, -1 for those not in it.
        """
        heard, known = before._heard, new_row >= 0
        self.restart()
        if 2 * int(known.sum()) >= len(self._unit_ids):
            self._heard = tuple(self._moved(part, new_row, known) for part in heard)
        self.state = self._initial()
        self._judge()

    def wait(self, now_s: float) -> None:
        """A value is due at ``now_s`` on the device's clock: nobody waits for ever."""
        if self.state != VERIFYING:
            return
        if self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s > self._longest_s:
            self.reason = (
                f"session {self.session_id!r}: expected {self._n_parts * self._part_s:g} s of "
                f"whole windows within {self._longest_s:g} s, got "
                f"{len(self._heard) * self._part_s:g} s"
            )
            self.state = UNVERIFIED
            _log.warning("not verified yet: %s", self.reason)

    def look(self, rows: Rows) -> None:
        """Take in one whole window: (N,) unit of each of its spikes."""
        if self.state == OFF:
            return
        self._counts += np.bincount(rows, minlength=len(self._counts))
        self._n_counted += 1
        if self._n_counted < self._group:
            return
        self._heard = (*self._heard[1 - self._n_parts :], self._counts / self._part_s)
        self._counts, self._n_counted = np.zeros(len(self._counts)), 0
        self._judge()

    def to_json(self) -> dict[str, Any]:
        """What ``Decoder.health`` says of it, as JSON values."""
        numbers = {"agreement": self._agreement, "least_agreement": self._limit}
        return {
            "state": self.state,
            "reason": self.reason or None,
            "heard_s": round(len(self._heard) * self._part_s, 3),
            "units_heard": self._units_heard(),
            **{k: None if v is None else round(v, 4) for k, v in numbers.items()},
        }

    def _initial(self) -> str:
        self._agreement = self._limit = None
        self.reason = self._beyond_telling or ""
        if self._beyond_telling is None:
            return VERIFYING
        return UNVERIFIED if self._beyond_telling else OFF

    def _why_not(self, activity: Activity | None, settings: HealthSettings) -> str | None:
        """Why nothing can be told, in words; "" if nobody asked, None if it can."""
        if settings.verify_s is None:
            return ""
        name = f"session {self.session_id!r}"
        if activity is None:
            return (
                f"{name}: it does not say how its units fired, so nobody would notice if it were "
                f"the wrong one; values are decoded all the same. export --recording of its day, "
                f"or calibrate, puts that into it"
            )
        steady = float((activity.rate_sd_hz <= activity.rate_hz).mean())
        least = _CHANCE_SD / math.sqrt(len(self._unit_ids))
        limit = self._expected(np.ones(len(self._mean), np.bool_), self._n_parts) - self._margin
        if steady < _STEADY_UNITS or limit < least:
            return (
                f"{name}: its {len(self._unit_ids)} units fire too unsteadily, or too much alike, "
                f"to be told from others within seconds"
            )
        return None

    def _judge(self) -> None:
        n = len(self._heard)
        if self._beyond_telling is not None or self.state == VERIFIED or n < self._n_early:
            return
        rates = np.stack(self._heard)
        known = np.asarray(np.isfinite(rates).all(0))
        pooled = np.where(known, self._best_half(rates, known), 0.0)
        owed = known & (self._mean * _best_of(n) * self._part_s >= _SPIKES_OWED)
        silent = owed & (pooled == 0)
        few = int(silent.sum()) <= _MOST_SILENT * int(owed.sum())
        telling = known & ~silent if few else known
        found = _correlation(np.log1p(pooled[telling]), np.log1p(self._mean[telling]))
        limit = self._expected(telling, n) - self._margin
        self._agreement, self._limit = found, limit
        enough = n >= self._n_parts
        fits = found >= limit and self.state != WRONG_SESSION
        if found >= limit + _CLEARLY * (1 - limit) or (enough and fits):
            if self.state == WRONG_SESSION:
                _log.warning("session %r fits what is heard now", self.session_id)
            self.state, self.reason = VERIFIED, ""
        elif enough:
            self._refuse(pooled, telling)

    def _refuse(self, pooled: Float64, telling: npt.NDArray[np.bool_]) -> None:
        """Another session: (U,) rates heard, and which of them count."""
        off = np.abs(np.log1p(pooled) - np.log1p(self._mean))
        worst = int(np.where(telling, off, -1.0).argmax())
        self.reason = (
            f"session {self.session_id!r} expects unit {self._unit_ids[worst]!r} at "
            f"{self._mean[worst]:.0f} spikes/s, hears {pooled[worst]:.0f}; the rates "
            f"of all units correlate with its record by {self._agreement:.2f}, expected at least "
            f"{self._limit:.2f}; check --session"
        )
        if self.state != WRONG_SESSION:
            _log.error("not the session of what is heard: %s", self.reason)
        self.state = WRONG_SESSION

    def _best_half(self, rates: Float64, known: npt.NDArray[np.bool_]) -> Float64:
        """(U,) mean over the half of the parts that agrees best."""
        log_mean = np.log1p(self._mean[known])
        each = np.array([_correlation(np.log1p(part[known]), log_mean) for part in rates])
        return np.asarray(rates[np.argsort(-each, kind="stable")[: _best_of(len(rates))]].mean(0))

    def _expected(self, known: npt.NDArray[np.bool_], n_heard: int) -> float:
        """The correlation that a right session reaches with the best half of so many parts."""
        n_windows = _best_of(n_heard) * self._group
        signal = float(np.log1p(self._mean[known]).var())
        noise = float(self._spread[known].mean()) / math.sqrt(n_windows)
        return math.sqrt(signal / (signal + noise)) if signal > 0 else 0.0

    def _moved(self, part: Float64, new_row: Rows, known: npt.NDArray[np.bool_]) -> Float64:
        moved = np.full(len(self._unit_ids), np.nan)
        moved[new_row[known]] = part[known]
        return moved

    def _units_heard(self) -> float | None:
        """Share of the units that should have fired some times and did; None before."""
        heard = self._heard
        owed = self._mean * self._part_s * len(heard) >= _SPIKES_OWED
        if not heard or not owed.any():
            return None
        fired = np.nansum(np.stack(heard), 0) > 0
        return round(float((fired & owed).sum() / owed.sum()), 4)


def _best_of(n: int) -> int:
    """How many of n parts are pooled."""
    return n - n // 2


def _correlation(a: Float64, b: Float64) -> float:
    """Pearson's, 0 where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else 0.0
