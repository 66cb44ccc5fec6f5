"""Weights, vocabularies and hyper-parameters that contradict each other or themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch_brain.models", reason="torch_brain writes the files")

import torch
from helpers.checkpoints.files import (
    MODEL_HYPER,
    OMEGA,
    SESSIONS,
    SPEC,
    UNITS,
    State,
    hyper_b1,
    lightning,
    noted,
    readout,
    save,
)
from torch import Tensor

from poyo_edge.checkpoint import load_checkpoint
from poyo_edge.errors import CheckpointError
from poyo_edge.spec import OutputScale


def with_vocab(change: Callable[[dict[Any, Any]], object]) -> Callable[[State], None]:
    def apply(state: State) -> None:
        vocab = dict(state["unit_emb.vocab"])
        change(vocab)
        state["unit_emb.vocab"] = vocab

    return apply


def with_tensor(key: str, change: Callable[[Tensor], object]) -> Callable[[State], None]:
    def apply(state: State) -> None:
        state[key] = change(state[key].clone())

    return apply


def drop(key: str) -> Callable[[State], None]:
    return lambda state: state.pop(key)


def fill(index: int, value: float) -> Callable[[Tensor], Tensor]:
    def apply(tensor: Tensor) -> Tensor:
        tensor.view(-1)[index] = value
        return tensor

    return apply


INCONSISTENT: dict[str, tuple[Callable[[State], object], str]] = {
    "missing key": (
        drop("dec_atn.to_q.weight"),
        r"dec_atn\.to_q\.weight: expected a tensor of shape \(32, 32\), got no such key \(1 of",
    ),
    "missing layer": (
        drop("proc_layers.1.0.to_qkv.weight"),
        r"proc_layers\.1\.0\.to_qkv\.weight: expected a tensor of shape \(144, 32\)",
    ),
    "unexpected key": (
        lambda s: s.update({"extra.weight": torch.zeros(2)}),
        r"extra\.weight: expected no such key in a POYO, got a tensor of shape \(2,\)",
    ),
    "shape": (
        with_tensor("readout.bias", lambda t: torch.zeros(3)),
        r"readout\.bias: expected shape \(2,\), got shape \(3,\)",
    ),
    "feed-forward": (
        with_tensor("enc_ffn.1.net.3.weight", lambda t: torch.zeros(32, 70)),
        r"enc_ffn\.1\.net\.0\.weight: expected shape \(128, 32\), got shape \(256, 32\)",
    ),
    "heads": (
        with_tensor("enc_atn.to_q.weight", lambda t: torch.zeros(33, 32)),
        r"enc_atn\.to_q\.weight: expected a multiple of 16 rows, got 33 rows",
    ),
    "axes": (
        with_tensor("latent_emb.weight", lambda t: torch.zeros(4)),
        r"latent_emb\.weight: expected a tensor with 2 non-empty axes, got shape \(4,\)",
    ),
    "empty table": (
        with_tensor("unit_emb.weight", lambda t: torch.zeros(0, 32)),
        r"unit_emb\.weight: expected a tensor with 2 non-empty axes",
    ),
    "integers": (
        with_tensor("readout.weight", lambda t: t.long()),
        r"readout\.weight: expected a dense floating-point tensor, got torch\.int64",
    ),
    "no tensor": (
        lambda s: s.update({"readout.weight": 3}),
        r"readout\.weight: expected a dense floating-point tensor, got int",
    ),
    "sparse": (
        with_tensor("readout.weight", lambda t: t.to_sparse()),
        r"readout\.weight: expected a dense floating-point tensor, got a torch\.sparse_coo tensor",
    ),
    "nan": (
        with_tensor("readout.weight", fill(3, math.nan)),
        r"readout\.weight: expected finite float32 numbers, got 1 that are not finite",
    ),
    "too large for float32": (
        with_tensor("readout.weight", lambda t: fill(0, 1e300)(t.double())),
        r"readout\.weight: expected finite float32 numbers, got 1 that",
    ),
    "omega infinite": (with_tensor(OMEGA, fill(0, math.inf)), "omega: expected finite"),
    "omega negative": (
        with_tensor(OMEGA, fill(0, -3.0)),
        "omega: expected rates >= 0 rad/s, got -3",
    ),
    "omega gap": (with_tensor(OMEGA, fill(1, 0.0)), "omega: expected zeros only at the end"),
    "omega axes": (
        with_tensor(OMEGA, lambda t: t[None]),
        "omega: expected a tensor with 1 non-empty",
    ),
    "no vocabulary": (
        drop("unit_emb.vocab"),
        r"unit_emb\.vocab: expected a mapping .* no such key",
    ),
    "vocabulary is a list": (
        lambda s: s.update({"session_emb.vocab": SESSIONS}),
        r"session_emb\.vocab: expected a mapping from ids to rows, got list",
    ),
    "no NA": (
        with_vocab(lambda v: v.pop("NA")),
        "expected the word 'NA' at row 0, got no such word",
    ),
    "NA elsewhere": (
        with_vocab(lambda v: v.update({"NA": 1, UNITS[0]: 0})),
        "expected the word 'NA' at row 0, got 1",
    ),
    "row too large": (
        with_vocab(lambda v: v.update({UNITS[0]: 99})),
        "expected ids with rows 0 to 4, got 'perich/c_1/u0': 99",
    ),
    "row negative": (with_vocab(lambda v: v.update({UNITS[0]: -1})), "c_1/u0': -1"),
    "row is a bool": (with_vocab(lambda v: v.update({UNITS[0]: True})), "c_1/u0': True"),
    "row is a float": (with_vocab(lambda v: v.update({UNITS[0]: 1.0})), r"c_1/u0': 1\.0"),
    "word is a number": (with_vocab(lambda v: v.update({7: 1})), "got 7: 1"),
    "word is half a letter": (with_vocab(lambda v: v.update({"\ud800": 1})), r"got '\\ud800': 1"),
    "word holds a NUL": (with_vocab(lambda v: v.update({"u\0": 1})), r"got 'u\\x00': 1"),
    "row used twice": (
        with_vocab(lambda v: v.update({UNITS[0]: 2})),
        "expected a row of its own for each id, got ids that share a row",
    ),
    "too few ids": (
        with_vocab(lambda v: v.pop(UNITS[3])),
        "expected 5 ids, one per row of the table, got 4 ids",
    ),
    "key with and without prefix": (
        lambda s: s.update({"model.readout.bias": s["readout.bias"]}),
        r"model\.readout\.bias: expected no such key",
    ),
}


@pytest.mark.parametrize("name", INCONSISTENT)
def test_inconsistent_weights_are_refused_by_key(state: State, file: Path, name: str) -> None:
    break_it, message = INCONSISTENT[name]
    load_checkpoint(save(state, file))
    break_it(state)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(save(state, file))
    assert "\n" not in str(caught.value)


def test_a_key_that_occurs_with_and_without_prefix_is_refused(state: State, file: Path) -> None:
    content = lightning(state)
    content["state_dict"]["readout.bias"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"both with and without the prefix 'model\.'"):
        load_checkpoint(save(content, file))


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"model": {**MODEL_HYPER, "sequence_length": "1s"}}, "sequence_length: .* got '1s'"),
        ({"model": {**MODEL_HYPER, "latent_step": -1.0}}, "latent_step: expected seconds > 0"),
        ({"model": {**MODEL_HYPER, "latent_step": 2.0}}, "latent_step: expected 1 to 65536 steps"),
        ({"model": {**MODEL_HYPER, "latent_step": 1e-12}}, "latent_step: expected 1 to 65536"),
        (hyper_b1(readout(normalize_std=0.0)), "normalize_std other than 0, got 0.0 and None"),
        (hyper_b1(readout(normalize_std=[1.0] * 3)), "expected 1 or 2 finite numbers"),
        (hyper_b1(readout(normalize_std="x")), "expected 1 or 2 finite numbers"),
        (hyper_b1(readout(normalize_std=1.0, normalize_mean=math.nan)), "got 1.0 and nan"),
    ],
)
def test_hyper_parameters_without_sense_are_refused(
    state: State, file: Path, hyper: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(save(lightning(state, hyper), file))


def test_arguments_overrule_hyper_parameters_without_sense(state: State, file: Path) -> None:
    hyper = hyper_b1(readout(normalize_std=0.0))
    hyper["model"]["sequence_length"] = torch.zeros(3)
    save(lightning(state, hyper), file)
    checkpoint = load_checkpoint(file, sequence_length=1.0, output_scale=5.0)
    assert checkpoint.output == OutputScale(scale=(5.0,))
    assert checkpoint.spec.window_s == 1.0


@pytest.mark.parametrize("hyper", [{"lr": 0.1}, {"model": None, "dataset": [None, {}]}, [1, 2]])
def test_hyper_parameters_of_another_kind_fall_back_to_defaults(
    state: State, file: Path, hyper: object
) -> None:
    checkpoint = load_checkpoint(save(lightning(state, hyper), file))
    assert checkpoint.layout in ("B2", "B3")
    assert checkpoint.spec == SPEC
    assert noted(checkpoint, "default of 1 s")
