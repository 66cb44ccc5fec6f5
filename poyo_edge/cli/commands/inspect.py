"""``poyo-edge inspect``: what a checkpoint, artifact, session, recording or frozen file is."""

from __future__ import annotations

import itertools
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
    if flat.get("n_units", 0) > len(names := flat.get("unit_ids", [])) > 0:
        flat["unit_ids"] = [*names, "…"]
    told = pairs({name: short(value) for name, value in flat.items()})
    events = _events(values.get("told", []))
    return "\n".join([told, *events, "", "Next:", *(f"  {line}" for line in values["next"])])


def _events(told: list[dict[str, Any]]) -> list[str]:
    """The last events of a journal, one line each, with the seconds since its first value."""
    if not told:
        return []
    # Those that differ in numbers alone, as each packet that was lost, would push all else out.
    groups = [list(alike) for _, alike in itertools.groupby(told, _without_numbers)]
    lines = []
    for alike in groups[-_EVENTS:]:
        first, last = (_after(one["after_s"]) for one in (alike[0], alike[-1]))
        what = {name: value for name, value in alike[0].items() if name != "after_s"}
        text = printable(json.dumps(what, ensure_ascii=False))
        lines.append(f"  {first:>10}  {text if len(text) <= _WIDE else text[: _WIDE - 2] + ' …'}")
        if len(alike) > 1:
            lines.append(f"  {'':>10}  and {len(alike) - 1} more like it, until {last}")
    more = f", the last {_EVENTS} kinds" if len(groups) > _EVENTS else ""
    return ["", f"Events{more}, by seconds after the first value:", *lines]


def _after(seconds: float | None) -> str:
    return "before" if seconds is None else f"{seconds:.1f} s"


def _without_numbers(event: dict[str, Any]) -> str:
    """What an event says, but for its numbers."""
    return json.dumps(
        {
            name: 0 if isinstance(value, (int, float)) and not isinstance(value, bool) else value
            for name, value in event.items()
            if name != "after_s"
        }
    )
