"""Training on tiny simulated sessions: what the checkpoint holds, and what is refused."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poyo_edge.errors import CheckFailedError, MissingExtraError, RecordingError, UsageError
from poyo_edge.recording import Recording, write_recording
from poyo_edge.simulation.recordings import Simulation, simulate_study
from poyo_edge.tokens import latent_tokens, window_tokens

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
models = pytest.importorskip("torch_brain.models")

from helpers.training import tiny_run  # noqa: E402

from poyo_edge.model import POYO  # noqa: E402
from poyo_edge.training import Source, TrainingResult, train  # noqa: E402

TINY = dataclasses.replace(
    tiny_run.TINY,
    steps=150,
    batch_size=16,
    ffn_dropout=0.0,
    lin_dropout=0.0,
    unit_dropout=(8, 15, 16),
)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    simulation = Simulation(duration_s=40.0, n_units=16, gain_hz=(20.0, 30.0))
    return simulate_study(tmp_path_factory.mktemp("study"), n_sessions=2, simulation=simulation)


@pytest.fixture(scope="module")
def trained(recordings: list[Path], tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(recordings, TINY, tmp_path_factory.mktemp("trained") / "tiny.ckpt")


@pytest.fixture(scope="module")
def checkpoint(trained: TrainingResult) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(trained.checkpoint, weights_only=True)
    return loaded


def test_the_loss_decreases(trained: TrainingResult) -> None:
    assert len(trained.losses) == TINY.steps
    assert np.mean(trained.losses[-20:]) < 0.6 * np.mean(trained.losses[:20])


def test_progress_is_told_after_each_step(recordings: list[Path], tmp_path: Path) -> None:
    told: list[tuple[int, int, float]] = []
    result = train(
        recordings,
        dataclasses.replace(TINY, steps=3),
        tmp_path / "tiny.ckpt",
        on_progress=lambda *step: told.append(step),
    )
    assert [(step, steps) for step, steps, _ in told] == [(1, 3), (2, 3), (3, 3)]
    assert tuple(loss for _, _, loss in told) == result.losses


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    recordings: list[Path], tmp_path: Path
) -> None:
    def weights(name: str, seed: int) -> Any:
        recipe = dataclasses.replace(TINY, steps=4, seed=seed)
        path = train(recordings, recipe, tmp_path / name).checkpoint
        return torch.load(path, weights_only=True)["state_dict"]["model.readout.weight"]

    assert torch.equal(weights("a", 1), weights("b", 1))
    assert not torch.equal(weights("c", 1), weights("d", 2))


def test_the_checkpoint_has_the_layout_of_torch_brain_0_1(checkpoint: dict[str, Any]) -> None:
    state, hyper = checkpoint["state_dict"], checkpoint["hyper_parameters"]
    assert all(key.startswith("model.") for key in state)
    assert list(state["model.session_emb.vocab"]) == ["NA", "sim_00", "sim_01"]
    assert state["model.unit_emb.weight"].shape == (33, 16)
    assert hyper["model"] == {
        "_target_": "torch_brain.models.POYO",
        "sequence_length": 1.0,
        "latent_step": 0.125,
        "num_latents_per_step": 4,
        "dim": 16,
        "dim_head": 16,
        "depth": 1,
        "cross_heads": 1,
        "self_heads": 2,
        "ffn_dropout": 0.0,
        "lin_dropout": 0.0,
        "atn_dropout": 0.0,
    }
    readout = hyper["dataset"][0]["config"]["readout"]
    assert readout["readout_id"] == "cursor_velocity_2d"
    assert (readout["normalize_mean"], readout["normalize_std"]) == (0.0, 10.0)
    assert checkpoint["global_step"] == TINY.steps
    assert "pytorch-lightning_version" in checkpoint


def test_names_and_numbers_are_plain_python_types(checkpoint: dict[str, Any]) -> None:
    for name in ("unit_emb", "session_emb"):
        for word, row in checkpoint["state_dict"][f"model.{name}.vocab"].items():
            assert (type(word), type(row)) == (str, int)
    for value in checkpoint["hyper_parameters"]["model"].values():
        assert type(value) in (str, int, float)


def test_torch_brain_opens_the_checkpoint_and_predicts_the_same(
    trained: TrainingResult, checkpoint: dict[str, Any], recordings: list[Path]
) -> None:
    state = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items()}
    words = (list(state[f"{name}.vocab"])[1:] for name in ("unit_emb", "session_emb"))
    ours = POYO(TINY.spec, *words)
    ours.load_state_dict(state)
    theirs = models.POYO.load_pretrained(trained.checkpoint)
    batch = one_window(Recording.open(recordings[1]), ours, start=3.0)
    with torch.no_grad():
        expected, got = theirs.eval()(**batch), ours.eval()(**batch)
    assert expected.std() > 1e-3
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def one_window(recording: Recording, model: POYO, start: float) -> dict[str, Any]:
    times = recording.spike_times
    inside = (times >= start) & (times < start + 1.0)
    units, spec = recording.spike_units[inside], model.spec
    tokens = window_tokens(times[inside] - start, units, len(recording.unit_ids), 1.0)
    rows = np.array(model.unit_emb.rows(recording.unit_ids))
    latent_index, latent_time = latent_tokens(spec)
    arrays = {
        "input_unit_index": rows[tokens.unit],
        "input_timestamps": tokens.time.astype(np.float32),
        "input_token_type": tokens.type,
        "latent_index": latent_index,
        "latent_timestamps": latent_time.astype(np.float32),
        "output_timestamps": np.linspace(0, 1, 9, dtype=np.float32),
    }
    batch = {name: torch.from_numpy(array)[None] for name, array in arrays.items()}
    return {**batch, "session_index": torch.tensor(model.session_emb.rows([recording.session_id]))}


def test_threads_are_set_while_training_and_given_back(
    recordings: list[Path], tmp_path: Path
) -> None:
    before, seen = torch.get_num_threads(), set()
    train(
        recordings,
        dataclasses.replace(TINY, steps=2),
        tmp_path / "tiny.ckpt",
        on_progress=lambda *_: seen.add(torch.get_num_threads()),
    )
    assert (seen, torch.get_num_threads()) == ({TINY.threads}, before)


def test_without_a_scale_the_spread_of_the_train_split_is_used(
    recordings: list[Path], tmp_path: Path
) -> None:
    source = Source(behavior="cursor.pos")
    recipe = dataclasses.replace(TINY, steps=1, data={"recordings": source})
    result = train(recordings, recipe, tmp_path / "tiny.ckpt")
    opened = [Recording.open(path) for path in recordings]
    behaviors = [(r, r.behavior("cursor.pos")) for r in opened]
    values = np.concatenate([b.values[r.within(b.times, "train")] for r, b in behaviors])
    np.testing.assert_allclose(result.scale.scale, values.std(axis=0))
    np.testing.assert_allclose(result.scale.offset, values.mean(axis=0))
    hyper = torch.load(result.checkpoint, weights_only=True)["hyper_parameters"]
    readout = hyper["dataset"][0]["config"]["readout"]
    assert readout["normalize_std"] == pytest.approx(list(result.scale.scale))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_no_file_and_tells_the_caller(
    recordings: list[Path], tmp_path: Path, error: type[BaseException]
) -> None:
    def stop(*_: object) -> None:
        raise error

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(error):
        train(recordings, TINY, tmp_path / "tiny.ckpt", on_progress=stop)
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is before


def test_a_diverging_run_is_stopped_and_writes_nothing(
    recordings: list[Path], tmp_path: Path
) -> None:
    recipe = dataclasses.replace(TINY, data={"recordings": Source(scale=(1e-30,))})
    with pytest.raises(CheckFailedError, match="expected a finite loss, got inf at step 1 of 150"):
        train(recordings, recipe, tmp_path / "tiny.ckpt")
    assert not list(tmp_path.iterdir())


def session(path: Path, **change: Any) -> Path:
    times = np.arange(200) / 20.0
    arrays: dict[str, Any] = {
        "session_id": path.stem,
        "subject_id": "x",
        "unit_ids": [f"{path.stem}/a"],
        "spike_times": np.arange(100) / 10.0,
        "spike_units": np.zeros(100, dtype=int),
        "behaviors": {"cursor.vel": (times, np.stack([np.sin(times), times], axis=-1))},
        "domains": {"all": [(0.0, 10.0)], "train": [(0.0, 7.0)]},
    }
    return write_recording(path, **{**arrays, **change})


def still(values: float) -> dict[str, Any]:
    array = np.stack([np.full(200, values), np.arange(200)], axis=-1)
    return {"cursor.vel": (np.arange(200) / 20.0, array)}


REFUSED: dict[str, tuple[Callable[[Path], list[Path]], str]] = {
    "behaviour absent": (
        lambda d: [session(d / "a.h5", behaviors={"eye.pos": ([0.0, 1.0], [0.0, 1.0])})],
        "cursor.vel: expected one of the behaviours eye.pos",
    ),
    "nan": (
        lambda d: [session(d / "a.h5", behaviors=still(np.nan))],
        "cursor.vel: expected finite values, got 200 NaN",
    ),
    "no variance": (
        lambda d: [session(d / "a.h5", behaviors=still(1.0))],
        r"expected values that change in the train split, got 140 samples with .* \[0.0, ",
    ),
    "dimensions": (
        lambda d: [session(d / "a.h5", behaviors={"cursor.vel": ([0.0, 1.0], [0.0, 1.0])})],
        "cursor.vel: expected 2 dimensions, got 1",
    ),
    "no split": (
        lambda d: [session(d / "a.h5", domains={"test": [(0.0, 7.0)]})],
        "train_domain: expected one of the splits all, test, got 'train'",
    ),
    "split too short": (
        lambda d: [session(d / "a.h5", domains={"train": [(0.0, 0.5)]})],
        r"train_domain: expected an interval of at least one window \(1.0 s\), got 1 intervals",
    ),
    "split empty": (
        lambda d: [session(d / "a.h5", domains={"train": np.zeros((0, 2))})],
        "train_domain: expected an interval of at least one window .*, got 0 intervals",
    ),
    "session twice": (
        lambda d: [session(d / "a.h5"), session(d / "b.h5", session_id="a")],
        r"b\.h5: session id: expected a name that no other .*, got 'a', also in .*a\.h5",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_recordings_that_cannot_be_trained_on_are_refused_at_once(
    tmp_path: Path, name: str
) -> None:
    make, message = REFUSED[name]
    paths = make(tmp_path)
    with pytest.raises(RecordingError, match=message):
        train(paths, TINY, tmp_path / "tiny.ckpt")
    assert not (tmp_path / "tiny.ckpt").exists()


def test_training_on_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected at least one file, got none"):
        train([], TINY, tmp_path / "tiny.ckpt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps, epochs, steps_per_session: expected one of them > 0, got 0, 0, 0"),
        ({"lr": 0.0}, "lr, base_lr: expected one of them > 0, got 0.0 and 0.0"),
        ({"lin_dropout": 1.0}, "lin_dropout: expected 0 <= number < 1, got 1.0"),
        ({"unit_dropout": (5, 5, 6)}, "unit_dropout: expected 0 < fewest < most frequent"),
        (
            {"spec": dataclasses.replace(TINY.spec, rotating_pairs=2)},
            "spec: expected ffn_mult 4 and rotating_pairs = dim_head / 4",
        ),
    ],
)
def test_impossible_recipes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(TINY, **change)


def test_a_missing_package_is_answered_with_the_command_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("poyo_edge.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch_brain.batching", None)
    with pytest.raises(MissingExtraError, match="pip install torch lightning torch_brain"):
        __import__("poyo_edge.training")


def test_a_short_session_is_trained_with_smaller_batches(tmp_path: Path) -> None:
    path = session(tmp_path / "a.h5")
    recipe = dataclasses.replace(TINY, steps=2, batch_size=64)
    assert len(train([path], recipe, tmp_path / "tiny.ckpt").losses) == 2
