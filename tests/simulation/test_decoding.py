"""Decoders in the loop decode what they decode elsewhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.vouched import rewritten

from poyo_edge.artifact import Artifact
from poyo_edge.errors import ArtifactError, CheckFailedError, UsageError
from poyo_edge.filters.wiener import bin_counts
from poyo_edge.metrics import r2_per_dim
from poyo_edge.runtime import Decoder, Status
from poyo_edge.simulation.array import TICK_HZ, ArraySettings, SimulatedArray
from poyo_edge.simulation.calibrating import Calibration, calibrated, require_plane
from poyo_edge.simulation.closed_loop import ClosedLoop
from poyo_edge.simulation.decoding import (
    Decoding,
    KalmanDecoding,
    KnownIntention,
    LoopDecoding,
    WienerDecoding,
)
from poyo_edge.simulation.observing import Block, ObservationSettings, observe
from poyo_edge.simulation.person import Person
from poyo_edge.simulation.step_test import step_test
from poyo_edge.simulation.tasks import TaskSettings

RANDOM = TaskSettings(kind="random")


def tiny_array(tiny: Path, seed: int = 0) -> SimulatedArray:
    """An array with the unit ids of the tiny artifact's session."""
    ids = Artifact.open(tiny).session("tiny_a").header.unit_ids
    drawn = SimulatedArray.draw(ArraySettings(n_units=len(ids)), seed=seed)
    return SimulatedArray(
        drawn.tuning, ids, np.zeros((len(ids), 0)), settings=drawn.settings, seed=seed
    )


@pytest.fixture(scope="module")
def observed() -> tuple[SimulatedArray, Block]:
    array = SimulatedArray.draw(seed=1)
    settings = ObservationSettings(seconds=60.0)
    return array, observe(array, Person(seed=1), RANDOM, settings, seed=2)


@pytest.mark.slow
def test_the_loop_decodes_every_step_as_the_decoder_alone_does(tiny: Path) -> None:
    array = tiny_array(tiny)
    decoding = LoopDecoding(
        Decoder.open(tiny, session="tiny_a", tick_rate_hz=TICK_HZ), array.unit_ids
    )
    alone = Decoder.open(tiny, session="tiny_a", tick_rate_hz=TICK_HZ)
    for k in range(150):
        ticks, rows = array.step(np.array([10.0 * np.sin(k / 10), 5.0]))
        value = decoding.step(array.tick, ticks, rows)
        alone.push(ticks, rows)
        if decoding.last is None:  # a clock begins with a spike, and a grid after it
            assert k < 5
            continue
        expected = alone.decode(array.tick)
        np.testing.assert_array_equal(value, expected.value)
        assert decoding.last is not None
        assert decoding.last.result.t == array.tick
        assert decoding.last.result.status is expected.status
    assert expected.status is Status.VALID
    counters = decoding.loop.counters
    assert (counters.skipped, counters.bad_packets, counters.packets_dropped) == (0, 0, 0)


@pytest.mark.slow
def test_the_loop_begins_anew(tiny: Path) -> None:
    array = tiny_array(tiny)
    decoder = Decoder.open(tiny, session="tiny_a", tick_rate_hz=TICK_HZ)
    decoding = LoopDecoding(decoder, array.unit_ids)
    first, again = (ClosedLoop(array, decoding).run(seconds=4.0) for _ in range(2))
    assert first.decoded.any()
    np.testing.assert_array_equal(first.decoded, again.decoded)


@pytest.mark.slow
def test_a_decoder_in_seconds_or_of_other_units_is_refused(tiny: Path) -> None:
    with pytest.raises(UsageError, match="tick_rate_hz=30000"):
        LoopDecoding(Decoder.open(tiny, session="tiny_a"), ["a"])
    with pytest.raises(UsageError, match="expected one of the array's units, like 'other/u'"):
        decoder = Decoder.open(tiny, session="tiny_a", tick_rate_hz=TICK_HZ)
        LoopDecoding(decoder, ["other/u"])


@pytest.mark.slow
def test_units_that_the_session_lacks_are_left_out_and_named(tiny: Path) -> None:
    array = tiny_array(tiny)
    decoder = Decoder.open(tiny, session="tiny_b", tick_rate_hz=TICK_HZ)
    decoding = LoopDecoding(decoder, array.unit_ids)
    assert 0 < len(decoding.missing) < len(array.unit_ids)
    ClosedLoop(array, decoding).run(seconds=3.0)
    assert decoder.stats()["counters"]["unknown_unit"] > 0


@pytest.mark.slow
def test_the_streamed_wiener_filter_is_the_one_on_whole_recordings(
    observed: tuple[SimulatedArray, Block],
) -> None:
    array, block = observed
    labelled = block.labelled(block.velocity, lead_s=array.delay_s, begins_s=1.0)
    wiener = WienerDecoding.fitted(labelled)
    ticks = np.rint(block.spike_times * TICK_HZ).astype(np.int64)
    ends = np.arange(1, 400) * 600
    edges = np.searchsorted(ticks, [0, *ends])
    rows = block.spike_rows.astype(np.int32)
    streamed = np.array([
        wiener.step(int(end), ticks[a:b], rows[a:b])
        for end, a, b in zip(ends, edges[:-1], edges[1:], strict=True)
    ])  # fmt: skip
    counts = bin_counts(block.spike_times, block.spike_rows, 60, ends / TICK_HZ - 1e-9)
    whole = counts.reshape(len(ends), -1) @ wiener._weights + wiener._bias
    np.testing.assert_allclose(streamed[30:], whole[30:], atol=1e-3)


@pytest.mark.slow
def test_labels_of_observation_decode(observed: tuple[SimulatedArray, Block]) -> None:
    """Moved by the lead they are decoded well, and not moved worse."""
    array, block = observed
    scores = []
    for lead in (array.delay_s, 0.0):
        labelled = block.labelled(block.velocity, lead_s=lead, begins_s=1.0)
        counts = bin_counts(block.spike_times, block.spike_rows, 60, labelled.times)
        wiener = WienerDecoding.fitted(labelled)
        decoded = counts.reshape(len(counts), -1) @ wiener._weights + wiener._bias
        scores.append(r2_per_dim(labelled.values, decoded).mean())
    assert scores[0] > 0.9 > scores[1] + 0.02


@pytest.mark.slow
def test_an_observation_shows_reaches_that_end_on_their_targets() -> None:
    array = SimulatedArray.draw(ArraySettings(n_units=4), seed=0)
    for _ in range(5):
        array.step(np.zeros(2))
    block = observe(array, Person(), RANDOM, ObservationSettings(seconds=20.0), seed=3)
    trials = block.trials
    assert len(trials) > 10
    assert trials.success.all()
    assert trials.start[0] == pytest.approx(0.1)
    assert (trials.go_time >= trials.start + 0.1 - 1e-9).all()
    for end, target in zip(trials.end, trials.target, strict=True):
        near = np.searchsorted(block.times, end)
        np.testing.assert_allclose(block.position[near], target, atol=0.1)
    moved = np.diff(block.position, axis=0) / array.period_s
    np.testing.assert_allclose(moved, (block.velocity[1:] + block.velocity[:-1]) / 2, atol=0.6)
    again = SimulatedArray.draw(ArraySettings(n_units=4), seed=0)
    for _ in range(5):
        again.step(np.zeros(2))
    same = observe(again, Person(), RANDOM, ObservationSettings(seconds=20.0), seed=3)
    np.testing.assert_array_equal(block.spike_times, same.spike_times)


@pytest.mark.slow
def test_wiener_and_kalman_control_a_cursor(observed: tuple[SimulatedArray, Block]) -> None:
    array, block = observed
    labelled = block.labelled(block.velocity, lead_s=array.delay_s, begins_s=1.0)
    for decoding in (WienerDecoding.fitted(labelled), KalmanDecoding.fitted(labelled)):
        assert isinstance(decoding.name, str)
        run = ClosedLoop(array, decoding, seed=1).run(n_trials=8)
        assert run.trials.success.all()


def test_the_step_test_of_a_perfect_decoder() -> None:
    array = SimulatedArray.draw(ArraySettings(n_units=4), seed=0)
    decoding: Decoding = KnownIntention(array)
    found = step_test(array, decoding, command_cm_s=10.0, n_directions=4, repeats=1)
    for gain in (found.peak_gain, found.held_gain_1s):
        assert gain == pytest.approx(1.0)
    for nothing in (found.overshoot, found.rest_sd, found.rest_bias):
        assert nothing == pytest.approx(0.0, abs=1e-9)
    assert found.rise_ms == pytest.approx(1e3 * array.delay_s + 20, abs=20)


@pytest.mark.slow
def test_a_wiener_filter_holds_a_command(observed: tuple[SimulatedArray, Block]) -> None:
    array, block = observed
    labelled = block.labelled(block.velocity, lead_s=array.delay_s, begins_s=1.0)
    found = step_test(array, WienerDecoding.fitted(labelled), repeats=1)
    assert 0.8 < found.held_gain_1s < 1.2
    assert 150 < found.rise_ms < 450
    assert 0.5 < found.rest_sd < 3.0


@pytest.mark.slow
def test_decoders_of_one_array_come_with_a_named_session(tiny: Path) -> None:
    array = tiny_array(tiny)
    calibration = Calibration(
        artifact=tiny, session="tiny_a", observation=ObservationSettings(seconds=30.0)
    )
    decoders = calibrated(array, calibration, seed=0)
    assert [one.name for one in decoders] == ["poyo", "wiener", "kalman"]


@pytest.mark.slow
def test_a_session_that_the_gate_refuses_is_told_to_observe_for_longer(tiny: Path) -> None:
    """There is no --force here: no session is saved."""
    array = tiny_array(tiny)
    tuning = array.tuning
    flat = dataclasses.replace(
        tuning, weights=0 * tuning.weights, speed_weight=0 * tuning.speed_weight
    )
    deaf = SimulatedArray(
        flat, array.unit_ids, np.zeros((len(array.unit_ids), 0)), settings=ArraySettings(), seed=0
    )
    calibration = Calibration(artifact=tiny, observation=ObservationSettings(seconds=20.0))
    with pytest.raises(CheckFailedError) as refused:
        calibrated(deaf, calibration, seed=0)
    assert str(refused.value).endswith("labelled data, or observe for longer (--seconds)")


def test_a_model_that_decodes_no_plane_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_plane(tiny)
    monkeypatch.setattr("poyo_edge.simulation.calibrating.N_DIMS", 3)
    with pytest.raises(ArtifactError, match="a velocity of 3 dimensions, got 2"):
        require_plane(tiny)


@pytest.mark.slow
def test_a_model_of_another_unit_of_speed_is_refused(tiny_copy: Path) -> None:
    """Targets, reach and push are in centimetres."""

    def of(unit: str) -> None:
        rewritten(tiny_copy, lambda values: values["output"].update(unit=unit))

    for unit in ("", "cm/s", "cm per second", "deg/s"):
        of(unit)
        require_plane(tiny_copy)
    of("m/s")
    with pytest.raises(ArtifactError, match=r"decodes cm/s.* got m/s;.*-scale times 100"):
        require_plane(tiny_copy)
