"""A session from unlabelled activity alone: what training knows of its electrodes and statistics.

Nothing is fitted and nothing can be judged: the session says "unlabelled", and is used by explicit
choice only.

Legend: M spikes, U units, K intervals.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np

from poyo_edge.arrays import Float64, Int64
from poyo_edge.artifact import UNLABELLED, Artifact, Session, SessionHeader
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.calibration.fit.start import first_guess
from poyo_edge.errors import ArtifactError, UsageError
from poyo_edge.unit_guess import LEAST_S, Heard


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
    """A session guessed from activity, and how many of its electrodes training has seen.

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
    return session, prior.guess.knows(unit_ids, subject)
