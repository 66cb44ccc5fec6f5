"""Artifacts whose manifests vouch for what a test put into them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poyo_edge.artifact import MANIFEST

Values = dict[str, Any]


def planted(folder: Path, name: str, data: bytes) -> Path:
    """The artifact with other bytes in one of its files."""
    (folder / name).write_bytes(data)
    record = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return rewritten(folder, lambda values: values["files"].update({name: record}))


def rewritten(folder: Path, change: Callable[[Values], Any], *, checksum: bool = True) -> Path:
    """The artifact with a changed manifest; its checksum is made right again."""
    file = folder / MANIFEST
    values = json.loads(file.read_text())
    change(values)
    if checksum:
        rest = {
            k: v for k, v in values.items() if k not in ("schema", "schema_version", "checksum")
        }
        text = json.dumps(rest, sort_keys=True)
        values["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps(values))
    return folder
