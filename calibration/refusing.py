"""The rules of the gate: when a new session is not taken, in words and figures.

What is compared, and on which samples, is in ``calibration.gate``; docs/calibration.md has the
rules as a table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from poyo_edge.calibration.control import Control, Relation
from poyo_edge.calibration.gate import LATER_BLOCKS, LATER_S, Compared

MOST_ANGLE_DEG = 60.0
"""Of a session of labels of intention, when it is compared with none: chance is 90."""
MORE_ANGLE_DEG = 3.0
"""By so much its angular error may be above that of the session in use."""
LEAST_GAIN = 0.2
"""Of label speeds, on movements and on held commands: below it a cursor hardly moves."""
LEAST_OF_GAIN = 0.9
"""Share of the gain of the session in use that a new one must have, on the same spikes. Each new
session may be slower by this, so it must be little."""
MOST_REST = 0.25
"""Share of the top label speed that bias and noise at rest may have; more is refused where the
session in use has less."""
TURNED_DEG, LATE_S = 30.0, 0.15
"""Labels turned or late by more against what the session in use decodes are not of this session."""
MOST_SPEED_RATIO = 1.25
"""Of what the session in use decodes over labels of intention. On three simulated arrays it was
0.77 to 0.94 with proportional and ReFIT labels, 1.54 to 1.72 with the first at half their speed."""
LEAST_CORRELATION = 0.5
"""A session in use that agrees less with the labels says nothing about turns, lags and speeds."""
FORCE = "or force it (force=True, --force)"
_CHECK = "check that labels and spikes are of the same time and in the same order, give more "
_CHECK += f"labelled data, {FORCE}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What the gate knows of a new session."""

    session_id: str
    r2_heldout: float
    r2_per_dim: Sequence[float]
    labelled_s: float
    control: Control | None = None
    label_speed: float = 0.0
    """That a tenth of the labels reach, behaviour units."""
    of_intention: bool = False
    """Whether its labels are intentions."""
    compared: Compared | None = None


def refusal(new: Candidate) -> str | None:
    """Why a new session is not taken; None when it passes."""
    compared = new.compared
    if compared is not None and compared.relation is not None:
        reason = _strange_labels(new, compared.relation)
        if reason is not None:
            return reason
    reason = _bad_by_itself(new)
    if reason is not None or compared is None:
        return reason
    if compared.undecided:
        return _said(
            new,
            f"at least {LATER_S:g} s in {LATER_BLOCKS} held-out blocks later than the labels that "
            f"the session in use was fitted to",
            f"{compared.later_s:g} s; the session in use stays: give more labelled data, {FORCE}",
        )
    if compared.r2_in_use is None:
        return None
    return (
        _bad_later(new, compared) or _worse_accuracy(new, compared) or _worse_control(new, compared)
    )


def _bad_by_itself(new: Candidate) -> str | None:
    blocks = f"held-out blocks of {new.labelled_s:.0f} labelled s"
    control = new.control
    if new.of_intention and control is not None and control.angular_error_deg is not None:
        return _no_control(new, control, blocks)
    if not new.r2_heldout > 0:
        dims = ", ".join(f"{r2:.3f}" for r2 in new.r2_per_dim)
        return _said(
            new,
            "an R² above 0, which holding the mean has",
            f"{new.r2_heldout:.3f} (per dimension {dims}) on {blocks}; the session was not taken: "
            f"{_CHECK}",
        )
    return _no_control(new, control, blocks) if new.of_intention and control else None


def _bad_later(new: Candidate, compared: Compared) -> str | None:
    """Good labels that came before do not speak for those that came since."""
    if not (new.of_intention and compared.later_only and compared.control is not None):
        return None
    later = f"{compared.later_s:.0f} s of labels later than those of the session in use"
    return _no_control(new, compared.control, later)


def _no_control(new: Candidate, control: Control, where: str) -> str | None:
    """A session of labels of intention that nobody could control with."""
    angle = control.angular_error_deg
    if angle is not None and not angle <= MOST_ANGLE_DEG:
        return _said(
            new,
            f"an angular error of at most {MOST_ANGLE_DEG:g}° (chance is 90°)",
            f"{angle:.1f}° on {where}; the session was not taken: {_CHECK}",
        )
    for what, gain in _gains(control):
        if not gain >= LEAST_GAIN:
            return _said(
                new,
                f"a gain of at least {LEAST_GAIN:g} {what}",
                f"{gain:.2f} of the labels' speed on {where}: the gain has collapsed; the session "
                f"was not taken: {_CHECK}",
            )
    return None


def _strange_labels(new: Candidate, found: Relation) -> str | None:
    """Labels that the session in use knows well, but turned, at another time or slower."""
    if found.correlation < LEAST_CORRELATION:
        return None
    if found.turned_deg > TURNED_DEG:
        return _said(
            new,
            f"labels turned by at most {TURNED_DEG:g}° against what the session in use decodes",
            f"{found.turned_deg:.0f}° (correlation {found.correlation:.2f} when turned back); the "
            f"session in use stays: check the axes of the labels, their order and signs, {FORCE}",
        )
    if abs(found.lag_s) > LATE_S:
        return _said(
            new,
            f"labels within {LATE_S:g} s of what the session in use decodes",
            f"labels {abs(found.lag_s):.2f} s {'later' if found.lag_s > 0 else 'earlier'} "
            f"(correlation {found.correlation:.2f} when moved back); the session in use stays: "
            f"check the labels' clock, {FORCE}",
        )
    if new.of_intention and found.speed_ratio > MOST_SPEED_RATIO:
        return _said(
            new,
            f"labels of intention that the session in use decodes at {MOST_SPEED_RATIO:g} of their "
            f"speed at most",
            f"{found.speed_ratio:.2f} (correlation {found.correlation:.2f}): they are slow; the "
            f"session in use stays: check the speed of the labels, {FORCE}",
        )
    return None


def _worse_accuracy(new: Candidate, compared: Compared) -> str | None:
    """R² against the session in use; for labels of intention the angular error."""
    where = f"held-out blocks of {new.labelled_s:.0f} labelled s"
    if compared.later_only:
        where = f"{compared.later_s:.0f} s of labels that neither learned"
    ours, theirs = compared.control, compared.control_in_use
    if new.of_intention and ours is not None and theirs is not None:
        mine, other = ours.angular_error_deg, theirs.angular_error_deg
        if mine is not None and other is not None:
            if mine <= other + MORE_ANGLE_DEG:
                return None
            return _said(
                new,
                f"an angular error of at most {other + MORE_ANGLE_DEG:.1f}°, {MORE_ANGLE_DEG:g}° "
                f"above that of the session in use on the same samples",
                f"{mine:.1f}° on {where}; the session in use stays: {_CHECK}",
            )
    r2, r2_in_use = compared.r2, compared.r2_in_use
    if r2 is not None and r2_in_use is not None and r2 >= r2_in_use:
        return None
    dims = ", ".join(f"{r2:.3f}" for r2 in new.r2_per_dim)
    got = f"{new.r2_heldout:.3f} (per dimension {dims})"
    if compared.later_only:
        got = f"{compared.r2:.3f}"
    return _said(
        new,
        f"an R² of at least {compared.r2_in_use:.3f}, which the session in use has on the same "
        f"samples",
        f"{got} on {where}; the session in use stays: {_CHECK}",
    )


def _worse_control(new: Candidate, compared: Compared) -> str | None:
    """A collapsed gain, or a cursor that does not rest."""
    ours, theirs = compared.control, compared.control_in_use
    if ours is None or theirs is None:
        return None
    other = dict(_gains(theirs))
    for what, gain in _gains(ours):
        if other.get(what, 0.0) > LEAST_GAIN and gain < LEAST_OF_GAIN * other[what]:
            return _said(
                new,
                f"a gain of at least {LEAST_OF_GAIN * other[what]:.2f} {what}, {LEAST_OF_GAIN:.0%} "
                f"of that of the session in use on the same spikes",
                f"{gain:.2f}: the gain has collapsed; the session in use stays: check the speed of "
                f"the labels, {FORCE}",
            )
    most = MOST_REST * new.label_speed
    rests = (
        ("a bias", ours.bias_at_rest, theirs.bias_at_rest),
        ("noise", ours.noise_at_rest, theirs.noise_at_rest),
    )
    for name, mine, others in rests:
        if mine is not None and others is not None and mine > max(most, others):
            return _said(
                new,
                f"{name} at rest of at most {max(most, others):.2g}, a quarter of the labels' top "
                f"speed or that of the session in use",
                f"{mine:.2g}; the session in use stays: label more rest, {FORCE}",
            )
    return None


def _gains(control: Control) -> list[tuple[str, float]]:
    named = (("on movements", control.gain), ("on held commands", control.held_gain))
    return [(what, gain) for what, gain in named if gain is not None]


def _said(new: Candidate, expected: str, got: str) -> str:
    return f"session {new.session_id!r}: expected {expected}, got {got}"
