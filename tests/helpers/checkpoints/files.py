"""Checkpoints that tests write, in the layouts that are out there, and what they must decode to.

Import it behind ``pytest.importorskip("torch")``.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import paths
from helpers.models.oracle import make_oracle
from poyo_edge.checkpoint import Checkpoint
from poyo_edge.spec import ModelSpec
from poyo_edge.tokens import latent_tokens, window_tokens

State = dict[str, Any]

SPEC = ModelSpec(
    dim=32, depth=2, dim_head=16, cross_heads=2, self_heads=3, latents_per_step=4, dim_out=2,
    rotating_pairs=4,
)  # fmt: skip

SESSIONS = ["perich/c_1", "perich/c_1/b", "perich/t_9"]

UNITS = ["perich/c_1/u0", "perich/c_1/u1", "perich/c_1/b/u0", "perich/t_9/model.u0"]

MODEL_HYPER = {
    "_target_": "torch_brain.models.POYO",
    "sequence_length": 1.0,
    "latent_step": 0.125,
    "num_latents_per_step": 4,
    "dim": 32,
    "depth": 2,
    "dim_head": 16,
    "cross_heads": 2,
    "self_heads": 3,
    "ffn_dropout": 0.2,
}

OMEGA = "rotary_emb.omega"

SHARED = paths.SHARED / "checkpoints"


def small_oracle() -> Any:
    """torch_brain's POYO of the sizes of ``SPEC``, with weights that make a difference."""
    return make_oracle(SPEC, UNITS, SESSIONS)


def save(content: object, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def lightning(state: State, hyper: object = None, prefix: str = "model.") -> dict[str, Any]:
    """The dict that a Lightning trainer saves."""
    return {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.1",
        "state_dict": OrderedDict({prefix + key: value for key, value in state.items()}),
        "loops": {},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
        "hyper_parameters": {"model": dict(MODEL_HYPER)} if hyper is None else hyper,
    }


def readout(**scale: Any) -> dict[str, Any]:
    """One entry of ``hyper_parameters["dataset"]`` as v0.1.0 saved it."""
    section = {"readout_id": "cursor_velocity_2d", **scale}
    return {"selection": [{"brainset": "perich"}], "config": {"readout": section}}


def hyper_b1(*datasets: dict[str, Any]) -> dict[str, Any]:
    return {"model": dict(MODEL_HYPER), "dataset": list(datasets), "epochs": 1}


def numpy_words(state: State) -> State:
    """The state with ``numpy.str_`` vocabulary words, as v0.1 saved them."""
    out = dict(state)
    for key in ("unit_emb.vocab", "session_emb.vocab"):
        out[key] = OrderedDict({np.str_(word): row for word, row in state[key].items()})
    return out


def old_omega(dim_head: int) -> Tensor:
    """``omega`` by the formula of v0.1.0, in float32 like there."""
    omega = torch.zeros(dim_head // 2)
    power = torch.arange(0, dim_head // 2, 2).float() / (dim_head // 2)
    omega[: dim_head // 4] = 2 * torch.pi / (1e-4 * (4.0 / 1e-4) ** power)
    return omega


def predict(model: nn.Module, units: list[int], sessions: list[int]) -> Tensor:
    """Predictions for a fixed window of two sessions; rows are the model's own."""
    rng = np.random.default_rng(5)
    tokens = window_tokens(np.sort(rng.uniform(0, 1, 40)), rng.integers(0, 4, 40), 4, 1.0)
    index, time = latent_tokens(SPEC)
    with torch.no_grad():
        out: Tensor = model(
            input_unit_index=torch.tensor(units)[torch.from_numpy(tokens.unit)].expand(2, -1),
            input_timestamps=torch.from_numpy(tokens.time).float().expand(2, -1),
            input_token_type=torch.from_numpy(tokens.type).expand(2, -1),
            latent_index=torch.from_numpy(index).expand(2, -1),
            latent_timestamps=torch.from_numpy(time).float().expand(2, -1),
            session_index=torch.tensor(sessions[:2]),
            output_timestamps=torch.linspace(0, 1, 6).expand(2, -1),
        )
    return out


def assert_decodes_like(checkpoint: Checkpoint, oracle: Any) -> None:
    model = checkpoint.model()
    assert not model.training
    ours = predict(model, model.unit_emb.rows(UNITS), model.session_emb.rows(SESSIONS))
    units, sessions = oracle.unit_emb.tokenizer(UNITS), oracle.session_emb.tokenizer(SESSIONS)
    theirs = predict(oracle, units, sessions)
    assert theirs.std() > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.std().item())


def noted(checkpoint: Checkpoint, text: str) -> bool:
    return any(text in note for note in checkpoint.notes)


def plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=4))


def torch_zip(content: object, path: Path) -> None:
    torch.save(content, path)


def torch_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS = [torch_zip, torch_legacy, plain_pickle]
