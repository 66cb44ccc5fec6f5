"""A Wiener filter that is mixed with a model: a weight for each spike, by unit and bin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from poyo_edge.errors import UsageError
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.filters.wiener import BIN_S, BINS, bin_counts

UNITS, OUTPUTS, WINDOW_S = 7, 2, 0.8
RNG = np.random.default_rng(0)


def drawn(share: float = 0.3, bins: int = BINS) -> MixedFilter:
    return MixedFilter(
        share=share,
        weights=RNG.normal(size=(UNITS, bins, OUTPUTS)).astype(np.float32),
        bias=RNG.normal(size=OUTPUTS).astype(np.float32),
    )


def window(n: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    times = np.sort(RNG.random(n)) * WINDOW_S
    return RNG.integers(0, UNITS, n).astype(np.int32), times.astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, 200])
@pytest.mark.parametrize("bins", [BINS, 3])
def test_it_is_the_filter_on_binned_counts(n: int, bins: int) -> None:
    filtered, (units, times) = drawn(bins=bins), window(n)
    queries = np.array([0.5, WINDOW_S], np.float32)
    counts = bin_counts(
        times.astype(np.float64), units.astype(np.int64), UNITS, queries.astype(np.float64),
        before=bins,
    ).reshape(2, -1)  # fmt: skip
    alone = counts @ filtered.weights.reshape(-1, OUTPUTS) + filtered.bias
    model = RNG.normal(size=(2, OUTPUTS))
    found = filtered.mixed_with(model, units, times, queries)
    np.testing.assert_allclose(found, 0.7 * model + 0.3 * alone, atol=1e-5)


def test_spikes_at_the_value_or_older_than_the_bins_do_not_count() -> None:
    filtered = drawn(bins=4)
    at = np.array([WINDOW_S, WINDOW_S + 0.01, WINDOW_S - 4 * BIN_S - 1e-3, 0.0], np.float32)
    units, query = np.zeros(len(at), np.int32), np.array([WINDOW_S], np.float32)
    model = np.zeros((1, OUTPUTS))
    nothing = filtered.mixed_with(model, units[:0], at[:0], query)
    np.testing.assert_array_equal(filtered.mixed_with(model, units, at, query), nothing)
    newest = np.array([WINDOW_S - 1e-4], np.float32)
    found = filtered.mixed_with(model, units[:1], newest, query)
    np.testing.assert_allclose(found - nothing, 0.3 * filtered.weights[None, 0, -1], atol=1e-6)


def test_a_batch_with_padding_is_its_windows_one_by_one() -> None:
    filtered, windows = drawn(), [window(n) for n in (0, 5, 60)]
    model = RNG.normal(size=(3, 1, OUTPUTS))
    units, times = np.zeros((3, 60), np.int32), np.zeros((3, 60), np.float32)
    mask, query = np.zeros((3, 60), np.bool_), np.full((3, 1), WINDOW_S, np.float32)
    for i, (unit, time) in enumerate(windows):
        units[i, : len(unit)], times[i, : len(unit)], mask[i, : len(unit)] = unit, time, True
    together = filtered.mixed_with(model, units, times, query, mask)
    for i, (unit, time) in enumerate(windows):
        alone = filtered.mixed_with(model[i], unit, time, query[i])
        np.testing.assert_allclose(together[i], alone, atol=1e-6)


def test_some_units_have_their_rows() -> None:
    filtered, (units, times) = drawn(), window(40)
    rows = np.array([4, 0, 2])
    kept = np.isin(units, rows)
    new = np.full(UNITS, -1, np.int32)
    new[rows] = np.arange(3)
    model, query = np.zeros((1, OUTPUTS)), np.array([WINDOW_S], np.float32)
    np.testing.assert_allclose(
        filtered.of_units(rows).mixed_with(model, new[units[kept]], times[kept], query),
        filtered.mixed_with(model, units[kept], times[kept], query),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("share", "shape", "bias", "message"),
    [
        (0.0, (3, 2, 2), [0, 0], "a share above 0 and at most 1, got 0"),
        (1.1, (3, 2, 2), [0, 0], "got 1.1"),
        (float("nan"), (3, 2, 2), [0, 0], "got nan"),
        (0.5, (3, 2), [0, 0], r"got \(3, 2\)"),
        (0.5, (3, 0, 2), [0, 0], r"got \(3, 0, 2\)"),
        (0.5, (3, 2, 2), [0], r"and \(1,\)"),
        (0.5, (3, 2, 2), [0, np.nan], "finite"),
    ],
)
def test_what_is_no_filter_is_refused(
    share: float, shape: tuple[int, ...], bias: list[float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        MixedFilter(
            share=share, weights=np.ones(shape, np.float32), bias=np.array(bias, np.float32)
        )
