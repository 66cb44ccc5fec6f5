"""Recipes: files, overrides, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("torch_brain")

from poyo_edge.errors import UsageError
from poyo_edge.spec import POYO_1_3M, POYO_11_8M
from poyo_edge.training import load_recipe, recipe_names


def test_every_recipe_of_the_package_can_be_read() -> None:
    assert {"poyo-mp", "poyo-1", "single-session", "demo", "finetune", "small"} <= set(
        recipe_names()
    )
    for name in recipe_names():
        assert load_recipe(name).about


@pytest.mark.parametrize("name", ["poyo-mp", "poyo-1"])
def test_the_published_values(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.spec == POYO_11_8M
    assert recipe.peak_lr == pytest.approx(0.032)
    assert (recipe.optimizer, recipe.weight_decay) == ("sparse-lamb", 1e-4)
    assert (recipe.warmup_share, recipe.div_factor, recipe.epochs) == (0.5, 1.0, 1000)
    assert (recipe.ffn_dropout, recipe.lin_dropout, recipe.atn_dropout) == (0.2, 0.4, 0.2)
    assert recipe.unit_dropout == (30, 100, 300)
    assert recipe.data["center_out"].weights["movement_phases.reach_period"] == 5.0
    assert recipe.data["center_out"].scale == (20.0,)


def test_the_published_single_session_size() -> None:
    recipe = load_recipe("single-session")
    assert recipe.spec == POYO_1_3M
    assert recipe.peak_lr == pytest.approx(0.004)


def test_every_value_can_be_replaced() -> None:
    recipe = load_recipe(
        "small",
        [
            "lr=1e-2",
            "model.dim=32",
            "unit_dropout=[1,2,3]",
            "end_at_samples=false",
            "data.recordings.behavior=hand.vel",
            "data.recordings.scale=20",
            'data.recordings.weights."a.b"=5',
        ],
    )
    assert (recipe.lr, recipe.spec.dim, recipe.unit_dropout) == (1e-2, 32, (1, 2, 3))
    assert recipe.end_at_samples is False
    source = recipe.data["recordings"]
    assert (source.behavior, source.scale, source.weights) == ("hand.vel", (20.0,), {"a.b": 5})
    assert load_recipe("small", ["unit_dropout=none"]).unit_dropout is None


def test_keys_are_quoted_and_dotted_as_toml_has_them() -> None:
    overrides = ["data . recordings.'weights'.'a=b'=0.5", 'data.recordings.weights."c.d" = 2']
    assert load_recipe("small", overrides).data["recordings"].weights == {"a=b": 0.5, "c.d": 2}
    with pytest.raises(UsageError, match="--set: expected KEY=VALUE, got 'batch size=3'"):
        load_recipe("small", ["batch size=3"])


def test_steps_take_the_place_of_epochs_and_lr_that_of_base_lr() -> None:
    recipe = load_recipe("single-session", ["steps=7", "lr=0.5"])
    assert (recipe.steps, recipe.epochs, recipe.lr, recipe.base_lr) == (7, 0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batchsize=3", "batchsize: expected a key of a recipe, .* did you mean 'batch_size'"),
        ("model.dimm=3", r"model\.dimm: expected a key .* did you mean 'model\.dim'"),
        ("data.recordings.scal=3", r"did you mean 'data\.recordings\.scale'"),
        ("lr=fast", "lr: expected a number, got 'fast'"),
        ("end_at_samples=1", "end_at_samples: expected true or false, got 1"),
        ("steps=1.5", r"steps: expected an integer, got 1\.5"),
        ("unit_dropout=[1,2]", r"unit_dropout: expected 3 values, got \[1, 2\]"),
        ("optimizer=sgd", "optimizer: expected one of .*'adamw', 'sparse-lamb'.* got 'sgd'"),
        ("data.recordings.behavior=vel", r"behavior: expected GROUP\.KEY, got 'vel'"),
        ("devices=7", "batch_size: expected a multiple of the 7 devices, got 240"),
        ("lr", "--set: expected KEY=VALUE, got 'lr'"),
        ("lr.x=1", "--set: expected a table at 'lr', got a value"),
        ("model.depth=-1", "small: depth: expected an integer from 0 to 65536, got -1"),
    ],
)
def test_impossible_values_are_refused(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe("small", [override])


def test_what_is_set_is_not_left_to_the_checkpoint() -> None:
    assert {"lin_dropout", "ffn_dropout", "end_at_samples"} == {
        *load_recipe("finetune").as_trained
    } - {"atn_dropout"}
    given = load_recipe("finetune", ["lin_dropout=0.1", "data.recordings.seconds=120"])
    assert "lin_dropout" not in given.as_trained
    assert "ffn_dropout" in given.as_trained
    assert given.data["recordings"].seconds == 120
    with pytest.raises(UsageError, match="as_trained: expected keys of"):
        load_recipe("finetune", ['as_trained=["lr"]'])


def test_files_are_recipes_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("steps = 3\nlr = 1e-3\n[model]\ndim = 16\ndepth = 1\ndim_head = 16\n"
                    "cross_heads = 1\nself_heads = 1\nlatents_per_step = 2\n")  # fmt: skip
    assert load_recipe(file).spec.rotating_pairs == 4
    file.write_text("steps = \n")
    with pytest.raises(UsageError, match=r"mine\.toml: expected TOML, got a line that is none"):
        load_recipe(file)
    with pytest.raises(UsageError, match=r"none\.toml: expected a recipe in TOML, .*No such file"):
        load_recipe(tmp_path / "none.toml")


def test_an_unknown_name_is_answered_with_the_likely_one() -> None:
    with pytest.raises(
        UsageError, match=r"one of chronic, .* got 'poyo_mp'; did you mean 'poyo-mp'"
    ):
        load_recipe("poyo_mp")


def test_another_behavior_leaves_the_scale_that_was_not_its_own() -> None:
    recipe = load_recipe("demo")
    assert recipe.with_behavior("cursor.vel") == recipe
    other = recipe.with_behavior("hand.vel").data["recordings"]
    assert (other.behavior, other.scale, other.unit) == ("hand.vel", (), "")
    with pytest.raises(UsageError, match=r"expected GROUP\.KEY"):
        recipe.with_behavior("velocity")
