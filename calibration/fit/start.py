"""Where a fit begins: the best guess about units that nobody has labelled data of yet.

Legend: U units, D model dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poyo_edge.arrays import Float32
from poyo_edge.artifact import SESSIONS, Artifact, Session
from poyo_edge.calibration.fit.fitting import Tables
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.errors import PoyoEdgeError


def same_electrode(unit_id: str) -> str:
    """The part of a unit's id that stays from day to day: what follows the last "/"."""
    return unit_id.rpartition("/")[2]


def known_units(artifact: Artifact) -> dict[str, list[Float32]]:
    """Electrode → embeddings (D,) of the units that known sessions had there."""
    found: dict[str, list[Float32]] = {}
    for path in sorted((artifact.path / SESSIONS).glob("*.session")):
        try:
            session = artifact.session(path)
        except PoyoEdgeError:
            continue  # A damaged neighbour is no reason not to calibrate; verify names it.
        for unit, embedding in zip(session.header.unit_ids, session.unit_embedding, strict=True):
            found.setdefault(same_electrode(unit), []).append(embedding)
    return found


def first_guess(artifact: Artifact, prior: Prior, unit_ids: Sequence[str]) -> Tables:
    """Units that an electrode had before start at the mean of those; others at the prior's mean."""
    known = known_units(artifact)
    rows = [
        np.mean(known[name], axis=0) if (name := same_electrode(unit)) in known else prior.unit_mean
        for unit in unit_ids
    ]
    return Tables(units=np.stack(rows), session=prior.session_mean)


def nothing_known(begin: Tables, prior: Prior) -> bool:
    """Whether a fit begins with the prior for all units."""
    return bool((begin.units == prior.unit_mean).all())


def from_session(unit_ids: Sequence[str], session: Session, guess: Tables) -> Tables:
    """The embeddings of an earlier session for the units that it has, and ``guess`` for others."""
    row = {unit: i for i, unit in enumerate(session.header.unit_ids)}
    units = guess.units.copy()
    for i, unit in enumerate(unit_ids):
        if unit in row:
            units[i] = session.unit_embedding[row[unit]]
    return Tables(units=units, session=session.session_embedding)
