"""``poyo-edge inspect``: what a checkpoint, artifact, session, recording or frozen file is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge.cli.console import Console, printable
from poyo_edge.cli.next_commands import to_build
from poyo_edge.cli.shared import LOOK, Json, command
from poyo_edge.cli.text import Values, pairs

_EVENTS, _WIDE = 20, 84
"""Events that are shown, and the characters of each; ``--json`` has them whole."""


@command(LOOK, example="poyo-edge inspect demo/demo.poyo")
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint, artifact, session, recording, journal, frozen file or folder."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Say what a file or folder is, and what to do with it."""
    from poyo_edge.inspecting import inspect_path

    values = inspect_path(path)
    if values["kind"] == "artifact" and (build := to_build(path)):
        others = [line for line in values["next"] if " build " not in line]
        values["next"] = [f"{build}  # engines of this Jetson", *others]
    Console(as_json=as_json).result(values, inspect_text(values))


def inspect_text(values: Values) -> str:
    """Name and value, long lists cut short."""

    def short(value: Any) -> str:
        if isinstance(value, dict):
            value = [f"{name} {short(item)}" for name, item in value.items()]
        if isinstance(value, list):
            shown = ", ".join(str(item) for item in value[:12])
            return shown + (f", … ({len(value)} in all)" if len(value) > 12 else "") or "none"
        return "–" if value in ("", None) else str(value)

    flat = {name: value for name, value in values.items() if name not in ("next", "told")}
    source = flat.pop("source", {})
    notes = [*source.pop("notes", []), *flat.pop("notes", [])]
    flat |= {f"source {name}": value for name, value in source.items()}
    flat |= {f"note {i + 1}": note for i, note in enumerate(notes)}
    told = pairs({name: short(value) for name, value in flat.items()})
    events = _events(values.get("told", []))
    return "\n".join([told, *events, "", "Next:", *(f"  {line}" for line in values["next"])])


def _events(told: list[dict[str, Any]]) -> list[str]:
    """The last events of a journal, one line each, with the seconds since its first value."""
    lines = []
    for event in told[-_EVENTS:]:
        at = event["after_s"]
        what = json.dumps({k: v for k, v in event.items() if k != "after_s"}, ensure_ascii=False)
        when = "before" if at is None else f"{at:.1f} s"
        lines.append(f"  {when:>10}  {printable(what)[:_WIDE]}")
    if not lines:
        return []
    more = f", the last {len(lines)}" if len(told) > len(lines) else ""
    head = f"Events{more}, by seconds after the first value:"
    return ["", head, *lines]
