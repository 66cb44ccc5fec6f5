"""A card for each fit: its figures beside those of the session in use, and what can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]
_MOST = 6
"""Cards that are shown, the newest first."""
_COUNTS = "Seconds count while a cursor is told and values are VALID, or off by drift alone."
_CONTROL = (
    ("angular_error_deg", "angular error", "{:.1f}°"),
    ("gain", "gain on movements", "{:.2f}"),
    ("held_gain", "gain, held for 1 s", "{:.2f}"),
    ("bias_at_rest", "bias at rest", "{:.2g}"),
    ("noise_at_rest", "noise at rest", "{:.2g}"),
)


def fit_cards(state: Values) -> list[dict[str, Any]]:
    """Cards for fits to labels and for recalibrations, each as JSON values.

    Each has ``title``, ``tone`` (good, bad, wait), ``lines`` of (name, new, in use), ``reason`` and
    ``actions`` of (command, words).
    """
    calibration, free = state.get("calibration"), state.get("recalibration")
    cards = _labelled(calibration or {}) + _free_use(free or {})
    waits = []
    if calibration and (calibration["fitting"] or not calibration["fits"]):
        words = "fitting now" if calibration["fitting"] else "collecting labels"
        waits.append(_waits(f"Calibration: {words}", [
            ["labelled so far", f"{calibration['labelled_s']:.0f} s", ""]
        ]))  # fmt: skip
    if free and (free["fitting"] or not free["history"]):
        words = "fitting now" if free["fitting"] else "watching free use"
        lines = [["used so far", f"{free['used_s']:.0f} s", ""]]
        if not free["cursor"]:
            lines.append(["cursor", "none came: nothing can be inferred", ""])
        waits.append(_waits(f"Recalibration: {words}", lines, _COUNTS))
    return waits + cards[::-1][:_MOST]


def _waits(title: str, lines: list[list[str]], reason: str = "") -> dict[str, Any]:
    return {"title": title, "tone": "wait", "lines": lines, "reason": reason, "actions": []}


def _labelled(calibration: Values) -> list[dict[str, Any]]:
    cards = []
    fits: Sequence[Values] = calibration.get("fits", ())
    for number, fit in enumerate(fits, 1):
        swapped, newest = fit["swapped"], number == len(fits)
        lines = _r2_lines(fit) + _control_lines(fit.get("control") or {}, {})
        cards.append({
            "title": f"Fit {number}: " + ("swapped in" if swapped else "refused"),
            "tone": "good" if swapped else "bad",
            "lines": lines,
            "reason": fit.get("reason", "") or _wiener(fit),
            "actions": [["revert", "Revert to the session before"]] * (swapped and newest),
        })  # fmt: skip
    return cards


def _free_use(free: Values) -> list[dict[str, Any]]:
    cards, history = list[dict[str, Any]](), free.get("history", ())
    for number, one in enumerate(history, 1):
        if "taken" in one or "rejected" in one:
            _settle(cards, one, newest=number == len(history))
            continue
        offered = one.get("passed") and one.get("session") == free.get("offered")
        title = "on offer" if offered else "passed" if one.get("passed") else "refused"
        offer = [["take", "Approve: decode with it"], ["reject", "Reject it"]]
        cards.append({
            "title": f"Recalibration: {one.get('session', 'fit')} {title}",
            "session": one.get("session"),
            "tone": "wait" if offered else "good" if one.get("passed") else "bad",
            "lines": _labelled_s(one)
            + _control_lines(one.get("new") or {}, one.get("in_use") or {}),
            "reason": one.get("reason", "") or _wiener(one),
            "actions": offer if offered else [],
        })  # fmt: skip
    return cards


def _settle(cards: list[dict[str, Any]], one: Values, *, newest: bool) -> None:
    """What became of an offer stands on its card."""
    taken = "taken" in one
    name = one["taken"] if taken else one["rejected"]
    for card in reversed(cards):
        if card.get("session") == name:
            card["title"] = f"Recalibration: {name} {'approved' if taken else 'rejected'}"
            card["tone"] = "good" if taken else "bad"
            card["actions"] = [["revert", "Revert to the session before"]] * (taken and newest)
            return


def _r2_lines(fit: Values) -> list[list[str]]:
    lines = []
    if "r2_heldout" in fit:
        before = fit.get("r2_in_use")
        in_use = "" if before is None else f"{before:.3f}"
        lines.append(["held-out R²", f"{fit['r2_heldout']:.3f}", in_use])
    return lines + _labelled_s(fit)


def _labelled_s(fit: Values) -> list[list[str]]:
    if "labelled_s" not in fit:
        return []
    return [["labelled, fitted in", f"{fit['labelled_s']:.0f} s, {fit['wall_s']:.1f} s", ""]]


def _control_lines(new: Values, in_use: Values) -> list[list[str]]:
    return [
        [name, form.format(new[key]), "" if in_use.get(key) is None else form.format(in_use[key])]
        for key, name, form in _CONTROL
        if new.get(key) is not None
    ]


def _wiener(fit: Values) -> str:
    wiener = fit.get("wiener")
    if not wiener or wiener.get("use") != "wiener":
        return ""
    return (
        f"a Wiener filter on the same labels decodes them better "
        f"(held-out R² {wiener['r2_heldout']:.3f})"
    )
