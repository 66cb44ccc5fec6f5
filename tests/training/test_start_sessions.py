"""A run that begins with what ``calibrate`` found."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("torch_brain.models")

from helpers.training.calibrated import calibrated_to  # noqa: E402
from helpers.training.tiny_run import TINY, stopping_at, tiny_study  # noqa: E402

from poyo_edge.artifact.core_weights import (  # noqa: E402
    half_split_order,
    permute_rows,
)
from poyo_edge.checkpoint import load_checkpoint  # noqa: E402
from poyo_edge.errors import SessionError, UsageError  # noqa: E402
from poyo_edge.model import POYO  # noqa: E402
from poyo_edge.recording import Recording, write_recording  # noqa: E402
from poyo_edge.training import train  # noqa: E402
from poyo_edge.training.start import prepare  # noqa: E402


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    tiny_study(folder, n_sessions=3)
    return folder


def renamed(source: Path, to: Path, **names: Any) -> None:
    """The train split of a recording under other names."""
    given = Recording.open(source)
    velocity = given.behavior("cursor.vel")
    own = {"session_id": given.session_id, "subject_id": given.subject_id}
    write_recording(
        to, **{**own, "unit_ids": given.unit_ids, **names},
        spike_times=given.spike_times, spike_units=given.spike_units,
        behaviors={"cursor.vel": (velocity.times, velocity.values)},
        domains={"train": given.intervals("train")},
    )  # fmt: skip


def session_of(model: POYO) -> Any:
    """(D,) the embedding of the session that was calibrated."""
    (row,) = model.session_emb.rows(["sim_02"])
    return model.session_emb.weight[row].detach().numpy()


def test_tuning_begins_where_calibration_ended(study: Path, tmp_path: Path) -> None:
    base = train([study / "sim_00.h5"], dataclasses.replace(TINY, steps=1), tmp_path / "b.ckpt")
    ids = tuple(reversed([f"sim_02/unit_{i:03d}" for i in range(8)]))
    rng = np.random.default_rng(0)
    own = {
        name: rng.standard_normal(tensor.shape).astype("f4")
        for name, tensor in encoder_of(base.checkpoint).items()
    }
    calibrated_to(base.checkpoint, ids, encoder=own).save(tmp_path / "day.session")

    def begun(files: list[str], session: str) -> POYO:
        return prepare(
            [study / file for file in files], TINY, start_from=base.checkpoint,
            start_sessions=[tmp_path / session],
        ).model  # fmt: skip

    model = begun(["sim_02.h5"], "day.session")
    rows = model.unit_emb.rows(ids)
    slow = dataclasses.replace(TINY, identify_epochs=5)
    plans = [
        prepare([study / "sim_02.h5"], slow, start_from=base.checkpoint, start_sessions=files)
        for files in ([], [tmp_path / "day.session"])
    ]
    assert [plan.recipe.identify_epochs for plan in plans] == [5, 0]
    assert model.unit_emb.weight[rows][:, 0].tolist() == [16.0 * i for i in range(8)]
    assert (session_of(model) == 7).all()
    order = half_split_order(model.rotary_emb.omega.numpy())
    assert order.tolist() != sorted(order.tolist())
    weight = model.enc_atn.to_kv.weight.detach().numpy().astype(float)
    assert np.array_equal(permute_rows(weight, order, TINY.spec.dim_head), own["to_kv"])
    assert np.array_equal(model.token_type_emb.weight[:3].detach().numpy(), own["token_type"])
    both = begun(["sim_01.h5", "sim_02.h5"], "day.session")
    assert (session_of(both) == 7).all()
    before = load_checkpoint(base.checkpoint).weights["enc_atn.to_kv.weight"]
    assert torch.equal(both.enc_atn.to_kv.weight, before), "of one session, it serves that one"


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_share_of_what_tuning_began_with_is_kept(
    study: Path, tmp_path: Path, average: float
) -> None:
    """The share of every weight, and the same after a kill on either side of where tuning began."""
    base = train([study / "sim_00.h5"], dataclasses.replace(TINY, steps=4), tmp_path / "b.ckpt")
    recipe = dataclasses.replace(
        TINY, steps=10, average=average, identify_epochs=2, unfreeze_epochs=0.5, checkpoint_every=1
    )
    begin: dict[str, Any] = {"data": [study / "sim_02.h5"], "start_from": base.checkpoint}

    def kept(name: str, worth_s: float) -> dict[str, Any]:
        chosen = dataclasses.replace(recipe, start_worth_s=worth_s)
        path = train(recipe=chosen, checkpoint=tmp_path / name, **begin).checkpoint
        return dict(load_checkpoint(path).weights)

    third = prepare([study / "sim_02.h5"], recipe).sessions[0].seconds / 3
    tuned, partly = kept("tuned.ckpt", 0.0), kept("partly.ckpt", third)
    before = load_checkpoint(base.checkpoint).weights
    key = "readout.weight"
    assert not torch.equal(tuned[key], before[key])
    torch.testing.assert_close(partly[key], tuned[key].lerp(before[key], 0.25))
    assert not torch.equal(partly["unit_emb.weight"], tuned["unit_emb.weight"])
    for killed in (2, 6):
        state = tmp_path / f"{killed}.resume"
        worth = dataclasses.replace(recipe, start_worth_s=third)
        again: dict[str, Any] = {"recipe": worth, "checkpoint": tmp_path / "again.ckpt"}
        with pytest.raises(RuntimeError, match="killed"):
            train(**begin, **again, state=state, on_progress=stopping_at(killed))
        found = train(**begin, **again, state=state, resume=True)
        assert found.start_share == pytest.approx(0.25)
        for name, value in load_checkpoint(found.checkpoint).weights.items():
            assert torch.equal(value, partly[name]), name


def test_a_new_model_keeps_nothing_of_its_random_start(study: Path) -> None:
    recipe = dataclasses.replace(TINY, start_worth_s=100.0)
    assert prepare([study / "sim_02.h5"], recipe).start_share == 0


def test_another_animal_keeps_nothing_of_what_training_knew(study: Path, tmp_path: Path) -> None:
    """Where electrodes are known by name, and none of these is, all of the way is kept."""
    shared = dataclasses.replace(TINY, steps=1, share_units="electrode")
    base = train([study / "sim_00.h5"], shared, tmp_path / "b.ckpt").checkpoint
    recipe = dataclasses.replace(TINY, start_worth_s=100.0)
    known = prepare([study / "sim_02.h5"], recipe, start_from=base)
    assert known.start_share == pytest.approx(100 / (100 + known.sessions[0].seconds))
    renamed(study / "sim_02.h5", tmp_path / "other.h5", session_id="other", subject_id="another")
    assert prepare([tmp_path / "other.h5"], recipe, start_from=base).start_share == 0


def test_a_session_may_name_units_as_its_file_does_without_the_session_before_them(
    study: Path, tmp_path: Path
) -> None:
    base = train([study / "sim_00.h5"], dataclasses.replace(TINY, steps=1), tmp_path / "b.ckpt")
    names = tuple(f"ch{i}" for i in range(8))
    renamed(study / "sim_02.h5", tmp_path / "sim_02.h5", unit_ids=names)
    calibrated_to(base.checkpoint, names).save(tmp_path / "day.session")
    model = prepare(
        [tmp_path / "sim_02.h5"], TINY, start_from=base.checkpoint,
        start_sessions=[tmp_path / "day.session"],
    ).model  # fmt: skip
    rows = model.unit_emb.rows([f"sim_02/{name}" for name in names])
    assert model.unit_emb.weight[rows][:, 0].tolist() == [16.0 * i for i in range(8)]


def test_a_session_of_something_else_begins_no_run(study: Path, tmp_path: Path) -> None:
    base = train([study / "sim_00.h5"], dataclasses.replace(TINY, steps=1), tmp_path / "b.ckpt")
    day, other = tmp_path / "day.session", tmp_path / "other.session"
    calibrated_to(base.checkpoint, ("x/1", "x/2")).save(day)
    with pytest.raises(SessionError, match="expected units of sim_02, got none of them"):
        prepare([study / "sim_02.h5"], TINY, start_from=base.checkpoint, start_sessions=[day])
    with pytest.raises(UsageError, match=r"session that is trained on .sim_01., once each"):
        prepare([study / "sim_01.h5"], TINY, start_from=base.checkpoint, start_sessions=[day])
    with pytest.raises(UsageError, match=r"expected --from, the checkpoint"):
        prepare([study / "sim_02.h5"], TINY, start_sessions=[day])
    strange = calibrated_to(base.checkpoint, ("sim_02/unit_000",))
    header = dataclasses.replace(strange.header, core_hash="0" * 64)
    dataclasses.replace(strange, header=header).save(other)
    with pytest.raises(SessionError, match="core_hash"):
        prepare([study / "sim_02.h5"], TINY, start_from=base.checkpoint, start_sessions=[other])


def encoder_of(path: Path) -> dict[str, Any]:
    weights = load_checkpoint(path).weights
    names = {"token_type": "token_type_emb.weight", "to_kv": "enc_atn.to_kv.weight"}
    names |= {f"context_norm.{x}": f"enc_atn.norm_context.{x}" for x in ("weight", "bias")}
    found = {name: weights[key].numpy() for name, key in names.items()}
    return {**found, "token_type": found["token_type"][:3]}
