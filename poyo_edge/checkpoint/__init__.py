"""Research checkpoints, read without running anything that is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poyo_edge.tables import lazily

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

__getattr__ = lazily(__name__, _WHERE)
