"""Tables and phrases that the texts of several commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]
"""What a command found, as ``--json`` prints it."""

_BEHIND_MS = 100.0
"""A sink that is behind by less may be sending just now."""


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
    """Percentiles in one row."""
    names = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "max": "max"}
    head = ["latency", *(names[name] for name in latency_ms)]
    return table(head, [["ms", *(f"{value:.2f}" for value in latency_ms.values())]])


def r2_text(values: Values) -> str:
    """R², and R² of each dimension."""
    dims = ", ".join(f"{r2:.3f}" for r2 in values["r2_per_dim"])
    return f"{values['r2']:.4f}  (per dimension {dims})"


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


def granted_text(realtime: Mapping[str, str]) -> str:
    """What the system said to the settings that it was asked for."""
    return ", ".join(f"{name} {said}" for name, said in realtime.items() if said != "not asked for")
