"""A session of an artifact to decode a recording with: its own, or a borrowed one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from poyo_edge.artifact import Artifact, Session
from poyo_edge.recording import Recording
from poyo_edge.runtime.intake import UnitTable


def session_for(
    artifact: Artifact, recording: Recording
) -> tuple[Session, npt.NDArray[np.int32], bool]:
    """A session, the row of each of the recording's units in it, and whether it is its own.

    Unseen sessions borrow the embeddings of the same electrodes in the last session known.
    """
    sessions = artifact.session_files()
    known = recording.session_id in sessions
    session = artifact.session(recording.session_id if known else max(sessions))
    units = {unit.rpartition("/")[2]: unit for unit in session.header.unit_ids}
    ids = [unit if known else units.get(unit.rpartition("/")[2], unit)
           for unit in recording.unit_ids]  # fmt: skip
    return session, UnitTable(session.header.unit_ids).rows(ids), known
