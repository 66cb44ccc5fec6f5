"""Options and words of a page beside a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge.cli.console import Console
from poyo_edge.errors import UsageError

_PANEL = "A page beside it"
ShowPage = Annotated[
    bool,
    typer.Option("--page", rich_help_panel=_PANEL, help="Show it in a browser of this machine."),
]
PagePort = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, rich_help_panel=_PANEL,
        help="Of 127.0.0.1; else the first free one from 5006 on.",
    ),
]  # fmt: skip
RingName = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_PANEL,
        help="Name of the memory that pages read, for page NAME; else poyo-edge-1 and so on.",
    ),
]


def ring_of(show_page: bool, port: int | None, ring: str | None) -> str | None:
    """The ring to write; None for none.

    Raises:
        UsageError: a port without a page.
        MissingExtraError: Bokeh is not there.
    """
    if port is not None and not show_page:
        raise UsageError("--page-port: expected --page with it, got none")
    if show_page:
        from poyo_edge.runtime.page.server import require_bokeh

        require_bokeh()
    if ring is None and show_page:
        from poyo_edge.runtime.page.ring.memory import free_name

        return free_name()
    return ring


def show(ring: str | None, console: Console, *, page: bool, port: int | None) -> Any:
    """Start the page of a rig that runs, or say how to; the process, or None."""
    if ring is None:
        return None
    if not page:
        console.step(f"a page of it: poyo-edge page {ring}")
        return None
    from poyo_edge.runtime.page.launching import PageProcess

    words = Console(as_json=console.as_json)  # it is told though nothing else may be
    return PageProcess(str(Path(ring)) if "/" in ring else ring, port=port, say=words.step)
