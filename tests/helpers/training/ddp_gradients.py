"""Run by torchrun: trains two steps and keeps the gradients that the optimiser gets."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from helpers.training.tiny_run import TINY
from poyo_edge.training.recipe import Recipe
from poyo_edge.training.run import fit, make_trainer, quiet_lightning
from poyo_edge.training.start import prepare

STEPS = 2


class Gradients(Callback):
    """Keeps a copy of all gradients of each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Gradients are reduced over the devices by now."""
        grads = {n: p.grad.clone() for n, p in module.model.named_parameters()}
        self.steps.append(grads)


def recipe(devices: int) -> Recipe:
    """Without dropout inside the model, whose masks differ between devices by design."""
    return dataclasses.replace(
        TINY,
        steps=STEPS,
        ffn_dropout=0.0,
        lin_dropout=0.0,
        lr=1e-4,
        tail_weight=5.0,
        devices=devices,
        accelerator="cpu",
    )


def gradients(data: Path, devices: int) -> list[dict[str, torch.Tensor]]:
    """Gradients of each step, trained by so many processes."""
    plan = prepare(data, recipe(devices))
    kept = Gradients()
    with quiet_lightning():
        fit(make_trainer(plan, [kept]), plan)
    return kept.steps


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = gradients(Path(sys.argv[1]), 2)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        torch.save(found, sys.argv[2])
