"""Where a fit begins: the best guess about units that nobody has labelled data of yet.

Legend: M spikes, U units, D model dim, K intervals.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np

from poyo_edge.arrays import Float32, Float64, Int64
from poyo_edge.artifact import SESSIONS, UNLABELLED, Artifact, Session, SessionHeader
from poyo_edge.calibration.fit.fitting import Tables
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.errors import ArtifactError, CheckFailedError, PoyoEdgeError, UsageError
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
    those, and others at the prior's mean. A session in control (``Prior.in_control``) begins as one
    in which movements are held, where training knew such.

    Args:
        artifact: with its known sessions.
        prior: of the artifact; its animal is the session's.
        unit_ids: of the new session.
        heard: activity of the units; None, or less than ten seconds, says nothing.
    """
    guess, subject = prior.guess, prior.subject
    if guess is not None:
        enough = heard is not None and np.diff(heard.intervals).sum() >= LEAST_S + _ROUNDING_S
        statistics = guess.statistics_of(heard, len(unit_ids)) if heard and enough else None
        return Tables(
            units=guess.units(unit_ids, subject, statistics),
            session=guess.session(subject, held=prior.held),
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
    return Tables(units=units, session=session.session_embedding, encoder=session.encoder)


def unlabelled_session(
    artifact: Artifact,
    unit_ids: Sequence[str],
    spike_times: Float64,
    spike_units: Int64,
    intervals: Float64,
    *,
    session_id: str,
    subject: str | None = None,
) -> tuple[Session, int]:
    """A session guessed from activity alone, and how many of its electrodes training has seen.

    Nothing is fitted and nothing can be judged: the session says "unlabelled", and is used by
    explicit choice only.

    Args:
        artifact: of a model whose units share embeddings.
        unit_ids: (U,) of the session.
        spike_times: (M,) ascending seconds.
        spike_units: (M,) rows of ``unit_ids``.
        intervals: (K, 2) seconds in which spikes were recorded; ten seconds at least.
        session_id: its name.
        subject: the animal; None takes electrodes that are called alike in any.

    Raises:
        ArtifactError: the model's units share nothing, or the artifact is damaged.
        UsageError: less than ten seconds.
        CheckFailedError: training has seen none of the electrodes.
    """
    prior = Prior.open(artifact, subject)
    if prior.guess is None:
        raise ArtifactError(
            artifact.path,
            "prior",
            expected="what units of several sessions share",
            got="a model that was trained without it",
            do="train with share_units, like the recipe chronic, or calibrate with labels",
        )
    seconds = float(np.diff(intervals).sum())
    if seconds < LEAST_S:
        raise UsageError(f"seconds: expected at least {LEAST_S:g} s of spikes, got {seconds:.2f} s")
    known = prior.guess.knows(unit_ids, subject)
    if not known:
        whose = "in any animal" if subject is None else f"in {subject}"
        raise CheckFailedError(
            f"{session_id}: expected electrodes that training has seen {whose}, got none of "
            f"{len(unit_ids)}; a guess from activity alone decodes such a session worse than "
            f"holding the mean; calibrate with labels"
        )
    heard = Heard(spike_times, spike_units, intervals)
    tables = first_guess(artifact, prior, unit_ids, heard)
    header = SessionHeader(
        session_id=session_id,
        unit_ids=tuple(unit_ids),
        core_hash=artifact.manifest.core_hash,
        method=UNLABELLED,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
    session = Session(header=header, unit_embedding=tables.units, session_embedding=tables.session)
    return session, known
