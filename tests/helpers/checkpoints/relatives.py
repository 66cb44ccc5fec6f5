"""The layouts around today's POYO, each made from a POYO's ``state_dict`` as its writer made it.

The old ones are written from their description; the classes that they pickled are made up here,
under the names that they had, and gone again when the file is read.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helpers.checkpoints.files import (
    MODEL_HYPER,
    State,
    hyper_b1,
    lightning,
    numpy_words,
    old_omega,
    readout,
)

TASKS = ("cursor_velocity_2d", "arm_velocity_2d", "gaze")
DIM = 32


@contextlib.contextmanager
def foreign_class(module: str, name: str, *bases: type) -> Iterator[type]:
    """A class that can be pickled by its name, while the block runs."""
    parts = module.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    made = type(name, bases, {"__module__": module})
    added = {n: types.ModuleType(n) for n in names if n not in sys.modules}
    sys.modules.update(added)
    setattr(sys.modules[module], name, made)
    try:
        yield made
    finally:
        for added_name in added:
            del sys.modules[added_name]


def of_2024(state: State, omega: str) -> State:
    """Keys under ``perceiver_io.``, as they were before 2024-11."""
    outside = ("unit_emb.", "session_emb.", "latent_emb.", "readout.", "task_emb.")
    renamed = {}
    for key, value in state.items():
        key = key.replace("token_type_emb", "spike_type_emb").replace("rotary_emb.omega", omega)
        inner = not key.startswith((*outside, "spike_type_emb."))
        renamed[f"perceiver_io.{key}" if inner else key] = value
    return numpy_words(renamed)


def plus(state: State, tasks: tuple[str, ...] = TASKS, n_rows: int | None = None) -> State:
    """A POYO+: a table of tasks, and a readout of its own for each."""
    torch.manual_seed(3)
    out = {key: value for key, value in state.items() if not key.startswith("readout.")}
    out["task_emb.weight"] = torch.randn(len(tasks) + 1 if n_rows is None else n_rows, DIM)
    for i, task in enumerate(tasks):
        out[f"readout.projections.{task}.weight"] = torch.randn(i + 1, DIM)
        out[f"readout.projections.{task}.bias"] = torch.randn(i + 1)
    return out


def plus_oracle(oracle: Any, state: State, task: str, row: int) -> Any:
    """torch_brain's POYO that adds a task's row to its queries, as ``POYOPlus.forward`` does."""
    rows: Tensor = state["task_emb.weight"]
    head = nn.Linear(DIM, len(state[f"readout.projections.{task}.bias"]))
    head.load_state_dict(
        {part: state[f"readout.projections.{task}.{part}"] for part in ("weight", "bias")}
    )
    oracle.readout = head
    oracle.session_emb.register_forward_hook(lambda module, given, out: out + rows[row])
    return oracle


def with_pickled_module(state: State, path: Path) -> Path:
    """What Lightning saved in 2024: the model itself among the hyper-parameters."""
    with foreign_class("kirby.models.poyo", "POYO", nn.Module) as poyo:
        model = poyo()
        model.readout = nn.Linear(DIM, 2)
        model.dim, model.sequence_length, model.latent_step = 99, 2.0, 0.25
        torch.save(lightning(state, {"model": model, "lr": 0.1}), path)
    return path


def with_omegaconf(state: State, path: Path) -> Path:
    """What the ibl-bwb trainers save; the classes are those that OmegaConf pickles."""
    module = "omegaconf"
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(foreign_class(f"{module}.nodes", "AnyNode", object))
        mapping = stack.enter_context(foreign_class(f"{module}.dictconfig", "DictConfig", object))

        def config(value: Any) -> Any:
            made = mapping() if isinstance(value, dict) else node()
            if isinstance(value, dict):
                made.__dict__["_content"] = {k: config(v) for k, v in value.items()}
            else:
                made.__dict__["_val"] = value
            made.__dict__["_metadata"] = {"ref_type": Any, "object_type": dict, "key_type": int}
            return made

        cfg = {"model": {**MODEL_HYPER, "sequence_length": 2.0, "latent_step": 0.25}, "seed": 1}
        content = {"model_state_dict": state, "optim_state_dict": {}, "cfg": config(cfg)}
        torch.save({**content, "epoch": 3, "train_step": 9, "run_id": "x"}, path)
    return path


def saved(make: Callable[[State], object]) -> Callable[[State, Path], Path]:
    def write(state: State, path: Path) -> Path:
        torch.save(make(state), path)
        return path

    return write


def hyper_c() -> dict[str, Any]:
    """The scale of each task, as POYO+ keeps it."""
    several = [
        {"readout_id": "arm_velocity_2d", "normalize_std": 4.0},
        {"readout_id": "cursor_velocity_2d", "normalize_mean": 0.5, "normalize_std": 20.0},
    ]
    dataset = {"selection": [], "config": {"multitask_readout": several}}
    return {"model": dict(MODEL_HYPER), "dataset": [dataset]}


def _with_old_omega(state: State) -> State:
    return {**state, "rotary_emb.omega": old_omega(16)}


def _hyper_b0() -> dict[str, Any]:
    return {"model": {"dim": 128, "num_latents": 4}, "sequence_length": 1.0, "latent_step": 0.125}


EXTRA = torch.zeros(3, DIM)
WRITERS: dict[str, Callable[[State, Path], Path]] = {
    "A1": lambda s, p: with_pickled_module(of_2024(_with_old_omega(s), "rotary_emb.inv_freq"), p),
    "A2": lambda s, p: with_pickled_module(of_2024(_with_old_omega(s), "rotary_emb.omega"), p),
    "A2, POYO+": lambda s, p: with_pickled_module(
        of_2024(plus(_with_old_omega(s), ("2", "1")), "rotary_emb.omega"), p
    ),
    "B0": saved(lambda s: lightning(_with_old_omega(s), _hyper_b0())),
    "B1": saved(
        lambda s: lightning(numpy_words(_with_old_omega(s)), hyper_b1(readout(normalize_std=20.0)))
    ),
    "B2": saved(lambda s: lightning(numpy_words(s))),
    "B3": saved(dict),
    "C": saved(lambda s: lightning(plus(s), hyper_c())),
    "C, task rows unclear": saved(lambda s: lightning(plus(s, n_rows=20))),
    "D": saved(lambda s: lightning({**s, "input_value_map.weight": EXTRA})),
    "E": saved(lambda s: lightning({**s, "backbone.net.weight_ih_l0": EXTRA})),
    "F": with_omegaconf,
    "F, POYO+": lambda s, p: with_omegaconf(
        {**plus(s), "task_emb.vocab": {task: i for i, task in enumerate(TASKS, start=1)}}, p
    ),
    "F, POYO+ without a table of tasks": lambda s, p: with_omegaconf(plus(s), p),
    "G, DDP": saved(lambda s: lightning(s, prefix="model.module.")),
    "G, compiled": saved(lambda s: lightning(s, prefix="model._orig_mod.")),
    "G, LoRA": saved(lambda s: lightning({**s, "enc_atn.to_q.lora_A": EXTRA})),
}
