"""Labelled data as it arrives: what is kept, what is left out, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.pieces import (
    DURATION_S,
    HZ,
    IDS,
    Piece,
    T,
    between,
    collected,
    recording,
    same,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.calibration.fit.labels import LabelCollector
from poyo_edge.errors import UsageError


def cut_after_samples(numbers: Sequence[int]) -> list[float]:
    """Edges just behind some samples, and those of the whole."""
    inner = sorted({number / HZ + 1e-6 for number in numbers})
    return [0.0, *inner, DURATION_S]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 100),
    cuts=st.lists(st.integers(0, int(DURATION_S * HZ) - 1), max_size=40),
    order=st.randoms(use_true_random=False),
)
def test_pieces_in_any_order_are_the_whole(seed: int, cuts: list[int], order: Any) -> None:
    whole = recording(seed)
    pieces = [between(whole, *edges) for edges in itertools.pairwise(cut_after_samples(cuts))]
    order.shuffle(pieces)
    assert same(collected(pieces).labels(), collected([whole]).labels())


@settings(deadline=None, max_examples=40)
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 119), st.integers(1, 60)).map(lambda s: (s[0], s[0] + s[1])),
        max_size=8,
    ),
)
def test_pieces_that_overlap_count_once(spans: list[tuple[int, int]]) -> None:
    whole = recording()
    halves = [between(whole, 0.0, 3.0), between(whole, 3.0, DURATION_S)]
    more = [between(whole, a / HZ - 1e-6, b / HZ + 1e-6) for a, b in spans]
    assert same(collected([*halves, *more]).labels(), collected([whole]).labels())


def test_one_sample_at_a_time_is_the_whole() -> None:
    whole = recording()
    edges = cut_after_samples(range(int(DURATION_S * HZ)))
    pieces = [between(whole, *edges) for edges in itertools.pairwise(edges)]
    assert len(pieces) > 100
    assert same(collected(pieces).labels(), collected([whole]).labels())


def test_chunks_of_any_small_size_are_the_whole() -> None:
    whole = recording()
    edges = np.arange(0, DURATION_S + 0.03, 0.03).tolist()
    pieces = [between(whole, *edges) for edges in itertools.pairwise(edges)]
    assert same(collected(pieces).labels(), collected([whole]).labels())


def test_spikes_of_a_piece_may_come_in_any_order() -> None:
    whole = recording()
    shuffled = np.random.default_rng(1).permutation(len(whole.spike_times))
    piece = whole._replace(
        spike_times=whole.spike_times[shuffled], spike_units=whole.spike_units[shuffled]
    )
    labels = collected([piece]).labels()
    assert same(labels, collected([whole]).labels())
    assert (np.diff(labels.spike_times) >= 0).all()


def test_samples_count_once_their_window_is_whole() -> None:
    labels = collected([recording()]).labels()
    assert labels.times[0] == T
    assert labels.times[-1] == DURATION_S - 1 / HZ
    assert len(labels.times) == len(labels.values) == (DURATION_S - T) * HZ
    assert len(labels.spike_times) == 300, "spikes of the first window are kept"
    assert labels.stretches[0, 0] == 0.0


def test_after_a_hole_a_window_has_to_fill_again() -> None:
    whole = recording()
    labels = collected([between(whole, 0.0, 2.0), between(whole, 3.0, 6.0)]).labels()
    kept = np.arange(int(DURATION_S * HZ)) / HZ
    expected = kept[((kept >= 1.0) & (kept < 2.0)) | (kept >= 4.0)]
    assert np.array_equal(labels.times, expected)
    assert len(labels.stretches) == 2
    assert labels.stretches[1, 0] == 3.0


def test_what_fills_a_hole_later_makes_windows_whole() -> None:
    whole = recording()
    collector = collected([between(whole, 0.0, 2.0), between(whole, 3.0, DURATION_S)])
    before = len(collector.labels().times)
    collector.add(*between(whole, 2.0, 3.0))
    assert len(collector.labels().times) == before + 2 * HZ
    assert same(collector.labels(), collected([whole]).labels())


def test_spikes_alone_make_the_window_before_a_label_whole() -> None:
    whole = recording()
    early = between(whole, 0.0, 2.0)._replace(behavior_times=[], behavior=np.empty((0, 2)))
    labels = collected([early, between(whole, 2.0, DURATION_S)]).labels()
    assert labels.times[0] == 2.0


def test_rare_labels_do_not_make_a_hole_whole() -> None:
    spikes = np.concatenate([np.arange(t - 0.25, t, 0.01) for t in range(3, 12, 2)])
    pieces = [
        Piece(spikes[i * 25 : (i + 1) * 25], np.zeros(25, int), [t], [[0.0, 1.0]])
        for i, t in enumerate(range(3, 12, 2))
    ]
    assert len(collected(pieces).labels().times) == 0, "0.75 s before each label are unheard"


def test_the_same_piece_twice_changes_nothing() -> None:
    whole = recording()
    assert same(collected([whole, whole]).labels(), collected([whole]).labels())


def test_of_two_samples_at_a_time_the_later_piece_wins() -> None:
    whole = recording()
    corrected = between(whole, 2.0, 3.0)
    corrected = corrected._replace(behavior=corrected.behavior + 5.0)
    labels = collected([whole, corrected]).labels()
    changed = (labels.times >= 2.0) & (labels.times < 3.0)
    before = collected([whole]).labels().values
    assert np.array_equal(labels.values[changed], before[changed] + 5.0)
    assert np.array_equal(labels.values[~changed], before[~changed])


def test_equal_spikes_count_once_but_two_units_may_fire_together() -> None:
    piece = Piece([0.5, 0.5, 0.5, 0.75], [2, 0, 2, 1], [0.0, 1.0], np.zeros((2, 2)))
    labels = collected([piece]).labels()
    assert labels.spike_times.tolist() == [0.5, 0.5, 0.75]
    assert labels.spike_rows.tolist() == [0, 2, 1]


def test_units_may_be_named_instead_of_counted() -> None:
    whole = recording()
    named = whole._replace(spike_units=[IDS[row] for row in whole.spike_units])
    assert same(collected([named]).labels(), collected([whole]).labels())


def test_spikes_of_unknown_units_are_counted_and_left_out() -> None:
    whole = recording()
    rows = whole.spike_units.copy()
    rows[:7], rows[7:9] = 3, -1
    collector = collected([whole._replace(spike_units=rows)])
    assert collector.unknown_spikes == 9
    assert np.array_equal(collector.labels().spike_times, whole.spike_times[9:])
    names = np.array([*IDS, "stranger"])[np.where(rows < 0, 3, rows)]
    collector.add(*whole._replace(spike_units=names))
    assert collector.unknown_spikes == 18


def test_labelled_seconds_leave_holes_out() -> None:
    whole = recording()
    assert collected([whole]).labels().seconds == pytest.approx(5.0)
    assert collected([whole]).labels().period == pytest.approx(1 / HZ)
    parts = [between(whole, 0.0, 2.0), between(whole, 3.0, 6.0)]
    assert collected(parts).labels().seconds == pytest.approx(3.0, abs=1.1 / HZ)
    assert collected([between(whole, 0.0, 0.5)]).labels().seconds == 0.0


def test_silent_units_are_those_without_a_spike() -> None:
    whole = recording()
    rows = np.where(whole.spike_units == 1, 0, whole.spike_units)
    assert collected([whole._replace(spike_units=rows)]).labels().silent() == [1]
    assert collected([whole], [*IDS, "d", "e"]).labels().silent() == [3, 4]


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0, 2.5, 2.95, 5.0, 99.0])
def test_the_first_seconds_are_a_beginning_of_all(seconds: float) -> None:
    whole = recording()
    labels = collected([between(whole, 0.0, 2.0), between(whole, 2.5, DURATION_S)]).labels()
    part = labels.until(seconds)
    count = len(part.times)
    assert np.array_equal(part.times, labels.times[:count])
    assert np.array_equal(part.values, labels.values[:count])
    assert part.seconds <= seconds + 1e-9
    assert part.seconds >= min(seconds, labels.seconds) - 1.1 / HZ
    if count:
        assert np.array_equal(
            part.spike_times, labels.spike_times[labels.spike_times < part.times[-1]]
        )
        assert part.stretches.max() == part.times[-1]
    else:
        assert len(part.spike_times) == len(part.stretches) == 0


def test_the_first_seconds_are_what_was_there_by_then() -> None:
    whole = recording()
    early = collected([between(whole, 0.0, 3.0)]).labels()
    part = collected([whole]).labels().until(early.seconds)
    assert np.array_equal(part.times, early.times)
    assert np.array_equal(part.values, early.values)


def test_some_units_keep_their_spikes_under_new_rows() -> None:
    labels = collected([recording()]).labels()
    part = labels.of_units(np.array([2, 0]))
    assert part.n_units == 2
    for new, old in enumerate([2, 0]):
        assert np.array_equal(
            part.spike_times[part.spike_rows == new], labels.spike_times[labels.spike_rows == old]
        )
    assert len(part.spike_times) == (labels.spike_rows != 1).sum()
    assert np.array_equal(part.values, labels.values)
    everyone = labels.of_units(np.arange(3))
    assert same(everyone, labels)


def test_nothing_given_is_said_so() -> None:
    message = "labels: expected labelled data, got none; call add with spikes and behaviour"
    with pytest.raises(UsageError, match=f"^{message}$"):
        LabelCollector(IDS, 2, T).labels()
