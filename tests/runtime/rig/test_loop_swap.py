"""Names, rows and sessions travel together while the loop runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.loops import Bench, stream

from poyo_edge.artifact import Session
from poyo_edge.journal import Journal, JournalHeader, JournalWriter, Spikes, swap_of
from poyo_edge.runtime import Status
from poyo_edge.runtime.intake import SessionRows
from poyo_edge.runtime.unit_names import UnitNames

if TYPE_CHECKING:
    from conftest import Rig

BACKWARDS = [*range(11, -1, -1)]


def backwards(session: Session, *, day: str = "") -> Session:
    """The same units in the reverse order, of another day if wanted."""
    ids = [session.header.unit_ids[row] for row in BACKWARDS]
    named = [f"{day}/{one.rpartition('/')[2]}" if day else one for one in ids]
    return dataclasses.replace(
        session,
        header=dataclasses.replace(session.header, session_id="back", unit_ids=tuple(named)),
        unit_embedding=session.unit_embedding[BACKWARDS],
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rows", "ids", "short names"])
def test_a_swap_and_a_revert_look_units_up_again(rig: Rig, tmp_path: Path, kind: str) -> None:
    ids = rig.a.header.unit_ids
    header = JournalHeader(session_id="s", unit_ids=ids, tick_rate_hz=rig.grid_hz)
    journal = JournalWriter(tmp_path / "a.journal", header)
    heard: list[tuple[Any, Any]] = []
    bench = Bench(rig, journal=journal, on_spikes=lambda t, r: heard.append((t, r)))
    other = backwards(rig.a, day="next" if kind == "short names" else "")
    times, rows = stream(rig, 4.5)
    short = np.array([one.rpartition("/")[2] for one in ids])
    units = {"rows": rows, "ids": np.array(ids)[rows], "short names": short[rows]}[kind]
    bench.run(times, units, range(1, 65))
    bench.loop.decoder.swap_session(other)
    bench.run(times, units, range(65, 160))
    assert isinstance(heard[-1][1], SessionRows)
    assert heard[-1][1].table is not None
    assert heard[-1][1].table.unit_ids == other.header.unit_ids
    swapped = bench.out[-1]
    assert swapped.result.status is Status.VALID
    expected = rig.batch(times, 11 - rows, float(swapped.result.t) / rig.grid_hz, other)
    assert np.array_equal(swapped.result.value, expected)
    bench.loop.decoder.revert()
    bench.run(times, units, range(160, 250))
    back = bench.out[-1]
    assert np.array_equal(
        back.result.value, rig.batch(times, rows, float(back.result.t) / rig.grid_hz)
    )
    journal.close()
    entries = list(Journal(journal.path).entries())
    swaps = [swap.session_id for one in entries if (swap := swap_of(one)) is not None]
    assert swaps == ["back", "tiny_a"]
    kept = np.concatenate([one.rows for one in entries if isinstance(one, Spikes)])
    in_use = rows[: len(kept)].copy()
    inside = (times[: len(kept)] >= 1.0) & (times[: len(kept)] < 159 / 64)
    in_use[inside] = 11 - in_use[inside]  # of the session that the journal says was swapped in
    assert np.array_equal(kept, in_use)


def test_an_alias_of_a_unit_that_a_session_lacks_is_unknown_there() -> None:
    names = UnitNames(["d/u1", "d/u2"], {"A": "d/u1", "u2": "d/u1"})
    assert names.rows(["A", "u2"]).tolist() == [0, 0]
    assert names.of(["e/u2", "d/u1"]).rows(["A", "u2"]).tolist() == [1, 1]
    other = names.of(["e/u2", "e/u1"])
    assert other.rows(["A", "u2", "u1"]).tolist() == [-1, -1, 1]
    assert "'A'" in other.unknown
    assert other.of(["d/u1"]).rows(["A"]).tolist() == [0]
