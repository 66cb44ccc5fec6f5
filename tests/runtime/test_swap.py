"""Another session while the stream goes on."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from helpers.loops import reordered

from poyo_edge.artifact import Session
from poyo_edge.errors import SessionError, UsageError
from poyo_edge.runtime import Decoder, Status
from poyo_edge.runtime.intake import SessionRows

if TYPE_CHECKING:
    from conftest import Rig

T = 1.0


def shared_rows(rig: Rig) -> npt.NDArray[np.int32]:
    """Row in session b of each unit of session a, -1 where there is none."""
    units = rig.b.header.unit_ids
    return np.array(
        [units.index(unit) if unit in units else -1 for unit in rig.a.header.unit_ids], np.int32
    )


def test_a_swapped_session_keeps_the_spikes_of_shared_units(rig: Rig) -> None:
    times, rows = rig.stream(400, T)
    decoder = rig.decoder()
    decoder.push([-0.5], [1])
    decoder.push(times, rows)
    assert np.array_equal(decoder.decode(T).value, rig.batch(times, rows, T))
    decoder.swap_session(rig.b)
    new_rows = shared_rows(rig)[rows]
    kept = new_rows >= 0
    assert 0 < kept.sum() < len(kept)
    result = decoder.decode(T)
    assert (result.session_id, result.status) == ("tiny_b", Status.VALID)
    assert np.array_equal(result.value, rig.batch(times[kept], new_rows[kept], T, rig.b))
    assert decoder.stats()["counters"]["session_change"] == int((~kept).sum())


def test_spikes_after_a_swap_are_those_of_the_new_session(rig: Rig) -> None:
    times, rows = rig.stream(300, 2.0)
    rows %= len(rig.b.header.unit_ids)
    first, second = times < 1.0, times >= 1.0
    decoder = rig.decoder()
    decoder.push(times[first], rows[first])
    decoder.swap_session(rig.b)
    decoder.push(times[second], decoder.rows(decoder.unit_ids)[rows[second]])
    result = decoder.decode(2.0)
    assert result.n_spikes == second.sum()
    assert np.array_equal(result.value, rig.batch(times, rows, 2.0, rig.b))
    assert not np.array_equal(result.value, rig.batch(times, rows, 2.0, rig.a))


def test_rows_follow_the_session_in_use(rig: Rig) -> None:
    decoder = rig.decoder()
    ids = ["tiny_a/unit_09", "tiny_a/unit_00", "tiny_b/unit_00"]
    assert decoder.rows(ids).tolist() == [9, 0, -1]
    decoder.swap_session(rig.b)
    assert decoder.rows(ids).tolist() == [0, -1, 6]
    assert decoder.unit_ids == rig.b.header.unit_ids


def test_rows_of_before_a_swap_are_looked_up_again(rig: Rig) -> None:
    times, rows = rig.stream(300, T)
    other = reordered(rig.a, [*range(11, -1, -1)])
    decoder = rig.decoder()
    early = decoder.rows(decoder.unit_ids)[rows]
    decoder.push([-0.5], [1])
    decoder.swap_session(other)
    decoder.push(times[:150], early[:150])
    decoder.push(times[150:], decoder.rows(rig.a.header.unit_ids)[rows[150:]])
    result = decoder.decode(T)
    assert result.status is Status.VALID
    assert np.array_equal(result.value, rig.batch(times, 11 - rows, T, other))
    decoder.swap_session(rig.b)
    decoder.push([T + 0.25] * 300, early)
    kept = np.unique(shared_rows(rig)[rows])
    assert decoder.decode(2.25).n_spikes == (kept >= 0).sum()


def test_integers_after_a_swap_to_other_units_are_refused_and_flagged(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    times, rows = rig.stream(1200, 4.0)
    other = reordered(rig.a, [*range(11, -1, -1)])
    decoder = rig.decoder()
    decoder.push([-0.5], [1])
    rig.run(decoder, times, rows, [1.0])
    decoder.swap_session(other)
    decoder.push(times[:0], rows[:0])
    assert decoder.decode(1.0).status is Status.VALID, "those of before the swap are whole"
    known = decoder.rows(rig.a.header.unit_ids)
    rig.run(decoder, times[times >= 1.0], known[rows[times >= 1.0]], [1.5])
    decoder.push([1.0, 1.25], rows[:2].tolist())
    result = decoder.decode(1.5)
    assert (result.status, result.flags) == (Status.DEGRADED, ("stale_rows", "unverified"))
    counters = decoder.stats()["counters"]
    assert counters["stale_rows"] == counters["unknown_unit"] == 2
    assert len([one for one in caplog.messages if "rows(unit_ids)[integers]" in one]) == 1
    decoder.revert()
    again = [(times >= a) & (times < b) for a, b in ((1.5, 2.25), (2.25, 2.75))]
    for part, end in zip(again, (2.25, 2.75), strict=True):
        decoder.push(times[part], rows[part])
        flags = decoder.decode(end).flags
        assert ("stale_rows" in flags) == (end == 2.25)


def test_integers_are_taken_by_a_session_of_the_same_units(rig: Rig) -> None:
    times, rows = rig.stream(300, T)
    decoder = rig.decoder()
    decoder.swap_session(dataclasses.replace(rig.a, session_embedding=-rig.a.session_embedding))
    decoder.push([-0.5], [1])
    decoder.push(times, rows.tolist())
    assert decoder.decode(T).status is Status.VALID


def test_rows_know_their_units_through_what_numpy_does_to_them(rig: Rig) -> None:
    decoder = rig.decoder()
    rows = decoder.rows(decoder.unit_ids)
    for one in (rows[2:5], rows[rows > 3], rows.copy(), rows.astype(np.int64), np.sort(rows)):
        assert isinstance(one, SessionRows)
        assert one.table is decoder.units
    decoder.swap_session(reordered(rig.a, [*range(11, -1, -1)]))
    strange = rows[:3].copy()
    strange[:] = -1, 12, 0
    assert decoder.units.as_rows(strange).tolist() == [-1, -1, 11]


def unusable_sessions(rig: Rig) -> dict[str, tuple[Session, str, str]]:
    """Name → session, what is said about it in memory, and what about it as a file."""
    nan, inf = rig.b.unit_embedding.copy(), np.full_like(rig.b.session_embedding, np.inf)
    nan[3, 3] = np.nan
    other_core = dataclasses.replace(rig.b.header, core_hash="0" * 64)
    change = dataclasses.replace
    return {
        "core": (
            change(rig.b, header=other_core),
            f"session 'tiny_b': expected one made for core {rig.b.header.core_hash[:12]}, "
            f"got 000000000000; use a session that was made for this artifact",
            f"core_hash: expected {rig.b.header.core_hash[:12]}, got 000000000000; "
            f"use the artifact that the session was made for",
        ),
        "NaN": (
            change(rig.b, unit_embedding=nan),
            "unit_embedding: expected finite values, got NaN or Inf",
            "unit_embedding: expected finite values, got 1 NaN or Inf",
        ),
        "Inf": (
            change(rig.b, session_embedding=inf),
            "session_embedding: expected finite values, got NaN or Inf",
            "session_embedding: expected finite values, got 16 NaN or Inf",
        ),
        "width": (
            change(rig.b, unit_embedding=rig.b.unit_embedding[:, :5]),
            "unit_embedding: expected shape (10, 16), got (10, 5)",
            "unit_embedding: expected float32 (10, 16), got float32 (10, 5)",
        ),
    }


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("wrong", ["core", "NaN", "Inf", "width"])
def test_a_session_that_cannot_be_used_leaves_the_old_one_in_place(
    rig: Rig, tiny: Path, tmp_path: Path, wrong: str, as_file: bool
) -> None:
    times, rows = rig.stream(100, T)
    decoder = rig.decoder()
    decoder.push(times, rows)
    expected = decoder.decode(T).value
    session, in_memory, in_file = unusable_sessions(rig)[wrong]
    given: Session | Path = tmp_path / "bad.session" if as_file else session
    session.save(tmp_path / "bad.session")
    error, message = (SessionError, in_file) if as_file else (UsageError, in_memory)
    with pytest.raises(error, match=re.escape(message)):
        decoder.swap_session(given)
    with pytest.raises(error, match=re.escape(message)):
        Decoder.open(tiny, given)
    after = decoder.decode(T)
    assert (after.session_id, after.n_spikes) == ("tiny_a", 100)
    assert np.array_equal(after.value, expected)
