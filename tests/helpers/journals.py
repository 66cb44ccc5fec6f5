"""Journals that are decoded again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poyo_edge.journal import Journal
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.checks.again import decoded_again


def require_same_bits(path: Path, decoder: Decoder) -> int:
    """Push and decode in the journal's order: the values are its own; how many there were."""
    n = 0
    for value, again in decoded_again(Journal(path), decoder):
        assert np.array_equal(again.value, value.value)
        n += 1
    return n
