"""Embeddings that units share: how they are learned, written, resumed, and guessed from."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnx", reason="exporting needs onnx")
pytest.importorskip("matplotlib", reason="exporting draws its report")
pytest.importorskip("lightning", reason="training needs lightning")
models = pytest.importorskip("torch_brain.models", reason="training needs torch_brain")

import h5py  # noqa: E402
import numpy as np  # noqa: E402
from helpers.commands import run, run_json  # noqa: E402
from helpers.training.tiny_run import TINY, tiny_study  # noqa: E402

from poyo_edge.artifact import PRIOR, UNLABELLED, Artifact, Session  # noqa: E402
from poyo_edge.calibration.calibrator import Calibrator  # noqa: E402
from poyo_edge.calibration.fit.prior import Prior, _guess  # noqa: E402
from poyo_edge.calibration.from_recording import add_recording, from_unlabelled  # noqa: E402
from poyo_edge.checkpoint import load_checkpoint  # noqa: E402
from poyo_edge.errors import ArtifactError, CheckFailedError, CheckpointError, UsageError  # noqa: E402
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint  # noqa: E402
from poyo_edge.files import tensors  # noqa: E402
from poyo_edge.recording import Recording  # noqa: E402
from poyo_edge.training import train  # noqa: E402
from poyo_edge.training.recipe import Recipe  # noqa: E402
from poyo_edge.training.sharing import shared_tables, twin_of  # noqa: E402
from poyo_edge.training.start import prepare  # noqa: E402
from poyo_edge.training.windows import Draw  # noqa: E402
from poyo_edge.unit_guess import Heard  # noqa: E402

SHARED = dataclasses.replace(
    TINY, share_units="electrode", own_dropout=0.5, own_decay=0.1, clip_norm=1.0, average=0.5
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    tiny_study(folder, n_sessions=3)
    return folder


@pytest.fixture(scope="module")
def trained(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    two = [study / "sim_00.h5", study / "sim_01.h5"]
    return train(two, SHARED, tmp_path_factory.mktemp("model") / "shared.ckpt").checkpoint


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model.poyo"
    export_checkpoint(trained, out, ExportOptions(behavior="cursor.vel"))
    return out


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def renamed(path: Path, out: Path, subject: str) -> Path:
    """A copy of a recording as one of another animal, with a session id of its own."""
    out.write_bytes(path.read_bytes())
    with h5py.File(out, "r+") as file:
        file["subject"].attrs["id"] = subject
        file["session"].attrs["id"] = f"{subject}_00"
        before = file["session"].attrs["id"]
        names = [one.decode().rpartition("/")[2] for one in file["units/id"][()]]
        del file["units/id"]
        file["units"].create_dataset("id", data=[f"{before}/{name}".encode() for name in names])
    return out


HELD = dataclasses.replace(SHARED, held_share=0.5)


def test_windows_of_pieces_are_decoded_by_twins_of_their_sessions(study: Path) -> None:
    """All twins differ from their sessions by one part that is learned."""
    plan = prepare([study / "sim_00.h5", study / "sim_01.h5"], HELD)
    data, vocab = plan.dataset(), plan.model.session_emb.vocab
    draws = [Draw("sim_01", 2.0 + 0.05 * k, 3.0 + 0.05 * k, 1000 + k) for k in range(60)]
    rows = [data[draw]["session_index"] for draw in draws]
    assert {*rows} == {vocab["sim_01"], vocab[twin_of("sim_01")]}
    assert 18 <= rows.count(vocab[twin_of("sim_01")]) <= 42
    assert data.causal("sim_01", 5.0)["session_index"] == vocab["sim_01"]
    assert plan.tables is not None
    weights = plan.model.session_emb.weight.detach()
    for name in ("sim_00", "sim_01"):
        part = weights[vocab[twin_of(name)]] - weights[vocab[name]]
        torch.testing.assert_close(part, plan.tables.parts["session_held"][0].detach())


def test_no_finished_checkpoint_has_twins(study: Path, tmp_path: Path) -> None:
    two = [study / "sim_00.h5", study / "sim_01.h5"]
    found = content(train(two, HELD, tmp_path / "held.ckpt").checkpoint)
    weights, sharing = found["state_dict"], found["hyper_parameters"]["sharing"]
    assert [*weights["model.session_emb.vocab"]] == ["NA", "sim_00", "sim_01"]
    assert weights["model.session_emb.weight"].shape == (3, TINY.spec.dim)
    assert sharing["session_held"].shape == (1, TINY.spec.dim)
    assert [*load_checkpoint(tmp_path / "held.ckpt").session_vocab] == ["NA", "sim_00", "sim_01"]


def test_what_twins_differ_by_goes_on_to_later_runs_and_to_artifacts(
    study: Path, exported: Path, tmp_path: Path
) -> None:
    two = [study / "sim_00.h5", study / "sim_01.h5"]
    checkpoint = train(two, HELD, tmp_path / "held.ckpt").checkpoint
    part = content(checkpoint)["hyper_parameters"]["sharing"]["session_held"]
    plan = prepare(two, HELD, start_from=checkpoint)
    assert plan.tables is not None
    torch.testing.assert_close(plan.tables.parts["session_held"].detach(), part)
    rows, before = plan.model.session_emb.weight, load_checkpoint(checkpoint)
    torch.testing.assert_close(rows[1:3], before.weights["session_emb.weight"][1:])
    export_checkpoint(checkpoint, tmp_path / "held.poyo", ExportOptions(behavior="cursor.vel"))
    guess = Prior.open(Artifact.open(tmp_path / "held.poyo")).guess
    assert guess is not None
    apart = guess.session("sim", held=True) - guess.session("sim")
    np.testing.assert_allclose(apart, part[0], atol=1e-6)
    older = Prior.open(Artifact.open(exported)).guess
    assert older is not None and older.session_held is None


def test_sessions_without_shared_units_have_no_twins(study: Path) -> None:
    plan = prepare([study / "sim_00.h5"], dataclasses.replace(TINY, held_share=0.5))
    assert [*plan.model.session_emb.vocab] == ["NA", "sim_00"]


def test_the_checkpoint_has_the_layout_that_it_had(trained: Path, study: Path) -> None:
    found, hyper = content(trained)["state_dict"], content(trained)["hyper_parameters"]
    model = prepare([study / "sim_00.h5", study / "sim_01.h5"], TINY).model
    assert {key.removeprefix("model.") for key in found} == set(model.state_dict())
    parts, units = hyper["sharing"], found["model.unit_emb.weight"]
    assert "own" not in parts and parts["shared"].shape == (8, 16)
    assert not torch.equal(units[1:9], units[9:17])  # own, and statistics
    assert parts["weight"].abs().sum(1).all()


def test_torch_brain_opens_the_checkpoint(trained: Path) -> None:
    theirs = models.POYO.load_pretrained(trained).state_dict()
    ours = load_checkpoint(trained).model().state_dict()
    assert set(theirs) == set(ours)
    assert torch.equal(theirs["unit_emb.weight"], ours["unit_emb.weight"])


def test_gradients_of_the_parts_are_those_of_the_sums(study: Path) -> None:
    plan = prepare([study / "sim_00.h5", study / "sim_01.h5"], SHARED)
    tables, model = plan.tables, plan.model
    assert tables is not None
    torch.manual_seed(0)
    tables.vary(0.5)
    weights = torch.randn_like(model.unit_emb.weight), torch.randn_like(model.session_emb.weight)
    units, sessions = tables.fold()
    loss = (units * weights[0][1:]).sum() + (sessions * weights[1][1:]).sum()
    expected = torch.autograd.grad(loss, list(tables.parts.values()))
    model.unit_emb.weight.grad, model.session_emb.weight.grad = weights
    tables.take_gradients(model)
    for part, gradient in zip(tables.parts.values(), expected, strict=True):
        torch.testing.assert_close(part.grad, gradient)
    assert model.unit_emb.weight.grad is None


def test_animals_share_nothing_though_their_electrodes_are_called_alike(
    study: Path, tmp_path: Path
) -> None:
    other = renamed(study / "sim_01.h5", tmp_path / "other.h5", "other")
    plan = prepare([study / "sim_00.h5", other], SHARED)
    tables = plan.tables
    assert tables is not None and len(tables.keys) == 16 and len(tables.subjects) == 2
    gradient = torch.zeros_like(plan.model.unit_emb.weight)
    gradient[1] = 1.0
    plan.model.unit_emb.weight.grad = gradient
    tables.take_gradients(plan.model)
    touched = tables.parts["shared"].grad
    assert touched is not None and touched.abs().sum(1).nonzero().flatten().tolist() == [0]


@pytest.mark.parametrize("shared", [SHARED, HELD], ids=["plain", "with twins"])
def test_a_resumed_run_ends_at_the_same_parts(study: Path, tmp_path: Path, shared: Recipe) -> None:
    recipe = dataclasses.replace(shared, checkpoint_every=5)

    def stop(step: int, *_: object) -> None:
        if step == 7:
            raise RuntimeError("killed")

    train(study, recipe, tmp_path / "whole.ckpt")
    state = tmp_path / "run.resume"
    with pytest.raises(RuntimeError, match="killed"):
        train(study, recipe, tmp_path / "run.ckpt", state=state, on_progress=stop)
    train(study, recipe, tmp_path / "run.ckpt", state=state, resume=True)
    one, other = content(tmp_path / "whole.ckpt"), content(tmp_path / "run.ckpt")
    for left, right in (
        (one["state_dict"], other["state_dict"]),
        (one["hyper_parameters"]["sharing"], other["hyper_parameters"]["sharing"]),
    ):
        for key, value in left.items():
            same = torch.equal(value, right[key]) if torch.is_tensor(value) else value == right[key]
            assert same, key


@pytest.mark.parametrize("recipe", [SHARED, TINY])
def test_new_units_begin_where_they_are_guessed(trained: Path, study: Path, recipe: Any) -> None:
    plan = prepare([study / "sim_01.h5", study / "sim_02.h5"], recipe, start_from=trained)
    rows, before = plan.model.unit_emb.weight, load_checkpoint(trained)
    old = before.weights["unit_emb.weight"][9:17]
    torch.testing.assert_close(rows[1:9], old, atol=1e-6, rtol=0)  # known: as they were
    assert before.guess is not None
    day = plan.sessions[1].recording
    spikes = day.cut(-np.inf, np.inf)
    heard = Heard(spikes.spike_times, spikes.spike_units, plan.sessions[1].intervals)
    statistics = before.guess.statistics_of(heard, len(day.unit_ids))
    expected = before.guess.units(day.unit_ids, day.subject_id, statistics)
    np.testing.assert_allclose(rows[9:17].detach(), expected, atol=1e-5)


def test_steps_grow_with_sessions(study: Path) -> None:
    recipe = dataclasses.replace(TINY, steps=0, steps_per_session=5)
    assert prepare([study / "sim_00.h5"], recipe).steps == 5
    assert prepare(study, recipe).steps == 15


def test_nothing_is_shared_unless_it_is_asked_for(study: Path) -> None:
    plan = prepare(study, TINY)
    assert plan.tables is None and shared_tables(plan.model, plan.sessions, TINY) is None


def test_recordings_in_memory_give_the_same_windows(study: Path) -> None:
    plans = [prepare(study, dataclasses.replace(TINY, in_memory=held)) for held in (False, True)]
    cuts = [plan.sessions[1].recording.cut(3.0, 4.0) for plan in plans]
    for one, other in zip(*cuts, strict=True):
        assert np.array_equal(one, other)
    assert isinstance(plans[1].sessions[1].recording._opened().spike_times, np.ndarray)


def test_a_damaged_part_is_refused(trained: Path, tmp_path: Path) -> None:
    broken = content(trained)
    broken["hyper_parameters"]["sharing"]["weight"] = torch.zeros(2, 16)
    torch.save(broken, tmp_path / "broken.ckpt")
    with pytest.raises(CheckpointError, match="what units of several sessions share"):
        load_checkpoint(tmp_path / "broken.ckpt")


def test_a_session_is_guessed_from_activity_alone(
    exported: Path, trained: Path, study: Path, tmp_path: Path
) -> None:
    recording = Recording.open(study / "sim_02.h5")
    start = float(recording.intervals("train")[0, 0])
    session, known, heard = from_unlabelled(exported, recording, split="train", seconds=12.0)
    assert session.header.method == UNLABELLED and session.header.r2_heldout is None
    assert known == 8 and heard == pytest.approx(12.0)
    parts = content(trained)["hyper_parameters"]["sharing"]
    guess = load_checkpoint(trained).guess
    assert guess is not None
    activity = Heard(
        recording.spike_times, recording.spike_units, np.array([[start, start + 12.0]])
    )
    statistics = guess.statistics_of(activity, len(recording.unit_ids))
    expected = parts["shared"].numpy() + statistics @ parts["weight"].numpy()
    np.testing.assert_allclose(session.unit_embedding, expected, atol=1e-5)
    assert np.array_equal(session.session_embedding, parts["session_shared"][0].numpy())
    session.save(tmp_path / "day.session")
    assert Session.open(tmp_path / "day.session").header.method == UNLABELLED


def test_the_fit_of_a_new_session_begins_there(exported: Path, study: Path) -> None:
    recording = Recording.open(study / "sim_02.h5")
    guess = Prior.open(Artifact.open(exported)).guess
    assert guess is not None
    calibrator = Calibrator.open(exported, recording.unit_ids, subject=recording.subject_id)
    add_recording(calibrator, recording, "cursor.vel")
    fitted = calibrator.fit(max_seconds=1e-6)  # judged, and not moved
    assert fitted.quality.steps == 0
    unmoved = guess.units(recording.unit_ids, recording.subject_id, None)
    by_statistics = fitted.unit_embedding - unmoved
    assert np.abs(by_statistics).max() > 0
    # All that was added lies in the directions of the statistics.
    rest = by_statistics - by_statistics @ np.linalg.pinv(guess.weight) @ guess.weight
    assert np.abs(rest).max() < 1e-4 * np.abs(by_statistics).max()


def test_too_little_activity_and_other_models_are_refused(
    exported: Path, study: Path, tmp_path: Path
) -> None:
    recording = Recording.open(study / "sim_02.h5")
    with pytest.raises(UsageError, match="at least 10 s of spikes"):
        from_unlabelled(exported, recording, split="train", seconds=3.0)
    stranger = dataclasses.replace(
        recording, unit_ids=tuple(f"other/{i}" for i in range(len(recording.unit_ids)))
    )
    with pytest.raises(CheckFailedError, match=r"got none of 8; .*; calibrate with labels"):
        from_unlabelled(exported, stranger, split="train", seconds=None)
    plain = train([study / "sim_00.h5"], TINY, tmp_path / "plain.ckpt").checkpoint
    export_checkpoint(plain, tmp_path / "plain.poyo", ExportOptions(behavior="cursor.vel"))
    with pytest.raises(ArtifactError, match="trained without it; train with share_units"):
        from_unlabelled(tmp_path / "plain.poyo", recording, split="train", seconds=None)


def test_an_unlabelled_session_is_used_by_explicit_choice_only(
    exported: Path, study: Path, tmp_path: Path
) -> None:
    artifact = shutil.copytree(exported, tmp_path / "model.poyo")
    recording = Recording.open(study / "sim_02.h5")
    session, _, _ = from_unlabelled(artifact, recording, split="train", seconds=None)
    opened = Artifact.open(artifact)
    for path in (artifact / "sessions").glob("*.session"):
        path.unlink()
    session.save(artifact / "sessions" / "day.session")
    with pytest.raises(UsageError, match="name one of them"):
        opened.session()
    assert opened.session(session.header.session_id).header.method == UNLABELLED


def test_a_prior_whose_names_are_gone_is_refused(exported: Path, tmp_path: Path) -> None:
    arrays, names = tensors.from_bytes((exported / PRIOR).read_bytes(), exported, ArtifactError)
    with pytest.raises(ArtifactError, match="names and statistics that fit"):
        _guess(arrays, {"guess": "{}"}, exported, 16)
    assert "guess" in names


def test_calibrate_without_labels_says_what_nobody_knows(
    exported: Path, study: Path, tmp_path: Path
) -> None:
    out, day = tmp_path / "day.session", study / "sim_02.h5"
    without = ("calibrate", exported, day, "--labels", "none", "-o", out)
    values = run_json(*without, "--seconds", 12)
    assert values["method"] == UNLABELLED and values["r2_heldout"] is None
    assert values["unlabelled_s"] == 12.0 and values["known_electrodes"] == values["units"] == 8
    first = Session.open(out)
    done = run(*without)
    assert done.returncode == 0 and "made without labels" in done.stdout
    kept = Session.open(out.with_name("day.session.previous"))
    assert np.array_equal(kept.unit_embedding, first.unit_embedding)
    for option, value in (("--start", "sim_00"), ("--seed", 0), ("--max-wall", 5),
                          ("--behavior", "cursor.vel"), ("--threads", 2)):  # fmt: skip
        refused = run(*without, option, value)
        assert refused.returncode == 2 and "--labels none fits nothing" in refused.stderr
        assert option in refused.stderr
