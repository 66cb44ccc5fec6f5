"""Journals: what a rig heard and decoded, so that a crash loses nothing; layout in ``frames``."""

from poyo_edge.journal.controlled import STATUSES, Controlled
from poyo_edge.journal.frames import (
    DECODED,
    MAGIC,
    NOTE,
    START,
    Cursor,
    Decoded,
    Entry,
    JournalHeader,
    Labels,
    Spikes,
    Swap,
    TrialTold,
    swap_of,
)
from poyo_edge.journal.reading import Journal, is_journal
from poyo_edge.journal.writing import JournalWriter

__all__ = [
    "DECODED",
    "MAGIC",
    "NOTE",
    "START",
    "STATUSES",
    "Controlled",
    "Cursor",
    "Decoded",
    "Entry",
    "Journal",
    "JournalHeader",
    "JournalWriter",
    "Labels",
    "Spikes",
    "Swap",
    "TrialTold",
    "is_journal",
    "swap_of",
]
