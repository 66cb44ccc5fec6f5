"""One recalibration in the simulated loop: own labels for each decoder, and the gate for POYO."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from poyo_edge.artifact import Artifact
from poyo_edge.calibration import CalibratedSession, Calibrator, IntentionSettings
from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.simulation.array import ArraySettings, SimulatedArray
from poyo_edge.simulation.calibrating import Calibration, calibrated, labels_of, observed
from poyo_edge.simulation.closed_loop import ClosedLoop
from poyo_edge.simulation.decoding import KnownIntention, LoopDecoding
from poyo_edge.simulation.mornings.recalibrating import Recalibration, recalibrated, refitted
from poyo_edge.simulation.observing import Block, ObservationSettings, observe
from poyo_edge.simulation.person import Person
from poyo_edge.simulation.tasks import TaskSettings

pytestmark = pytest.mark.slow


def tiny_array(tiny: Path) -> SimulatedArray:
    unit_ids = Artifact.open(tiny).session("tiny_a").header.unit_ids
    array = SimulatedArray.draw(ArraySettings(n_units=len(unit_ids)), seed=0)
    array.unit_ids = unit_ids
    return array


def calibration_of(tiny: Path, session: str | None = "tiny_a") -> Calibration:
    return Calibration(
        artifact=tiny, session=session, observation=ObservationSettings(seconds=30.0)
    )


@pytest.fixture(scope="module")
def block() -> Block:
    array = SimulatedArray.draw(seed=1)
    task, settings = TaskSettings(kind="random"), ObservationSettings(seconds=60.0)
    return observe(array, Person(seed=1), task, settings, seed=2)


def test_observed_labels_are_what_was_shown_and_their_lead_is_found(block: Block) -> None:
    made = labels_of(block, IntentionSettings(kind="observation", reaction_s=0.0))
    of = made.labelled
    assert made.report.labelled_s > 57
    np.testing.assert_array_equal(made.values[of], block.velocity[of])
    assert made.report.lead_s == pytest.approx(SimulatedArray.draw(seed=1).delay_s, abs=0.03)
    np.testing.assert_allclose(made.times - block.times, made.report.lead_s, atol=1e-4)


def test_labels_of_an_observation_begin_with_a_whole_window(tiny: Path) -> None:
    labelled = observed(tiny_array(tiny), calibration_of(tiny), seed=0)
    window_s = Artifact.open(tiny).manifest.spec.window_seconds
    assert labelled.times[0] >= window_s
    assert labelled.times[-1] <= labelled.spike_times[-1]
    assert len(labelled.times) > 1300


def test_an_observation_of_no_reach_is_refused(tiny: Path) -> None:
    calibration = dataclasses.replace(
        calibration_of(tiny),
        observation=ObservationSettings(seconds=1.0, reach_s=(2.0, 2.0)),
    )
    with pytest.raises(UsageError, match="trials: expected targets, got none"):
        observed(tiny_array(tiny), calibration, seed=0)


def test_filters_are_fitted_again_and_a_refused_session_stays(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(session: CalibratedSession) -> None:
        raise CheckFailedError("it is slow")

    monkeypatch.setattr(CalibratedSession, "require_good", refuse)
    array, calibration = tiny_array(tiny), calibration_of(tiny)
    decoders = calibrated(array, calibration, seed=0)
    found, told = recalibrated(array, decoders, calibration, Recalibration(seconds=15.0), seed=0)
    assert [one.decoder for one in told] == ["poyo", "wiener", "kalman"]
    poyo, *filters = told
    assert found[0] is decoders[0]
    assert not poyo.taken
    assert poyo.reason == "it is slow"
    assert poyo.r2 is not None
    for before, after, said in zip(decoders[1:], found[1:], filters, strict=True):
        assert type(after) is type(before)
        assert after is not before
        assert said.taken
        assert said.reason == ""
        assert said.labelled_s > 5
    assert poyo.to_json().keys() == filters[0].to_json().keys()


def test_a_session_that_passes_the_gate_decodes_from_then_on(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CalibratedSession, "require_good", lambda _: None)
    array, calibration = tiny_array(tiny), calibration_of(tiny)
    decoders = calibrated(array, calibration, seed=0)[:1]
    found, told = recalibrated(array, decoders, calibration, Recalibration(seconds=15.0), seed=0)
    assert isinstance(found[0], LoopDecoding)
    assert found[0].decoder.session_id == "recalibrated"
    assert told[0].taken
    assert ClosedLoop(array, found[0], seed=1).run(seconds=2.0).decoded.any()


def test_the_session_in_use_is_judged_on_labels_that_it_did_not_learn(tiny: Path) -> None:
    array, calibration = tiny_array(tiny), calibration_of(tiny, None)
    before = observed(array, calibration, seed=0)
    calibrator = Calibrator.open(tiny, array.unit_ids, session_id="observed")
    before.give(calibrator)
    in_use = calibrator.fit()
    run = ClosedLoop(array, KnownIntention(array), seed=1).run(seconds=40.0)
    made = labels_of(run.block(), IntentionSettings(kind="proportional"))
    session = refitted(in_use, before, run.block(), made, calibration, seed=0)
    compared = session.quality.compared
    assert compared is not None
    assert compared.later_only
    # Of 30 s before and some of 40 s after, all but the windows at the blocks' begins.
    assert compared.later_s is not None
    assert 10 < compared.later_s < made.report.labelled_s
    assert session.quality.labelled_s > before.times[-1] - before.times[0]
    assert [one.kind for one in session.quality.labels] == ["observation", "proportional"]


def test_a_length_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="recalibrate_s: expected 5 to 3600 seconds, got 1"):
        Recalibration(seconds=1.0)
