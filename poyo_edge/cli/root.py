"""The command line. Heavy imports happen inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
import json
import platform
import sys
from typing import Annotated

import typer

from poyo_edge import __version__
from poyo_edge.cli.shared import REFUSED, Json, app, ended, refused
from poyo_edge.errors import PoyoEdgeError, UsageError
from poyo_edge.files.streams import guard_streams

COMMANDS = (
    "poyo_edge.cli.commands.demo",
    "poyo_edge.cli.commands.simulate",
    "poyo_edge.cli.commands.convert",
    "poyo_edge.cli.commands.train",
    "poyo_edge.cli.commands.scaling",
    "poyo_edge.cli.commands.export",
    "poyo_edge.cli.commands.build",
    "poyo_edge.cli.commands.freeze",
    "poyo_edge.cli.commands.sign",
    "poyo_edge.cli.commands.verify",
    "poyo_edge.cli.commands.calibrate",
    "poyo_edge.cli.commands.replay",
    "poyo_edge.cli.commands.bench",
    "poyo_edge.cli.commands.tune",
    "poyo_edge.cli.commands.run",
    "poyo_edge.cli.commands.tell",
    "poyo_edge.cli.commands.page",
    "poyo_edge.cli.commands.inspect",
    "poyo_edge.cli.commands.doctor",
    "poyo_edge.cli.commands.evaluate",
    "poyo_edge.cli.commands.closed_loop",
)
"""Modules that register commands as they are imported, in the order of ``--help``."""

for _module in COMMANDS:
    importlib.import_module(_module)


def main() -> None:
    """Run the command line. What it cannot be called with is one line too, as every error is."""
    guard_streams()
    try:
        code = app(prog_name=app.info.name, standalone_mode=False)
        sys.stdout.flush()
    except REFUSED as error:
        code = refused(error).exit_code
    except PoyoEdgeError as error:  # of what is read before the command begins: a rig file
        code = ended(error, error.exit_code).exit_code
    except OSError as error:
        code = ended(error, 5).exit_code
    except typer.Abort:
        code = ended(KeyboardInterrupt("interrupted"), 130).exit_code
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    as_json: Json = False,
) -> None:
    if as_json and not version:
        raise ended(UsageError("--json: expected it behind a command, got it before; move it"), 2)
    if version:
        values = {"poyo_edge": __version__, "python": platform.python_version()}
        print(json.dumps(values) if as_json else f"poyo-edge {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help(), end="", file=sys.stderr)
        raise typer.Exit(2)
