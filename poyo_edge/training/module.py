"""The Lightning module: loss, optimiser, and which weights are frozen when.

Legend: B batch, Q queries, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from poyo_edge.checkpoint.additions import FILTERS, SHARING, filter_values
from poyo_edge.filters.named import NamedFilter
from poyo_edge.model import POYO
from poyo_edge.training.loss import step_loss
from poyo_edge.training.optim import optimizer_and_schedule
from poyo_edge.training.recipe import Recipe
from poyo_edge.training.sharing import SharedTables
from poyo_edge.training.windows import mixed

_TABLES = ("unit_emb.", "session_emb.")
_DECODER = ("dec_atn.", "dec_ffn.", "readout.")


class TrainingModule(LightningModule):
    """POYO and how a recipe trains it.

    Args:
        model: the model.
        recipe: optimiser, seed, freezing.
        hyper_parameters: what the checkpoint says beside the weights.
        steps: of the whole run.
        steps_per_epoch: to turn the recipe's epochs into steps.
        tables: what the rows of the model's tables are sums of, if they are.
        start_share: of the weights that tuning began with, in those that are kept.
        filters: session id → the filter that is mixed with the model; training leaves it alone.
    """

    def __init__(
        self,
        model: POYO,
        recipe: Recipe,
        hyper_parameters: dict[str, Any],
        steps: int,
        steps_per_epoch: int,
        tables: SharedTables | None = None,
        start_share: float = 0.0,
        filters: Mapping[str, NamedFilter] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.tables = tables
        self.recipe = recipe
        self.steps = steps
        self.start_share = start_share
        self.filters = filters or {}
        self._thaw = {
            name: thaw_step(name, model.spec.depth, recipe, steps_per_epoch)
            for name, _ in model.named_parameters()
        }
        others = [at for name, at in self._thaw.items() if not name.startswith(_TABLES)]
        self._tuned_from = min(others)
        self.average: dict[str, Tensor] = {}
        """Moving average of each parameter, once the first step is done; see ``averaged``."""
        self.start: dict[str, Tensor] = {}
        """What each parameter was when the first beside the tables began to be trained, where a
        share of it is kept."""
        self.save_hyperparameters(hyper_parameters)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Make dropout a function of seed, step and device: a resumed run draws the same."""
        if self.start_share and self.global_step == self._tuned_from:
            found = {name: p.detach().clone() for name, p in self._averaged()}
            self.start = {**found, **{n: value.clone() for n, value in self.average.items()}}
        if self.tables is not None:
            torch.manual_seed(mixed(self.recipe.seed, self.global_step))
            self.tables.vary(self.recipe.own_dropout)
            self.tables.write(self.model)
        torch.manual_seed(mixed(self.recipe.seed, self.global_step, self.global_rank))

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """The weighted mean square error over the windows of all devices, in the model's scale."""
        # DDP averages gradients over devices: each one's share of the sum, times their number.
        world, total = self.trainer.world_size, batch["target_weight"].sum()
        if world > 1:
            torch.distributed.all_reduce(total)
            total = total / world
        return step_loss(self.model, batch, total, self.recipe.at_once)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Take away the gradients of weights that are frozen in this step."""
        for name, parameter in self.model.named_parameters():
            if self.global_step < self._thaw[name]:
                parameter.grad = None
        if self.tables is not None:
            self.tables.take_gradients(self.model)

    def follow(self) -> None:
        """Let the average follow a step that is done.

        It starts fast, so that the first weights are soon forgotten. ``Watch`` calls it before it
        saves anything: Lightning would call a hook of this module afterwards.
        """
        if self.tables is not None:
            self.tables.settle()
            self.tables.write(self.model)
        if not self.recipe.average:
            return
        decay = min(self.recipe.average, self.global_step / (self.global_step + 9))
        with torch.no_grad():
            for name, parameter in self._averaged():
                if name not in self.average:
                    self.average[name] = parameter.detach().clone()
                self.average[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the model has the weights that are kept: the average, if the recipe
        wants one, on the way from where tuning began."""
        own = {name: p.detach().clone() for name, p in self._averaged()}
        kept = {**own, **self.average} if self.start else self.average
        for name, begun in self.start.items():
            kept[name] = kept[name].lerp(begun.to(kept[name].device), self.start_share)
        try:
            self._set(kept)
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._averaged():
            if name in weights:
                parameter.copy_(weights[name])

    def _averaged(self) -> list[tuple[str, Tensor]]:
        """What has an average: the model's parameters, and the parts of its tables."""
        parts = {} if self.tables is None else self.tables.parts
        named = [(f"{SHARING}.{name}", part) for name, part in parts.items()]
        return [*self.model.named_parameters(), *named]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """States to resume from hold the average too; finished checkpoints are it."""
        resumable = "optimizer_states" in checkpoint
        if resumable and self.average:
            checkpoint["average"] = self.average
        if resumable and self.start:
            checkpoint["start"] = self.start
        if self.tables is not None:
            if not resumable:
                self.tables.without_twins(checkpoint["state_dict"], "model.session_emb.")
            parts = {SHARING: self.tables.state(whole=resumable)}
            checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], **parts}
        if self.filters:
            kept = {FILTERS: filter_values(self.filters)}
            checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], **kept}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the average of the interrupted run."""
        average = checkpoint.get("average", {})
        self.average = {name: value.to(self.device) for name, value in average.items()}
        self.start = dict(checkpoint.get("start", {}))
        if self.tables is not None:
            self.tables.load(checkpoint["hyper_parameters"][SHARING])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The recipe's optimiser and its schedule, stepped after each batch."""
        optimizer, schedule = optimizer_and_schedule(
            self.model, self.recipe, self.steps, None if self.tables is None else self.tables.parts
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def thaw_step(name: str, depth: int, recipe: Recipe, steps_per_epoch: int) -> int:
    """The first step in which a parameter is trained.

    The two tables always are. After ``identify_epochs`` follow the decoder, then the processing
    layers from the last to the first, then the encoder with its latents and token types, one each
    ``unfreeze_epochs``.
    """
    if recipe.identify_epochs == 0 or name.startswith(_TABLES):
        return 0
    if name.startswith(_DECODER):
        place = 0
    elif name.startswith("proc_layers."):
        place = depth - int(name.split(".")[1])
    else:
        place = depth + 1
    return round((recipe.identify_epochs + place * recipe.unfreeze_epochs) * steps_per_epoch)
