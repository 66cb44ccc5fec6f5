"""Labels that no decoder can be fitted to are refused here, with what would be enough."""

from __future__ import annotations

import numpy as np

from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.errors import UsageError
from poyo_edge.spec import OutputScale, factor_to_scale, spread_remarks

_LEAST_STILL = 0.01
_MOST_SILENT = 0.5
_LEAST_SMOOTH = 0.3
_DENSE_SHARE = 0.2
"""Samples closer than this share of a window belong to one movement and are alike."""


def least_seconds(window_s: float, n_blocks: int) -> float:
    """Labelled seconds below which blocks would be too short to judge by."""
    return 2 * n_blocks * window_s


def require_usable(labels: Labels, window_s: float, n_blocks: int, output: OutputScale) -> None:
    """Refuse labels that are too few, do not move, are not in order, or have no spikes.

    Raises:
        UsageError: with what was found and what would be enough.
    """
    least = least_seconds(window_s, n_blocks)
    if labels.seconds < least:
        raise UsageError(
            f"labels: expected at least {least:g} labelled s (one to three minutes are usual), "
            f"got {labels.seconds:.1f}; the first {window_s:g} s of each stretch do not count, "
            f"because their window is not whole"
        )
    n_outputs = labels.values.shape[1]
    scale, _ = output.arrays(n_outputs)
    still = np.flatnonzero(labels.values.std(0) < _LEAST_STILL * np.abs(scale))
    if len(still):
        sds = labels.values.std(0)
        factor = factor_to_scale(labels.values, output) if (sds > 0).all() else None
        other = "" if factor is None else _in_another_unit(factor)
        raise UsageError(
            f"behavior: expected movement in every dimension, a standard deviation of at least "
            f"{_LEAST_STILL * abs(scale[still[0]]):.3g} (1 % of the model's scale), got "
            f"{sds[still[0]]:.3g} in dimension {still[0]}; calibrate on trials with movement{other}"
        )
    _require_spikes(labels, window_s)
    smooth = _smoothness(labels)
    if labels.period <= _DENSE_SHARE * window_s and smooth < _LEAST_SMOOTH:
        raise UsageError(
            f"behavior: expected samples in order of time (neighbours correlate by at least "
            f"{_LEAST_SMOOTH}), got a correlation of {smooth:.2f}; check that times and values "
            f"belong together"
        )


def _in_another_unit(factor: float) -> str:
    return (
        f"; or, where they move but are in another unit, multiply them: --behavior-scale "
        f"{factor:.3g} of poyo-edge convert brings them to the model's scale"
    )


def remarks(labels: Labels, output: OutputScale, unknown_spikes: int) -> list[str]:
    """What a user should know about usable labels."""
    found = spread_remarks(labels.values, output)
    if unknown_spikes:
        found.append(f"{unknown_spikes} spikes of units that are not in unit_ids were left out")
    return found


def _require_spikes(labels: Labels, window_s: float) -> None:
    ends = np.searchsorted(labels.spike_times, labels.times)
    starts = np.searchsorted(labels.spike_times, labels.times - window_s)
    silent = float((ends == starts).mean())
    if silent > _MOST_SILENT:
        span = "no spikes of its units during these labels"
        if len(labels.spike_times):
            first, last = labels.spike_times[[0, -1]]
            span = f"spikes from {first:.3f} to {last:.3f} s"
        raise UsageError(
            f"labels: expected spikes in the window before most labels, got none before "
            f"{silent:.0%} of them ({span}, labels from {labels.times[0]:.3f} to "
            f"{labels.times[-1]:.3f} s); give spikes and behaviour of the same time on one clock"
        )


def _smoothness(labels: Labels) -> float:
    """Largest correlation, over dimensions, of a sample with the next one."""
    near = np.diff(labels.times) <= 2 * labels.period
    before, after = labels.values[:-1][near], labels.values[1:][near]
    centre = labels.values.mean(0)
    products = ((before - centre) * (after - centre)).mean(0)
    return float((products / labels.values.var(0)).max())
