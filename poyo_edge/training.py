"""Training of POYO over several sessions, with torch_brain's data tools and Lightning.

Random windows of all sessions are mixed in each batch; every session has its own units and its
own session embedding. The loss is the mean square error in the model's scale. Samples at the
end of the window weigh more, because a live decoder asks for nothing else.

The checkpoint has the layout that torch_brain 0.1 wrote, so torch_brain opens it as well. It
holds plain Python and torch types only and loads with ``weights_only=True``.

Legend: B batch, N input tokens, Q queries, U units, O outputs.
"""

from __future__ import annotations

import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poyo_edge.errors import CheckFailedError, MissingExtraError
from poyo_edge.files import atomic_path
from poyo_edge.spec import OutputScale
from poyo_edge.training_recipe import DEMO_RECIPE, Recipe

try:
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
    from torch import Tensor
    from torch.utils.data import DataLoader
except ImportError as error:
    package = (error.name or "lightning").partition(".")[0]
    raise MissingExtraError(package, "train", "training") from error

from poyo_edge.model import POYO
from poyo_edge.training_data import (
    TrainingSession,
    check_distinct,
    measured_scale,
    training_loader,
)

__all__ = ["DEMO_RECIPE", "Recipe", "TrainingResult", "train"]

Progress = Callable[[int, int, float], None]
"""Called after each step with the step, the number of steps and the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a training run did."""

    checkpoint: Path
    session_ids: tuple[str, ...]
    n_units: int
    """Units of all sessions together."""
    scale: OutputScale
    losses: tuple[float, ...]
    """Loss of each step, in the model's scale."""
    wall_s: float


def train(
    recordings: Sequence[str | Path],
    recipe: Recipe,
    checkpoint: str | Path,
    *,
    on_progress: Progress | None = None,
) -> TrainingResult:
    """Train a model on the recordings and write its checkpoint, whole or not at all.

    Seeds the global random generators of Python, numpy and torch: the same recordings, recipe
    and number of threads give the same weights on a CPU.

    Args:
        recordings: one file for each session.
        recipe: sizes, behaviour, optimiser and data options.
        checkpoint: the file to write; an existing one is replaced, absent folders are made.
        on_progress: called after each step.

    Raises:
        RecordingError: a recording cannot be used: no such behaviour or split, a session or unit
            that occurs twice, NaN, behaviour that never changes, no window that fits.
        UsageError: no recording at all.
        CheckFailedError: the loss became NaN or infinite.
    """
    started = time.perf_counter()
    checkpoint = Path(checkpoint)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    sessions = [TrainingSession.open(Path(path), recipe) for path in recordings]
    check_distinct(sessions)
    scale = recipe.scale or measured_scale(sessions)
    seed_everything(recipe.seed, verbose=False)
    module = _Module(
        _new_model(sessions, recipe), recipe, _hyper_parameters(sessions, recipe, scale)
    )
    losses = _Losses(recipe.steps, on_progress)
    with _quiet_lightning(), _threads(recipe.threads):
        trainer = _trainer(recipe, losses)
        model = module.model
        vocabs = (model.unit_emb.vocab, model.session_emb.vocab)
        _fit(trainer, module, training_loader(sessions, recipe, scale, *vocabs))
        with atomic_path(checkpoint) as temporary:
            trainer.save_checkpoint(temporary, weights_only=True)
    return TrainingResult(
        checkpoint=checkpoint,
        session_ids=tuple(s.recording.session_id for s in sessions),
        n_units=sum(len(s.recording.unit_ids) for s in sessions),
        scale=scale,
        losses=tuple(losses.values),
        wall_s=time.perf_counter() - started,
    )


def _new_model(sessions: Sequence[TrainingSession], recipe: Recipe) -> POYO:
    return POYO(
        recipe.spec,
        [unit for s in sessions for unit in s.recording.unit_ids],
        [s.recording.session_id for s in sessions],
        ffn_dropout=recipe.ffn_dropout,
        lin_dropout=recipe.lin_dropout,
        atn_dropout=recipe.atn_dropout,
    )


def _hyper_parameters(
    sessions: Sequence[TrainingSession], recipe: Recipe, scale: OutputScale
) -> dict[str, Any]:
    """The keys that torch_brain 0.1 wrote: its model's arguments and the output scale."""
    spec = recipe.spec
    group, _, _ = recipe.behavior.partition(".")
    readout = {
        "readout_id": _READOUT_IDS.get(recipe.behavior, recipe.behavior.replace(".", "_")),
        "normalize_mean": _number_or_list(scale.offset),
        "normalize_std": _number_or_list(scale.scale),
        "timestamp_key": f"{group}.timestamps",
        "value_key": recipe.behavior,
        "unit": scale.unit,
    }
    return {
        "model": {
            "_target_": "torch_brain.models.POYO",
            "sequence_length": spec.window_seconds,
            "latent_step": float(spec.latent_step_s),
            "num_latents_per_step": spec.latents_per_step,
            "dim": spec.dim,
            "dim_head": spec.dim_head,
            "depth": spec.depth,
            "cross_heads": spec.cross_heads,
            "self_heads": spec.self_heads,
            "ffn_dropout": recipe.ffn_dropout,
            "lin_dropout": recipe.lin_dropout,
            "atn_dropout": recipe.atn_dropout,
        },
        "dataset": [
            {
                "selection": [{"sessions": [s.recording.session_id for s in sessions]}],
                "config": {"readout": readout},
            }
        ],
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "seed": recipe.seed,
        "optim": {"lr": recipe.lr, "weight_decay": recipe.weight_decay},
    }


_READOUT_IDS = {"cursor.vel": "cursor_velocity_2d", "cursor.pos": "cursor_position_2d"}
"""Names of behaviours in torch_brain 0.1's list of modalities."""


def _number_or_list(values: tuple[float, ...]) -> float | list[float]:
    numbers = [float(v) for v in values]
    return numbers[0] if len(numbers) == 1 else numbers


def _trainer(recipe: Recipe, callback: Callback) -> Trainer:
    return Trainer(
        max_steps=recipe.steps,
        max_epochs=-1,
        accelerator="auto",
        devices=1,
        gradient_clip_val=recipe.clip_norm,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _fit(trainer: Trainer, module: LightningModule, loader: DataLoader[Any]) -> None:
    """Train. Lightning ends the process on Ctrl-C; here the caller gets the interrupt."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, loader)
    except SystemExit:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


class _Module(LightningModule):
    def __init__(self, model: POYO, recipe: Recipe, hyper_parameters: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.save_hyperparameters(hyper_parameters)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """The weighted mean square error of a batch, in the model's scale."""
        target, mask = batch.pop("target"), batch.pop("target_mask")
        prediction = self.model(**batch)
        tail = batch["output_timestamps"] >= self.recipe.spec.window_seconds - self.recipe.tail_s
        weight = mask * torch.where(tail, self.recipe.tail_weight, 1.0)
        error = (prediction - target).square().mean(dim=-1)
        loss: Tensor = (error * weight).sum() / weight.sum().clamp(min=1.0)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a one-cycle schedule, stepped after each batch."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.lr, total_steps=recipe.steps + 1, pct_start=recipe.warmup_share
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class _Losses(Callback):
    """Keeps the loss of every step and reports it."""

    def __init__(self, steps: int, on_progress: Progress | None) -> None:
        self.values: list[float] = []
        self._steps = steps
        self._on_progress = on_progress

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.values.append(float(outputs["loss"]))
        if not math.isfinite(self.values[-1]):
            raise CheckFailedError(
                f"training: expected a finite loss, got {self.values[-1]} at step "
                f"{len(self.values)} of {self._steps}; lower the recipe's lr"
            )
        if self._on_progress is not None:
            self._on_progress(len(self.values), self._steps, self.values[-1])


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Hide Lightning's remarks about devices, torch's tree types and loaders without workers.

    Windows are cut in memory, where worker processes cost more than they give.
    """
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in (".*does not have many workers.*", ".*LeafSpec.*"):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
