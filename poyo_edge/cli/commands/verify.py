"""``poyo-edge verify``: whether an artifact is whole and decodes here as it should."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import DEVICE, ArtifactPath, Json, Threads, command
from poyo_edge.cli.text import Values
from poyo_edge.errors import ArtifactError


@command(DEVICE, example="poyo-edge verify model.poyo")
def verify(
    artifact: ArtifactPath,
    public_key: Annotated[
        Path | None, typer.Option(help="Also check that this key (KEY.pub) signed it.")
    ] = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Check hashes, signature, sessions and golden windows on this machine."""
    from poyo_edge.runtime.checks.verify import verify as run_verify

    try:
        checks = run_verify(artifact, threads=threads, public_key=public_key)
    except ArtifactError as error:
        if as_json:
            damage = {"name": "files", "ok": False, "detail": str(error)}
            Console(as_json=True).result({"ok": False, "checks": [damage]}, "")
        raise
    ok = all(check.ok for check in checks)
    values = {"ok": ok, "checks": [check.to_json() for check in checks]}
    Console(as_json=as_json).result(values, verify_text(values))
    if not ok:
        raise typer.Exit(3)


def verify_text(values: Values) -> str:
    """One line for each check."""
    lines = [
        f"{'ok    ' if check['ok'] else 'FAILED'}  {check['name']}: {check['detail']}"
        for check in values["checks"]
    ]
    end = "all checks hold" if values["ok"] else "do not use this artifact on this machine"
    return "\n".join([*lines, end])
