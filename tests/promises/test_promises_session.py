"""What docs/reliability.md promises of sessions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from poyo_edge.artifact import activity_of
from poyo_edge.runtime import Decoder, Status

if TYPE_CHECKING:
    from conftest import Rig

RATE_HZ = np.array([3.0, 40.0, 8.0, 25.0, 1.0, 60.0, 5.0, 15.0, 30.0, 2.0, 50.0, 10.0])


def test_R28_the_wrong_session_is_noticed_within_seconds_and_never_valid(rig: Rig) -> None:
    """Two animals with the same short names; then a swap to the right one, and back."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(RATE_HZ * 60)
    times = rng.uniform(0, 60, int(counts.sum()))
    order = np.argsort(times)
    times, rows = times[order], np.repeat(np.arange(12, dtype=np.int32), counts)[order]
    behavior = rng.normal(size=(600, 2)) * 3
    sessions = {}
    for name, row_of in {"right": np.arange(12), "wrong": rng.permutation(12)}.items():
        activity = activity_of(
            times, row_of[rows], behavior,
            n_units=12, stretches=np.array([[0.0, 60.0]]), window_s=1.0,
        )  # fmt: skip
        header = dataclasses.replace(rig.a.header, session_id=name)
        sessions[name] = dataclasses.replace(rig.a, header=header, activity=activity)
    decoder = Decoder(rig.core, sessions["wrong"])
    ends = [0.25 * i for i in range(1, 49)]
    decoded = rig.run(decoder, times, rows, ends)
    assert Status.VALID not in {one.status for one in decoded}
    first = next(one.t for one in decoded if "wrong_session" in one.flags)
    assert first <= 5.0
    assert {one.status for one in decoded if one.t >= first} == {Status.DEGRADED}
    assert "expects unit" in decoder.health()["session_check"]["reason"]

    decoder.swap_session(sessions["right"])
    decoder.push(times[(times >= 12) & (times < 12.25)], rows[(times >= 12) & (times < 12.25)])
    assert decoder.decode(12.25).status is Status.VALID, "what was heard counts"
    decoder.swap_session(sessions["wrong"])
    assert decoder.decode(12.25).status is Status.DEGRADED

    right = Decoder(rig.core, sessions["right"])
    decoded = rig.run(right, times, rows, ends)
    assert {one.status for one in decoded if one.t >= 5.0} == {Status.VALID}
    assert {one.status for one in decoded} == {Status.WARMUP, Status.VALID}
