"""A journal that is decoded again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poyo_edge.journal import Decoded, Journal, Spikes
from poyo_edge.runtime import Decoder


def require_same_bits(path: Path, decoder: Decoder) -> int:
    """Push and decode in the journal's order: the values are its own; how many there were."""
    n = 0
    for entry in Journal(path).entries():
        if isinstance(entry, Spikes):
            decoder.push(entry.ticks, entry.rows)
        elif isinstance(entry, Decoded):
            assert np.array_equal(decoder.decode(entry.tick).value, entry.value)
            n += 1
    return n
