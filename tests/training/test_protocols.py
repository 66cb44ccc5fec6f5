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

from helpers.training.tiny_run import TINY  # noqa: E402

from poyo_edge.arrays import Float64  # noqa: E402
from poyo_edge.evaluation.baselines import BASELINES, Labelled  # noqa: E402
from poyo_edge.evaluation.evaluate import _acausal, _window_starts  # noqa: E402
from poyo_edge.filters.wiener import bin_counts  # noqa: E402
from poyo_edge.metrics import r2_per_dim  # noqa: E402
from poyo_edge.recording import Recording  # noqa: E402
from poyo_edge.simulation.recordings import Simulation, simulate_study  # noqa: E402
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
