"""What is known of a new session's units from their activity; training and device agree on it."""

from poyo_edge.unit_guess.guess import (
    GUESS,
    GUESS_HELD,
    GUESS_NAMES,
    GUESS_TENSORS,
    MOST_SD,
    Heard,
    UnitGuess,
    electrode_of,
    scaled,
)
from poyo_edge.unit_guess.statistics import LEAST_S, NAMES, unit_statistics

__all__ = [
    "GUESS",
    "GUESS_HELD",
    "GUESS_NAMES",
    "GUESS_TENSORS",
    "LEAST_S",
    "MOST_SD",
    "NAMES",
    "Heard",
    "UnitGuess",
    "electrode_of",
    "scaled",
    "unit_statistics",
]
