"""What judges a fit: only a difference beyond chance counts, and intervals say how sure it is."""

from __future__ import annotations

import dataclasses

import numpy as np

from poyo_edge.calibration.fit.judging import Judged


def judged(error: float, *, seed: int = 0, n_blocks: int = 6) -> Judged:
    """Truth of unit variance decoded with an error of a given spread."""
    truth = np.random.default_rng(0).standard_normal((60 * n_blocks, 2))
    noise = np.random.default_rng([1, seed]).standard_normal(truth.shape)
    return Judged(
        truth=truth, decoded=truth + error * noise, block=np.repeat(np.arange(n_blocks), 60)
    )


def test_only_a_difference_beyond_chance_is_worse() -> None:
    good, bad = judged(0.3), judged(0.8)
    assert bad.clearly_worse(good)
    assert not good.clearly_worse(bad)
    assert not good.clearly_worse(good)
    assert not judged(0.305).clearly_worse(good), "half a hundredth of R² does not matter"


def with_errors(given: Judged, by_block: dict[int, float]) -> Judged:
    decoded = given.decoded.copy()
    for block, error in by_block.items():
        decoded[given.block == block] += error
    return dataclasses.replace(given, decoded=decoded)


def test_blocks_that_disagree_are_chance() -> None:
    one, other = judged(0.3), judged(0.3)
    one, other = with_errors(one, {0: 1.0, 1: 0.4}), with_errors(other, {2: 1.1, 3: 0.4})
    gap = float((one.r2() - other.r2()).mean())
    assert 0.02 < gap < 0.1
    assert not other.clearly_worse(one)
    everywhere = with_errors(judged(0.3), dict.fromkeys(range(6), 0.3))
    assert 0.02 < (judged(0.3).r2() - everywhere.r2()).mean() < 0.1
    assert everywhere.clearly_worse(judged(0.3))


def test_the_interval_holds_the_figure_and_is_wider_where_blocks_differ() -> None:
    even = judged(0.5)
    uneven = with_errors(even, {1: 0.8, 4: -0.6})
    widths = []
    for given in (even, uneven):
        low, high = given.interval()
        assert (low < given.r2()).all()
        assert (given.r2() < high).all()
        assert np.array_equal(given.interval(), given.interval())
        widths.append(high - low)
    assert (widths[1] > 2 * widths[0]).all()
