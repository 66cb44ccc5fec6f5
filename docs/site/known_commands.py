"""What the command line knows: its commands, read from the application itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import typer

from poyo_edge.cli import app
from poyo_edge.cli.root import COMMANDS

HELP = "--help"


@cache
def known_commands() -> dict[str, Any]:
    """Name → command, as click has it, in the order of ``--help``; hidden ones too.

    Raises:
        RuntimeError: fewer commands than modules that register some.
    """
    group: Any = typer.main.get_command(app)
    found: Mapping[str, Any] = group.commands
    if len(found) < len(COMMANDS):
        raise RuntimeError(f"expected {len(COMMANDS)} commands or more, got {len(found)}")
    return dict(found)


def is_argument(parameter: Any) -> bool:
    """Whether a parameter is given by its place and not by its name."""
    return bool(parameter.param_type_name == "argument")


def spellings(command: Any) -> set[str]:
    """Every way to write every option of a command, hidden ones too."""
    given = [p for p in command.params if not is_argument(p)]
    old = getattr(command, "old", {})
    return {HELP, *old, *(text for p in given for text in (*p.opts, *p.secondary_opts))}
