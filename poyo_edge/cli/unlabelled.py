"""``poyo-edge calibrate --labels none``: a session from unlabelled activity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from poyo_edge.cli.text import pairs
from poyo_edge.errors import UsageError

if TYPE_CHECKING:
    from poyo_edge.artifact import SessionHeader
    from poyo_edge.recording import Recording

LABELS_NONE = "none"
"""What ``--labels`` says for it."""
WARNING = (
    "this session was made without labels: how well it decodes is not known; calibrate with "
    "labels as soon as there are some"
)


def guess_session(
    artifact: Path, recording: Recording, target: Path, *, split: str, seconds: float | None
) -> tuple[dict[str, Any], str]:
    """Write the session; its figures, and the text about them."""
    from poyo_edge.calibration.from_recording import from_unlabelled
    from poyo_edge.files.writing import keep_previous

    session, known, heard = from_unlabelled(artifact, recording, split=split, seconds=seconds)
    keep_previous(target)
    session.save(target)
    units = len(session.header.unit_ids)
    values: dict[str, Any] = {
        "session": str(target),
        "method": session.header.method,
        "r2_heldout": None,
        "unlabelled_s": round(heard, 3),
        "known_electrodes": known,
        "units": units,
        "notes": [WARNING],
    }
    lines = {
        "unlabelled": f"{heard:.1f} s of the {split} split",
        "electrodes": f"{known} of {units} were trained in this animal",
    }
    return values, f"{pairs(lines)}\nnote: {WARNING}\n\nwrote {target}"


def require_unused(context: typer.Context, options: Sequence[str], why: str) -> None:
    """Refuse options that were given and would do nothing.

    Args:
        context: of the command.
        options: their names in it, such as "max_wall".
        why: they would do nothing.

    Raises:
        UsageError: one of them is given.
    """
    for name in options:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option}: expected none, got one, but {why}; leave it out")


def session_notes(header: SessionHeader) -> list[str]:
    """What has to be said of a session whenever it is decoded with."""
    from poyo_edge.artifact import UNLABELLED

    judged = [] if header.method != UNLABELLED else [WARNING]
    return [*(f"this session is {note}" for note in header.notes), *judged]
