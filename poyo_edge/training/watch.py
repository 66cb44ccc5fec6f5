"""What looks after a run: progress, measurements, warnings, and states to resume from."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

from poyo_edge.checkpoint.weight_health import weight_health
from poyo_edge.errors import CheckFailedError, CheckpointError
from poyo_edge.files.writing import atomic_path
from poyo_edge.model import POYO
from poyo_edge.training.start import Plan
from poyo_edge.training.validation import Validation

Progress = Callable[[int, int, float], None]
"""Called after each step with the step, the number of steps and the loss."""
Note = Callable[[str], None]
"""Told a sentence: a measurement, a warning."""

STATE_EVERY_S = 600.0
LOG_EVERY = 10
"""Steps between rows of the log, and between looks at the clock."""
EXPLODED_RMS = 2.0
"""Embeddings begin with a root mean square of 0.02."""


class Watch(Callback):
    """Counts, measures, warns, logs and saves; see the module.

    Args:
        plan: the run.
        state: the file to resume from; None writes none.
        stop: set when somebody wants the run to end.
        on_progress, on_note: who is told.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        state: Path | None,
        stop: threading.Event,
        on_progress: Progress | None,
        on_note: Note | None,
    ) -> None:
        self.losses: list[float] = []
        self.r2: dict[str, float] = {}
        """Of the last measurement, session by session."""
        self._plan, self._state, self._stop = plan, state, stop
        self._on_progress, self._note = on_progress, on_note or (lambda _: None)
        self._saved_at = time.monotonic()
        self._warned: set[str] = set()
        self._validation: Validation | None = None

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Read the samples of the valid split, if they are to be judged."""
        recipe = self._plan.recipe
        if recipe.validate_every:
            self._validation = Validation(
                self._plan.dataset(), self._plan.sessions, recipe.validate_samples
            )

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        """Everything that happens after a step."""
        step, steps, recipe = trainer.global_step, self._plan.steps, self._plan.recipe
        module.follow()
        loss = float(outputs["loss"])
        self.losses.append(loss)
        if not math.isfinite(loss):
            raise CheckFailedError(
                f"training: expected a finite loss, got {loss} at step {step} of {steps}; "
                f"lower the recipe's lr"
            )
        if self._on_progress is not None:
            self._on_progress(step, steps, loss)
        if step % LOG_EVERY == 0 or step == steps:
            rate = trainer.optimizers[0].param_groups[2]["lr"]
            self._log(trainer, {"loss": loss, "lr": rate})
        if recipe.validate_every and (step % recipe.validate_every == 0 or step == steps):
            with module.averaged():
                self._measure(trainer, module.model)
        if self._state is not None and step < steps and self._due(trainer, step):
            save(trainer, self._state)
            self._saved_at = time.monotonic()
        if self._stop.is_set() and trainer.world_size == 1:
            if self._state is not None:
                save(trainer, self._state)
                self._note(f"stopped at step {step} of {steps}; --resume goes on from there")
            raise KeyboardInterrupt

    def _due(self, trainer: Trainer, step: int) -> bool:
        every = self._plan.recipe.checkpoint_every
        if every:
            return step % every == 0
        if step % LOG_EVERY:
            return False
        due = time.monotonic() - self._saved_at > STATE_EVERY_S
        return bool(trainer.strategy.broadcast(due))

    def _measure(self, trainer: Trainer, model: POYO) -> None:
        if trainer.is_global_zero:
            for sentence in warnings_of(model):
                if sentence not in self._warned:
                    self._warned.add(sentence)
                    self._note(f"warning: {sentence}")
        assert self._validation is not None
        own = self._validation.session_ids[trainer.global_rank :: trainer.world_size]
        found = self._validation.r2(model, own)
        if trainer.world_size > 1:
            shares: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, found)
            found = {name: r2 for share in shares for name, r2 in share.items()}
        self.r2 = {name: found[name] for name in self._validation.session_ids}
        if self.r2:
            mean = float(np.mean(list(self.r2.values())))
            self._log(trainer, {"valid_r2": mean, **{f"r2/{k}": v for k, v in self.r2.items()}})
            self._note(
                f"step {trainer.global_step}: causal R² {mean:.3f} on the valid split, "
                f"{min(self.r2.values()):.3f} to {max(self.r2.values()):.3f}"
            )

    @staticmethod
    def _log(trainer: Trainer, values: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(values, trainer.global_step)
            if trainer.global_step % (10 * LOG_EVERY) == 0:
                logger.save()


def warnings_of(model: POYO) -> list[str]:
    """What has ruined runs: layers that pass on nothing, embeddings that grow without end."""
    weights = {n: p.detach().float().cpu().numpy() for n, p in model.named_parameters()}
    health = weight_health(weights)
    found = []
    if health.dead:
        found.append(
            f"{len(health.dead)} of {health.n_matrices} layers are dead, first {health.dead[0]}; "
            f"lower the lr or weight_decay"
        )
    for name in ("unit_emb.weight", "session_emb.weight"):
        rms = float(np.sqrt((weights[name][1:] ** 2).mean()))
        if rms > EXPLODED_RMS:
            found.append(
                f"{name} has grown to a root mean square above {EXPLODED_RMS:g} (it began with "
                f"{model.unit_emb.init_std:g}); lower the lr"
            )
    return found


def save(trainer: Trainer, path: Path, *, weights_only: bool = False) -> None:
    """Write a checkpoint, whole or not at all; every device has to call it.

    Raises:
        CheckpointError: it cannot be written; an older file of that name is left as it was.
    """
    if not trainer.is_global_zero:
        trainer.save_checkpoint(path, weights_only=weights_only)  # writes nothing, waits
        return
    try:
        with atomic_path(path) as temporary:
            trainer.save_checkpoint(temporary, weights_only=weights_only)
    except OSError as error:
        raise CheckpointError(
            path,
            "file",
            expected="a disk with room for the checkpoint",
            got=error.strerror or type(error).__name__,
            do="free some, then continue with --resume from the last state that was written",
        ) from None


@contextlib.contextmanager
def stop_signals(wanted: bool) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second one acts as it always did."""
    stop = threading.Event()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def first(*_: Any) -> None:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, first)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
