"""The evaluation's protocols and baselines, against torch_brain and by their own rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("torch_brain")

from helpers.paths import TINY as ARTIFACT  # noqa: E402
from helpers.training.tiny_run import TINY  # noqa: E402

from poyo_edge.arrays import Float64  # noqa: E402
from poyo_edge.artifact import Artifact  # noqa: E402
from poyo_edge.errors import RecordingError  # noqa: E402
from poyo_edge.evaluation.baselines import BASELINES, Labelled  # noqa: E402
from poyo_edge.evaluation.evaluate import (  # noqa: E402
    ArtifactDecoder,
    EvaluationSettings,
    _acausal,
    _window_starts,
    evaluate,
)
from poyo_edge.evaluation.pretrained_gru import (  # noqa: E402
    binned,
    decode_session,
    grid_counts,
    pretrain,
)
from poyo_edge.filters.wiener import bin_counts  # noqa: E402
from poyo_edge.metrics import r2_per_dim  # noqa: E402
from poyo_edge.recording import Recording, write_recording  # noqa: E402
from poyo_edge.recording.recording import first_seconds  # noqa: E402
from poyo_edge.simulation.recordings import Simulation, simulate_study  # noqa: E402
from poyo_edge.spec import OutputScale  # noqa: E402
from poyo_edge.training.lazy import LazyRecording  # noqa: E402

SPLIT = np.array([[1.0, 4.3], [6.0, 6.5], [8.0, 9.0], [11.0, 13.5]])


def test_windows_step_as_torch_brains_sampler_does() -> None:
    from torch_brain.data import Interval
    from torch_brain.samplers import SequentialFixedWindowSampler

    sampler = SequentialFixedWindowSampler(
        sampling_intervals={"a": Interval(start=SPLIT[:, 0].copy(), end=SPLIT[:, 1].copy())},
        window_length=1.0,
        step=0.5,
        drop_short=True,
    )
    np.testing.assert_allclose(_window_starts(SPLIT, 1.0), [i.start for i in sampler])


class Starts:
    """Answers every query with the start of its window."""

    spec, behavior = TINY.spec, ""

    def knows(self, recording: Any) -> bool:
        return True

    def decode(self, recording: Any, windows: Sequence[tuple[float, Float64]]) -> Iterator[Float64]:
        for start, queries in windows:
            yield np.full((len(queries), 2), start)


def test_overlapping_predictions_are_averaged_as_torch_brain_stitches() -> None:
    from torch_brain.utils.stitcher import stitch

    times = np.concatenate([np.arange(a, b, 0.05) for a, b in SPLIT])
    found = _acausal(Starts(), None, times, SPLIT)  # type: ignore[arg-type]
    queries, starts = [], []
    for start in _window_starts(SPLIT, 1.0):
        inside = times[(times >= start) & (times < start + 1.0)]
        queries.append(inside)
        starts.append(np.full(len(inside), start))
    unique, mean = stitch(
        torch.from_numpy(np.concatenate(queries)), torch.from_numpy(np.concatenate(starts))
    )
    seen = np.isfinite(found[:, 0])
    np.testing.assert_allclose(times[seen], unique.numpy())
    np.testing.assert_allclose(found[seen, 0], mean.numpy())
    assert not seen[(times >= 6.0) & (times < 6.5)].any()


def test_causal_bins_hold_nothing_at_or_after_the_sample() -> None:
    spikes = np.array([0.51, 0.97, 1.0, 1.2])
    counts = bin_counts(spikes, np.zeros(4, dtype=np.int64), 1, np.array([1.0]))
    assert counts.shape == (1, 1, 10)
    assert counts.sum() == 2 and counts[0, 0, 9] == 1
    both = bin_counts(spikes, np.zeros(4, dtype=np.int64), 1, np.array([1.0]), before=5, after=5)
    assert both.sum() == 3


def tiny_session(folder: Path, unit: str, factor: float) -> Path:
    """A simulated session under the name and unit ids of one of the tiny artifact's."""
    header = Artifact.open(ARTIFACT).session("tiny_a").header
    simulation = Simulation(duration_s=6.0, n_units=len(header.unit_ids))
    (path,) = simulate_study(folder, n_sessions=1, simulation=simulation)
    given = Recording.open(path)
    velocity = given.behavior("cursor.vel")
    return write_recording(
        folder / "a.h5", session_id="tiny_a", subject_id="m", unit_ids=header.unit_ids,
        spike_times=given.spike_times, spike_units=given.spike_units,
        behaviors={"cursor.vel": (velocity.times, velocity.values * factor)},
        domains={"test": [(2.0, 6.0)]}, behavior_units={"cursor.vel": unit},
    )  # fmt: skip


def test_evaluation_compares_units_before_it_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = OutputScale(scale=(10.0,), unit="cm/s")
    monkeypatch.setattr(ArtifactDecoder, "output", lambda self, recording: output)
    settings, said = EvaluationSettings(protocols=("causal",), baselines=(), every=20), list[str]()
    metres = tiny_session(tmp_path, "m/s", 0.01)
    with pytest.raises(RecordingError, match=r"values in cm/s, .* got m/s; run: poyo-edge convert"):
        evaluate(ARTIFACT, [metres], settings, on_step=said.append)
    evaluate(ARTIFACT, [tiny_session(tmp_path, "AU", 0.01)], settings, on_step=said.append)
    assert any("note: tiny_a: the behaviour has" in one and "--behavior-scale" in one
               for one in said)  # fmt: skip
    said.clear()
    evaluate(ARTIFACT, [tiny_session(tmp_path, "cm/s", 1.0)], settings, on_step=said.append)
    assert not any("note" in one for one in said)


def test_what_a_decoder_gave_is_no_truth(tmp_path: Path) -> None:
    settings = EvaluationSettings(behavior="decoded.value", protocols=("causal",), baselines=())
    with pytest.raises(RecordingError, match="behaviour that was measured"):
        evaluate(ARTIFACT, [tiny_session(tmp_path, "cm/s", 1.0)], settings)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("acausal", [False, True])
def test_baselines_decode_and_repeat(tmp_path: Path, name: str, acausal: bool) -> None:
    simulation = Simulation(duration_s=60.0, n_units=20)
    (path,) = simulate_study(tmp_path, n_sessions=1, simulation=simulation)
    recording, lazy = Recording.open(path), LazyRecording.open(path, "cursor.vel", {})

    def labelled(split: str) -> Labelled:
        samples = lazy.samples(recording.intervals(split))
        return Labelled(recording.spike_times, recording.spike_units, 20, *samples)

    train, valid, test = (labelled(split) for split in ("train", "valid", "test"))
    train, turns = train.thinned(700), 1 if acausal else 2
    decoded = [BASELINES[name](train, valid, test, acausal=acausal, seed=1) for _ in range(turns)]
    np.testing.assert_array_equal(decoded[0], decoded[-1])
    assert decoded[0].shape == test.values.shape
    assert r2_per_dim(test.values, decoded[0]).mean() > 0.2


def test_a_pretrained_gru_decodes_by_electrode_and_takes_labels(tmp_path: Path) -> None:
    simulation = Simulation(duration_s=60.0, n_units=20)
    paths = simulate_study(tmp_path, n_sessions=2, simulation=simulation)
    known, new = (LazyRecording.open(path, "cursor.vel", {}) for path in paths)
    sessions = [binned(known, known.domains["train"])[0]]
    found = pretrain(sessions, seed=1, steps=80, hidden=16)
    times, truth = known.samples(known.domains["test"])
    own = r2_per_dim(truth, decode_session(found, known, times, seconds=0)).mean()
    assert own > 0.2
    times, truth = new.samples(new.domains["test"])
    before = r2_per_dim(truth, decode_session(found, new, times, seconds=0)).mean()
    tuned = decode_session(found, new, times, seed=1)
    assert r2_per_dim(truth, tuned).mean() > before + 0.05
    np.testing.assert_array_equal(tuned, decode_session(found, new, times, seed=1))


def test_counts_of_a_grid_are_those_before_each_sample(tmp_path: Path) -> None:
    simulation = Simulation(duration_s=30.0, n_units=5)
    (path,) = simulate_study(tmp_path, n_sessions=1, simulation=simulation)
    lazy = LazyRecording.open(path, "cursor.vel", {})
    cut = lazy.cut(-np.inf, np.inf)
    grid = grid_counts(cut.spike_times, cut.spike_units, 5, 2.0, 100)
    ends: Float64 = 2.0 + 0.05 * np.arange(1, 101, dtype=np.float64)
    expected = bin_counts(cut.spike_times, cut.spike_units, 5, ends, before=1)[:, :, 0]
    assert np.abs(grid - expected).sum() <= 2  # a spike on an edge, by rounding
    assert first_seconds(np.array([[0.0, 3.0], [5.0, 9.0]]), 4.5).tolist() == [[0, 3], [5, 6.5]]
