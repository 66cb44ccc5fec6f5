"""Windows without some units or old spikes: what is left is what was there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.teacher import QUICK, adapter, at_mean, lesson, prior

from poyo_edge.calibration import Calibrator
from poyo_edge.calibration.fit.adapter import Weighting, with_short_histories, without_units
from poyo_edge.calibration.fit.fitting import Fit, FitSettings
from poyo_edge.calibration.fit.folds import everything
from poyo_edge.errors import UsageError

FLAT = Weighting(tail_s=0.25, early=1.0)


def test_a_window_keeps_all_spikes_of_the_units_that_it_keeps() -> None:
    made = Calibrator(adapter(), lesson().unit_ids, session_id="a")
    lesson().give(made)
    labels = made._collector.labels()
    batch = adapter().batch(labels, np.arange(40, 60), FLAT)
    some = without_units(batch, labels.n_units, 0.9, np.random.default_rng(0))
    assert some["target"] is batch["target"]
    shares = []
    for i in range(20):
        before, after = batch["spike_mask"][i], some["spike_mask"][i]
        n = int(after.sum())
        assert after[:n].all(), "spikes come before padding"
        kept = set(some["spike_unit"][i][:n].tolist())
        of = before & np.isin(batch["spike_unit"][i], sorted(kept))
        for name in ("spike_unit", "spike_time"):
            assert some[name][i][:n].tolist() == batch[name][i][of].tolist()
        shares.append(n / max(1, before.sum()))
    assert 0.2 < np.mean(shares) < 0.8
    assert max(shares) - min(shares) > 0.3
    none = without_units(batch, labels.n_units, 0.0, np.random.default_rng(0))
    assert np.array_equal(none["spike_mask"], batch["spike_mask"])


def test_a_window_that_begins_late_keeps_what_comes_then() -> None:
    made = Calibrator(adapter(), lesson().unit_ids, session_id="a")
    lesson().give(made)
    labels, window_s = made._collector.labels(), adapter().window_s
    batch = adapter().batch(labels, np.arange(40, 390), FLAT)
    some = with_short_histories(batch, 0.5, window_s, np.random.default_rng(0))
    late, same, begins = 0, 0, []
    for i in range(350):
        before, after = batch["spike_mask"][i], some["spike_mask"][i]
        n = int(after.sum())
        assert after[:n].all(), "spikes come before padding"
        begin = some["spike_time"][i][:n].min()
        of = before & (batch["spike_time"][i] >= begin)
        for name in ("spike_unit", "spike_time"):
            assert some[name][i][:n].tolist() == batch[name][i][of].tolist()
        counts = some["target_weight"][i] > 0
        ends = (batch["query_time"][i] > window_s - 0.1) & (batch["target_weight"][i] > 0)
        assert counts[ends].all(), "the end counts always"
        if n < before.sum():
            late += 1
            begins.append(begin)
            dead = batch["query_time"][i] < begin - 0.05
            assert not counts[dead].any(), "what has heard nothing does not count"
        same += some["target_weight"][i].tolist() == batch["target_weight"][i].tolist()
    assert 130 < late < 210
    assert 140 < same < 210
    assert min(begins) < 0.2 * window_s
    assert 0.6 * window_s < max(begins) < window_s - 0.1
    none = with_short_histories(batch, 0.0, window_s, np.random.default_rng(0))
    assert all(np.array_equal(none[name], batch[name]) for name in batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unit_dropout", "short_histories"])
def test_a_fit_with_it_is_the_same_for_a_seed_and_another_than_without(name: str) -> None:
    def fitted(share: float) -> np.ndarray:
        given: dict[str, Any] = {name: share}
        settings = dataclasses.replace(QUICK, **given)
        made = Calibrator(adapter(), lesson().unit_ids, session_id="a", settings=settings)
        lesson().give(made)
        return np.asarray(made.fit(seed=3).unit_embedding)

    assert np.array_equal(fitted(0.5), fitted(0.5))
    assert not np.array_equal(fitted(0.5), fitted(0.0))


@pytest.mark.slow
def test_windows_begin_late_where_somebody_is_to_control() -> None:
    def moved(held: bool, share: float | None) -> np.ndarray:
        settings = dataclasses.replace(QUICK, short_histories=share)
        made = Calibrator(adapter(), lesson().unit_ids, session_id="a", settings=settings)
        lesson().give(made)
        of = dataclasses.replace(prior(), held=held)
        labels = made._collector.labels()
        fit = Fit(adapter(), of, labels, everything(labels), settings, at_mean(6), seed=[1])
        fit.step()
        return fit.moved["z"]

    assert np.array_equal(moved(False, None), moved(False, 0.0))
    assert np.array_equal(moved(True, None), moved(True, 0.4))
    assert not np.array_equal(moved(True, None), moved(False, None))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="unit_dropout: expected 0 <= share < 1"):
        FitSettings(unit_dropout=share)
    with pytest.raises(UsageError, match="short_histories: expected 0 <= share <= 1 or None"):
        FitSettings(short_histories=share if share != 1.0 else 1.1)
