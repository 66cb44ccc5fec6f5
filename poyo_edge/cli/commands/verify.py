"""``poyo-edge verify``: whether an artifact is whole and decodes here as it should."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.next_commands import to_build
from poyo_edge.cli.shared import DEVICE, Json, Threads, command
from poyo_edge.cli.text import Values
from poyo_edge.errors import ArtifactError, UsageError
from poyo_edge.journal import is_journal


@command(DEVICE, example="poyo-edge verify demo/demo.poyo")
def verify(
    artifact: Annotated[
        Path, typer.Argument(help="The artifact, a folder NAME.poyo, or a journal of run.")
    ],
    decoded_with: Annotated[
        Path | None, typer.Option("--artifact", help="What a journal was decoded with.")
    ] = None,
    session: Annotated[
        list[Path] | None,
        typer.Option(help="A journal's session that is not in the artifact; may be repeated."),
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="Also check that this key (KEY.pub) signed it.")
    ] = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Check hashes, signature, sessions and golden windows on this machine.

    A journal is decoded again, and every value compared.
    """
    if is_journal(artifact):
        _verify_journal(artifact, decoded_with, session or [], public_key, threads, as_json)
        return
    if decoded_with is not None or session:
        raise UsageError(
            f"{artifact}: expected a journal before --artifact and --session, got another file; "
            f"leave them out, or name the journal"
        )
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
    text, build = verify_text(values), to_build(artifact) if ok else ""
    if build:
        text += f"\n\nNext:\n  {build}  # engines of this Jetson"
    Console(as_json=as_json).result(values, text)
    if not ok:
        raise typer.Exit(3)


def _verify_journal(
    journal: Path,
    artifact: Path | None,
    sessions: list[Path],
    public_key: Path | None,
    threads: int,
    as_json: bool,
) -> None:
    from poyo_edge.runtime.checks.again import verify_journal

    if artifact is None:
        raise UsageError(
            f"{journal}: expected the artifact that it was decoded with, got none; name it with "
            f"--artifact"
        )
    if public_key is not None:
        raise UsageError(
            f"--public-key: expected an artifact, got a journal; check {artifact} on its own"
        )
    again = verify_journal(journal, artifact, sessions, threads=threads)
    values = {"ok": again.ok, "journal": str(journal), "artifact": str(artifact), **again.to_json()}
    Console(as_json=as_json).result(values, verify_text(values, "this journal is not what it says"))
    if not again.ok:
        raise typer.Exit(3)


def verify_text(values: Values, failed: str = "do not use this artifact on this machine") -> str:
    """One line for each check."""
    lines = [
        f"{'ok    ' if check['ok'] else 'FAILED'}  {check['name']}: {check['detail']}"
        for check in values["checks"]
    ]
    end = "all checks hold" if values["ok"] else failed
    return "\n".join([*lines, end])
