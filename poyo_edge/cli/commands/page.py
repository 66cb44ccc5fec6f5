"""``poyo-edge page``: a running rig in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import RIG, Json, command
from poyo_edge.errors import UsageError


@command(RIG, example="poyo-edge page")
def page(
    ring: Annotated[
        str, typer.Argument(metavar="[RUN]", help="Its ring, as run printed it: a name, or a path.")
    ] = "",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Of 127.0.0.1; else the first free one from 5006 on."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a running rig in a browser of this machine, until Ctrl-C."""
    from poyo_edge.runtime.page.ring.memory import running
    from poyo_edge.runtime.page.server import PageServer

    server = PageServer(ring or _only_one(running()), port=port)
    server.watch.look()
    over = "" if server.watch.alive else "; that run has ended, these are its last moments"
    Console(as_json=as_json).result(
        {"url": server.url, "ring": server.watch.run},
        f"{server.url}  (run {server.watch.run}; Ctrl-C ends the page and not the run{over})",
    )
    try:
        server.run()
    except KeyboardInterrupt:
        return


def _only_one(rings: list[str]) -> str:
    if len(rings) == 1:
        return rings[0]
    there = ", ".join(rings) or "none; start one with run --page, or run --ring NAME"
    raise UsageError(f"page: expected one run, or its name, got {len(rings)} that run: {there}")
