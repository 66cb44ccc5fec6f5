"""Behaviours of a recording that a decoder gave: nobody measured them, so they are no labels."""

from __future__ import annotations

from pathlib import Path

from poyo_edge.recording.rules import refuse

GROUPS = ("decoded", "controlled")
"""What a rig gave, in recordings of journals (``converting.journal_file``)."""


def is_given(behavior: str) -> bool:
    """Whether a behaviour is what a decoder, or the control behind it, gave."""
    return behavior.partition(".")[0] in GROUPS


def require_measured(path: Path, behavior: str) -> None:
    """Refuse labels that a decoder gave: a fit to them learns the decoder's own errors.

    Raises:
        RecordingError: they are.
    """
    if is_given(behavior):
        refuse(
            path,
            behavior,
            expected="behaviour that was measured",
            got="what a decoder gave while this was recorded",
            do="name a behaviour that was measured, or record labels with the journal",
        )
