"""``poyo-edge inspect``: what a checkpoint, artifact, session, recording or frozen file is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.next_commands import to_build
from poyo_edge.cli.shared import LOOK, Json, command
from poyo_edge.cli.text import Values, pairs


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

    flat = {name: value for name, value in values.items() if name != "next"}
    source = flat.pop("source", {})
    notes = [*source.pop("notes", []), *flat.pop("notes", [])]
    flat |= {f"source {name}": value for name, value in source.items()}
    flat |= {f"note {i + 1}": note for i, note in enumerate(notes)}
    told = pairs({name: short(value) for name, value in flat.items()})
    return "\n".join([told, "", "Next:", *(f"  {line}" for line in values["next"])])
