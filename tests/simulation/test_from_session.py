"""Arrays that are made from a session and its decoder alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.paths import TINY

from poyo_edge.artifact import Activity, Artifact
from poyo_edge.errors import UsageError
from poyo_edge.runtime import Decoder
from poyo_edge.simulation.array import TICK_HZ
from poyo_edge.simulation.fitted.from_session import array_from_session

pytestmark = pytest.mark.slow


def decoder(*, known: bool) -> Decoder:
    """The tiny model's, with rates or without."""
    session = Artifact.open(TINY).session("tiny_a")
    n = len(session.header.unit_ids)
    activity = Activity(
        rate_hz=np.linspace(2, 20, n, dtype=np.float32),
        rate_sd_hz=np.full(n, 6, np.float32),
        output_low=np.full(2, -15, np.float32), output_high=np.full(2, 15, np.float32),
    )  # fmt: skip
    session = dataclasses.replace(session, activity=activity if known else None)
    return Decoder.open(TINY, session=session, tick_rate_hz=TICK_HZ)


def test_units_have_the_names_and_rates_of_the_record_and_directions_of_their_own() -> None:
    one, again = (array_from_session(decoder(known=True), seed=3) for _ in range(2))
    assert one.unit_ids == decoder(known=True).unit_ids
    assert (one.tuning.base <= np.linspace(2, 20, len(one.unit_ids)) + 1e-6).all()
    assert np.isfinite(one.tuning.weights).all()
    assert (np.abs(one.tuning.weights).sum(1) > 0).all()
    assert np.array_equal(one.tuning.weights, again.tuning.weights)


def test_a_session_without_rates_is_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"knows how its units fired.*calibrate again"):
        array_from_session(decoder(known=False))
