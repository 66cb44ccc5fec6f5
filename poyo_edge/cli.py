"""The command line. Heavy imports happen inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge import __version__
from poyo_edge.console import Console, complain, latency_table, pairs, table
from poyo_edge.errors import CheckFailedError, MissingExtraError, PoyoEdgeError, UsageError

app = typer.Typer(
    name="poyo-edge",
    help="From a POYO checkpoint to a decoder that runs beside the implant.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_START, _DEPLOY, _DEVICE, _LOOK = "Start here", "Export", "On the device", "Look"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
ArtifactPath = Annotated[Path, typer.Argument(help="The artifact, a folder NAME.poyo.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads for one window.")]
BackendName = Annotated[str, typer.Option("--backend", help="auto, or a name that doctor lists.")]
SessionName = Annotated[
    str | None,
    typer.Option("--session", help="A .session file, or the id of a session in the artifact."),
]


def main() -> None:
    """Run the command line; every deliberate error is one line and its own exit code."""
    try:
        app()
    except PoyoEdgeError as error:
        _debug()
        complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        _debug()
        complain(error)
        sys.exit(5)
    except Exception as error:
        traceback.print_exc()
        complain(f"this is a bug in poyo-edge, please report it: {type(error).__name__}: {error}")
        sys.exit(1)


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    pass


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"poyo-edge {__version__}")
        raise typer.Exit
