"""Tables and phrases that the texts of several commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]
"""What a command found, as ``--json`` prints it."""

_BEHIND_MS = 100.0
"""A sink that is behind by less may be sending just now."""

BEHIND = "a Wiener filter on the same labels decodes them better"
"""Than the session that was fitted to them."""

_OUTCOMES = (
    ("success", "success", "{:.0%}"),
    ("angle_deg", "angular error", "{:.0f}°"),
    ("bits_per_s", "throughput", "{:.2f} bit/s"),
)
"""Of a block of trials: key, name, how it is written."""


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of text: the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def pairs(values: Mapping[str, object]) -> str:
    """``name  value`` lines."""
    width = max(len(name) for name in values)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in values.items())


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, all others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def latency_table(latency_ms: Mapping[str, float]) -> str:
    """Percentiles in one row; a sentence where nothing was decoded."""
    if not any(latency_ms.values()):
        return "latency  nothing was decoded"
    names = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "max": "max"}
    head = ["latency", *(names[name] for name in latency_ms)]
    return table(head, [["ms", *(f"{value:.2f}" for value in latency_ms.values())]])


def r2_text(values: Values) -> str:
    """R², and R² of each dimension."""
    dims = ", ".join(f"{r2:.3f}" for r2 in values["r2_per_dim"])
    return f"{values['r2']:.4f}  (per dimension {dims})"


def lead_text(report: Values) -> str:
    """How labels of intention were made, from their report."""
    text = f"labels of intention ({report['kind']}) from {report['trials_used']} trials, moved by "
    text += f"{report['lead_s'] * 1e3:+.0f} ms"
    if report["spike_lag_s"] is not None:
        text += f" (spikes {report['spike_lag_s'] * 1e3:+.0f} ms from the shown cursor)"
    if report["trials_left_out"]:
        text += f"; {report['trials_left_out']} trials left out, the first because "
        text += report["first_reason"]
    return text


def wiener_lines(values: Values) -> dict[str, str]:
    """A Wiener filter on the same labels, and what to decode with."""
    wiener = values["wiener"]
    if wiener is None:
        return {}
    dims = ", ".join(f"{r2:.3f}" for r2 in wiener["r2_per_dim"])
    said = f"R² {wiener['r2_heldout']:.4f} on the same labels and blocks (per dimension {dims})"
    by_angle = bool(values["labels"]) and wiener["angular_error_deg"] is not None
    if by_angle:
        said += f", angular error {wiener['angular_error_deg']:.1f}°"
    uses = {
        "session": "the session: it decodes these labels better than the filter",
        "wiener": "the filter: it decodes these labels better than the session; more labels may "
        "help, or a model that was trained on such a subject and task",
        "either": "either: the difference is within chance",
    }
    lines = {"Wiener filter": f"{said}, {wiener['wall_s']:.1f} s"}
    if values.get("wiener_share"):
        lines["mixed in"] = f"{mixed_share_text(values)}; held-out R² of the model alone "
        lines["mixed in"] += f"{values['r2_unmixed']:.4f}"
    return lines | {"to use": uses[wiener["use"]]}


def mixed_share_text(values: Values) -> str:
    """How much of each value is a mixed filter's."""
    return f"{values['wiener_share']:.0%} of each value is the filter's"


def behind_text(fit: Values) -> str:
    """What is said of a fit that is behind a Wiener filter; "" for any other."""
    wiener = fit.get("wiener")
    if wiener is None or wiener["use"] != "wiener":
        return ""
    return f"{BEHIND} (held-out R² {wiener['r2_heldout']:.3f})"


def control_text(control: Values) -> str:
    """Angular error and gains in a line."""
    words = [f"angular error {control['angular_error_deg']:.1f}°"]
    for key, name in (("gain", "gain"), ("held_gain", "held for 1 s")):
        if control[key] is not None:
            words.append(f"{name} {control[key]:.2f}")
    return ", ".join(words)


def control_lines(values: Values) -> dict[str, str]:
    """What a session is like to control with, beside the session in use."""
    control, lines = values["control"], dict[str, str]()
    compared = values["compared"] or {}
    in_use, relation = compared.get("control_in_use") or {}, compared.get("relation")
    names = {
        "angular_error_deg": ("angular error", ".1f", "°"),
        "gain": ("gain on movements", ".2f", ""),
        "held_gain": ("gain, held for 1 s", ".2f", ""),
        "bias_at_rest": ("bias at rest", ".3g", ""),
        "noise_at_rest": ("noise at rest", ".3g", ""),
    }
    for key, (name, form, unit) in names.items():
        if control is None or control[key] is None:
            continue
        lines[name] = f"{control[key]:{form}}{unit}"
        if in_use.get(key) is not None:
            lines[name] += f", session in use {in_use[key]:{form}}{unit}"
    if relation is not None:
        lines["labels beside it"] = (
            f"turned by {relation['turned_deg']:.0f}°, {relation['lag_s']:+.2f} s, correlation "
            f"{relation['correlation']:.2f}, decoded speed × {relation['speed_ratio']:.2f}"
        )
    if compared:
        lines["began with"] = values["started"]
    for report in values["labels"]:
        lines["labels made"] = lead_text(report)
    return lines


def sink_line(sink: Values) -> str:
    """What became of values that one sink did not get; "" if it got all, at once."""
    words = []
    if sink["behind_ms"] >= _BEHIND_MS:
        words.append(f"behind by {sink['behind_ms'] / 1e3:.1f} s")
    if sink["superseded"]:
        words.append(f"{sink['superseded']} superseded by newer values")
    if sink["failures"]:
        words.append(f"{sink['failures']} failed, the last with {sink['last_failure']}")
    return f"{sink['address']}: {sink['sent']} sent, {', '.join(words)}" if words else ""


def health_line(health: Values) -> str:
    """Whether the stream was what the session was calibrated on."""
    check = health["session_check"]
    if health["status"] == "unknown":
        return "too short to judge" + (f", {check['reason']}" if check["reason"] else "")
    words = [health["status"]]
    if check["reason"]:
        words.append(f"{check['state'].replace('_', ' ')}: {check['reason']}")
    if health["drifted_share"]:
        words.append(f"{health['drifted_share']:.0%} of the units have drifted")
    if health["silent_units"]:
        words.append(f"{len(health['silent_units'])} units silent")
    if health["coverage"] is not None and health["coverage"] < 1:
        words.append(f"{health['coverage']:.0%} of the spikes are of units of the session")
    if health["outside_share"]:
        words.append(f"values out of range in {health['outside_share']:.0%} of the windows")
    if "slow" in health["flags"]:
        words.append("decoding takes longer than its budget")
    return ", ".join(words)


def outcome_line(outcome: Values) -> str:
    """What became of the trials lately, and in the first block; "" where none was told."""
    block, reference = outcome["block"] or outcome["reference"], outcome["reference"]
    if block is None:
        return ""
    words = [outcome["reason"] or outcome["status"], f"{outcome['trials']} trials"]
    for name, what, figure in _OUTCOMES:
        if block[name] is not None:
            before = reference and reference[name]
            first = f" (first {figure.format(before)})" if before is not None else ""
            words.append(f"{what} {figure.format(block[name])}{first}")
    return ", ".join(words)


def granted_text(realtime: Mapping[str, str]) -> str:
    """What the system said to the settings that it was asked for."""
    return ", ".join(f"{name} {said}" for name, said in realtime.items() if said != "not asked for")
