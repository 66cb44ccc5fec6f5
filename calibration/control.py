"""What a decoder is like to control with, from held-out labels: beside R², which does not say it.

Legend: S judged samples, O outputs, W held commands.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from poyo_edge.arrays import Bool, Float64
from poyo_edge.metrics import angular_error
from poyo_edge.records import JsonRecord

_TOP_PERCENT = 90.0
_MOVES, _RESTS = 0.3, 0.05
"""Shares of the top label speed above which a sample moves, and below which it rests."""
_FEWEST = 10
_LAGS_S = np.round(np.arange(-0.5, 0.501, 0.02), 2)
_LEAST_PAIRS = 0.7
"""Share of the samples that need a label at a lag for it to be tried."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Control(JsonRecord):
    """Figures of control; None where too few labels say anything."""

    angular_error_deg: float | None
    """Mean angle between what is decoded and the label, while the label moves."""
    gain: float | None
    """Decoded speed along the label, as a share of the label's speed, while it moves."""
    held_gain: float | None
    """The same for a command that is held for a second (``calibration.held``)."""
    bias_at_rest: float | None
    """Size of the mean of what is decoded where the label is at rest, behaviour units."""
    noise_at_rest: float | None
    """Root mean square around that mean, all dimensions together."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Relation(JsonRecord):
    """How labels stand to what another session decodes from the same spikes."""

    correlation: float
    """Of both, at the best lag and turn: 0 to 1."""
    lag_s: float
    """How much later than what is decoded the labels are."""
    turned_deg: float
    """By what angle, in the plane where it is largest, labels are turned or mirrored (180)."""
    speed_ratio: float = 1.0
    """Speed of what is decoded over that of the labels, at that lag and turn: a regression through
    the means. Labels of intention are noisy, which lowers it."""


def top_speed(truth: Float64) -> float:
    """Speed that a tenth of the labels (S, O) reach."""
    return float(np.percentile(np.linalg.norm(truth, axis=1), _TOP_PERCENT)) if len(truth) else 0.0


def moving(truth: Float64, top: float) -> Bool:
    """(S,) which labels move, for a top speed."""
    return np.asarray(np.linalg.norm(truth, axis=1) > _MOVES * top)


def control_of(
    truth: Float64, decoded: Float64, held: tuple[Float64, Float64] | None = None
) -> Control:
    """Figures of held-out samples.

    Args:
        truth: (S, O) labels.
        decoded: (S, O).
        held: commands (W, O) and what was decoded after a second of each (W, O).
    """
    top = top_speed(truth)
    moves = moving(truth, top)
    rests = np.linalg.norm(truth, axis=1) <= _RESTS * top
    angle, gain, bias, noise = None, None, None, None
    if moves.sum() >= _FEWEST:
        angle = _rounded(_angles(truth[moves], decoded[moves]).mean())
        gain = _rounded(_gain(truth[moves], decoded[moves]))
    if rests.sum() >= _FEWEST:
        mean = decoded[rests].mean(0)
        bias = _rounded(float(np.linalg.norm(mean)))
        noise = _rounded(np.sqrt(((decoded[rests] - mean) ** 2).sum(1).mean()))
    return Control(
        angular_error_deg=angle,
        gain=gain,
        held_gain=None if held is None else _rounded(_gain(*held)),
        bias_at_rest=bias,
        noise_at_rest=noise,
    )


def relation(
    times: Float64, decoded: Float64, label_times: Float64, labels: Float64, period: float
) -> Relation | None:
    """How labels stand to what is decoded; None where too little of either moves.

    The lag is that at which both correlate most whatever their turn: by the sum of the singular
    values of their covariance (orthogonal Procrustes, Schönemann 1966).

    Args:
        times: (S,) seconds of what is decoded.
        decoded: (S, O).
        label_times: (M,) ascending seconds of all labels.
        labels: (M, O).
        period: seconds between labels.
    """
    best: tuple[float, float, Float64, float] | None = None
    for lag in _LAGS_S[np.argsort(np.abs(_LAGS_S), kind="stable")]:
        after = np.clip(np.searchsorted(label_times, times + lag), 1, len(label_times) - 1)
        nearer = after - (times + lag - label_times[after - 1] < label_times[after] - times - lag)
        near = np.abs(label_times[nearer] - times - lag) <= period
        if near.sum() < max(_FEWEST, _LEAST_PAIRS * len(times)):
            continue
        theirs, given = decoded[near], labels[nearer[near]]
        theirs, given = theirs - theirs.mean(0), given - given.mean(0)
        sizes = np.sqrt((theirs**2).sum() * (given**2).sum())
        if not sizes > 0:
            return None
        left, strength, right = np.linalg.svd(given.T @ theirs)
        correlation = float(strength.sum() / sizes)
        if best is None or correlation > best[0] + 1e-9:
            ratio = float(strength.sum() / (given**2).sum())
            best = (correlation, float(lag), left @ right, ratio)
    if best is None:
        return None
    correlation, lag, turn, ratio = best
    angle = np.abs(np.rad2deg(np.angle(np.linalg.eigvals(turn)))).max()
    return Relation(
        correlation=round(correlation, 4),
        lag_s=round(lag, 3),
        turned_deg=round(float(angle), 1),
        speed_ratio=round(ratio, 4),
    )


def _angles(truth: Float64, decoded: Float64) -> Float64:
    """(S,) degrees; 90 where one of the two is zero, as by chance."""
    return np.nan_to_num(np.rad2deg(angular_error(truth, decoded)), nan=90.0)


def _gain(truth: Float64, decoded: Float64) -> float:
    """Of decoded along labels: the slope of a regression through 0."""
    return float((truth * decoded).sum() / max(float((truth**2).sum()), 1e-12))


def _rounded(value: float) -> float:
    return round(float(value), 4)
