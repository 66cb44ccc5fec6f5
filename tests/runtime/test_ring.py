"""The ring against a plain list: same spikes, same order, bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.runtime.ring import SpikeRing

Spike = tuple[int, int]
Operation = tuple[str, list[Spike]] | tuple[str, int, int]


class PlainRing:
    """What ``SpikeRing`` should do, one spike at a time."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.spikes: list[Spike] = []

    def append(self, chunk: list[Spike]) -> int:
        together = sorted(self.spikes + chunk)
        self.spikes = together[-self.capacity :]
        return len(together) - len(self.spikes)

    def window(self, start: int, end: int) -> list[Spike]:
        self.spikes = [spike for spike in self.spikes if spike[0] >= start]
        return [spike for spike in self.spikes if spike[0] < end]


def append(ring: SpikeRing, chunk: list[Spike]) -> int:
    ordered = sorted(chunk, key=lambda spike: spike[0])
    times = np.array([time for time, _ in ordered], np.int64)
    rows = np.array([row for _, row in ordered], np.int32)
    return ring.append(times, rows)


def window(ring: SpikeRing, start: int, end: int) -> list[Spike]:
    times, rows = ring.window(start, end)
    return list(zip(times.tolist(), rows.tolist(), strict=True))


def filled(*chunks: list[Spike], capacity: int = 8) -> SpikeRing:
    ring = SpikeRing(capacity, np.int64)
    for chunk in chunks:
        append(ring, chunk)
    return ring


@st.composite
def operations(draw: st.DrawFn) -> list[Operation]:
    """Appends of spikes at times that never repeat, and windows, in any order."""
    times = draw(st.lists(st.integers(0, 60), unique=True, max_size=50))
    result: list[Operation] = []
    while times:
        n = draw(st.integers(1, 14))
        result.append(("append", [(time, time % 5) for time in times[:n]]))
        times = times[n:]
        if draw(st.booleans()):
            start = draw(st.integers(0, 50))
            result.append(("window", start, start + draw(st.integers(0, 20))))
    return result


@settings(deadline=None, max_examples=300)
@given(operations(), st.sampled_from([1, 3, 8, 64]))
def test_the_ring_does_what_a_plain_list_does(script: list[Operation], capacity: int) -> None:
    ring, plain = SpikeRing(capacity, np.int64), PlainRing(capacity)
    for operation in script:
        arguments: Any = operation[1:]
        if operation[0] == "append":
            assert append(ring, *arguments) == plain.append(*arguments)
        else:
            assert window(ring, *arguments) == plain.window(*arguments)
        assert len(ring) == len(plain.spikes)


def test_the_live_part_moves_to_the_front_when_the_buffer_ends() -> None:
    ring = SpikeRing(8, np.int64)
    for time in range(100):
        append(ring, [(time, time % 3)])
        expected = [(t, t % 3) for t in range(max(0, time - 4), time + 1)]
        assert window(ring, time - 4, time + 1) == expected


def test_a_full_ring_keeps_the_newest_even_when_older_ones_come_later() -> None:
    ring = filled([(10 + i, 0) for i in range(8)])
    assert append(ring, [(i, 1) for i in range(10)]) == 10
    assert window(ring, 0, 100) == [(10 + i, 0) for i in range(8)]


@pytest.mark.parametrize(
    ("chunks", "lost_until"),
    [
        ([[(i, 0) for i in range(8)]], None),
        ([[(i, 0) for i in range(9)]], 0),
        ([[(i, 0) for i in range(8)], [(8, 0), (9, 0)]], 1),
        ([[(5, 0)], [(i, 0) for i in range(10, 30)]], 21),
        ([[(20, 0)], [(i, 0) for i in range(9, -1, -1)]], 2),
    ],
)
def test_the_newest_lost_time_is_remembered(
    chunks: list[list[Spike]], lost_until: int | None
) -> None:
    assert filled(*chunks).lost_until == lost_until


def test_a_window_leaves_later_spikes_for_later_windows() -> None:
    ring = filled([(i, 0) for i in range(6)])
    assert window(ring, 2, 4) == [(2, 0), (3, 0)]
    assert ring.forgotten_until == 1
    assert window(ring, 3, 9) == [(3, 0), (4, 0), (5, 0)]
    assert window(ring, 0, 3) == []


def test_a_window_is_a_copy() -> None:
    ring = filled([(1, 0), (2, 0)])
    times, rows = ring.window(0, 9)
    times[:] = rows[:] = 7
    assert window(ring, 0, 9) == [(1, 0), (2, 0)]


@pytest.mark.parametrize(
    ("known", "chunk", "fresh"),
    [
        ([(1, 0), (2, 1)], [(1, 0), (2, 0), (2, 1), (3, 0)], [False, True, False, True]),
        ([(1, 0)], [(5, 2), (5, 2), (5, 3)], [True, False, True]),
        ([(3, 1), (1, 1)], [(1, 1), (2, 1), (3, 1)], [False, True, False]),
        ([], [(4, 0), (4, 1), (4, 0)], [True, True, False]),
    ],
)
def test_repeats_are_found_in_the_ring_and_in_the_chunk(
    known: list[Spike], chunk: list[Spike], fresh: list[bool]
) -> None:
    times = np.array([time for time, _ in chunk], np.int64)
    rows = np.array([row for _, row in chunk], np.int32)
    assert filled(known).without_duplicates(times, rows).tolist() == fresh


def test_remapped_rows_keep_their_times_and_unwanted_ones_go() -> None:
    ring = filled([(4, 0), (1, 1), (3, 2), (2, 1)])
    assert ring.remap(np.array([5, -1, 0], np.int32)) == 2
    assert window(ring, 0, 9) == [(3, 0), (4, 5)]


def test_clear_forgets_everything() -> None:
    ring = filled([(i, 0) for i in range(20)])
    window(ring, 15, 20)
    ring.clear()
    assert len(ring) == 0
    assert ring.lost_until is None
    assert ring.forgotten_until is None
    assert window(ring, 0, 99) == []
