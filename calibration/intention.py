"""Labels of intention: what a person wanted the cursor to do, from trials and the shown cursor.

A person who cannot move has no measured velocity. What they want is known all the same: they were
shown a cursor that moved by itself and imagined its movement ("observation"), or they steered it to
a target. The kinds:

- observation: the velocity of the shown cursor.
- proportional: toward the target, ``min(per_s · distance, speed)``, as the push of a person grows
  with the distance and saturates (``f_targ`` of Willett et al. 2019, Sci Rep 9:8881, Fig. 2).
- constant: toward the target at ``speed``.
- refit: the shown velocity, turned toward the target: its speed, the target's direction (ReFIT,
  Gilja et al. 2012, Nat Neurosci 15:1752).

The last three are zero on the target. Before go they are zero too, and observation is what is
shown. The first ``reaction_s`` after a trial's start and after its go are not labelled, and nothing
is between trials. Times are those of the shown cursor; ``lead.with_lead`` moves them to where a
decoder of movement gives them.

Legend: S samples of the cursor, D dimensions, K trials.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Bool, Float64
from poyo_edge.artifact import LabelsMade
from poyo_edge.errors import UsageError
from poyo_edge.records import JsonRecord
from poyo_edge.trials import Trials

Kind = Literal["observation", "proportional", "constant", "refit"]
KINDS: tuple[str, ...] = get_args(Kind)
_PREFIX = "intention:"
_SPEED_PER_DISTANCE = 2.5
"""1/s: the saturating speed of a person whose targets lie so far away, where none is given."""
_RADIUS_PER_DISTANCE = 0.15
_LONGEST_HOLE_S = 0.25
"""Between two samples of the cursor within a trial; a longer one means that the task was gone."""
_FAR, _FAR_EXTENTS = 1.5, 10.0
"""A target farther from every position than so many times the usual distance, or than so many
extents of the positions, is not in the workspace."""
_NEAR_RADII = 2.0
"""A cursor that reached a target was within so many radii."""
_STILL = 1e-3
"""A cursor whose extent is below this share of the targets' distances does not move."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IntentionSettings:
    """How labels of intention are made. Distances and speeds are in the cursor's unit."""

    kind: Kind
    reaction_s: float = 0.2
    """After the start of a trial, and after its go, nothing is labelled for so long."""
    per_s: float = 4.0
    """Speed for each unit of distance, 1/s; of "proportional" alone."""
    speed: float | None = None
    """Where "proportional" saturates, and that of "constant"; None takes 2.5/s times the median
    distance of the targets at go. Never the speed that was shown: a decoder that is too slow would
    teach the next one to be slow."""
    radius: float | None = None
    """Of targets whose radius is not known; None takes 0.15 times that distance."""
    lead_s: float | None = None
    """How much later than the shown cursor a label counts; None searches (``calibration.lead``)."""
    model_lead_s: float = 0.1
    """How much earlier than a movement the spikes of it come in what the model was trained on:
    about 0.1 s in motor cortex (Moran and Schwartz 1999)."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"kind: expected one of {list(KINDS)}, got {self.kind!r}")
        for name, most in (("reaction_s", 2.0), ("model_lead_s", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"{name}: expected 0 to {most:g}, got {getattr(self, name)!r}")
        for name in ("per_s", "speed", "radius"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise UsageError(f"{name}: expected a number > 0, got {value!r}")
        if self.lead_s is not None and not -1 <= self.lead_s <= 1:
            raise UsageError(f"lead_s: expected -1 to 1, got {self.lead_s!r}")


def settings_for(labels: str) -> IntentionSettings | None:
    """Settings for a word like "intention:proportional"; None for "behavior".

    Raises:
        UsageError: another word.
    """
    if labels == "behavior":
        return None
    kind = labels.removeprefix(_PREFIX)
    if not labels.startswith(_PREFIX) or kind not in KINDS:
        words = ["behavior", *(_PREFIX + one for one in KINDS)]
        raise UsageError(f"labels: expected one of {words}, got {labels!r}")
    return IntentionSettings(kind=kind)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IntentionReport(JsonRecord):
    """How labels of intention were made, and of what."""

    kind: str
    reaction_s: float
    speed: float
    """Where "proportional" saturates, and that of "constant"."""
    per_s: float
    labelled_s: float
    trials_used: int
    trials_left_out: int
    first_reason: str = ""
    """Why the first trial that was left out was; "" for none."""
    lead_s: float = 0.0
    """How much later than the shown cursor the labels count."""
    spike_lag_s: float | None = None
    """How much later than the shown cursor the spikes are that say most of it; None where it was
    not searched, or nothing was found."""
    lead_curve: tuple[tuple[float, float], ...] = ()
    """Seconds after the shown cursor, and the held-out R² of a filter on the spikes there."""
    note: str = ""
    """What was odd, in words; "" for nothing."""

    def made(self) -> LabelsMade:
        """What a session file keeps of it."""
        return LabelsMade(
            kind=_PREFIX + self.kind,
            lead_s=self.lead_s,
            reaction_s=self.reaction_s,
            speed=round(self.speed, 4),
            labelled_s=self.labelled_s,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntentionLabels:
    """Labels of intention, for each sample of the cursor."""

    times: Float64
    """(S,) seconds at which the labels count."""
    values: Float64
    """(S, D) in the cursor's unit per second; 0 where nothing is labelled."""
    labelled: Bool
    """(S,) which samples have a label."""
    report: IntentionReport


def intention_labels(
    trials: Trials,
    cursor_times: npt.ArrayLike,
    cursor: npt.ArrayLike,
    settings: IntentionSettings,
    *,
    velocity: npt.ArrayLike | None = None,
) -> IntentionLabels:
    """Labels at the times of the shown cursor; ``settings.lead_s`` is not looked at.

    Args:
        trials: with targets in the unit of the cursor.
        cursor_times: (S,) ascending seconds on the clock of the trials and the spikes.
        cursor: (S, D) shown positions.
        settings: which labels.
        velocity: (S, D) that was decoded or shown; None takes the cursor's own, by differences.

    Raises:
        UsageError: no trials with targets, a cursor that does not move, is of another width, or
            has nothing to do with these targets, or no trial that can be used.
    """
    times, position = _checked_cursor(cursor_times, cursor, trials)
    trial = _trial_of(times, trials)
    if velocity is None:
        shown, moved = _velocity(times, position, trial, trials)
    else:
        shown, moved = _like(velocity, position), np.ones(len(times), np.bool_)
    go = np.where(np.isnan(trials.go_time), trials.start, trials.go_time)
    distance = _distance_at_go(times, position, go, trials)
    radius = np.where(
        np.isnan(trials.radius), settings.radius or _RADIUS_PER_DISTANCE * distance, trials.radius
    )
    _require_ours(position, trials, trial, radius, distance)
    speed = settings.speed or _SPEED_PER_DISTANCE * distance
    reasons = _reasons(times, position, trials, trial, go + settings.reaction_s)
    if reasons and all(reasons):
        raise UsageError(
            f"labels of intention: expected a trial that can be used, got none of {len(trials)}, "
            f"the first because {reasons[0]}"
        )
    usable = np.array([not reason for reason in reasons])
    inside = trial >= 0
    labelled = inside.copy()
    labelled[inside] = usable[trial[inside]]
    row = trial[inside]
    waits = times[inside] < go[row]
    since = np.where(waits, trials.start[row], go[row])
    labelled[inside] &= times[inside] >= since + settings.reaction_s
    if settings.kind in ("observation", "refit"):
        labelled &= moved
    values = np.zeros_like(position)
    row = trial[labelled]
    way = trials.target[row] - position[labelled]
    wanted = _formula(settings, way, radius[row], shown[labelled], speed)
    if settings.kind != "observation":
        wanted[times[labelled] < go[row]] = 0.0
    values[labelled] = wanted
    left_out = [reason for reason in reasons if reason]
    report = IntentionReport(
        kind=settings.kind,
        reaction_s=settings.reaction_s,
        speed=float(speed),
        per_s=settings.per_s,
        labelled_s=_labelled_s(times, labelled),
        trials_used=int(usable.sum()),
        trials_left_out=len(left_out),
        first_reason=left_out[0] if left_out else "",
        note=_many_left_out(left_out, len(trials)),
    )
    return IntentionLabels(times=times, values=values, labelled=labelled, report=report)


def _formula(
    settings: IntentionSettings, way: Float64, radius: Float64, shown: Float64, speed: float
) -> Float64:
    """Labels (S, D) for ways to the target (S, D), its radius (S,) and shown velocities (S, D)."""
    if settings.kind == "observation":
        return shown
    distance = np.linalg.norm(way, axis=1)
    if settings.kind == "proportional":
        wanted = np.minimum(settings.per_s * distance, speed)
    elif settings.kind == "constant":
        wanted = np.full(len(way), speed)
    else:
        wanted = np.linalg.norm(shown, axis=1)
    wanted = np.where(distance > radius, wanted, 0.0)
    return np.asarray(way * (wanted / np.maximum(distance, 1e-12))[:, None])


def _checked_cursor(
    cursor_times: npt.ArrayLike, cursor: npt.ArrayLike, trials: Trials
) -> tuple[Float64, Float64]:
    if not trials.has_target.any():
        raise UsageError(
            f"trials: expected targets, got none in {len(trials)} trials; labels of intention "
            f"need to know where the person wanted to go"
        )
    times, position = np.asarray(cursor_times, np.float64), np.asarray(cursor, np.float64)
    n_dims = trials.target.shape[1]
    if times.ndim != 1 or position.shape != (len(times), n_dims):
        raise UsageError(
            f"cursor: expected ({len(times)}, {n_dims}) positions, one for each time and as wide "
            f"as the targets, got {position.shape}; name the cursor that the targets are for"
        )
    if len(times) < 2 or (np.diff(times) <= 0).any() or not np.isfinite(times).all():
        raise UsageError(
            f"cursor: expected at least 2 ascending times, got {len(times)} that are not; sort "
            f"the samples and leave repeated ones out"
        )
    if not np.isfinite(position).all():
        raise UsageError("cursor: expected finite positions, got NaN or Inf; leave them out")
    return times, position


def _like(velocity: npt.ArrayLike, position: Float64) -> Float64:
    values = np.asarray(velocity, np.float64)
    if values.shape != position.shape or not np.isfinite(values).all():
        raise UsageError(
            f"velocity: expected finite values of shape {position.shape}, as the cursor's, got "
            f"{values.shape}"
        )
    return values


def _velocity(
    times: Float64, position: Float64, trial: npt.NDArray[np.int64], trials: Trials
) -> tuple[Float64, Bool]:
    """(S, D) by central differences within each trial, and (S,) for which samples there is one.

    Where a trial ends, a task may put the cursor elsewhere: that is no movement.
    """
    run = np.where((trial >= 0) & (times >= trials.end[trial]), -2 - trial, trial)
    velocity, moved = np.zeros_like(position), np.zeros(len(times), np.bool_)
    for part in np.split(np.arange(len(times)), np.flatnonzero(np.diff(run)) + 1):
        if len(part) > 1:
            velocity[part] = np.gradient(position[part], times[part], axis=0)
            moved[part] = True
    return velocity, moved


def _trial_of(times: Float64, trials: Trials) -> npt.NDArray[np.int64]:
    """(S,) the trial of each sample, -1 for none."""
    row = np.searchsorted(trials.start, times, side="right") - 1
    inside = (row >= 0) & (times <= trials.end[row])
    return np.asarray(np.where(inside, row, -1))


def _distance_at_go(times: Float64, position: Float64, go: Float64, trials: Trials) -> float:
    """Median distance of the targets at go."""
    at = np.clip(np.searchsorted(times, go), 0, len(times) - 1)
    known = trials.has_target & (np.abs(times[at] - go) <= _LONGEST_HOLE_S)
    if not known.any():
        raise UsageError(
            f"cursor: expected positions at the go of trials, from {go[0]:.3f} to {go[-1]:.3f} s, "
            f"got some from {times[0]:.3f} to {times[-1]:.3f} s; give both on one clock"
        )
    found = float(np.median(np.linalg.norm((trials.target - position[at])[known], axis=1)))
    extent = float(np.linalg.norm(np.ptp(position, axis=0)))
    if extent <= _STILL * max(found, 1e-12):
        raise UsageError(
            f"labels of intention: expected a cursor that moves, got one that stands still at "
            f"{position[0].round(3).tolist()} while targets are {found:.3g} away"
        )
    return found


def _require_ours(
    position: Float64,
    trials: Trials,
    trial: npt.NDArray[np.int64],
    radius: Float64,
    distance: float,
) -> None:
    """A cursor that reached targets was at them, and targets lie where cursors go."""
    targets = np.flatnonzero(trials.has_target)
    away = np.array([np.linalg.norm(position - trials.target[k], axis=1).min() for k in targets])
    extent = float(np.linalg.norm(np.ptp(position, axis=0)))
    usual = np.maximum(_FAR * distance, _NEAR_RADII * radius[targets])
    outside = targets[(away > usual) | (away > _FAR_EXTENTS * extent)]
    if len(outside):
        k = int(outside[0])
        raise UsageError(
            f"trials: expected targets in the cursor's workspace, got {len(outside)} of "
            f"{len(targets)} outside, the first at {trials.target[k].round(3).tolist()} in trial "
            f"{k}, {away[targets == k][0]:.3g} from every position; give both in one unit and frame"
        )
    heard = [k for k in targets if trials.success[k] and (trial == k).any()]
    missed = [
        k
        for k in heard
        if np.linalg.norm(position[trial == k] - trials.target[k], axis=1).min()
        > _NEAR_RADII * radius[k]
    ]
    if 2 * len(missed) > len(heard):
        raise UsageError(
            f"cursor: expected it at the targets that were reached, got it nowhere near in "
            f"{len(missed)} of {len(heard)} such trials, the first at "
            f"{trials.start[missed[0]]:.3f} s; name the cursor of these trials, on their clock"
        )


def _reasons(
    times: Float64,
    position: Float64,
    trials: Trials,
    trial: npt.NDArray[np.int64],
    begins: Float64,
) -> list[str]:
    """Why each trial cannot be used, "" where it can."""
    found = []
    for k in range(len(trials)):
        during = np.flatnonzero(trial == k)
        after = during[times[during] >= begins[k]]
        edges = np.r_[begins[k], times[after], trials.end[k]]
        hole = float(np.diff(edges).max())
        if not trials.has_target[k]:
            found.append("it has no target")
        elif not len(during):
            found.append("no cursor was shown in it")
        elif begins[k] >= trials.end[k]:
            found.append("it ended within the reaction time")
        elif hole > _LONGEST_HOLE_S:
            found.append(f"the cursor is missing for {hole:.2f} s of it")
        elif not trials.success[k] and not np.ptp(position[during], axis=0).any():
            found.append("the cursor stands still in it")
        else:
            found.append("")
    return found


def _labelled_s(times: Float64, labelled: Bool) -> float:
    steps = np.diff(times)
    typical = float(np.median(steps))
    return float(round(labelled.sum() * min(typical, _LONGEST_HOLE_S), 3))


def _many_left_out(reasons: list[str], n_trials: int) -> str:
    if 2 * len(reasons) <= n_trials:
        return ""
    reason, n = Counter(reasons).most_common(1)[0]
    return f"{len(reasons)} of {n_trials} trials were left out, {n} because {reason}"
