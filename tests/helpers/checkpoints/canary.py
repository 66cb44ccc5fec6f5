"""What no checkpoint may do: run something when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Canary:
    """Unpickling this without protection would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.path)!r}, 'w').close()",)
