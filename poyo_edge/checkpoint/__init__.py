"""Research checkpoints, read without running anything that is in them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poyo_edge.checkpoint.checkpoint import (
        Checkpoint,
        OpenedCheckpoint,
        load_checkpoint,
        open_checkpoint,
    )

_WHERE = {
    "Checkpoint": "poyo_edge.checkpoint.checkpoint",
    "OpenedCheckpoint": "poyo_edge.checkpoint.checkpoint",
    "load_checkpoint": "poyo_edge.checkpoint.checkpoint",
    "open_checkpoint": "poyo_edge.checkpoint.checkpoint",
}

__all__ = [
    "Checkpoint",
    "OpenedCheckpoint",
    "load_checkpoint",
    "open_checkpoint",
]


def __getattr__(name: str) -> Any:
    """A public name, loaded when it is first asked for: torch comes with it."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
