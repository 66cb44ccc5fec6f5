"""A Wiener filter on the same labels, mixed in where held-out blocks are decoded better so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.calibrating.teacher import SOUND, Lesson, drifted, lesson, mixed
from helpers.paths import TINY

from poyo_edge.arrays import Float64
from poyo_edge.artifact import Session
from poyo_edge.calibration import CalibratedSession, FitSettings
from poyo_edge.calibration.fit.beside import (
    USUAL_FROM_AFAR,
    best_share,
    mix,
    wiener_beside,
)
from poyo_edge.calibration.fit.judging import Judged
from poyo_edge.calibration.fit.search import Search
from poyo_edge.runtime import Decoder

PLAIN = dataclasses.replace(SOUND, mix=False)


def half_linear() -> Lesson:
    """What the teacher decodes, and less that is linear in spikes of half a second."""
    return mixed(0.3, duration_s=60.0)


def fitted(given: Lesson, settings: FitSettings = SOUND, **how: object) -> CalibratedSession:
    return given.calibrator(settings).fit(start=given.truth, **how)  # type: ignore[arg-type]


def test_it_is_mixed_in_where_that_decodes_held_out_blocks_better(tmp_path: Path) -> None:
    given = half_linear()
    session, plain = fitted(given), fitted(given, PLAIN)
    quality = session.quality
    assert plain.wiener is None and plain.quality.wiener_share == 0
    assert plain.quality.r2_unmixed is None
    assert session.wiener is not None
    assert 0 < session.wiener.share == quality.wiener_share == session.header.wiener_share <= 0.5
    assert quality.r2_unmixed == plain.quality.r2_heldout
    assert quality.r2_heldout > plain.quality.r2_heldout + 0.01
    assert quality.r2_heldout == pytest.approx(np.mean(quality.r2_per_dim))
    assert all(low < high for low, high in quality.r2_interval)
    assert quality.wiener is not None and quality.wiener.use == "session"
    values = quality.to_json()
    assert values["wiener_share"] == session.wiener.share
    assert values["r2_unmixed"] == round(plain.quality.r2_heldout, 6)
    assert np.array_equal(session.unit_embedding, plain.unit_embedding), (
        "the model's part is as it was"
    )
    session.save(tmp_path / "mixed.session", force=True)
    assert Session.open(tmp_path / "mixed.session").digest == session.digest != plain.digest


def test_a_decoder_adds_it_to_each_value() -> None:
    given = half_linear()
    session = fitted(given)
    assert session.wiener is not None
    adapter, labels = given.calibrator()._adapter, given.labels()
    some = np.arange(20, len(labels.times), 37)
    tables = (session.unit_embedding, session.session_embedding, session.encoder)
    expected = adapter.predict(labels, some, *tables, session.wiener)
    assert np.abs(expected - adapter.predict(labels, some, *tables)).max() > 0.1
    decoder = Decoder.open(TINY, session=session)
    decoder.push(labels.spike_times, labels.spike_rows.astype(np.int64))
    found = np.array([decoder.decode(float(t)).value for t in labels.times[some]])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    decoder.swap_session(dataclasses.replace(session, wiener=None))
    decoder.reset()
    decoder.push(labels.spike_times, labels.spike_rows.astype(np.int64))
    without = decoder.decode(float(labels.times[some[0]])).value
    np.testing.assert_allclose(without, adapter.predict(labels, some[:1], *tables)[0], atol=1e-4)


def test_what_the_model_decodes_without_error_is_left_as_it_is() -> None:
    session = fitted(lesson())
    assert session.quality.r2_heldout > 0.9
    assert session.wiener is None and session.quality.wiener_share == 0
    assert session.header.wiener_share == 0 and session.quality.r2_unmixed is None


def test_a_session_in_use_is_judged_with_its_filter() -> None:
    given = half_linear()
    session = fitted(given)
    header = dataclasses.replace(session.header, session_id="yesterday", method="checkpoint")
    in_use = Session(
        header=header, unit_embedding=session.unit_embedding,
        session_embedding=session.session_embedding, wiener=session.wiener,
    )  # fmt: skip
    alone = dataclasses.replace(in_use, wiener=None)
    judged = [fitted(given, in_use=one).quality for one in (in_use, alone)]
    with_it, without = (quality.r2_in_use or 0.0 for quality in judged)
    assert with_it > without + 0.01
    for quality in judged:
        assert quality.compared is not None
        assert quality.compared.r2 == pytest.approx(quality.r2_heldout)


def searched() -> Search:
    """Behind a fit to half linear behaviour that mixed nothing."""
    given = half_linear()
    calibrator = given.calibrator(PLAIN)
    calibrator.fit(start=given.truth)
    assert calibrator._last is not None
    return calibrator._last


def judged_by(blocks: int, noise: float) -> tuple[Judged, Float64]:
    """What a model decodes with an error of half the behaviour's sd, and a filter with more."""
    rng, scale = np.random.default_rng(2), np.array([1.0, 50.0])
    truth = rng.normal(size=(400, 2)) * scale
    errors = rng.normal(size=(2, 400, 2)) * scale
    block = np.arange(400) * blocks // 400
    model = Judged(truth=truth, decoded=truth + 0.5 * errors[0], block=block)
    return model, truth + noise * errors[1]


def test_the_share_is_that_of_least_squares() -> None:
    model, other = judged_by(20, 0.8)

    def error(share: float) -> float:
        decoded = (1 - share) * model.decoded + share * other
        return float((((model.truth - decoded) / model.truth.std(0)) ** 2).sum())

    found = best_share(model, other)
    assert 0.2 < found < 0.4
    assert error(found) <= min(error(found - 0.03), error(found + 0.03))
    assert best_share(model, model.decoded) == 0.0, "the same again says nothing"
    assert best_share(model, model.decoded + 10 * (model.decoded - model.truth)) == 0.0
    assert best_share(model, model.truth) == 0.5, "at least half is the model's"


def test_a_share_that_blocks_do_not_tell_is_the_usual_one() -> None:
    assert best_share(*judged_by(1, 0.8)) == 0.15
    model, other = judged_by(4, 0.8)
    twice = np.where((model.block < 2)[:, None], 2.0, 0.5)  # two blocks for it, two against
    torn = best_share(model, model.truth + twice * (other - model.truth))
    certain = best_share(*judged_by(20, 0.8))
    assert 0.0 < torn < certain


def test_units_of_another_animal_leave_more_to_the_filter() -> None:
    assert best_share(*judged_by(1, 0.8), USUAL_FROM_AFAR) == 0.4
    model, _ = judged_by(20, 0.8)
    assert best_share(model, model.truth, USUAL_FROM_AFAR) == 0.8
    found = searched()
    chosen, beside = found.chosen, wiener_beside(found)
    shares = []
    for from_afar in (False, True):
        found.start = dataclasses.replace(found.start, from_afar=from_afar)
        assert mix(found, beside)
        mixed = found.chosen.tables[-1].wiener
        assert mixed is not None
        shares.append(mixed.share)
        found.settle_on(chosen)
    assert shares[0] < shares[1]


def test_a_model_that_decodes_nothing_by_itself_is_told() -> None:
    given = half_linear()
    session = given.calibrator(SOUND).fit(start=drifted(given.truth, 0.5))
    quality = session.quality
    assert quality.r2_unmixed is not None
    assert quality.r2_unmixed <= 0 < quality.r2_heldout
    assert quality.wiener_share == 0.5
    assert any("mixed in carries this session" in note for note in quality.notes)


def test_nothing_is_mixed_that_decodes_held_out_blocks_no_better() -> None:
    found = searched()
    chosen, beside = found.chosen, wiener_beside(found)
    truth = chosen.judged.truth
    mean = np.broadcast_to(truth.mean(0), truth.shape)
    for useless in (-5.0 * chosen.judged.decoded, mean + 0.01 * (truth - mean)):
        judged = dataclasses.replace(beside.judged, decoded=useless)
        assert not mix(found, dataclasses.replace(beside, judged=judged))
        assert found.chosen is chosen
    assert mix(found, beside)
    assert found.chosen.point.r2 > chosen.point.r2
    assert found.chosen.point.step == chosen.point.step
