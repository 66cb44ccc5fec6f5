"""An array fitted to a recording: its rates, tuning, leads and shared fluctuations.

For each unit the counts in bins of 50 ms are regressed on the velocity that follows by each lead,
``count / bin ≈ base + weights · v + speed_weight · |v|`` (Moran and Schwartz 1999), and the lead
that explains most is taken. What is left over, relative to the rates and beyond Poisson noise, is
given to a few factors that the units share; movement that the velocity does not tell is in it too.

Legend: U units, B bins, D dimensions, F factors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from poyo_edge.arrays import Bool, Float64
from poyo_edge.errors import RecordingError
from poyo_edge.filters.wiener import bin_counts
from poyo_edge.recording import Recording
from poyo_edge.simulation.array import ArraySettings, SimulatedArray
from poyo_edge.simulation.tuning import Tuning

BIN_S = 0.05
LEADS_S = np.arange(0.0, 0.201, 0.025)
N_FACTORS = 3
_RIDGE = 1e-3
"""Share of the features' power that is added to it."""
_MOST_SHARED = 0.5
"""Sd of a rate's logarithm; more comes from units that hardly fire."""
_LEAST_BINS = 200
_STEPS = 8
_LEADS_KEPT = 0.95
_TELLS = 0.01
"""Share of a unit's variance: where no lead explains more over the others, the usual one holds."""
_SHARED_S = (0.05, 2.0)


class _Bins(NamedTuple):
    """Counts (B, U) in bins and, for each of ``LEADS_S``, velocities (B, D); all finite."""

    counts: Float64
    velocities: list[Float64]


def array_from_recording(
    recording: Recording, behavior: str, *, split: str = "train", seed: int = 0,
    period_s: float = 0.02,
) -> SimulatedArray:  # fmt: skip
    """An array of the recording's units that fires as they do.

    Args:
        recording: spikes and behaviour.
        behavior: a velocity of two dimensions in cm/s, like "cursor.vel".
        split: what it is fitted to.
        seed: of what it fires.
        period_s: length of a step.

    Raises:
        RecordingError: no such behaviour or split, not two dimensions, or less than ten seconds.
    """
    bins = _binned(recording, behavior, split)
    tuning = _tuned(bins)
    residual, rate = _residual(bins, tuning)
    loadings, scores = _shared(residual, rate)
    settings = ArraySettings(
        n_units=len(tuning),
        n_factors=loadings.shape[1],
        shared_sd=float(np.sqrt((loadings**2).sum(1).mean())) if loadings.size else 0.0,
        shared_s=_time_constant(scores),
    )
    return SimulatedArray(
        tuning, recording.unit_ids, loadings, settings=settings, seed=[seed, 1], period_s=period_s
    )


def _binned(recording: Recording, behavior: str, split: str) -> _Bins:
    series = recording.behavior(behavior, allow_nan=True)
    if series.values.shape[1] != 2:
        raise RecordingError(
            recording.path,
            behavior,
            expected="a velocity of two dimensions, for a cursor in a plane",
            got=f"{series.values.shape[1]} dimensions",
            do="name another behaviour",
        )
    ends = [
        np.arange(start + BIN_S, end - LEADS_S[-1], BIN_S)
        for start, end in recording.intervals(split)
    ]
    times = np.concatenate(ends) if ends else np.empty(0)
    velocities = [_at(series.times, series.values, times - BIN_S / 2 + lead) for lead in LEADS_S]
    good = np.isfinite(np.array(velocities)).all((0, 2))
    if good.sum() < _LEAST_BINS:
        raise RecordingError(
            recording.path,
            f"{split}_domain",
            expected=f"at least {_LEAST_BINS * BIN_S:g} s of {behavior}, to fit an array to",
            got=f"{good.sum() * BIN_S:g} s",
            do="choose another split or recording",
        )
    counts = bin_counts(
        recording.spike_times, recording.spike_units, len(recording.unit_ids), times[good],
        before=1, bin_s=BIN_S,
    )[:, :, 0].astype(np.float64)  # fmt: skip
    return _Bins(counts, [velocity[good] for velocity in velocities])


def _at(times: Float64, values: Float64, wanted: Float64) -> Float64:
    """Values (B, D) at the wanted times (B,); NaN in gaps and beyond the ends."""
    period = float(np.median(np.diff(times))) if len(times) > 1 else np.inf
    found = np.stack([np.interp(wanted, times, column) for column in values.T], axis=1)
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    apart: Bool = (times[after] - times[after - 1]) > 2 * period
    apart |= (wanted < times[0]) | (wanted > times[-1])
    found[apart] = np.nan
    return found


def _tuned(bins: _Bins) -> Tuning:
    fits = [_regressed(bins.counts, velocity) for velocity in bins.velocities]
    left = np.array([one[1] for one in fits])
    usual = int(left.sum(1).argmin())
    spread = np.maximum(((bins.counts - bins.counts.mean(0)) ** 2).sum(0), 1e-12)
    tells = (left.max(0) - left.min(0)) / spread > _TELLS
    chosen = np.where(tells, left.argmin(0), usual)
    # A few units that seem to lead by far would make every intention wait for them.
    chosen = np.minimum(chosen, int(np.quantile(chosen, _LEADS_KEPT, method="lower")))
    found = np.empty((len(chosen), fits[0][0].shape[0]))
    for i, (start, _) in enumerate(fits):
        own = chosen == i
        if own.any():
            fitted = _rectified(bins.counts[:, own], bins.velocities[i], start[:, own])
            found[own] = fitted.T / BIN_S
    return Tuning(
        base=np.maximum(found[:, 0], 0.0),
        weights=found[:, 1:-1].copy(),
        speed_weight=found[:, -1].copy(),
        lead=LEADS_S[chosen],
        scale=np.ones(len(chosen)),
        typical_cm_s=15.0,
    )


def _features(velocity: Float64) -> Float64:
    """(B, 1 + D + 1): 1, velocity, speed."""
    speed = np.sqrt((velocity**2).sum(1))
    return np.column_stack([np.ones(len(velocity)), velocity, speed])


def _regressed(counts: Float64, velocity: Float64) -> tuple[Float64, Float64]:
    """Coefficients (1 + D + 1, U), and the squares (U,) that they leave."""
    x = _features(velocity)
    found = np.asarray(np.linalg.solve(_regular(x.T @ x), x.T @ counts), np.float64)
    return found, ((counts - x @ found) ** 2).sum(0)


def _rectified(counts: Float64, velocity: Float64, found: Float64) -> Float64:
    """The same of ``max(0, …)``, from a start (1 + D + 1, U): a straight line would be too flat.

    Gauss-Newton: what is below zero has no slope, so each step is a regression on the other bins.
    """
    x = _features(velocity)
    products = np.einsum("bi,bj->bij", x, x).reshape(len(x), -1)
    for _ in range(_STEPS):
        above = (x @ found > 0).astype(np.float64)
        power = (above.T @ products).reshape(-1, x.shape[1], x.shape[1])
        seen = (above * counts).T @ x
        enough = above.sum(0) > _LEAST_BINS / 4
        if not enough.any():
            break
        new = np.linalg.solve(_regular(power[enough]), seen[enough][:, :, None])[:, :, 0]
        found[:, enough] = (found[:, enough] + new.T) / 2
    return found


def _regular(power: Float64) -> Float64:
    """Normal matrices (…, F, F) with some ridge on their diagonals."""
    return power + _RIDGE * power * np.eye(power.shape[-1])


def _residual(bins: _Bins, tuning: Tuning) -> tuple[Float64, Float64]:
    """What counts (B, U) are beyond those expected, and the mean expected count (U,)."""
    expected = np.empty_like(bins.counts)
    for i, lead in enumerate(LEADS_S):
        own = np.isclose(tuning.lead, lead)
        part = np.vstack([tuning.base, tuning.weights.T, tuning.speed_weight])[:, own]
        expected[:, own] = np.maximum(_features(bins.velocities[i]) @ part, 0.0) * BIN_S
    return bins.counts - expected, np.maximum(expected.mean(0), 1e-3)


def _shared(residual: Float64, rate: Float64) -> tuple[Float64, Float64]:
    """Loadings (U, F) of shared relative fluctuations, and how the factors went (B, F)."""
    # By its Poisson sd a count of any unit is as noisy as another's, and none leads the factors.
    scaled = residual / np.sqrt(rate)
    covariance = scaled.T @ scaled / len(scaled)
    own = np.maximum(np.diag(covariance) - 1.0, 0.0)
    covariance[np.diag_indices_from(covariance)] = own
    values, vectors = np.linalg.eigh(covariance)
    # Noise alone has eigenvalues up to 2 s with s² = U / B, and a factor of power l is seen as
    # l + s² / l in a direction of which 1 - s² / l² is its own (Benaych-Georges, Nadakuditi 2011).
    noise = len(rate) / len(scaled)
    order = np.argsort(values)[::-1][:N_FACTORS]
    order = order[values[order] > 2 * np.sqrt(noise)]
    power = (values[order] + np.sqrt(values[order] ** 2 - 4 * noise)) / 2
    loadings = vectors[:, order] * np.sqrt(power - noise / power) / np.sqrt(rate)[:, None]
    size = np.sqrt((loadings**2).sum(1, keepdims=True))
    loadings = loadings * np.minimum(1.0, _MOST_SHARED / np.maximum(size, 1e-12))
    if not len(order) or not (loadings**2).sum() > 0:
        return np.zeros((len(rate), 0)), np.zeros((len(residual), 0))
    return loadings, scaled @ vectors[:, order]


def _time_constant(scores: Float64) -> float:
    """Seconds; Poisson noise has no part in the covariances of bins that are apart."""
    if not scores.shape[1]:
        return _SHARED_S[0]
    centred = scores - scores.mean(0)
    once = float((centred[1:] * centred[:-1]).sum())
    twice = float((centred[2:] * centred[:-2]).sum())
    kept = twice / once if once > 0 else 0.0
    if not kept > 0:
        return _SHARED_S[0]
    return float(np.clip(-BIN_S / np.log(min(kept, 0.999)), *_SHARED_S))


def describe(array: SimulatedArray) -> dict[str, float]:
    """A few figures of an array, as JSON values."""
    tuning = array.tuning
    depth = tuning.typical_cm_s * np.sqrt((tuning.weights**2).sum(1))
    return {
        "n_units": len(tuning),
        "base_hz": round(float(np.median(tuning.base)), 2),
        "depth_hz": round(float(np.median(depth)), 2),
        "lead_ms": round(1e3 * float(np.median(tuning.lead)), 1),
        "shared_sd": round(array.settings.shared_sd, 3),
        "shared_ms": round(1e3 * array.settings.shared_s, 1),
    }
