"""Training of POYO over several sessions, with torch_brain's data tools and Lightning.

Random windows of all sessions are mixed in each batch; every session has its own units and its
own session embedding. The loss is the weighted mean square error in the model's scale.

The checkpoint has the layout that torch_brain 0.1 wrote, so torch_brain opens it as well. It
holds plain Python and torch types only and loads with ``weights_only=True``.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from poyo_edge.checkpoint.additions import FILTERS
from poyo_edge.checkpoint.file import read_checkpoint_file
from poyo_edge.errors import CheckpointError, UsageError
from poyo_edge.model.threads import torch_threads
from poyo_edge.spec import OutputScale
from poyo_edge.training.module import TrainingModule
from poyo_edge.training.recipe import RUN_KEYS, Recipe, Source
from poyo_edge.training.start import Plan, prepare
from poyo_edge.training.watch import Note, Progress, Watch, save, stop_signals
from poyo_edge.training.windows import StepBatches, training_loader

_DEFAULTS = {
    f.name: list(f.default) if isinstance(f.default, tuple) else f.default
    for f in dataclasses.fields(Recipe)
}
"""Of a recipe's keys, as JSON has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a training run did."""

    checkpoint: Path
    session_ids: tuple[str, ...]
    n_units: int
    """Units of all sessions together."""
    scale: OutputScale
    """Of the first source."""
    losses: tuple[float, ...]
    """Loss of each step of this process, in the model's scale."""
    r2: dict[str, float]
    """Session → causal R² on samples of its valid split, measured last; empty if never."""
    steps: int
    n_parameters: int
    """Without the two tables."""
    wall_s: float
    start_share: float = 0.0
    """Share of the weights that tuning began with in those that were written; 0 where the run was
    over before tuning began."""


def train(
    data: str | Path | Sequence[str | Path],
    recipe: Recipe,
    checkpoint: str | Path,
    *,
    start_from: str | Path | None = None,
    start_sessions: Sequence[str | Path] = (),
    resume: bool = False,
    state: str | Path | None = None,
    logs: str | Path | None = None,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
) -> TrainingResult:
    """Train a model on the recordings and write its checkpoint, whole or not at all.

    Seeds the global random generators of Python, numpy and torch: the same recordings, recipe
    and number of threads give the same weights on a CPU.

    Args:
        data: a folder that the recipe's sources are looked up in, or one file for each session.
        recipe: sizes, sources, optimiser and run.
        checkpoint: the file to write; an existing one is replaced, absent folders are made.
        start_from: a checkpoint to begin with; see ``prepare``.
        start_sessions: session files to begin with; see ``prepare``.
        resume: continue the run whose state is in ``state``.
        state: where to keep a state to resume from; removed when the run is done.
        logs: folder for loss and R² of each step, as CSV, and for TensorBoard where installed.
        on_progress: called after each step.
        on_note: told measurements and warnings.

    Raises:
        RecordingError: a recording cannot be used; see ``open_sessions``.
        CheckpointError: a checkpoint cannot be read or written, or the state is of another run.
        UsageError: no recording at all, or nothing to resume.
        CheckFailedError: the loss became NaN or infinite.
    """
    started = time.perf_counter()
    checkpoint, state_path = Path(checkpoint), None if state is None else Path(state)
    if resume and (state_path is None or not state_path.is_file()):
        raise UsageError(
            f"{state_path}: expected the state of an interrupted run, got no such file; start "
            f"without --resume"
        )
    plan = prepare(data, recipe, start_from=start_from, start_sessions=start_sessions)
    done = check_resume(state_path, plan) if resume and state_path is not None else 0
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if plan.filters and on_note is not None:
        on_note(
            f"{len(plan.filters)} of {len(plan.sessions)} sessions mix a Wiener filter in, as they "
            f"were calibrated; R² while training is of the model alone"
        )
    with quiet_lightning(), torch_threads(recipe.threads), stop_signals(state is not None) as stop:
        watch = Watch(plan, state=state_path, stop=stop, on_progress=on_progress, on_note=on_note)
        trainer = make_trainer(plan, [watch], _loggers(logs, done))
        module = fit(trainer, plan, done, state_path if resume else None)
        with module.averaged():
            save(trainer, checkpoint, weights_only=True)
    if state_path is not None and trainer.is_global_zero:
        state_path.unlink(missing_ok=True)
    return TrainingResult(
        checkpoint=checkpoint,
        session_ids=tuple(s.session_id for s in plan.sessions),
        n_units=sum(len(s.recording.unit_ids) for s in plan.sessions),
        scale=plan.sessions[0].scale,
        losses=tuple(watch.losses),
        r2=watch.r2,
        steps=plan.steps,
        n_parameters=n_parameters(plan),
        wall_s=time.perf_counter() - started,
        start_share=module.start_share if module.start else 0.0,
    )


def check_resume(path: Path, plan: Plan) -> int:
    """Steps that an interrupted run has done, if it is one of this plan.

    Raises:
        CheckpointError: the file cannot be read, or is of another recipe, size or set of sessions.
    """
    content = read_checkpoint_file(path)[0]
    hyper = content.get("hyper_parameters", {}) if isinstance(content, dict) else {}
    do = "resume with the same recipe and recordings, or start anew without --resume"
    if not isinstance(content, dict) or "optimizer_states" not in content or "recipe" not in hyper:
        raise CheckpointError(
            path, "content", expected="the state of an interrupted run", got="another file", do=do
        )
    # A key that is younger than the state was off when the run began.
    saved, wanted = {**_DEFAULTS, **hyper["recipe"]}, plan.recipe.to_json()
    if isinstance(saved.get("data"), dict):
        plain = Source().to_json()
        saved["data"] = {
            name: {**plain, **one} if isinstance(one, dict) else one
            for name, one in saved["data"].items()
        }
        for name, one in wanted["data"].items():  # of before units came from the checkpoint
            said = saved["data"].get(name)
            if isinstance(said, dict) and not said.get("unit"):
                said["unit"] = one["unit"]
    for key in wanted:
        if key not in RUN_KEYS and saved.get(key) != wanted[key]:
            name, before, now = _first_difference(key, saved.get(key), wanted[key])
            raise CheckpointError(
                path, name, expected=f"{before!r}, as the run began", got=repr(now), do=do
            )
    then = [i for source in hyper["dataset"] for i in source["selection"][0]["sessions"]]
    now = [i for s in plan.hyper_parameters()["dataset"] for i in s["selection"][0]["sessions"]]
    if then != now:
        apart = sorted(set(then) ^ set(now)) or now
        raise CheckpointError(
            path,
            "sessions",
            expected=f"the {len(then)} sessions of the run",
            got=f"{len(now)}, apart in {', '.join(apart[:3])}",
            do=do,
        )
    held = hyper.get(FILTERS)
    if held is not None and set(held) != set(plan.filters):
        raise CheckpointError(
            path, FILTERS, expected=f"those of {', '.join(held)}, as the run began",
            got=f"those of {', '.join(plan.filters) or 'no session'}",
            do="resume with the same --session files, or start anew without --resume",
        )  # fmt: skip
    vocab = dict(content["state_dict"]["model.unit_emb.vocab"])
    if vocab != plan.model.unit_emb.vocab:
        raise CheckpointError(
            path, "units", expected=f"the {len(vocab) - 1} units of the run",
            got=f"{len(plan.model.unit_emb.vocab) - 1}, or others", do=do,
        )  # fmt: skip
    return int(content["global_step"])


def _first_difference(name: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *before]:
            if before.get(key) != now.get(key):
                return _first_difference(f"{name}.{key}", before.get(key), now.get(key))
    return name, before, now


def n_parameters(plan: Plan) -> int:
    """Parameters of the model without the unit and session tables."""
    tables = ("unit_emb.weight", "session_emb.weight")
    return sum(p.numel() for name, p in plan.model.named_parameters() if name not in tables)


def make_trainer(plan: Plan, callbacks: list[Callback], loggers: Any = False) -> Trainer:
    """Lightning's trainer for a plan: devices, precision, clipping."""
    recipe = plan.recipe
    cpu = recipe.accelerator == "cpu" or not torch.cuda.is_available()
    strategy = DDPStrategy(process_group_backend="gloo" if cpu else None)
    return Trainer(
        max_steps=plan.steps,
        max_epochs=-1,
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        strategy=strategy if recipe.world_size > 1 else "auto",
        precision=recipe.precision,  # type: ignore[arg-type]
        gradient_clip_val=recipe.clip_norm or None,
        callbacks=callbacks,
        logger=loggers,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def fit(trainer: Trainer, plan: Plan, done: int = 0, state: Path | None = None) -> TrainingModule:
    """Train. Lightning ends the process on Ctrl-C; here the caller gets the interrupt."""
    module = TrainingModule(
        plan.model,
        plan.recipe,
        plan.hyper_parameters(),
        plan.steps,
        plan.steps_per_epoch,
        plan.tables,
        plan.start_share,
        plan.filters,
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=_Batches(plan, done), ckpt_path=state, weights_only=True)
    except SystemExit:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
    return module


class _Batches(LightningDataModule):
    """The loader of each device, made when its rank is known."""

    def __init__(self, plan: Plan, done: int) -> None:
        super().__init__()
        self._plan, self._done = plan, done

    def train_dataloader(self) -> DataLoader[Any]:
        """All steps that are left; Lightning sees them as one epoch."""
        assert self.trainer is not None
        plan = self._plan
        batches = StepBatches(
            plan.sessions,
            plan.recipe,
            plan.steps,
            self._done,
            self.trainer.global_rank,
            self.trainer.world_size,
        )
        return training_loader(plan.dataset(), batches, plan.recipe.workers)


def _loggers(folder: str | Path | None, done: int) -> Any:
    """CSV always, TensorBoard where it is installed; a resumed run gets a folder of its own."""
    if folder is None:
        return False
    version = f"from_step_{done:07d}"
    Path(folder, version, "metrics.csv").unlink(missing_ok=True)
    loggers: list[Any] = [CSVLogger(folder, name="", version=version)]
    if importlib.util.find_spec("tensorboard") is not None:
        loggers.append(TensorBoardLogger(folder, name="", version=version))
    return loggers


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's remarks about devices, torch's tree types and loaders without workers.

    How many workers cut windows is the recipe's affair.
    """
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*LeafSpec.*",
                ".*resumed run.*mid-epoch.*",
                ".*resuming from a checkpoint that ended before the epoch ended.*",
                ".*Experiment logs directory.*",
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
