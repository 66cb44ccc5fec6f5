"""Records that ``build`` writes into an artifact; the manifest does not list them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from poyo_edge.errors import ArtifactError, UsageError
from poyo_edge.files.tensors import read_file
from poyo_edge.files.writing import own_folder, write_bytes
from poyo_edge.records import JsonRecord

_MOST_BYTES = 1 << 20
Record = TypeVar("Record", bound=JsonRecord)


def write_record(path: Path, record: JsonRecord) -> None:
    """Write it, and its folder where there is none."""
    own_folder(path.parent)
    text = json.dumps(record.to_json(), indent=1, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def read_record(path: Path, kind: type[Record], do: str) -> Record | None:
    """A record, or None where there is none.

    Args:
        path: where it is.
        kind: what it is read as.
        do: what mends one that cannot be read.

    Raises:
        ArtifactError: it cannot be read.
    """
    if not path.exists():
        return None
    data = read_file(path, ArtifactError, _MOST_BYTES)
    try:
        return kind.from_json(json.loads(data))
    except (ValueError, UsageError, RecursionError) as problem:
        raise ArtifactError(
            path,
            "contents",
            expected="a record that 'build --target cpu' wrote",
            got=str(problem),
            do=do,
        ) from problem
