"""POYO in plain torch operations, and how its encoder attends to spikes fast while training."""

from poyo_edge.model.poyo import (
    POYO,
    CrossAttention,
    RotaryTimeEmbedding,
    rotate,
    rotate_complex,
)
from poyo_edge.model.vocabulary import NOT_AVAILABLE, VocabEmbedding, vocabulary

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
