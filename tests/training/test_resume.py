"""A run that was stopped or killed and resumed ends where an uninterrupted one does."""

from __future__ import annotations

import dataclasses
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("torch_brain")

from helpers.commands import WITH_HELPERS, run_python  # noqa: E402
from helpers.training.tiny_run import LAMB, TINY, stopping_at, tiny_study  # noqa: E402

from poyo_edge.errors import CheckpointError, UsageError  # noqa: E402
from poyo_edge.training import train  # noqa: E402

ADAMW = dataclasses.replace(TINY, checkpoint_every=3, clip_norm=0.5)
HELD = dataclasses.replace(ADAMW, held_share=0.5)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    tiny_study(folder)
    return folder


def weights(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if not key.endswith("vocab")}


def assert_equal(one: Path, other: Path) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]), key


@pytest.mark.parametrize(("recipe", "last"), [(LAMB, 7), (LAMB, 11), (ADAMW, 4), (HELD, 5)])
def test_a_resumed_run_ends_at_the_same_weights(
    study: Path, tmp_path: Path, recipe: Any, last: int
) -> None:
    whole = train(study, recipe, tmp_path / "whole.ckpt")
    state = tmp_path / "run.resume"
    with pytest.raises(RuntimeError, match="killed"):
        train(study, recipe, tmp_path / "run.ckpt", state=state, on_progress=stopping_at(last))
    assert not (tmp_path / "run.ckpt").exists()
    resumed = train(study, recipe, tmp_path / "run.ckpt", state=state, resume=True)
    first = (last - 1) // recipe.checkpoint_every * recipe.checkpoint_every
    assert resumed.losses == whole.losses[first:]
    assert_equal(tmp_path / "whole.ckpt", tmp_path / "run.ckpt")
    assert not state.exists()


def test_a_state_from_before_a_key_was_known_goes_on(study: Path, tmp_path: Path) -> None:
    whole = train(study, ADAMW, tmp_path / "whole.ckpt")
    state = tmp_path / "run.resume"
    with pytest.raises(RuntimeError, match="killed"):
        train(study, ADAMW, tmp_path / "run.ckpt", state=state, on_progress=stopping_at(4))
    content = torch.load(state, weights_only=True)
    for key in ("held_share", "held_piece_s", "held_lead_s", "as_trained"):
        del content["hyper_parameters"]["recipe"][key]
    del content["hyper_parameters"]["recipe"]["data"]["recordings"]["seconds"]
    torch.save(content, state)
    with pytest.raises(CheckpointError, match=r"held_share: expected 0.0, as the run began"):
        train(study, HELD, tmp_path / "run.ckpt", state=state, resume=True)
    resumed = train(study, ADAMW, tmp_path / "run.ckpt", state=state, resume=True)
    assert resumed.losses == whole.losses[3:]
    assert_equal(tmp_path / "whole.ckpt", tmp_path / "run.ckpt")


@pytest.mark.slow
def test_a_process_that_was_killed_can_be_resumed(study: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from helpers.training.tiny_run import LAMB\n"
        "from poyo_edge.training import train\n"
        "def kill(step, *_):\n"
        "    if step == 9: os.kill(os.getpid(), 9)\n"
        "train(sys.argv[1], LAMB, 'run.ckpt', state='run.resume', on_progress=kill)\n"
    )
    done = run_python(code, study, cwd=tmp_path, environment=WITH_HELPERS)
    assert done.returncode == -signal.SIGKILL, done.stderr
    train(study, LAMB, tmp_path / "run.ckpt", state=tmp_path / "run.resume", resume=True)
    train(study, LAMB, tmp_path / "whole.ckpt")
    assert_equal(tmp_path / "whole.ckpt", tmp_path / "run.ckpt")


def test_ctrl_c_ends_the_step_and_leaves_a_state(study: Path, tmp_path: Path) -> None:
    def interrupt(step: int, *_: object) -> None:
        if step == 5:
            signal.raise_signal(signal.SIGINT)

    recipe = dataclasses.replace(TINY, checkpoint_every=100)
    state, notes = tmp_path / "run.resume", list[str]()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(
            study,
            recipe,
            tmp_path / "run.ckpt",
            state=state,
            on_progress=interrupt,
            on_note=notes.append,
        )
    assert notes == ["stopped at step 5 of 12; --resume goes on from there"]
    assert signal.getsignal(signal.SIGINT) is before
    resumed = train(study, recipe, tmp_path / "run.ckpt", state=state, resume=True)
    assert len(resumed.losses) == 7


@pytest.fixture
def state(study: Path, tmp_path: Path) -> Path:
    with pytest.raises(RuntimeError):
        train(
            study,
            LAMB,
            tmp_path / "run.ckpt",
            state=tmp_path / "run.resume",
            on_progress=stopping_at(3),
        )
    return tmp_path / "run.resume"


def test_another_recipe_size_or_study_is_refused_and_the_state_kept(
    study: Path, state: Path, tmp_path: Path
) -> None:
    before = state.read_bytes()
    wider = dataclasses.replace(LAMB, spec=dataclasses.replace(LAMB.spec, dim=32))
    slower = dataclasses.replace(LAMB, lr=1e-3)
    for recipe, message in (
        (wider, r"run\.resume: spec\.dim: expected 16, as the run began, got 32; resume with"),
        (slower, r"run\.resume: lr: expected 0\.01, as the run began, got 0\.001"),
    ):
        with pytest.raises(CheckpointError, match=message):
            train(study, recipe, tmp_path / "run.ckpt", state=state, resume=True)
    with pytest.raises(CheckpointError, match=r"expected the 2 sessions .*, got 1, apart"):
        train([study / "sim_00.h5"], LAMB, tmp_path / "run.ckpt", state=state, resume=True)
    assert state.read_bytes() == before


def test_other_files_are_refused_as_states(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected the state of an interrupted run, got no such"):
        train(study, LAMB, tmp_path / "a.ckpt", state=tmp_path / "none", resume=True)
    train(study, dataclasses.replace(LAMB, steps=1), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="expected the state of an interrupted run, got anot"):
        train(study, LAMB, tmp_path / "b.ckpt", state=tmp_path / "a.ckpt", resume=True)


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    study: Path, state: Path, tmp_path: Path
) -> None:
    before = state.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int, *_: object) -> None:
        if step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(CheckpointError, match="expected a disk with room for the checkpoint"):
            train(
                study,
                LAMB,
                tmp_path / "run.ckpt",
                state=state,
                resume=True,
                on_progress=fill,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert state.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*.tmp"))
    resumed = train(study, LAMB, tmp_path / "run.ckpt", state=state, resume=True)
    assert len(resumed.losses) == 10
