"""Optimiser, freezing, averages, and warnings while a run goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
models = pytest.importorskip("torch_brain.models")
collate = pytest.importorskip("torch_brain.batching").collate

from helpers.training.tiny_run import TINY, tiny_study  # noqa: E402

from poyo_edge.errors import CheckpointError, RecordingError  # noqa: E402
from poyo_edge.model import POYO  # noqa: E402
from poyo_edge.training import Source, train  # noqa: E402
from poyo_edge.training.loss import pieces, step_loss  # noqa: E402
from poyo_edge.training.module import thaw_step  # noqa: E402
from poyo_edge.training.optim import SparseLamb, optimizer_and_schedule  # noqa: E402
from poyo_edge.training.start import prepare  # noqa: E402
from poyo_edge.training.watch import warnings_of  # noqa: E402
from poyo_edge.training.windows import StepBatches  # noqa: E402


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    tiny_study(folder, n_sessions=3)
    return folder


def state_of(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)["state_dict"]
    return state


def test_sparse_lamb_takes_the_step_of_the_paper() -> None:
    w = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    w.grad = torch.tensor([[1.0, -2.0]])
    SparseLamb([w], lr=0.1, weight_decay=0.01).step()
    m, v = 0.1 * w.grad, 0.001 * w.grad**2
    update = m / (v.sqrt() + 1e-6) + 0.01 * torch.tensor([[3.0, 4.0]])
    expected = torch.tensor([[3.0, 4.0]]) - 0.1 * 5.0 / update.norm() * update
    torch.testing.assert_close(w.detach(), expected)


def test_rows_without_a_gradient_stay_and_forget_their_moments() -> None:
    table = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = SparseLamb([{"params": [table], "sparse": True}], lr=0.1, weight_decay=0.1)
    table.grad = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    optimizer.step()
    assert torch.equal(table[2], torch.ones(2)) and not torch.equal(table[0], torch.ones(2))
    before = table.detach().clone()
    table.grad = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    optimizer.step()
    assert torch.equal(table[0], before[0]) and not torch.equal(table[1], before[1])
    assert not optimizer.state[table]["exp_avg"][0].any()


def test_layers_thaw_from_the_outside_in() -> None:
    recipe = dataclasses.replace(TINY, identify_epochs=10, unfreeze_epochs=2.0)
    names = ("unit_emb.weight", "readout.bias", "dec_atn.to_q.weight", "proc_layers.1.0.norm.bias",
             "proc_layers.0.0.norm.bias", "enc_atn.to_q.weight", "latent_emb.weight")  # fmt: skip
    steps = [thaw_step(name, 2, recipe, steps_per_epoch=5) for name in names]
    assert steps == [0, 50, 50, 60, 70, 80, 80]
    assert thaw_step("readout.bias", 2, TINY, 5) == 0


def test_unit_identification_moves_nothing_but_the_tables(study: Path, tmp_path: Path) -> None:
    base = train([study / "sim_00.h5", study / "sim_01.h5"], TINY, tmp_path / "base.ckpt")
    recipe = dataclasses.replace(TINY, identify_epochs=100, steps=4, spec=TINY.spec)
    tuned = train(
        [study / "sim_01.h5", study / "sim_02.h5"],
        recipe,
        tmp_path / "tuned.ckpt",
        start_from=base.checkpoint,
    )
    before, after = state_of(base.checkpoint), state_of(tuned.checkpoint)
    assert tuned.session_ids == ("sim_01", "sim_02")
    for key, value in before.items():
        if "unit_emb" in key or "session_emb" in key:
            continue
        assert torch.equal(value, after[key]), key
    known = before["model.unit_emb.weight"][before["model.unit_emb.vocab"]["sim_01/unit_003"]]
    now = after["model.unit_emb.weight"][after["model.unit_emb.vocab"]["sim_01/unit_003"]]
    assert not torch.equal(known, now)
    # it began where the other run had ended: a few small steps away
    assert float((known - now).abs().max()) < 0.1 * TINY.steps * TINY.lr * 10
    thawed = dataclasses.replace(recipe, identify_epochs=0)
    free = train([study / "sim_02.h5"], thawed, tmp_path / "b.ckpt", start_from=base.checkpoint)
    assert not torch.equal(
        before["model.readout.weight"], state_of(free.checkpoint)["model.readout.weight"]
    )


def test_the_checkpoint_brings_its_own_size(study: Path, tmp_path: Path) -> None:
    base = train([study / "sim_00.h5"], dataclasses.replace(TINY, steps=1), tmp_path / "base.ckpt")
    wide = dataclasses.replace(TINY, steps=1, spec=dataclasses.replace(TINY.spec, dim=32))
    tuned = train([study / "sim_02.h5"], wide, tmp_path / "t.ckpt", start_from=base.checkpoint)
    assert state_of(tuned.checkpoint)["model.latent_emb.weight"].shape == (4, 16)
    with pytest.raises(CheckpointError, match="expected a POYO"):
        torch.save({"a": 1}, tmp_path / "bad.ckpt")
        train([study / "sim_02.h5"], wide, tmp_path / "u.ckpt", start_from=tmp_path / "bad.ckpt")


def test_tuning_keeps_the_scale_and_the_periods_of_the_checkpoint(
    study: Path, tmp_path: Path
) -> None:
    measured = dataclasses.replace(TINY, steps=1, t_min=0.2, data={"recordings": Source()})
    base = train([study / "sim_00.h5"], measured, tmp_path / "base.ckpt")
    plain = dataclasses.replace(measured, t_min=1e-4)
    fresh = prepare([study / "sim_02.h5"], plain).sessions[0].scale
    plan = prepare([study / "sim_02.h5"], plain, start_from=base.checkpoint)
    assert plan.sessions[0].scale.scale == base.scale.scale != fresh.scale
    assert plan.sessions[0].scale.offset == base.scale.offset
    assert plan.hyper_parameters()["model"]["t_min"] == 0.2
    own = dataclasses.replace(plain, data={"recordings": Source(scale=(10.0,))})
    plan = prepare([study / "sim_02.h5"], own, start_from=base.checkpoint)
    assert plan.sessions[0].scale.scale == (10.0,)


def test_tuning_leaves_out_what_training_left_out(study: Path, tmp_path: Path) -> None:
    """What a recipe leaves to the checkpoint is the checkpoint's; its other keys are its own."""
    told = dataclasses.replace(
        TINY, steps=1, ffn_dropout=0.0, lin_dropout=0.1, unit_dropout=(2, 3, 4), recency_s=0.3
    )
    base = train([study / "sim_00.h5"], told, tmp_path / "base.ckpt")
    left = dataclasses.replace(
        TINY, lr=1e-3, as_trained=("ffn_dropout", "unit_dropout", "recency_s", "end_at_samples")
    )
    recipe = prepare([study / "sim_02.h5"], left, start_from=base.checkpoint).recipe
    assert (recipe.ffn_dropout, recipe.unit_dropout, recipe.recency_s) == (0.0, (2, 3, 4), 0.3)
    assert (recipe.lin_dropout, recipe.lr) == (0.2, 1e-3)
    assert prepare([study / "sim_02.h5"], left).recipe == left, "no checkpoint says anything"
    content = torch.load(base.checkpoint, weights_only=True)
    content["hyper_parameters"]["recipe"]["unit_dropout"] = "many"
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError, match=r"recipe.unit_dropout: expected .*, got 'many'"):
        prepare([study / "sim_02.h5"], left, start_from=tmp_path / "odd.ckpt")
    del content["hyper_parameters"]["recipe"]
    torch.save(content, tmp_path / "silent.ckpt")
    plan = prepare([study / "sim_02.h5"], left, start_from=tmp_path / "silent.ckpt")
    assert plan.recipe.ffn_dropout == TINY.ffn_dropout


def test_the_first_seconds_of_a_session_can_be_tuned_to(study: Path) -> None:
    some = dataclasses.replace(TINY, data={"recordings": Source(scale=(10.0,), seconds=6.0)})
    assert prepare([study / "sim_02.h5"], TINY).sessions[0].seconds > 10
    assert prepare([study / "sim_02.h5"], some).sessions[0].seconds == pytest.approx(6.0)
    none = dataclasses.replace(some, data={"recordings": Source(seconds=0.5)})
    with pytest.raises(RecordingError, match="an interval of at least one window"):
        prepare([study / "sim_02.h5"], none)


def test_bf16_trains_and_keeps_float32_weights(study: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, precision="bf16-mixed", accelerator="cpu")
    trained = train(study, recipe, tmp_path / "a.ckpt")
    assert all(0 < loss < 10 for loss in trained.losses)
    assert state_of(trained.checkpoint)["model.readout.weight"].dtype == torch.float32


def test_the_average_is_what_is_kept(study: Path, tmp_path: Path) -> None:
    plain = dataclasses.replace(TINY, steps=20)
    own = state_of(train(study, plain, tmp_path / "a.ckpt").checkpoint)
    smooth = dataclasses.replace(plain, average=0.99)
    averaged = state_of(train(study, smooth, tmp_path / "b.ckpt").checkpoint)
    key = "model.readout.weight"
    assert not torch.equal(own[key], averaged[key])
    start = state_of(train(study, dataclasses.replace(plain, steps=1), tmp_path / "c").checkpoint)
    moved, lagged = own[key] - start[key], averaged[key] - start[key]
    assert 0 < float(lagged.norm()) < float(moved.norm())


def test_r2_is_measured_and_logged(study: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, validate_every=6, validate_samples=40)
    notes = list[str]()
    result = train(study, recipe, tmp_path / "a.ckpt", logs=tmp_path / "logs", on_note=notes.append)
    assert set(result.r2) == {"sim_00", "sim_01", "sim_02"}
    assert len(notes) == 2 and notes[0].startswith("step 6: causal R²")
    table = (tmp_path / "logs" / "from_step_0000000" / "metrics.csv").read_text()
    assert "valid_r2" in table and "loss" in table and "r2/sim_02" in table


def test_dead_layers_and_exploding_embeddings_are_told() -> None:
    model = POYO(TINY.spec, ["a", "b"], ["s"])
    assert warnings_of(model) == []
    with torch.no_grad():
        model.enc_atn.to_q.weight.zero_()
        model.unit_emb.weight.mul_(1000)
    dead, exploded = warnings_of(model)
    assert dead.startswith("1 of") and "first enc_atn.to_q.weight" in dead
    assert exploded.startswith("unit_emb.weight has grown")


def test_another_shortest_period_reaches_torch_brain(study: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, steps=1, t_min=0.2)
    path = train(study, recipe, tmp_path / "a.ckpt").checkpoint
    theirs = models.POYO.load_pretrained(path)
    omega = theirs.rotary_emb.omega
    assert float(omega.max()) == pytest.approx(2 * torch.pi / 0.2, rel=1e-4)
    assert torch.equal(omega, state_of(path)["model.rotary_emb.omega"])


def test_a_few_windows_at_once_give_the_gradients_of_all(study: Path) -> None:
    recipe = dataclasses.replace(TINY, ffn_dropout=0.0, lin_dropout=0.0, batch_size=11)
    plan = prepare(study, recipe)
    dataset, draws = plan.dataset(), next(iter(StepBatches(plan.sessions, recipe, 1)))
    batch = collate([dataset[draw] for draw in draws])
    widths = [len(piece["input_mask"][0]) for piece in pieces(batch, 4)]
    assert widths == sorted(widths) and widths[0] < batch["input_mask"].shape[1]
    total, found = batch["target_weight"].sum(), []
    for at_once in (0, 4):
        plan.model.zero_grad(set_to_none=True)
        loss = step_loss(plan.model, batch, total, at_once)
        torch.autograd.backward(loss)
        found.append((loss.item(), [p.grad for p in plan.model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for whole, added in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(added, whole, atol=1e-6, rtol=1e-4)


def test_a_rise_of_a_single_step_is_a_schedule(study: Path) -> None:
    """OneCycleLR divides by the length of its rise less one step."""
    recipe = dataclasses.replace(TINY, steps=9, warmup_share=0.1, div_factor=5.0)
    plan = prepare([study / "sim_00.h5"], recipe)
    optimizer, schedule = optimizer_and_schedule(plan.model, plan.recipe, 9)
    rates = []
    for _ in range(9):
        rates.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(recipe.lr / 5)
    assert rates[1] > 0.9 * recipe.lr and rates[1:] == sorted(rates[1:], reverse=True)
