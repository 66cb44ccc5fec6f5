"""Held-out blocks in time: nothing that is learned from touches what judges."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.arrays import Float64
from poyo_edge.calibration.fit.checks import least_seconds
from poyo_edge.calibration.fit.folds import Fold, everything, folds
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.errors import UsageError


def labels_at(times: Float64) -> Labels:
    return Labels(
        n_units=1,
        spike_times=np.empty(0),
        spike_rows=np.empty(0, np.int32),
        times=times,
        values=np.zeros((len(times), 2)),
        stretches=np.array([[times[0], times[-1]]]),
    )


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Labels, float, int, int]:
    """Labels long enough to be judged, with holes; window, folds and blocks."""
    window_s = draw(st.sampled_from([0.5, 1.0, 1.5]))
    n_folds = draw(st.integers(2, 5))
    n_blocks = draw(st.integers(n_folds, 12))
    hz = draw(st.sampled_from([7, 10, 16, 25]))
    length = least_seconds(window_s, n_blocks) * draw(st.floats(1.01, 3.0))
    times = draw(st.floats(-50.0, 2000.0)) + np.arange(int(np.ceil(length * hz)) + 1) / hz
    for place, hole_s in draw(
        st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.5, 20.0)), max_size=5)
    ):
        times[int(place * len(times)) :] += hole_s
    return labels_at(times), window_s, n_folds, n_blocks


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(cut=cuts())
def test_no_training_window_touches_a_held_out_block(
    cut: tuple[Labels, float, int, int],
) -> None:
    labels, window_s, n_folds, n_blocks = cut
    for fold in folds(labels, window_s, n_folds=n_folds, n_blocks=n_blocks):
        assert len(fold.train) > 0
        train = labels.times[fold.train]
        for start, end in held_out(labels, fold, window_s):
            touches = (train >= start) & (train - window_s <= end)
            assert not touches.any()


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(cut=cuts())
def test_each_block_judges_once_by_windows_of_its_own(cut: tuple[Labels, float, int, int]) -> None:
    labels, window_s, n_folds, n_blocks = cut
    dealt = folds(labels, window_s, n_folds=n_folds, n_blocks=n_blocks)
    assert len(dealt) == n_folds
    spans: dict[int, tuple[float, float]] = {}
    for number, fold in enumerate(dealt):
        assert len(fold.judge) == len(fold.block) >= 2
        assert (np.diff(fold.judge) > 0).all()
        for block in np.unique(fold.block).tolist():
            assert block not in spans, "one fold judges a block"
            assert block % n_folds == number
            times = labels.times[fold.judge[fold.block == block]]
            spans[block] = (times[0] - window_s, times[-1])
    assert sorted(spans) == list(range(n_blocks))
    for before, after in itertools.pairwise(sorted(spans)):
        assert spans[before][1] < spans[after][0], "windows of two blocks do not meet"


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(cut=cuts())
def test_only_what_is_near_a_held_out_block_is_given_up(
    cut: tuple[Labels, float, int, int],
) -> None:
    labels, window_s, n_folds, n_blocks = cut
    samples_in_window = window_s / np.median(np.diff(labels.times))
    in_block = len(labels.times) / n_blocks
    for fold in folds(labels, window_s, n_folds=n_folds, n_blocks=n_blocks):
        lost = len(labels.times) - len(fold.train)
        n_held = len(np.unique(fold.block))
        assert lost <= n_held * (in_block + samples_in_window + 2)


def held_out(labels: Labels, fold: Fold, window_s: float) -> list[tuple[float, float]]:
    """From the start of the first judged window of each block to its last judged sample."""
    return [
        (times[0] - window_s, times[-1])
        for block in np.unique(fold.block)
        for times in [labels.times[fold.judge[fold.block == block]]]
    ]


def test_blocks_are_dealt_in_turn() -> None:
    labels = labels_at(np.arange(40) / 4)
    first, second = folds(labels, 1.0, n_folds=2, n_blocks=4)
    # Blocks are samples 0 to 9, 10 to 19, …; a window is four samples.
    assert first.judge.tolist() == [*range(4, 10), *range(24, 30)]
    assert first.block.tolist() == [0] * 6 + [2] * 6
    assert first.train.tolist() == [*range(14, 20), *range(34, 40)]
    assert second.judge.tolist() == [*range(14, 20), *range(34, 40)]
    assert second.block.tolist() == [1] * 6 + [3] * 6
    assert second.train.tolist() == [*range(10), *range(24, 30)]


def test_holes_do_not_make_empty_blocks() -> None:
    times = np.arange(40) / 4
    times[20:] += 1000.0
    for fold in folds(labels_at(times), 1.0, n_folds=2, n_blocks=4):
        assert np.bincount(fold.block).max() == 6
        assert len(fold.train) >= 12


def test_a_hole_inside_a_block_is_nobodys_to_learn_from() -> None:
    """Block 0 ends behind a hole; what was learned from must not lie in its window."""
    times = np.arange(40) / 4
    times[8:] += 5.0
    second = folds(labels_at(times), 1.0, n_folds=2, n_blocks=4)[1]
    assert second.train.tolist() == [*range(10), *range(24, 30)]


def test_everything_is_learned_from_and_nothing_judged() -> None:
    whole = everything(labels_at(np.arange(40) / 4))
    assert whole.train.tolist() == list(range(40))
    assert len(whole.judge) == len(whole.block) == 0


@pytest.mark.parametrize(
    ("seconds", "n_folds", "n_blocks"),
    [(4.0, 2, 4), (7.0, 3, 7), (30.0, 1, 4)],
    ids=["a window a block", "blocks shorter than a window", "nothing left to learn from"],
)
def test_too_little_for_the_blocks_is_refused(seconds: float, n_folds: int, n_blocks: int) -> None:
    labels = labels_at(np.arange(round(seconds * 8)) / 8)
    message = (
        f"labels: expected enough for {n_blocks} blocks longer than a window (1.0 s), got "
        f"{labels.seconds:.1f} labelled s"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        folds(labels, 1.0, n_folds=n_folds, n_blocks=n_blocks)
