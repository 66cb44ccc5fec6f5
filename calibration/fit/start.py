"""Where a fit begins: the best guess about units that nobody has labelled data of yet.

Legend: U units, D model dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poyo_edge.arrays import Float32
from poyo_edge.artifact import SESSIONS, Artifact, Session
from poyo_edge.calibration.fit.fitting import Tables
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.errors import PoyoEdgeError
from poyo_edge.unit_guess import LEAST_S, Heard, electrode_of

_ROUNDING_S = 1.0
"""Bins that are not whole do not count."""


def known_units(artifact: Artifact) -> dict[str, list[Float32]]:
    """Electrode → embeddings (D,) of the units that known sessions had there."""
    found: dict[str, list[Float32]] = {}
    for path in sorted((artifact.path / SESSIONS).glob("*.session")):
        try:
            session = artifact.session(path)
        except PoyoEdgeError:
            continue  # A damaged neighbour is no reason not to calibrate; verify names it.
        for unit, embedding in zip(session.header.unit_ids, session.unit_embedding, strict=True):
            found.setdefault(electrode_of(unit), []).append(embedding)
    return found


def first_guess(
    artifact: Artifact, prior: Prior, unit_ids: Sequence[str], heard: Heard | None = None
) -> Tables:
    """What is known of units before their labels.

    Where training found what units share (``UnitGuess``): that of their electrode, and what their
    unlabelled activity says. Elsewhere units that an electrode had before start at the mean of
    those, and others at the prior's mean.

    Args:
        artifact: with its known sessions.
        prior: of the artifact; its animal is the session's.
        unit_ids: of the new session.
        heard: activity of the units; None, or less than ten seconds, says nothing.
    """
    guess, subject = prior.guess, prior.subject
    if guess is not None:
        enough = heard is not None and np.diff(heard.intervals).sum() >= LEAST_S + _ROUNDING_S
        statistics = guess.statistics_of(unit_ids, subject, heard) if heard and enough else None
        return Tables(
            units=guess.units(unit_ids, subject, statistics),
            session=guess.session(subject),
            from_afar=not guess.knows(unit_ids, subject),
        )
    known = known_units(artifact)
    rows = [
        np.mean(known[name], axis=0) if (name := electrode_of(unit)) in known else prior.unit_mean
        for unit in unit_ids
    ]
    return Tables(units=np.stack(rows), session=prior.session_mean)


def guess_from(artifact: Artifact, prior: Prior, unit_ids: Sequence[str], labels: Labels) -> Tables:
    """``first_guess`` from the activity that came with labels; the labels themselves say nothing,
    so that those of held-out blocks stay unseen.
    """
    heard = Heard(labels.spike_times, labels.spike_rows, labels.stretches)
    return first_guess(artifact, prior, unit_ids, heard)


def nothing_known(begin: Tables, prior: Prior) -> bool:
    """Whether a fit begins with what is true of any unit."""
    return begin.from_afar or bool((begin.units == prior.unit_mean).all())


def from_session(unit_ids: Sequence[str], session: Session, guess: Tables) -> Tables:
    """The embeddings of an earlier session for the units that it has, and ``guess`` for others."""
    row = {unit: i for i, unit in enumerate(session.header.unit_ids)}
    units = guess.units.copy()
    for i, unit in enumerate(unit_ids):
        if unit in row:
            units[i] = session.unit_embedding[row[unit]]
    return Tables(units=units, session=session.session_embedding)
