"""Layouts A and C to G: exported with the outputs of their own model, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch_brain.models", reason="torch_brain writes the files")

import safetensors.torch
import torch
from helpers.checkpoints.files import (
    MODEL_HYPER,
    State,
    assert_decodes_like,
    lightning,
    noted,
    numpy_words,
    old_omega,
    save,
)
from helpers.checkpoints.relatives import (
    DIM,
    EXTRA,
    TASKS,
    WRITERS,
    hyper_c,
    of_2024,
    plus,
    plus_oracle,
)
from torch import Tensor

from poyo_edge.checkpoint import load_checkpoint, open_checkpoint
from poyo_edge.errors import CheckpointError, UsageError
from poyo_edge.inspecting import inspect_path
from poyo_edge.spec import OutputScale


@pytest.mark.parametrize(("layout", "formula"), [("A1", "v0.1.0"), ("A2", "v0.1.0")])
def test_layout_a_decodes_like_its_model(
    oracle: Any, state: State, file: Path, layout: str, formula: str
) -> None:
    oracle.rotary_emb.omega.copy_(old_omega(16))
    checkpoint = load_checkpoint(WRITERS[layout](state, file))
    assert (checkpoint.layout, checkpoint.omega_formula) == (layout, formula)
    assert_decodes_like(checkpoint, oracle)


def test_layout_a_takes_plain_attributes_of_the_pickled_module(state: State, file: Path) -> None:
    checkpoint = load_checkpoint(WRITERS["A1"](state, file))
    assert (checkpoint.spec.window_s, checkpoint.spec.latent_step_s) == (2.0, 0.25)
    assert noted(checkpoint, "says dim=99, the tensors say 32; the tensors won")
    assert noted(checkpoint, "by the key 'perceiver_io.rotary_emb.inv_freq'")


def test_keys_of_two_times_in_one_file_are_refused(state: State, file: Path) -> None:
    both = {**of_2024(state, "rotary_emb.omega"), "rotary_emb.omega": old_omega(16)}
    with pytest.raises(CheckpointError, match=r"omega: expected one key of that name, got it and"):
        load_checkpoint(save(both, file))


@pytest.mark.parametrize(("task", "row"), [(TASKS[0], 1), (TASKS[2], 3)])
def test_layout_c_decodes_like_poyo_plus_for_the_task(
    oracle: Any, state: State, file: Path, task: str, row: int
) -> None:
    several = plus(state)
    checkpoint = load_checkpoint(save(lightning(several, hyper_c()), file), task=task)
    assert (checkpoint.layout, checkpoint.task, checkpoint.tasks) == ("C", task, TASKS)
    assert checkpoint.spec.dim_out == row
    assert noted(checkpoint, f"readout of task '{task}' and added row {row}")
    assert_decodes_like(checkpoint, plus_oracle(oracle, several, task, row))


def test_layout_c_takes_the_scale_of_its_task(state: State, file: Path) -> None:
    save(lightning(plus(state), hyper_c()), file)
    arm = load_checkpoint(file, task="arm_velocity_2d")
    assert (arm.output, arm.scaled) == (OutputScale(scale=(4.0,)), True)
    assert load_checkpoint(file, task="gaze").scaled is False


@pytest.mark.parametrize(("task", "got"), [(None, "none named"), ("eyes", "'eyes'"), ("", "''")])
def test_layout_c_needs_one_of_its_tasks(
    state: State, file: Path, task: str | None, got: str
) -> None:
    save(lightning(plus(state)), file)
    with pytest.raises(UsageError) as caught:
        load_checkpoint(file, task=task)
    expected = f"{file}: task: expected one of the tasks {list(TASKS)}, got {got}; name one"
    assert str(caught.value) == f"{expected} (--task)"


def test_a_single_task_need_not_be_named(oracle: Any, state: State, file: Path) -> None:
    one = plus(state, ("gaze",))
    checkpoint = load_checkpoint(save(one, file))
    assert (checkpoint.layout, checkpoint.task) == ("C", "gaze")
    assert_decodes_like(checkpoint, plus_oracle(oracle, one, "gaze", 1))


def test_a_task_of_a_poyo_is_a_usage_error(state: State, file: Path) -> None:
    with pytest.raises(UsageError, match="task: expected none for a POYO, got 'gaze'"):
        load_checkpoint(save(state, file), task="gaze")


def test_numbered_readouts_are_rows_of_the_task_table(
    oracle: Any, state: State, file: Path
) -> None:
    several = plus(state, ("7", "2"), n_rows=9)
    checkpoint = load_checkpoint(save(several, file), task="7")
    assert_decodes_like(checkpoint, plus_oracle(oracle, several, "7", 7))


def test_a_table_of_tasks_in_the_file_wins(oracle: Any, state: State, file: Path) -> None:
    several = {
        **plus(state, n_rows=9),
        "task_emb.vocab": {"NA": 0, **dict(zip(TASKS, (5, 4, 8), strict=True))},
    }
    checkpoint = load_checkpoint(save(several, file), task="gaze")
    assert_decodes_like(checkpoint, plus_oracle(oracle, several, "gaze", 8))


BROKEN_PLUS: dict[str, tuple[Callable[[State], State], str]] = {
    "rows unclear": (
        lambda s: plus(s, n_rows=20),
        r"task_emb\.weight: expected 4 rows, one for each of 3 readouts behind row 0, got 20 rows",
    ),
    "no readouts": (lambda s: {**s, "task_emb.weight": EXTRA}, "got 0 readouts"),
    "no table": (
        lambda s: {k: v for k, v in plus(s).items() if k != "task_emb.weight"},
        r"task_emb\.weight: expected a row for each readout of a POYO\+, got no such key",
    ),
    "row out of range": (lambda s: plus(s, ("9",)), r"task_emb\.weight: expected rows 0 to 1"),
    "tasks missing": (
        lambda s: {**plus(s), "task_emb.vocab": {"gaze": 1}},
        r"task_emb\.vocab: expected the tasks \['cursor",
    ),
    "other width": (
        lambda s: {**plus(s), "task_emb.weight": torch.zeros(4, 8)},
        r"session_emb\.weight: expected rows as wide as task_emb\.weight, 8, got \(4, 32\)",
    ),
    "no bias": (
        lambda s: {k: v for k, v in plus(s).items() if k != "readout.projections.gaze.bias"},
        r"readout\.bias: expected a tensor of shape \(3,\)",
    ),
}


@pytest.mark.parametrize("name", BROKEN_PLUS)
def test_a_poyo_plus_without_sense_is_refused_by_key(state: State, file: Path, name: str) -> None:
    make, message = BROKEN_PLUS[name]
    save(make(state), file)
    with pytest.raises(CheckpointError, match=message):
        opened = open_checkpoint(file)
        opened.load(task="gaze" if "gaze" in opened.tasks else None)


def test_layout_f_is_read_without_omegaconf(oracle: Any, state: State, file: Path) -> None:
    checkpoint = load_checkpoint(WRITERS["F"](state, file))
    assert (checkpoint.layout, checkpoint.container) == ("F", "model_state_dict")
    assert (checkpoint.spec.window_s, checkpoint.spec.latent_step_s) == (2.0, 0.25)
    assert noted(checkpoint, "by the key 'model_state_dict'")
    assert_decodes_like(checkpoint, oracle)


def test_layout_f_as_omegaconf_itself_pickles_it(oracle: Any, state: State, file: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf", reason="the real classes are not installed")
    values = {"model": {**MODEL_HYPER, "sequence_length": 2.0, "tags": ["a", 1, None]}, "a": "${b}"}
    cfg = omegaconf.OmegaConf.create(values)
    checkpoint = load_checkpoint(save({"model_state_dict": state, "cfg": cfg, "epoch": 1}, file))
    assert checkpoint.layout == "F"
    assert checkpoint.spec.window_s == 2.0
    assert_decodes_like(checkpoint, oracle)


def test_parts_of_a_model_that_were_compiled(oracle: Any, state: State, file: Path) -> None:
    renamed = {k.replace("enc_atn.", "enc_atn._orig_mod."): v for k, v in state.items()}
    assert_decodes_like(load_checkpoint(save(lightning(renamed), file)), oracle)


def write_safetensors(state: State, file: Path) -> Path:
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    file = file.with_suffix(".safetensors")
    safetensors.torch.save_file(tensors, file)
    return file


def write_vocab(state: State, path: Path) -> Path:
    vocab = {key: dict(value) for key, value in state.items() if key.endswith(".vocab")}
    path.write_text(json.dumps(vocab))
    return path


def test_safetensors_take_the_vocabulary_beside_them(oracle: Any, state: State, file: Path) -> None:
    weights = write_safetensors(state, file)
    write_vocab(numpy_words(state), file.with_name("model.vocab.json"))
    checkpoint = load_checkpoint(weights)
    assert (checkpoint.layout, checkpoint.container) == ("B3", "safetensors")
    assert_decodes_like(checkpoint, oracle)


def test_a_vocabulary_file_can_be_named(oracle: Any, state: State, file: Path) -> None:
    vocab = write_vocab(state, file.with_name("words.json"))
    assert_decodes_like(load_checkpoint(write_safetensors(state, file), vocab=vocab), oracle)
    bare = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    assert_decodes_like(load_checkpoint(save(bare, file), vocab=vocab), oracle)


def test_safetensors_of_a_poyo_plus_need_the_rows_of_tasks(
    oracle: Any, state: State, file: Path
) -> None:
    several = {**plus(state), "task_emb.vocab": dict(zip(TASKS, (1, 2, 3), strict=True))}
    weights = write_safetensors(several, file)
    write_vocab(several, file.with_name("model.vocab.json"))
    checkpoint = load_checkpoint(weights, task="gaze")
    assert_decodes_like(checkpoint, plus_oracle(oracle, several, "gaze", 3))


def test_safetensors_without_a_vocabulary_are_refused(state: State, file: Path) -> None:
    message = r"vocabulary: expected a vocabulary file beside the weights, model\.vocab\.json"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(write_safetensors(state, file))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"units": {}}', "[" * 100_000])
def test_a_vocabulary_file_without_sense_is_refused(state: State, file: Path, text: str) -> None:
    vocab = file.with_name("model.vocab.json")
    vocab.write_text(text)
    with pytest.raises(CheckpointError, match="vocabulary: expected JSON with unit_emb") as caught:
        load_checkpoint(write_safetensors(state, file))
    assert caught.value.path == str(vocab)


def test_a_vocabulary_for_a_file_that_has_one_is_a_usage_error(state: State, file: Path) -> None:
    vocab = write_vocab(state, file.with_name("words.json"))
    with pytest.raises(UsageError, match="expected vocabularies that the checkpoint lacks, got 'u"):
        load_checkpoint(save(state, file), vocab=vocab)


@pytest.mark.parametrize("layout", ["C, task rows unclear", "F, POYO+ without a table of tasks"])
def test_a_vocabulary_file_settles_the_rows_of_tasks(state: State, file: Path, layout: str) -> None:
    WRITERS[layout](state, file)
    with pytest.raises(CheckpointError, match=r"say which row is whose: --vocab FILE\.json with"):
        load_checkpoint(file)
    vocab = file.with_name("tasks.json")
    vocab.write_text(json.dumps({"task_emb.vocab": dict(zip(TASKS, (2, 3, 1), strict=True))}))
    checkpoint = load_checkpoint(file, vocab=vocab, task="gaze")
    added = checkpoint.weights["session_emb.weight"] - state["session_emb.weight"]
    row = plus(state, n_rows=20 if layout.startswith("C") else None)["task_emb.weight"][1]
    torch.testing.assert_close(added, row.expand_as(added), rtol=0, atol=1e-5)


def test_damaged_safetensors_are_refused(state: State, file: Path) -> None:
    weights = write_safetensors(state, file)
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="got a truncated or damaged file"):
        load_checkpoint(weights)


REFUSED = {
    "D": "layout D (CaPOYO, calcium traces instead of spikes), by the key 'input_value_map.weight'",
    "E": "layout E (POSSM, a recurrent model), by the key 'backbone.net.weight_ih_l0'",
    "G, LoRA": "a LoRA checkpoint whose adapters are not merged into the weights, by the key "
    "'enc_atn.to_q.lora_A'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_poyo_is_refused_by_name(state: State, file: Path, name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(WRITERS[name](state, file))
    assert (caught.value.field, caught.value.got) == ("layout", REFUSED[name])


@pytest.mark.parametrize("key", ["to_q.A", "to_kv.B.weight", "to_q.lora_B.default.weight"])
def test_adapters_are_known_by_other_names_too(state: State, file: Path, key: str) -> None:
    with pytest.raises(CheckpointError, match="LoRA checkpoint whose adapters are not merged"):
        load_checkpoint(save({**state, f"enc_atn.{key}": torch.zeros(2, DIM)}, file))


@pytest.mark.parametrize(
    ("layout", "why"),
    [
        ("A1", "Recognised layout A1 by the key 'perceiver_io.rotary_emb.inv_freq'"),
        ("B0", "Recognised layout B0 by 'num_latents' in hyper_parameters['model']"),
        ("B1", "Recognised layout B1 by the output scale in hyper_parameters['dataset']"),
        ("B2", "Recognised layout B2 by hyper-parameters without an output scale"),
        ("B3", "Recognised layout B3 by the lack of hyper-parameters"),
        ("C", "Recognised layout C by the key 'task_emb.weight', POYO+ with the tasks cursor"),
        ("F", "Recognised layout F by the key 'model_state_dict'"),
    ],
)
def test_inspect_says_what_was_recognised_and_why(
    state: State, file: Path, layout: str, why: str
) -> None:
    about = inspect_path(WRITERS[layout](state, file))
    assert about["layout"] == layout
    assert about["notes"][0].startswith(why)
    assert about["tasks"] == (list(TASKS) if layout == "C" else [])
    assert any("Export one of them with --task" in n for n in about["notes"]) == (layout == "C")


def test_a_task_is_exported_with_its_parity(state: State, file: Path, tmp_path: Path) -> None:
    from poyo_edge.export.pipeline import ExportOptions, export_checkpoint

    options = ExportOptions(task="arm_velocity_2d", dry_run=True)
    report = export_checkpoint(WRITERS["C"](state, file), tmp_path / "x.poyo", options).to_json()
    assert report["source"]["task"] == "arm_velocity_2d"
    assert report["spec"]["dim_out"] == 2
    assert 0 < report["max_abs_error"] < report["tolerance"]
