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
from poyo_edge.errors import UsageError

COMMANDS = (
    "poyo_edge.cli.commands.device.bench",
    "poyo_edge.cli.commands.device.calibrate",
    "poyo_edge.cli.commands.device.run",
    "poyo_edge.cli.commands.device.replay",
    "poyo_edge.cli.commands.device.verify",
    "poyo_edge.cli.commands.export.build",
    "poyo_edge.cli.commands.export.sign",
    "poyo_edge.cli.commands.export.export",
    "poyo_edge.cli.commands.start.convert",
    "poyo_edge.cli.commands.start.train",
    "poyo_edge.cli.commands.start.demo",
    "poyo_edge.cli.commands.start.simulate",
    "poyo_edge.cli.commands.look.evaluate",
    "poyo_edge.cli.commands.look.scaling",
    "poyo_edge.cli.commands.look.inspect",
    "poyo_edge.cli.commands.look.doctor",
)
"""Modules that register commands as they are imported, in the order of ``--help``."""

for _module in COMMANDS:
    importlib.import_module(_module)


def main() -> None:
    """Run the command line. What it cannot be called with is one line too, as every error is."""
    alone = len(sys.argv) == 1  # alone it shows its help
    try:
        code = app(prog_name=app.info.name, standalone_mode=alone)
    except REFUSED as error:
        code = refused(error).exit_code
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
        raise ended(UsageError("expected a command, got none; run: poyo-edge --help"), 2)
