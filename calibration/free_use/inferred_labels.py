"""Labels from inferred targets, and whether a session fitted to them may replace the one in use.

Targets that were inferred through a decoder lean to what it decodes. So the session in use is at an
advantage on them, and agreeing with its own output is worth nothing. The rule here:

- Only targets that the cursor reached and stayed on, with a high posterior, give labels. Where they
  were is said by where the cursor came to rest, not by a direction that was decoded.
- A label is the way from the cursor to such a target. Its speed comes from the distances of the
  targets, never from the speed that was decoded.
- The last part of them is held out from the fit, and both sessions are judged there, on the same
  samples: a new one has to be clearly nearer to the labels, hardly worse in direction, and its
  gain must not have collapsed. A tie keeps the session in use: sessions that are better by chance,
  taken one after the other, wander away from what the person intends.

Legend: N samples, K targets, S labels; two dimensions.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from poyo_edge.arrays import Bool, Float64
from poyo_edge.calibration.control import Control, control_of
from poyo_edge.calibration.free_use.inferred_targets import InferredTargets
from poyo_edge.calibration.intention import IntentionSettings, Kind, intention_labels
from poyo_edge.errors import UsageError
from poyo_edge.records import JsonRecord
from poyo_edge.trials import Trials

MOST_LEAD_S = 0.4
_LEADS_S = np.round(np.arange(0.0, MOST_LEAD_S + 1e-3, 0.02), 2)
_HELD_OUT = 0.3
_FEWEST_TARGETS, _LEAST_S = 6, 5.0
_FEWEST_LEARNED = 10
_LEAST_GAIN, _MOST_GAIN = 0.5, 2.0
_MORE_ANGLE_DEG = 2.0
"""By so much the angular error may be above that of the session in use: chance on some 20 targets,
and their lean to it."""
_NEARER = 0.97
"""The error may be this share of that of the session in use."""
_SAME_CURSOR = 0.3
"""Correlation of the cursor's movement with what was decoded, below which it is not ours."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InferredLabels:
    """Labels of what a person intended, at the times at which a decoder should give it."""

    times: Float64
    """(S,) ascending seconds."""
    values: Float64
    """(S, 2) in behaviour units."""
    held_out: Bool
    """(S,) the last part: for judging."""
    lead_s: float
    """How much later than the cursor that the person saw the labels count."""
    targets: int
    """That labels are made of, held out or not."""
    targets_held_out: int

    def of(self, which: Bool) -> tuple[Float64, Float64]:
        """Times and values of some of them (S,)."""
        return self.times[which], self.values[which]


def labels_from(
    inferred: InferredTargets,
    times: Float64,
    cursor: Float64,
    decoded: Float64,
    *,
    kind: Kind = "proportional",
    least_confidence: float = 0.7,
    most_lead_s: float = MOST_LEAD_S,
) -> InferredLabels:
    """Labels from targets that were reached and are sure.

    How long a command takes from the cursor that is seen to what is decoded is taken as the delay
    at which labels and decoded values correlate most. Through a decoder that has become slow,
    noisy or turned it looks longer than it is, by up to 0.1 s.

    Args:
        inferred: from these samples.
        times: (N,) ascending seconds.
        cursor: (N, 2).
        decoded: (N, 2) behaviour units.
        kind: of labels of intention (``calibration.intention``).
        least_confidence: of targets that are used.
        most_lead_s: the longest of these delays that is tried.

    Raises:
        UsageError: a cursor that does not follow what is decoded, or too few targets.
    """
    require_ours(times, cursor, decoded)
    trials = inferred.trials(least_confidence=least_confidence, reached_only=True)
    needed = _FEWEST_LEARNED + _FEWEST_TARGETS
    if len(trials) < needed:
        raise UsageError(
            f"targets: expected at least {needed} that were reached and are sure, got "
            f"{len(trials)} of {len(inferred)} inferred ones; use it for longer, or calibrate with "
            f"known targets"
        )
    settings = IntentionSettings(kind=kind, reaction_s=0.0)

    def made(lead_s: float, of: Trials, since: int) -> tuple[Float64, Float64]:
        labels = intention_labels(
            _earlier(of, lead_s), times[since:], cursor[since:], settings, velocity=decoded[since:]
        )
        return labels.times[labels.labelled] + lead_s, labels.values[labels.labelled]

    newest = _rows(trials, slice(-needed, None))
    begin = int(np.searchsorted(times, newest.start[0] - _LEADS_S[-1]))

    def agreement(lead_s: float) -> float:
        at, values = made(lead_s, newest, begin)
        return _correlation(values, _at(times, decoded, at))

    lead_s = max(_LEADS_S[most_lead_s >= _LEADS_S].tolist(), key=agreement)
    at, values = made(lead_s, trials, 0)
    since = trials.start[-max(_FEWEST_TARGETS, round(_HELD_OUT * len(trials)))]
    return InferredLabels(
        times=at, values=values, held_out=at >= since, lead_s=lead_s, targets=len(trials),
        targets_held_out=int((trials.start >= since).sum()),
    )  # fmt: skip


def require_ours(times: Float64, cursor: Float64, decoded: Float64) -> None:
    """Refuse a cursor (N, 2) that is moved by something else than what is decoded (N, 2).

    Raises:
        UsageError: it does not follow.
    """
    gaps = np.diff(times)
    steady = (gaps > 0) & (gaps <= 4 * np.median(gaps))
    moved = (np.diff(cursor, axis=0) / gaps[:, None])[steady]
    found = _correlation(moved, decoded[:-1][steady])
    if not found >= _SAME_CURSOR:
        raise UsageError(
            f"cursor: expected one that what is decoded moves, got a correlation of {found:.2f} "
            f"with its velocity; send the cursor of this decoder, with axes in its order"
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(JsonRecord):
    """A new session beside the one in use, on held-out labels of inferred targets."""

    targets_held_out: int
    judged_s: float
    new: Control
    in_use: Control
    error: float
    """Root mean square of decoded minus label, as a share of the labels'. Of the new session."""
    error_in_use: float
    reason: str = ""
    """Why the session in use stays; "" where the new one passes."""


def judge(
    labels: Float64, new: Float64, in_use: Float64, *, targets: int, period_s: float
) -> Verdict:
    """Compare what two sessions decode (S, 2) with held-out labels (S, 2).

    Args:
        labels: of inferred targets that nothing was fitted to.
        new: what the new session decodes.
        in_use: what the session in use decodes.
        targets: how many the labels are of.
        period_s: seconds between labels.
    """
    verdict = Verdict(
        targets_held_out=targets,
        judged_s=round(len(labels) * period_s, 2),
        new=control_of(labels, new),
        in_use=control_of(labels, in_use),
        error=_error(labels, new),
        error_in_use=_error(labels, in_use),
    )
    return dataclasses.replace(verdict, reason=_reason(verdict))


def _reason(verdict: Verdict) -> str:
    new, old = verdict.new, verdict.in_use
    if (
        verdict.targets_held_out < _FEWEST_TARGETS
        or verdict.judged_s < _LEAST_S
        or new.angular_error_deg is None
        or new.gain is None
        or old.angular_error_deg is None
        or old.gain is None
    ):
        return (
            f"expected at least {_FEWEST_TARGETS} held-out targets and {_LEAST_S:g} s to judge by, "
            f"got {verdict.targets_held_out} and {verdict.judged_s:g} s; the session in use stays"
        )
    if not _LEAST_GAIN <= new.gain <= _MOST_GAIN and abs(new.gain - 1) >= abs(old.gain - 1):
        return (
            f"expected a gain of {_LEAST_GAIN:g} to {_MOST_GAIN:g} toward held-out targets, got "
            f"{new.gain:.2f} ({old.gain:.2f} with the session in use, which stays)"
        )
    if new.angular_error_deg > old.angular_error_deg + _MORE_ANGLE_DEG:
        return (
            f"expected an angular error toward held-out targets of {_MORE_ANGLE_DEG:g}° at most "
            f"above the {old.angular_error_deg:.1f}° of the session in use, got "
            f"{new.angular_error_deg:.1f}°; it stays"
        )
    most = _NEARER * verdict.error_in_use
    if not verdict.error < most:
        return (
            f"expected an error below {most:.3f} of the held-out labels' size, as the session in "
            f"use has {verdict.error_in_use:.3f}, got {verdict.error:.3f}; it stays"
        )
    return ""


def _earlier(trials: Trials, by_s: float) -> Trials:
    """Targets are inferred from what was decoded: the person saw the cursor before that."""
    names = ("start", "end", "go_time")
    return dataclasses.replace(trials, **{name: getattr(trials, name) - by_s for name in names})


def _rows(trials: Trials, some: slice) -> Trials:
    names = [field.name for field in dataclasses.fields(Trials)]
    return Trials(**{name: getattr(trials, name)[some] for name in names})


def _at(times: Float64, values: Float64, at: Float64) -> Float64:
    """(S, 2) values of the nearest sample before each time."""
    return np.asarray(values[np.clip(np.searchsorted(times, at, "right") - 1, 0, len(times) - 1)])


def _correlation(a: Float64, b: Float64) -> float:
    """Of two tables of vectors, without taking means off: 1 where they are proportional."""
    sizes = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / sizes if sizes > 0 else 0.0


def _error(labels: Float64, decoded: Float64) -> float:
    size = float(np.sqrt((labels**2).mean()))
    return round(float(np.sqrt(((decoded - labels) ** 2).mean())) / max(size, 1e-12), 4)
