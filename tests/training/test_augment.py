"""Windows of like pieces: their spikes, their labels, and that they are the same again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="windows are cut with torch_brain")
pytest.importorskip("lightning", reason="windows are cut with torch_brain")
pytest.importorskip("torch_brain", reason="windows are cut with torch_brain")

from helpers.training.tiny_run import TINY, tiny_study

from poyo_edge.errors import UsageError
from poyo_edge.recording import write_recording
from poyo_edge.training.augment import Pieces
from poyo_edge.training.lazy import LazyRecording
from poyo_edge.training.start import prepare
from poyo_edge.training.windows import Draw

STATES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [-10.0, 0.0]])
LEAD_S, BLOCK_S, END_S = 0.1, 0.4, 60.0


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> LazyRecording:
    """Velocities that change each 0.4 s; unit k fires at 100 Hz 0.1 s before state k, k < 4."""
    rng = np.random.default_rng(0)
    states = rng.integers(4, size=round(END_S / BLOCK_S))
    times = np.arange(0, END_S - 0.02, 0.02) + 0.012
    ticks = np.arange(0, END_S - LEAD_S, 0.01) + 0.005
    path = write_recording(
        tmp_path_factory.mktemp("blocks") / "a.h5",
        session_id="a",
        subject_id="nobody",
        unit_ids=[f"a/{k}" for k in range(4)],
        spike_times=ticks,
        spike_units=states[((ticks + LEAD_S) / BLOCK_S).astype(np.int64)],
        behaviors={
            "cursor.vel": (times, STATES[states[(times / BLOCK_S).astype(np.int64)]]),
        },
        domains={"train": [(10.0, 50.0)]},
    )
    return LazyRecording.open(path, "cursor.vel", {})


@pytest.fixture(scope="module")
def pieces(blocks: LazyRecording) -> Pieces:
    return Pieces.of(blocks, np.array([[10.0, 50.0]]), 0.1, LEAD_S)


def states_of(values: np.ndarray) -> np.ndarray:
    away = ((values[:, None] - STATES) ** 2).sum(-1)
    assert away.min(axis=1).max() < 1e-9
    return np.asarray(away.argmin(axis=1))


def test_labels_of_a_window_go_with_the_spikes_that_lead_them(pieces: Pieces) -> None:
    held = changed = 0
    for seed in range(60):
        window = pieces.window(1.0, np.random.default_rng(seed))
        assert (np.diff(window.spike_times) >= 0).all()
        assert (np.diff(window.times) >= 0).all()
        assert window.spike_times[0] >= 0
        assert window.spike_times[-1] < 1.0
        assert window.times[0] >= 0.1 - 0.02
        assert window.times[-1] <= 1.0
        assert 95 <= len(window.spike_times) <= 105
        assert 42 <= len(window.times) <= 48
        states = states_of(window.values)
        for time, state in zip(window.times, states, strict=True):
            after = window.spike_times - (time - LEAD_S)  # spikes are 10 ms apart
            first = int(np.flatnonzero(after > 1e-6)[0])
            assert after[first] < 0.01
            assert window.spike_units[first] == state
        held += len(set(states.tolist())) == 1
        changed += len(set(states.tolist())) > 2
    assert held >= 10, "a state lasts 0.4 s in the recording, and a second in some windows"
    assert changed >= 5


def test_pieces_and_their_behaviour_stay_within_the_split(pieces: Pieces) -> None:
    assert pieces.starts.min() >= 10.0
    assert (pieces.starts + pieces.piece_s + pieces.lead_s).max() <= 50.0 + 1e-6
    assert len(pieces.starts) == pytest.approx(40.0 / 0.05, abs=5)


def test_behaviours_far_from_the_mean_are_held_as_often_as_their_range_says(
    tmp_path: Path,
) -> None:
    times = np.arange(0, 100.0, 0.02)
    fast = (times % 5.0) < 0.5  # a tenth of the time
    path = write_recording(
        tmp_path / "b.h5", session_id="b", subject_id="nobody", unit_ids=["b/0"],
        spike_times=times, spike_units=np.zeros(len(times), np.int64),
        behaviors={"cursor.vel": (times, np.stack([20.0 * fast, 0.0 * times + fast], 1))},
        domains={"train": [(0.0, 99.0)]},
    )  # fmt: skip
    recording = LazyRecording.open(path, "cursor.vel", {})
    found = Pieces.of(recording, np.array([[0.0, 99.0]]), 0.1, 0.1)
    rng = np.random.default_rng(0)
    ends = [found.window(1.0, rng).values[-1, 0] for _ in range(100)]
    assert np.mean(np.array(ends) > 10.0) > 0.25


def inside(value: Any) -> Any:
    """The array that is to be padded."""
    return getattr(value, "obj", value)


def test_a_share_of_the_windows_is_put_together_and_each_is_the_same_again(
    tmp_path: Path,
) -> None:
    tiny_study(tmp_path)
    plain, mixed = (
        prepare(tmp_path, dataclasses.replace(TINY, held_share=share)).dataset()
        for share in (0.0, 0.5)
    )
    draws = [Draw("sim_00", 2.0 + 0.05 * k, 3.0 + 0.05 * k, 1000 + k) for k in range(60)]
    other = 0
    for draw in draws:
        one, again, before = mixed[draw], mixed[draw], plain[draw]
        for key, value in one.items():
            np.testing.assert_array_equal(inside(value), inside(again[key]))
        same = np.array_equal(inside(one["input_timestamps"]), inside(before["input_timestamps"]))
        other += not same
    assert 18 <= other <= 42


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_share": 1.0}, r"held_share: expected 0 <= number < 1, got 1.0"),
        ({"held_piece_s": 0.0}, "held_piece_s: expected a number > 0, got 0.0"),
        ({"held_share": 0.1, "held_lead_s": 0.95}, "held_lead_s: expected at most the window of 1"),
    ],
)
def test_impossible_pieces_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(TINY, **change)  # type: ignore[arg-type]
