"""The neural lead of labels: where the spikes are that say most of them, before or after.

A model of movement was trained on spikes that come ``model_lead_s`` before the movement. Spikes of
an intention stand elsewhere: a person sees the cursor late and imagines late, or acts ahead of what
is shown. So the lag between the labels and their spikes is searched, in both directions, and the
labels are moved to where the model would give them: ``lag + model_lead_s`` later.

Legend: S samples, U units, D dimensions, M spikes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.calibration.intention import IntentionLabels, IntentionSettings
from poyo_edge.filters.wiener import bin_counts, heldout_r2

LAGS_S = np.round(np.arange(-0.3, 0.301, 0.02), 2)
"""Seconds after the label at which spikes are looked for."""
_HALF_BIN_S = 0.05
"""Spikes count from so long before to so long after that."""
_MOST_SAMPLES, _MOST_UNITS = 1500, 128
_LEAST_R2 = 0.02
"""Below this no lag says anything."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """Where the spikes of labels are."""

    lag_s: float | None
    """Seconds after the label; negative is before. None where spikes say nothing of the labels."""
    curve: tuple[tuple[float, float], ...]
    """Lag and held-out R² of the filter there."""

    @property
    def at_edge(self) -> bool:
        """Whether the best lag is the first or the last that was tried."""
        best = max(self.curve, key=lambda point: point[1])
        return best in (self.curve[0], self.curve[-1])


def find_lag(
    times: Float64,
    values: Float64,
    spike_times: Float64,
    spike_rows: npt.NDArray[np.integer],
    n_units: int,
) -> Lag:
    """The lag at which a filter on 100 ms of spikes decodes labels best, held out.

    The curve's top is placed between its points by a parabola.

    Args:
        times: (S,) seconds of the labels, ascending.
        values: (S, D).
        spike_times: (M,) seconds, ascending.
        spike_rows: (M,).
        n_units: U; the 128 that fire most are looked at.
    """
    stride = max(1, -(-len(times) // _MOST_SAMPLES))
    times, values = times[::stride], values[::stride]
    busy = np.argsort(-np.bincount(spike_rows, minlength=n_units), kind="stable")[:_MOST_UNITS]
    row = np.full(n_units, -1, np.int64)
    row[busy] = np.arange(len(busy))
    keep = row[spike_rows] >= 0
    spikes, rows = spike_times[keep], row[spike_rows[keep]]
    curve = []
    for lag in LAGS_S:
        counts = bin_counts(
            spikes, rows, len(busy), times + lag, before=1, after=1, bin_s=_HALF_BIN_S
        ).sum(2)
        curve.append((float(lag), round(heldout_r2(counts.astype(np.float64), values), 4)))
    r2 = np.array([r for _, r in curve])
    best = int(r2.argmax())
    if not r2[best] > _LEAST_R2:
        return Lag(lag_s=None, curve=tuple(curve))
    top = float(LAGS_S[best])
    if 0 < best < len(r2) - 1:
        before, at, after = r2[best - 1 : best + 2]
        bend = before - 2 * at + after
        top += 0.0 if bend >= 0 else 0.5 * (before - after) / bend * float(LAGS_S[1] - LAGS_S[0])
    return Lag(lag_s=round(float(top), 4), curve=tuple(curve))


def with_lead(
    labels: IntentionLabels,
    settings: IntentionSettings,
    spike_times: Float64,
    spike_rows: npt.NDArray[np.integer],
    n_units: int,
) -> IntentionLabels:
    """The labels where a decoder of movement gives them; searched unless the settings say where.

    Args:
        labels: at the times of the shown cursor.
        settings: of them.
        spike_times: (M,) seconds, ascending, on the same clock.
        spike_rows: (M,).
        n_units: U.
    """
    if settings.lead_s is not None:
        return _moved(labels, settings.lead_s)
    of = labels.labelled
    lag = find_lag(labels.times[of], labels.values[of], spike_times, spike_rows, n_units)
    note = labels.report.note
    if lag.lag_s is None:
        note = _and(note, "no lag was found at which spikes say anything of the labels: taken as 0")
    elif lag.at_edge:
        note = _and(
            note, f"the lag of the spikes is at the edge of the search ({lag.lag_s:+.2f} s)"
        )
    moved = _moved(labels, (lag.lag_s or 0.0) + settings.model_lead_s)
    report = dataclasses.replace(
        moved.report, spike_lag_s=lag.lag_s, lead_curve=lag.curve, note=note
    )
    return dataclasses.replace(moved, report=report)


def _moved(labels: IntentionLabels, lead_s: float) -> IntentionLabels:
    report = dataclasses.replace(labels.report, lead_s=round(float(lead_s), 4))
    return dataclasses.replace(labels, times=labels.times + lead_s, report=report)


def _and(note: str, other: str) -> str:
    return f"{note}; {other}" if note else other
