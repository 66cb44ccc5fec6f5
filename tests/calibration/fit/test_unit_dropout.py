"""Windows that go without some units: what is left is what was there, and fits stay the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.calibrating.teacher import QUICK, adapter, lesson

from poyo_edge.calibration import Calibrator
from poyo_edge.calibration.fit.adapter import Weighting, without_units
from poyo_edge.calibration.fit.fitting import FitSettings
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


@pytest.mark.slow
def test_a_fit_with_it_is_the_same_for_a_seed_and_another_than_without() -> None:
    def fitted(share: float) -> np.ndarray:
        settings = dataclasses.replace(QUICK, unit_dropout=share)
        made = Calibrator(adapter(), lesson().unit_ids, session_id="a", settings=settings)
        lesson().give(made)
        return np.asarray(made.fit(seed=3).unit_embedding)

    assert np.array_equal(fitted(0.5), fitted(0.5))
    assert not np.array_equal(fitted(0.5), fitted(0.0))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="unit_dropout: expected 0 <= share < 1"):
        FitSettings(unit_dropout=share)
