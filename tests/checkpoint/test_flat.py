"""POYO's own checkpoints since November 2024 (layouts B0 to B3)."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch_brain.models", reason="torch_brain writes the files")

import torch
from helpers.checkpoints.files import (
    MODEL_HYPER,
    OMEGA,
    SHARED,
    SPEC,
    State,
    assert_decodes_like,
    hyper_b1,
    lightning,
    noted,
    numpy_words,
    old_omega,
    readout,
    save,
)
from torch import Tensor

from poyo_edge.checkpoint import load_checkpoint
from poyo_edge.checkpoint.sizes import expected_shapes, omega_formula
from poyo_edge.errors import CheckpointError, UsageError
from poyo_edge.model import POYO, RotaryTimeEmbedding
from poyo_edge.spec import POYO_1_3M, ModelSpec, OutputScale


def test_b3_bare_state_dict(oracle: Any, state: State, file: Path) -> None:
    checkpoint = load_checkpoint(save(state, file))
    assert (checkpoint.layout, checkpoint.container, checkpoint.prefix) == ("B3", "state_dict", "")
    assert checkpoint.spec == SPEC
    assert checkpoint.output == OutputScale()
    assert checkpoint.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert noted(checkpoint, "no sequence_length; the default of 1 s was assumed")
    assert noted(checkpoint, "no latent_step; the default of 0.125 s was assumed")
    assert noted(checkpoint, "--output-scale sets it")
    assert_decodes_like(checkpoint, oracle)


def test_b3_under_a_state_dict_key(oracle: Any, state: State, file: Path) -> None:
    checkpoint = load_checkpoint(save({"state_dict": state, "epoch": 1}, file))
    assert (checkpoint.layout, checkpoint.container) == ("B3", "lightning")
    assert_decodes_like(checkpoint, oracle)


def test_b2_takes_the_window_from_the_hyper_parameters(
    oracle: Any, state: State, file: Path
) -> None:
    hyper = {"model": {**MODEL_HYPER, "sequence_length": 2.0, "latent_step": 0.25}}
    hyper["dataset"] = {"_target_": "datasets.poyo_mp.PoyoMPDataset"}
    checkpoint = load_checkpoint(save(lightning(numpy_words(state), hyper), file))
    assert (checkpoint.layout, checkpoint.container) == ("B2", "lightning")
    assert checkpoint.prefix == "model."
    assert (checkpoint.spec.window_s, checkpoint.spec.latent_step_s) == (2.0, 0.25)
    assert checkpoint.output == OutputScale()
    assert noted(checkpoint, "--output-scale sets it")
    assert not noted(checkpoint, "default")
    assert all(type(word) is str for word in [*checkpoint.unit_vocab, *checkpoint.session_vocab])


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ({"normalize_mean": 0.0, "normalize_std": 20.0}, OutputScale(scale=(20.0,))),
        ({"normalize_std": 20}, OutputScale(scale=(20.0,))),
        (
            {"normalize_mean": [0.5, 1.0], "normalize_std": [20.0, 30.0]},
            OutputScale(scale=(20.0, 30.0), offset=(0.5, 1.0)),
        ),
        ({"normalize_mean": 0.5}, OutputScale(offset=(0.5,))),
        ({"normalize_std": 2.0, "unit": "cm/s"}, OutputScale(scale=(2.0,), unit="cm/s")),
    ],
)
def test_b1_takes_the_output_scale_from_the_readout(
    oracle: Any, state: State, file: Path, scale: dict[str, Any], expected: OutputScale
) -> None:
    state["rotary_emb.omega"] = old_omega(16)
    oracle.rotary_emb.omega.copy_(old_omega(16))
    content = lightning(numpy_words(state), hyper_b1(readout(**scale)))
    checkpoint = load_checkpoint(save(content, file))
    assert checkpoint.layout == "B1"
    assert checkpoint.output == expected
    assert checkpoint.omega_formula == "v0.1.0"
    assert noted(checkpoint, "comes from the file's readout")
    assert_decodes_like(checkpoint, oracle)


def test_b1_datasets_that_disagree_set_no_scale(state: State, file: Path) -> None:
    hyper = hyper_b1(readout(normalize_std=20.0), readout(normalize_std=100.0))
    checkpoint = load_checkpoint(save(lightning(state, hyper), file))
    assert checkpoint.output == OutputScale()
    assert noted(checkpoint, "scaled differently ([100.0] and [20.0])")
    hyper = hyper_b1(
        readout(normalize_std=2.0), readout(normalize_std=2.0, normalize_mean=[1.0, 0.0])
    )
    checkpoint = load_checkpoint(save(lightning(state, hyper), file))
    assert checkpoint.output == OutputScale()
    assert noted(checkpoint, "scaled differently ([2.0] and [2.0] with offset [1.0, 0.0])")
    hyper = hyper_b1(
        readout(normalize_std=2.0, unit="cm/s"), readout(normalize_std=2.0, unit="mm/s")
    )
    checkpoint = load_checkpoint(save(lightning(state, hyper), file))
    assert checkpoint.output == OutputScale(scale=(2.0,))
    assert noted(checkpoint, "name different units")


def test_b0_shapes_win_over_the_hyper_parameters(oracle: Any, state: State, file: Path) -> None:
    hyper = {
        "model": {"_target_": "torch_brain.models.POYO", "dim": 128, "depth": 24, "num_latents": 4},
        "sequence_length": 0.5,
        "latent_step": 0.125,
    }
    checkpoint = load_checkpoint(save(lightning(state, hyper), file))
    assert checkpoint.layout == "B0"
    assert (checkpoint.spec.dim, checkpoint.spec.depth) == (32, 2)
    assert checkpoint.spec.window_s == 0.5
    assert noted(checkpoint, "says dim=128, the tensors say 32; the tensors won")
    assert noted(checkpoint, "says depth=24, the tensors say 2; the tensors won")
    assert not noted(checkpoint, "num_latents=")


@pytest.mark.parametrize(
    "prefix", ["model.", "module.", "_orig_mod.", "model._orig_mod.", "model.module._orig_mod."]
)
def test_wrapper_prefixes_are_stripped(oracle: Any, state: State, file: Path, prefix: str) -> None:
    checkpoint = load_checkpoint(save(lightning(state, prefix=prefix), file))
    assert checkpoint.prefix == prefix
    assert_decodes_like(checkpoint, oracle)


def test_prefixes_are_never_removed_inside_a_key(state: State, file: Path) -> None:
    state["enc_atn.model.to_q.weight"] = state.pop("enc_atn.to_q.weight")
    with pytest.raises(CheckpointError, match=r"enc_atn\.to_q\.weight: expected a tensor"):
        load_checkpoint(save(lightning(state), file))


def test_vocabulary_rows_are_the_values_not_the_order(
    oracle: Any, state: State, file: Path
) -> None:
    words = list(state["unit_emb.vocab"].items())
    state["unit_emb.vocab"] = OrderedDict(reversed(words))
    checkpoint = load_checkpoint(save(state, file))
    assert checkpoint.unit_vocab == dict(words)
    assert_decodes_like(checkpoint, oracle)


def test_weights_and_vocabulary_survive_unchanged(state: State, file: Path) -> None:
    checkpoint = load_checkpoint(save(lightning(numpy_words(state)), file))
    back = checkpoint.model().state_dict()
    assert set(back) == set(state)
    for key, value in state.items():
        assert torch.equal(back[key], value) if isinstance(value, Tensor) else back[key] == value
        if isinstance(value, Tensor):
            assert torch.equal(checkpoint.weights[key], value)
    assert set(checkpoint.weights) == {k for k in state if not k.endswith(".vocab")}


def test_arguments_win_over_the_file(state: State, file: Path) -> None:
    hyper = hyper_b1(readout(normalize_std=20.0, normalize_mean=1.5))
    save(lightning(state, hyper), file)
    checkpoint = load_checkpoint(
        file, sequence_length=2.0, latent_step=0.5, output_scale=[3.0, 4.0]
    )
    assert (checkpoint.spec.window_s, checkpoint.spec.latent_step_s) == (2.0, 0.5)
    assert checkpoint.output == OutputScale(scale=(3.0, 4.0), offset=(1.5,))
    assert noted(checkpoint, "says sequence_length=1.0; the argument 2.0 won")
    assert noted(checkpoint, "says latent_step=0.125; the argument 0.5 won")
    assert noted(checkpoint, "says output scale [20.0]; the argument won")


def test_an_argument_that_agrees_is_no_contradiction(state: State, file: Path) -> None:
    checkpoint = load_checkpoint(save(lightning(state), file), sequence_length=1.0)
    assert not noted(checkpoint, "won")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_length": 0.0}, "sequence_length: expected seconds > 0, got 0.0"),
        ({"latent_step": math.nan}, "latent_step: expected seconds > 0, got nan"),
        ({"output_scale": 0.0}, "scale: expected numbers other than 0"),
        ({"output_scale": [1.0, 2.0, 3.0]}, "scale: expected 1 or 2 numbers, got 3"),
        ({"output_scale": "10"}, "scale: expected finite numbers"),
    ],
)
def test_arguments_without_sense_are_usage_errors(
    state: State, file: Path, arguments: dict[str, Any], message: str
) -> None:
    save(state, file)
    with pytest.raises(UsageError, match=message):
        load_checkpoint(file, **arguments)


def test_other_sizes_are_read_from_shapes(file: Path) -> None:
    spec = ModelSpec(
        dim=24, depth=3, dim_head=8, cross_heads=3, self_heads=5, latents_per_step=7, dim_out=1,
        ffn_mult=2, rotating_pairs=3,
    )  # fmt: skip
    ours = POYO(spec, ["a"], ["b"])
    assert load_checkpoint(save(ours.state_dict(), file)).spec == spec


def test_expected_shapes_are_all_keys_of_the_model() -> None:
    tensors = {
        k: v for k, v in POYO(POYO_1_3M, "abc", "d").state_dict().items() if "vocab" not in k
    }
    assert expected_shapes(POYO_1_3M, 4, 2) == {k: tuple(v.shape) for k, v in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32_with_a_note(
    state: State, file: Path, dtype: torch.dtype
) -> None:
    state["readout.weight"] = state["readout.weight"].to(dtype)
    checkpoint = load_checkpoint(save(state, file))
    assert checkpoint.weights["readout.weight"].dtype == torch.float32
    assert noted(checkpoint, f"stored as {dtype} were converted to float32")


@pytest.mark.parametrize("dim_head", [64, 16])
def test_omega_formula_is_told_from_the_values(dim_head: int) -> None:
    new = RotaryTimeEmbedding(dim_head, dim_head // 4).omega
    assert omega_formula(new) == "v0.1.1+"
    assert omega_formula(old_omega(dim_head)) == "v0.1.0"
    assert omega_formula(new * 1.001) == "custom"
    assert omega_formula(RotaryTimeEmbedding(dim_head, dim_head // 4, t_max=4.0).omega) == "custom"
    assert omega_formula(torch.zeros(8)) == "custom"


def test_old_omega_at_head_size_64_has_the_published_values() -> None:
    assert old_omega(64)[15].item() == pytest.approx(3.0461314, abs=1e-7)
    assert old_omega(64)[1].item() == pytest.approx(32400.457, abs=2e-3)


def test_session_units_take_the_longest_session_that_begins_the_id(
    state: State, file: Path
) -> None:
    assert load_checkpoint(save(state, file)).session_units() == {
        "perich/c_1": ("perich/c_1/u0", "perich/c_1/u1"),
        "perich/c_1/b": ("perich/c_1/b/u0",),
        "perich/t_9": ("perich/t_9/model.u0",),
    }


def test_units_of_no_session_are_left_out_and_noted(file: Path) -> None:
    ours = POYO(SPEC, ["day1/u0", "day12/u0", "loose"], ["day1", "day2"])
    checkpoint = load_checkpoint(save(ours.state_dict(), file))
    assert checkpoint.session_units() == {"day1": ("day1/u0",), "day2": ()}
    assert noted(checkpoint, "2 units match no session and belong to none, first 'day12/u0'")


def test_a_single_session_owns_units_without_its_name(file: Path) -> None:
    ours = POYO(SPEC, ["u0", "u1"], ["today"])
    checkpoint = load_checkpoint(save(ours.state_dict(), file))
    assert checkpoint.session_units() == {"today": ("u0", "u1")}
    assert not noted(checkpoint, "match no session")


REAL = {
    "wf5_bare.pt": ("B3", "state_dict", OutputScale()),
    "wf5_v0.1.2.ckpt": ("B2", "lightning", OutputScale()),
    "wf5_v0.1.0.ckpt": ("B1", "lightning", OutputScale(scale=(10.0,))),
}


@pytest.mark.parametrize("name", REAL)
def test_real_checkpoints(name: str) -> None:
    path = SHARED / name
    if not path.is_file():
        pytest.skip("the pretrained checkpoints are not beside this repository")
    layout, container, output = REAL[name]
    checkpoint = load_checkpoint(path)
    assert (checkpoint.layout, checkpoint.container) == (layout, container)
    assert checkpoint.output == output
    assert checkpoint.spec == ModelSpec(
        dim=64, depth=2, dim_head=64, cross_heads=2, self_heads=4, latents_per_step=8, dim_out=2
    )
    assert {len(units) for units in checkpoint.session_units().values()} == {96}
    assert len(checkpoint.session_units()) == 5
    assert torch.equal(checkpoint.model().rotary_emb.omega, checkpoint.weights[OMEGA])


def test_real_checkpoints_hold_the_same_weights() -> None:
    paths = [SHARED / name for name in REAL]
    if not all(path.is_file() for path in paths):
        pytest.skip("the pretrained checkpoints are not beside this repository")
    first, *others = (load_checkpoint(path) for path in paths)
    for other in others:
        assert other.unit_vocab == first.unit_vocab
        assert all(torch.equal(other.weights[k], v) for k, v in first.weights.items())
