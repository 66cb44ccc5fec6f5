"""What is known of a new session's units from their activity; training and device agree on it."""

from poyo_edge.unit_guess.guess import (
    GUESS,
    GUESS_NAMES,
    GUESS_TENSORS,
    MOST_SD,
    Heard,
    UnitGuess,
    all_statistics,
    electrode_of,
    scaled,
    statistic_names,
)
from poyo_edge.unit_guess.statistics import LEAST_S, NAMES, unit_statistics
from poyo_edge.unit_guess.tuning import Smoothed, fit_axes

__all__ = [
    "GUESS",
    "GUESS_NAMES",
    "GUESS_TENSORS",
    "LEAST_S",
    "MOST_SD",
    "NAMES",
    "Heard",
    "Smoothed",
    "UnitGuess",
    "all_statistics",
    "electrode_of",
    "fit_axes",
    "scaled",
    "statistic_names",
    "unit_statistics",
]
