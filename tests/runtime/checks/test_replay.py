"""Replay is causal: nothing at or after t is read, and R² is over all samples of the split."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.arrays import arrays_of

from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.recording import Recording, write_recording
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.checks.replay import Replay, replay
from poyo_edge.simulation.recordings import Simulation, simulate_recording
from poyo_edge.spec import OutputScale

if TYPE_CHECKING:
    from conftest import Rig

T = 1.0
DURATION_S = 10.0
N_TEST = 100
Arrays = dict[str, Any]
Write = Callable[..., Recording]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """A simulated session, to be written again with other units, spikes or behaviour."""
    path = tmp_path_factory.mktemp("simulated") / "sim.h5"
    simulation = Simulation(duration_s=DURATION_S, n_units=12)
    return arrays_of(simulate_recording(path, session_id="sim", seed=1, simulation=simulation))


@pytest.fixture
def write(rig: Rig, simulated: Arrays, tmp_path: Path) -> Write:
    """Writes the simulated session with some arrays changed, under the tiny session's unit ids."""

    def written(**changes: Any) -> Recording:
        arrays = {**simulated, "unit_ids": rig.a.header.unit_ids, **changes}
        return Recording.open(write_recording(tmp_path / "session.h5", **arrays))

    return written


def replayed(rig: Rig, recording: Recording, **options: Any) -> Replay:
    return replay(rig.decoder(), recording, "cursor.vel", **options)


def by_hand(rig: Rig, recording: Recording, times: npt.NDArray[np.float64]) -> list[Any]:
    """What each window [t - T, t) decodes to, cut from the whole recording."""
    constants = rig.core.constants(rig.a.unit_embedding, rig.a.session_embedding)
    values = []
    for t in times:
        inside = (recording.spike_times >= t - T) & (recording.spike_times < t)
        seconds = (recording.spike_times[inside] - (t - T)).astype(np.float32)
        rows = recording.spike_units[inside].astype(np.int32)
        prediction = rig.core.predict(constants, seconds, rows, np.array([T], np.float32))
        values.append(prediction[0].astype(np.float64) * 10)
    return values


def test_each_sample_is_decoded_from_the_window_before_it(rig: Rig, write: Write) -> None:
    recording = write()
    result = replayed(rig, recording)
    velocity = recording.behavior("cursor.vel")
    inside = recording.within(velocity.times, "test")
    assert np.array_equal(result.times, velocity.times[inside])
    assert np.array_equal(result.truth, velocity.values[inside])
    assert np.array_equal(result.decoded, by_hand(rig, recording, result.times))


def test_another_unit_than_the_models_is_not_scored(rig: Rig, write: Write) -> None:
    manifest = dataclasses.replace(
        rig.core.artifact.manifest, output=OutputScale(scale=(10.0,), unit="cm/s")
    )
    core = dataclasses.replace(
        rig.core, artifact=dataclasses.replace(rig.core.artifact, manifest=manifest)
    )
    for unit in ("cm/s", "AU"):
        recording = write(behavior_units={"cursor.vel": unit})
        assert replay(Decoder(core, rig.a), recording, "cursor.vel").statuses
    with pytest.raises(RecordingError, match=r"values in cm/s, .*, got mm/s; run: poyo-edge conv"):
        recording = write(behavior_units={"cursor.vel": "mm/s"})
        replay(Decoder(core, rig.a), recording, "cursor.vel")


def test_r2_is_per_dimension_over_all_samples_then_the_mean(rig: Rig, write: Write) -> None:
    result = replayed(rig, write())
    for dim in range(2):
        truth, decoded = result.truth[:, dim], result.decoded[:, dim]
        unexplained = sum((a - b) ** 2 for a, b in zip(truth, decoded, strict=True))
        spread = sum((a - truth.mean()) ** 2 for a in truth)
        assert result.r2_per_dim[dim] == pytest.approx(1 - unexplained / spread)
    assert result.r2 == pytest.approx((result.r2_per_dim[0] + result.r2_per_dim[1]) / 2)


@pytest.mark.parametrize("sample", [0, 1, 40, 98])
def test_spikes_at_or_after_t_do_not_change_the_value_at_t(
    rig: Rig, write: Write, simulated: Arrays, sample: int
) -> None:
    before = replayed(rig, write())
    t = before.times[sample]
    spike_times, spike_units = simulated["spike_times"], simulated["spike_units"]
    past = spike_times < t
    # A storm of other spikes from t on, the first of them exactly at t.
    storm = t + np.arange(0, DURATION_S - t, 0.004)
    after = replayed(
        rig,
        write(
            spike_times=np.concatenate([spike_times[past], storm]),
            spike_units=np.concatenate([spike_units[past], np.arange(len(storm)) % 12]),
        ),
    )
    assert np.array_equal(before.decoded[: sample + 1], after.decoded[: sample + 1])
    assert not (before.decoded[sample + 1 :] == after.decoded[sample + 1 :]).any()


def test_nothing_at_or_after_t_is_handed_to_the_decoder(
    rig: Rig, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, ends = [-np.inf], []

    def push(self: Decoder, times: Any, units: Any) -> None:
        newest.extend(times[-1:])

    def decode(self: Decoder, t: float) -> Any:
        assert max(newest) < t
        ends.append(t)
        return real_decode(self, t)

    real_decode = Decoder.decode
    monkeypatch.setattr(Decoder, "push", push)
    monkeypatch.setattr(Decoder, "decode", decode)
    times = replayed(rig, write()).times
    assert ends == times.tolist()
    assert newest[-1] > times[-2]


def test_a_recording_cut_off_at_t_decodes_the_same_value_at_t(
    rig: Rig, write: Write, simulated: Arrays
) -> None:
    whole = replayed(rig, write())
    for sample in (0, 33, 99):
        past = simulated["spike_times"] < whole.times[sample]
        cut = replayed(
            rig,
            write(
                spike_times=simulated["spike_times"][past],
                spike_units=simulated["spike_units"][past],
            ),
        )
        assert np.array_equal(whole.decoded[: sample + 1], cut.decoded[: sample + 1])


@pytest.mark.parametrize("chunk_s", [0.001, 0.0137, 0.5, 100.0])
def test_the_size_of_chunks_changes_nothing(rig: Rig, write: Write, chunk_s: float) -> None:
    recording = write()
    whole, pieces = replayed(rig, recording), replayed(rig, recording, chunk_s=chunk_s)
    assert np.array_equal(whole.decoded, pieces.decoded)
    assert whole.stats["counters"] == pieces.stats["counters"]
    assert whole.stats["statuses"] == pieces.stats["statuses"]


def test_every_spike_heard_is_good_and_the_decoder_is_soon_valid(rig: Rig, write: Write) -> None:
    stats = replayed(rig, write()).stats
    counters = stats["counters"]
    assert counters["received"] == counters["accepted"] > 0
    assert {name for name, count in counters.items() if count} == {"received", "accepted"}
    assert stats["statuses"]["VALID"] == stats["n_decodes"] == N_TEST


def test_samples_that_are_nan_are_left_out(rig: Rig, write: Write, simulated: Arrays) -> None:
    whole = replayed(rig, write())
    times, values = simulated["behaviors"]["cursor.vel"]
    lost = values.copy()
    lost[np.arange(len(times)) % 3 == 0, 1] = np.nan
    result = replayed(rig, write(behaviors={"cursor.vel": (times, lost)}))
    kept = np.isfinite(lost[-N_TEST:]).all(-1)
    assert 0 < kept.sum() < N_TEST
    assert np.array_equal(result.times, whole.times[kept])
    assert np.array_equal(result.decoded, whole.decoded[kept])
    assert np.isfinite(result.r2)


@pytest.mark.parametrize("hole_s", [0.5, 3.0, 59.5, 61.5, 5000.0])
def test_windows_after_a_hole_in_the_split_are_whole(
    rig: Rig, write: Write, simulated: Arrays, hole_s: float
) -> None:
    """The recording goes on in the hole; only the split does not."""
    spike_times, spike_units = simulated["spike_times"], simulated["spike_units"]
    times, values = simulated["behaviors"]["cursor.vel"]
    shift = 6.0 + hole_s
    second = [(2.0, 4.0), (shift + 2.0, shift + 4.0)]
    recording = write(
        spike_times=np.concatenate([spike_times[spike_times < 6], shift + spike_times]),
        spike_units=np.concatenate([spike_units[spike_times < 6], spike_units]),
        behaviors={
            "cursor.vel": (
                np.concatenate([times[times < 6], shift + times]),
                np.concatenate([values[times < 6], values]),
            )
        },
        domains={"test": second},
    )
    result = replayed(rig, recording)
    assert len(result.times) in (200, 201)
    assert np.array_equal(result.decoded, by_hand(rig, recording, result.times))
    assert result.stats["statuses"]["VALID"] == len(result.times)
    assert result.stats["counters"]["future"] == result.stats["counters"]["clock_resets"] == 0


def test_progress_is_reported_for_every_sample(rig: Rig, write: Write) -> None:
    seen: list[tuple[int, int]] = []
    replayed(rig, write(), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, N_TEST) for i in range(1, N_TEST + 1)]


def test_the_figures_are_json_with_these_keys(rig: Rig, write: Write) -> None:
    values = replayed(rig, write()).to_json()
    assert json.loads(json.dumps(values)) == values
    assert set(values) >= {
        "r2",
        "r2_per_dim",
        "n_predictions",
        "protocol",
        "backend",
        "latency_ms",
        "counters",
    }
    assert values["protocol"] == "causal"
    assert (values["n_predictions"], values["session_id"]) == (N_TEST, "tiny_a")
    assert set(values["latency_ms"]) == {"p50", "p90", "p99", "p999", "max"}


def test_units_that_only_the_recording_has_are_ignored_and_counted(rig: Rig, write: Write) -> None:
    ids = [*rig.a.header.unit_ids[:11], "new/unit"]
    recording = write(unit_ids=ids)
    result = replayed(rig, recording)
    heard = recording.spike_times >= result.times[0] - 2 * T
    heard &= recording.spike_times < result.times[-1]
    expected = int((recording.spike_units[heard] == 11).sum())
    assert result.stats["counters"]["unknown_unit"] == expected > 0


def three_dimensional(arrays: Arrays) -> Arrays:
    times, values = arrays["behaviors"]["cursor.vel"]
    return {"behaviors": {"cursor.vel": (times, np.concatenate([values, values], -1)[:, :3])}}


def still_in_one_dimension(simulated: Arrays) -> Arrays:
    times, values = simulated["behaviors"]["cursor.vel"]
    values = values.copy()
    values[:, 1] = 0.5
    return {"behaviors": {"cursor.vel": (times, values)}}


def nan_everywhere(arrays: Arrays) -> Arrays:
    times, values = arrays["behaviors"]["cursor.vel"]
    return {"behaviors": {"cursor.vel": (times, np.full_like(values, np.nan))}}


@pytest.mark.parametrize(
    ("change", "behavior", "split", "message"),
    [
        (
            lambda _: {},
            "cursor.acc",
            "test",
            "cursor.acc: expected one of the behaviours cursor.vel, got a name that is not there; "
            "choose one of them",
        ),
        (
            lambda _: {},
            "cursor.vel",
            "nights",
            "nights_domain: expected one of the splits all, test, train, valid, got 'nights'; "
            "choose one of them or add the split to the recording",
        ),
        (
            lambda _: {"unit_ids": [f"other/unit_{i}" for i in range(12)]},
            "cursor.vel",
            "test",
            "units/id: expected units of session 'tiny_a', like 'tiny_a/unit_00', got none of "
            "them, but units like 'other/unit_0'; "
            "open the decoder with the recording's own session (--session)",
        ),
        (
            three_dimensional,
            "cursor.vel",
            "test",
            "cursor.vel: expected 2 dimensions, as the model decodes, got 3; "
            "name the behaviour that the model was trained on",
        ),
        (
            nan_everywhere,
            "cursor.vel",
            "test",
            "test_domain: expected at least two samples of cursor.vel that are no NaN, "
            "got 0 of 100; choose another split or behaviour",
        ),
        (
            still_in_one_dimension,
            "cursor.vel",
            "test",
            "cursor.vel: expected values that change in the test split, for R², "
            "got a dimension that does not; choose another split or behaviour",
        ),
    ],
)
def test_a_recording_that_does_not_fit_is_refused(
    rig: Rig,
    write: Write,
    simulated: Arrays,
    change: Callable[[Arrays], Arrays],
    behavior: str,
    split: str,
    message: str,
) -> None:
    recording = write(**change(simulated))
    with pytest.raises(RecordingError, match=re.escape(f"{recording.path}: {message}") + "$"):
        replay(rig.decoder(), recording, behavior, split=split)


@pytest.mark.parametrize("chunk_s", [0.0, -1.0, float("nan"), float("inf"), 1e-300, 9.9e-5])
def test_chunks_that_make_no_sense_are_refused(rig: Rig, write: Write, chunk_s: float) -> None:
    message = f"chunk_s: expected finite seconds >= 0.0001 (0.1 ms), got {chunk_s}"
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        replayed(rig, write(), chunk_s=chunk_s)


@pytest.mark.parametrize("chunk_s", [1e-4, 1e300])
def test_the_smallest_and_the_longest_chunks_decode_to_the_same(
    rig: Rig, write: Write, chunk_s: float
) -> None:
    recording = write()
    result = replayed(rig, recording, chunk_s=chunk_s)
    assert np.array_equal(result.decoded, replayed(rig, recording).decoded)
