"""``poyo-edge keygen`` and ``sign``: who vouches for an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.console import Console, program
from poyo_edge.cli.shared import DEPLOY, ArtifactPath, Json, command


@command(DEPLOY, example="poyo-edge keygen lab.key")
def keygen(
    key: Annotated[Path, typer.Argument(help="The private key to write; KEY.pub comes beside it.")],
    as_json: Json = False,
) -> None:
    """Make a pair of Ed25519 keys to sign artifacts with."""
    from poyo_edge.artifact.signing import new_key

    public = new_key(key)
    text = f"{key}  keep it secret\n{public}  goes to every device"
    Console(as_json=as_json).result({"key": str(key), "public_key": str(public)}, text)


@command(DEPLOY, example="poyo-edge sign demo/demo.poyo --key lab.key")
def sign(
    artifact: ArtifactPath,
    key: Annotated[Path, typer.Option(help="The private key that keygen wrote.")],
    as_json: Json = False,
) -> None:
    """Sign an artifact, so that devices can refuse what you did not make."""
    from poyo_edge.artifact.signing import SIGNATURE
    from poyo_edge.artifact.signing import sign as sign_artifact

    name = sign_artifact(artifact, key)
    values = {"artifact": str(artifact), "signature": str(artifact / SIGNATURE), "key": name}
    text = f"signed by key {name}\n\nNext:\n  {program()} verify {artifact} --public-key {key}.pub"
    Console(as_json=as_json).result(values, text)
