"""POYO in plain torch operations, and how its encoder attends to spikes fast while training."""

from poyo_edge.model.poyo import (
    NOT_AVAILABLE,
    POYO,
    CrossAttention,
    RotaryTimeEmbedding,
    VocabEmbedding,
    rotate,
    rotate_complex,
    vocabulary,
)

__all__ = [
    "NOT_AVAILABLE",
    "POYO",
    "CrossAttention",
    "RotaryTimeEmbedding",
    "VocabEmbedding",
    "rotate",
    "rotate_complex",
    "vocabulary",
]
