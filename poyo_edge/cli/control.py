"""Options and lines of text for what stands between decoder and cursor, and for commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poyo_edge.cli.text import Values

if TYPE_CHECKING:
    from poyo_edge.runtime.control import ControlSettings

_PANEL = "Between decoder and cursor"
ControlFile = Annotated[
    Path | None,
    typer.Option(
        "--control-settings",
        rich_help_panel=_PANEL,
        help="JSON as in docs/control.md.",
    ),
]
Gain = Annotated[
    float | None,
    typer.Option(rich_help_panel=_PANEL, help="Multiply the velocity by so much."),
]
SmoothingMs = Annotated[
    float | None,
    typer.Option(
        "--smoothing", rich_help_panel=_PANEL, help="First-order smoothing that adds so many ms."
    ),
]
SpeedCap = Annotated[float | None, typer.Option(rich_help_panel=_PANEL, help="No value is faster.")]
ControlAddress = Annotated[
    str | None,
    typer.Option(
        "--control", rich_help_panel=_PANEL,
        help="Take signed commands at udp://127.0.0.1:PORT; see tell.",
    ),
]  # fmt: skip
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--control-token-file", rich_help_panel=_PANEL,
        help="Write the token of the commands there, for you alone.",
    ),
]  # fmt: skip
AlsoSessions = Annotated[
    list[str] | None,
    typer.Option(
        "--also-session", rich_help_panel=_PANEL,
        help="Load this session too, for a swap; may be repeated.",
    ),
]  # fmt: skip


def control_settings(
    file: Path | None, gain: float | None, smoothing_ms: float | None, speed_cap: float | None
) -> ControlSettings | None:
    """What a file and options say together; an option wins. None where neither says anything."""
    from poyo_edge.runtime.control import ControlSettings

    options = {"gain": gain, "smoothing_ms": smoothing_ms, "speed_cap": speed_cap}
    said: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if file is None and not said:
        return None
    settings = ControlSettings() if file is None else ControlSettings.load(file)
    return dataclasses.replace(settings, **said)


def control_lines(values: Values) -> dict[str, str]:
    """What was between decoder and cursor, and what became of commands; nothing if none was."""
    lines = dict[str, str]()
    if (control := values.get("control")) is not None:
        lines["control"] = _shaped(control)
        if control["first_refused"]:
            lines["control left out"] = control["first_refused"]
    commands = values.get("commands") or {}
    if commands.get("accepted") or commands.get("refused"):
        done = [f"{name} {n}" for name, n in commands["accepted"].items()]
        refused = [f"refused {commands['refused']}"] if commands["refused"] else []
        lines["commands"] = ", ".join([*done, *refused])
        last = next((one for one in reversed(commands["newest"]) if not one["ok"]), None)
        if last is not None:
            lines["last refused"] = last["reason"]
    if commands.get("held"):
        lines["values are zero"] = commands["held"]
    return lines


def _shaped(control: Mapping[str, Any]) -> str:
    from poyo_edge.runtime.control import ControlSettings

    off = ControlSettings().to_json()
    words = [f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}"
             for k, v in control["settings"].items() if v != off[k]]  # fmt: skip
    if control["clicks"]:
        words.append(f"{control['clicks']} clicks")
    return ", ".join(words)
