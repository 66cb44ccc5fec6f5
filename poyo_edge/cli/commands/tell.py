"""``poyo-edge tell``: a command to a run on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import RIG, Json, command
from poyo_edge.errors import CheckFailedError, UsageError


@command(RIG, example="poyo-edge tell udp://127.0.0.1:5100 zero --token-file run.token")
def tell(
    address: Annotated[str, typer.Argument(help="As the run printed it, udp://127.0.0.1:PORT.")],
    what: Annotated[
        str,
        typer.Argument(
            metavar="COMMAND", help="swap, revert, take, reject, zero, pause, resume, mark or stop."
        ),
    ],
    argument: Annotated[
        str, typer.Argument(help="The session of a swap, or the text of a mark.")
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="The file of the run's token; else it is asked for.")
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Swap or take in the middle of a trial, too.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=60, help="Seconds to wait for the answer.")
    ] = 2.0,
    as_json: Json = False,
) -> None:
    """Swap, revert, take, reject, zero, pause, resume, mark or stop a run."""
    from poyo_edge.runtime.control import tell as send
    from poyo_edge.runtime.control.client import read_token

    if token_file is not None:
        token = read_token(token_file)
    elif not sys.stdin.isatty():
        raise UsageError("--token-file: expected one where no terminal is to ask at, got none")
    else:
        token = typer.prompt("token that the run printed", hide_input=True, err=True)
    answer = send(address, token, what, argument, now=now, timeout_s=timeout)
    if answer.ok or as_json:
        Console(as_json=as_json).result(answer.to_json(), f"{what}: {answer.reason}")
    if not answer.ok:
        raise CheckFailedError(f"{what} was refused: {answer.reason}")
