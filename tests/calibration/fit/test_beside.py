"""The Wiener filter beside a session: the same labels, folds and samples, and no cheating."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.calibrating.teacher import LEARN, QUICK, Lesson, T, lesson, linear, run, search

from poyo_edge.arrays import Float64
from poyo_edge.calibration.fit.beside import RIDGES_PER_HZ, wiener_beside
from poyo_edge.calibration.fit.folds import folds
from poyo_edge.calibration.fit.search import Search
from poyo_edge.filters.wiener import SD_FLOOR, bin_counts, ridge_path


def searched(given: Lesson) -> Search:
    return run(search(given, dataclasses.replace(LEARN, steps=1)))


@pytest.mark.slow
def test_behaviour_that_is_linear_in_spikes_is_decoded() -> None:
    found = wiener_beside(searched(linear(lesson(duration_s=120.0))))
    assert found.judged.r2().min() > 0.95
    assert found.wall_s > 0
    assert len(found.ridges) == QUICK.n_folds


def test_it_is_judged_on_what_judges_the_session() -> None:
    searching = searched(linear(lesson()))
    ours, theirs = searching.chosen.judged, wiener_beside(searching).judged
    assert np.array_equal(ours.truth, theirs.truth)
    assert np.array_equal(ours.block, theirs.block)
    assert not np.array_equal(ours.decoded, theirs.decoded)


@pytest.mark.slow
def test_what_judges_a_fold_is_not_learned() -> None:
    """Labels of one block are turned to noise: what is decoded of that block stays as it was."""
    given = linear(lesson())
    searching = searched(given)
    labels = searching.labels
    n_blocks = LEARN.blocks_for(labels.seconds, T)
    first = folds(labels, T, n_folds=LEARN.n_folds, n_blocks=n_blocks)[0]
    block = np.isin(given.times, labels.times[first.judge])
    spoilt = given.values.copy()
    spoilt[block] = np.random.default_rng(1).normal(0, 9, (block.sum(), 2))
    before = wiener_beside(searching).judged
    after = wiener_beside(searched(dataclasses.replace(given, values=spoilt))).judged
    own = np.isin(before.block, first.block)
    assert not np.array_equal(before.truth[own], after.truth[own])
    assert np.array_equal(after.decoded[own], before.decoded[own])
    assert not np.array_equal(after.decoded[~own], before.decoded[~own])


@pytest.mark.slow
def test_noisy_labels_get_a_larger_ridge() -> None:
    given = linear(lesson(duration_s=60.0))
    noise = np.random.default_rng(0).normal(0, 6 * given.values.std(), given.values.shape)
    noisy = dataclasses.replace(given, values=given.values + noise)
    clear = wiener_beside(searched(given)).ridges
    assert np.mean(wiener_beside(searched(noisy)).ridges) > np.mean(clear)
    rate_hz = 10.0
    assert {round(one) for one in clear} <= {round(one * rate_hz) for one in RIDGES_PER_HZ}


@pytest.mark.slow
def test_seconds_of_labels_and_silence_are_enough_for_a_figure() -> None:
    given = linear(lesson())
    few = given.times < 7.0
    short = dataclasses.replace(given, times=given.times[few], values=given.values[few])
    assert np.isfinite(wiener_beside(searched(short)).judged.r2()).all()
    silent = dataclasses.replace(given, spike_rows=np.zeros_like(given.spike_rows))
    assert np.isfinite(wiener_beside(searched(silent)).judged.r2()).all()


@pytest.mark.slow
def test_labels_at_a_high_rate_are_thinned_and_still_judged_alike() -> None:
    given = lesson()
    times = np.arange(0.0, 40.0, 0.002)
    dense = linear(dataclasses.replace(given, times=times, values=np.zeros((len(times), 2))))
    searching = searched(dense)
    found = wiener_beside(searching)
    assert np.array_equal(found.judged.truth, searching.chosen.judged.truth)
    assert found.judged.r2().min() > 0.9


def textbook(x: Float64, y: Float64, ridge: float) -> tuple[Float64, Float64]:
    mean, size = x.mean(0), x.std(0) + SD_FLOOR
    z, level = (x - mean) / size, y.mean(0)
    weights = np.linalg.inv(z.T @ z + ridge * np.eye(x.shape[1])) @ z.T @ (y - level)
    return weights / size[:, None], level - mean @ (weights / size[:, None])


@pytest.mark.parametrize("n_samples", [20, 400])
def test_a_ridge_is_the_textbooks_with_fewer_samples_than_features_too(n_samples: int) -> None:
    given = lesson()
    times = given.times[20:][:n_samples]
    x = bin_counts(given.spike_times, given.spike_rows, 6, times).reshape(len(times), -1)
    y = np.random.default_rng(0).normal(0, 1, (len(times), 2)) + x[:, :2]
    ridges = np.array([10.0, 300.0])
    found = ridge_path(x.astype(np.float64), y, ridges)
    for (weights, bias), ridge in zip(found, ridges, strict=True):
        expected = textbook(x.astype(np.float64), y, float(ridge))
        np.testing.assert_allclose(weights, expected[0], atol=1e-9)
        np.testing.assert_allclose(bias, expected[1], atol=1e-9)
