"""Rows of a stream that are kept in few large pieces."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt

from poyo_edge.columns import Columns

SPIKE = np.dtype([("tick", "<i8"), ("row", "<i4")])


def filled(n: int, *, at_once: int, most: int | None = None) -> Columns:
    kept = Columns(SPIKE, most=most)
    for first in range(0, n, at_once):
        ticks = np.arange(first, min(n, first + at_once))
        kept.add(tick=ticks, row=(2 * ticks).astype(np.int32))
    return kept


def ticks_of(kept: Columns) -> npt.NDArray[np.int64]:
    rows = kept.rows()
    assert (rows["row"] == 2 * rows["tick"]).all()
    return np.asarray(rows["tick"])


def test_all_comes_back_as_it_came_however_it_was_cut() -> None:
    for at_once in (1, 7, 4096, 20_000):
        assert (ticks_of(filled(10_000, at_once=at_once)) == np.arange(10_000)).all()
    assert len(Columns(SPIKE).rows()) == 0


def test_what_is_older_is_forgotten_to_the_tick_and_its_memory_let_go() -> None:
    kept = filled(100_000, at_once=33)
    kept.forget(90_001)
    assert (ticks_of(kept) == np.arange(90_001, 100_000)).all()
    assert len(kept) < 10_000 + 2 * 4096
    kept.forget(5)  # what is forgotten does not come back
    assert ticks_of(kept).min() == 90_001
    kept.forget(1 << 40)
    assert len(kept.rows()) == 0


def test_the_oldest_give_way_to_more_than_fit() -> None:
    kept = filled(100_000, at_once=1000, most=20_000)
    assert len(kept) <= 20_000
    assert ticks_of(kept)[-1] == 99_999


def test_a_copy_is_what_was_there_then() -> None:
    kept = filled(10_000, at_once=100)
    other = kept.copy()
    kept.add(tick=np.array([10_000]), row=np.array([20_000]))
    kept.forget(9000)
    assert (ticks_of(other) == np.arange(10_000)).all()
    other.add(tick=np.array([10_001]), row=np.array([20_002]))
    assert ticks_of(kept)[-1] == 10_000
    assert ticks_of(other)[-1] == 10_001


def test_small_packets_take_the_memory_of_what_is_in_them() -> None:
    tracemalloc.start()
    try:
        kept = filled(100_000, at_once=2)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used < 1.2 * len(kept) * SPIKE.itemsize


def test_what_came_last_is_kept_whole() -> None:
    kept = Columns([("tick", "<i8")])
    kept.add(tick=np.arange(100))
    kept.add(tick=np.arange(100, 20_000))
    kept.forget(19_000)
    assert kept.rows()["tick"].tolist() == list(range(100, 20_000))
    assert kept.copy().rows()["tick"].tolist() == list(range(100, 20_000))
    kept.add(tick=np.array([20_000]))
    kept.forget(19_500)
    assert kept.rows()["tick"].tolist() == list(range(19_500, 20_001))
    assert len(kept) < 10_000
    kept.forget(20_001)
    assert len(kept.rows()) == 0
