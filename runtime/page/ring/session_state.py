"""What a page has to know of the session in use, as JSON values."""

from __future__ import annotations

from typing import Any

from poyo_edge.artifact import Session


def session_state(session: Session) -> dict[str, Any]:
    """Its units and, where they are known, their rates and the range of its behaviour."""
    header, activity = session.header, session.activity
    found = {
        "session_id": header.session_id,
        "unit_ids": list(header.unit_ids),
        "r2_heldout": header.r2_heldout,
        "labelled_s": header.labelled_s,
        "created": header.created,
        "notes": list(header.notes),
    }
    if activity is None:
        return found
    rounded = {name: [round(float(x), 3) for x in a] for name, a in activity.arrays().items()}
    return {**found, **rounded}
