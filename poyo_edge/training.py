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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import CheckFailedError, MissingExtraError, RecordingError, UsageError
from poyo_edge.files import atomic_path
from poyo_edge.recording import Behavior, Recording
from poyo_edge.spec import ModelSpec, OutputScale
from poyo_edge.tokens import latent_tokens, window_tokens

try:
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
    from torch import Tensor
    from torch.utils.data import DataLoader
    from torch_brain.batching import collate, pad8, track_mask8
    from torch_brain.data import ArrayDict, Data, Interval, IrregularTimeSeries
    from torch_brain.datasets import Dataset
    from torch_brain.samplers import RandomFixedWindowSampler
    from torch_brain.transforms import Compose, UnitDropout
except ImportError as error:
    package = (error.name or "torch_brain").partition(".")[0]
    raise MissingExtraError(package, "train", "training") from error

from poyo_edge.model import POYO

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int, float], None]
"""Called after each step with the step, the number of steps and the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained."""

    spec: ModelSpec
    behavior: str = "cursor.vel"
    scale: OutputScale | None = None
    """Scale and offset of the behaviour; None takes the standard deviation in the train split."""
    split: str = "train"
    steps: int = 1000
    batch_size: int = 32
    lr: float = 2e-3
    """Peak of the one-cycle schedule."""
    warmup_share: float = 0.1
    """Part of the steps in which the learning rate rises."""
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ffn_dropout: float = 0.2
    lin_dropout: float = 0.4
    atn_dropout: float = 0.0
    unit_dropout: tuple[int, int, int] | None = None
    """Fewest, most frequent and largest number of units kept in a window; None keeps all."""
    tail_s: float = 0.1
    """The end of the window in which samples weigh ``tail_weight`` instead of 1."""
    tail_weight: float = 5.0
    seed: int = 0
    threads: int | None = None
    """Threads of torch while training on a CPU; None leaves them as they are."""

    def __post_init__(self) -> None:
        spec = self.spec
        if spec.ffn_mult != 4 or spec.rotating_pairs * 4 != spec.dim_head:
            raise UsageError(
                f"spec: expected ffn_mult 4 and rotating_pairs = dim_head / 4, as torch_brain "
                f"builds its models, got {spec.ffn_mult}, {spec.rotating_pairs}, {spec.dim_head}"
            )
        for name in ("steps", "batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: expected an integer >= 1, got {value}")
        for name in ("lr", "clip_norm", "tail_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name}: expected a number > 0, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay: expected a number >= 0, got {self.weight_decay}")
        for name in ("ffn_dropout", "lin_dropout", "atn_dropout", "warmup_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 0 <= number < 1, got {getattr(self, name)}")
        fewest, mode, most = self.unit_dropout or (1, 2, 2)
        if not 0 < fewest < mode <= most:
            raise UsageError(
                f"unit_dropout: expected 0 < fewest < most frequent <= largest, "
                f"got {self.unit_dropout}"
            )


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


DEMO_RECIPE = Recipe(
    spec=ModelSpec(
        dim=32,
        depth=2,
        dim_head=32,
        cross_heads=2,
        self_heads=4,
        latents_per_step=4,
        dim_out=2,
        rotating_pairs=8,
    ),
    scale=OutputScale(scale=(10.0,), unit="cm/s"),
    steps=600,
    batch_size=32,
    lr=4e-3,
    ffn_dropout=0.0,
    lin_dropout=0.1,
    unit_dropout=(30, 59, 60),
    tail_weight=10.0,
    threads=1,
)
"""Small enough for a CPU and two minutes, for simulated sessions of 60 units.

One thread: on a model this small a second one saves little when the machine is idle, and waits
for the first most of the time when it is not.
"""


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
    sessions = [_Session.open(Path(path), recipe) for path in recordings]
    _check_distinct(sessions)
    scale = recipe.scale or _measured_scale(sessions)
    seed_everything(recipe.seed, verbose=False)
    module = _Module(
        _new_model(sessions, recipe), recipe, _hyper_parameters(sessions, recipe, scale)
    )
    losses = _Losses(recipe.steps, on_progress)
    with _quiet_lightning(), _threads(recipe.threads):
        trainer = _trainer(recipe, losses)
        _fit(trainer, module, _loader(sessions, recipe, scale, module.model))
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


@dataclass(frozen=True, slots=True, eq=False)
class _Session:
    """A recording that passed the checks, with the behaviour to decode and where to train."""

    recording: Recording
    behavior: Behavior
    intervals: FloatArray
    """(K, 2) float64 seconds."""
    values: FloatArray
    """(S, O) float64 behaviour in the split."""

    @classmethod
    def open(cls, path: Path, recipe: Recipe) -> _Session:
        recording = Recording.open(path)
        intervals = recording.intervals(recipe.split)
        _check_windows(recording, intervals, recipe)
        behavior = recording.behavior(recipe.behavior)
        values = behavior.values[recording.within(behavior.times, recipe.split)]
        _check_behavior(path, values, recipe)
        return cls(recording, behavior, intervals, values)


def _check_windows(recording: Recording, intervals: FloatArray, recipe: Recipe) -> None:
    longest = float(np.max(intervals[:, 1] - intervals[:, 0], initial=0.0))
    if longest < recipe.spec.window_s:
        raise RecordingError(
            recording.path,
            f"{recipe.split}_domain",
            expected=f"an interval of at least one window ({recipe.spec.window_s} s)",
            got=f"{len(intervals)} intervals, the longest of {longest:.3f} s",
            do="leave this recording out or correct the split",
        )


def _check_behavior(path: Path, values: FloatArray, recipe: Recipe) -> None:
    spread = values.std(axis=0) if len(values) else np.zeros(values.shape[1])
    if values.shape[1] != recipe.spec.dim_out:
        expected, got = f"{recipe.spec.dim_out} dimensions", f"{values.shape[1]}"
    elif not (spread > 0).all():
        expected = f"values that change in the {recipe.split} split"
        got = f"{len(values)} samples with standard deviation {spread.tolist()}"
    else:
        return
    do = "choose another behaviour or leave this recording out"
    raise RecordingError(path, recipe.behavior, expected=expected, got=got, do=do)


def _check_distinct(sessions: Sequence[_Session]) -> None:
    if not sessions:
        raise UsageError("recordings: expected at least one file, got none")
    owners: dict[tuple[str, str], Path] = {}
    for recording in (s.recording for s in sessions):
        names = [("session id", recording.session_id)]
        for kind, name in names + [("units/id", unit) for unit in recording.unit_ids]:
            if (kind, name) in owners:
                raise RecordingError(
                    recording.path,
                    kind,
                    expected="a name that no other recording has",
                    got=f"{name!r}, also in {owners[kind, name]}",
                    do="give each session once, and put the session into the names of its units",
                )
            owners[kind, name] = recording.path


def _measured_scale(sessions: Sequence[_Session]) -> OutputScale:
    values = np.concatenate([s.values for s in sessions])
    return OutputScale(
        scale=tuple(values.std(axis=0).tolist()), offset=tuple(values.mean(axis=0).tolist())
    )


def _new_model(sessions: Sequence[_Session], recipe: Recipe) -> POYO:
    return POYO(
        recipe.spec,
        [unit for s in sessions for unit in s.recording.unit_ids],
        [s.recording.session_id for s in sessions],
        ffn_dropout=recipe.ffn_dropout,
        lin_dropout=recipe.lin_dropout,
        atn_dropout=recipe.atn_dropout,
    )


def _hyper_parameters(
    sessions: Sequence[_Session], recipe: Recipe, scale: OutputScale
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


def _loader(
    sessions: Sequence[_Session], recipe: Recipe, scale: OutputScale, model: POYO
) -> DataLoader[Any]:
    tokenizer = _Tokenizer(recipe, scale, model.unit_emb.vocab, model.session_emb.vocab)
    sampler = RandomFixedWindowSampler(
        sampling_intervals={s.recording.session_id: _interval(s.intervals) for s in sessions},
        window_length=recipe.spec.window_seconds,
        generator=torch.Generator().manual_seed(recipe.seed),
    )
    return DataLoader(
        _InMemoryDataset(sessions, recipe.behavior, Compose([*_augmentations(recipe), tokenizer])),
        sampler=sampler,
        batch_size=recipe.batch_size,
        collate_fn=collate,
        drop_last=len(sampler) >= recipe.batch_size,
    )


def _augmentations(recipe: Recipe) -> list[Any]:
    if recipe.unit_dropout is None:
        return []
    fewest, mode, most = recipe.unit_dropout
    return [UnitDropout(min_units=fewest, mode_units=mode, max_units=most, seed=recipe.seed)]


def _interval(intervals: FloatArray) -> Any:
    return Interval(start=intervals[:, 0].copy(), end=intervals[:, 1].copy())


class _InMemoryDataset(Dataset):  # type: ignore[misc]
    """torch_brain's dataset over sessions in memory: no file is read for a window."""

    def __init__(self, sessions: Sequence[_Session], behavior: str, transform: Any) -> None:
        self._sessions = {s.recording.session_id: _session_data(s, behavior) for s in sessions}
        self.transform = transform

    @property
    def recording_ids(self) -> list[str]:
        """Ids of the sessions, sorted."""
        return sorted(self._sessions)

    def get_recording(self, recording_id: str, _namespace: str = "") -> Any:
        """The whole session; ``slice`` copies, so windows never change it."""
        return self._sessions[recording_id]


def _session_data(session: _Session, behavior: str) -> Any:
    recording = session.recording
    whole = _interval(recording.domains.get("all", session.intervals))
    return Data(
        session=Data(id=recording.session_id),
        units=ArrayDict(id=np.array(recording.unit_ids)),
        spikes=IrregularTimeSeries(
            timestamps=recording.spike_times, unit_index=recording.spike_units, domain=whole
        ),
        behavior=IrregularTimeSeries(
            timestamps=session.behavior.times, values=session.behavior.values, domain=whole
        ),
        domain=whole,
    )


class _Tokenizer:
    """From a window of torch_brain data to the model's inputs and targets."""

    def __init__(
        self,
        recipe: Recipe,
        scale: OutputScale,
        unit_rows: Mapping[str, int],
        session_rows: Mapping[str, int],
    ) -> None:
        self._window_s = recipe.spec.window_seconds
        self._scale, self._offset = scale.arrays(recipe.spec.dim_out)
        self._unit_rows = unit_rows
        self._session_rows = session_rows
        self._latent_index, latent_time = latent_tokens(recipe.spec)
        self._latent_time = latent_time.astype(np.float32)

    def __call__(self, data: Any) -> dict[str, Any]:
        ids = data.units.id
        spikes, behavior = data.spikes, data.behavior
        tokens = window_tokens(spikes.timestamps, spikes.unit_index, len(ids), self._window_s)
        rows = np.array([self._unit_rows[i] for i in ids], dtype=np.int64)
        target = (behavior.values - self._offset) / self._scale
        return {
            "input_unit_index": pad8(rows[tokens.unit]),
            "input_timestamps": pad8(tokens.time.astype(np.float32)),
            "input_token_type": pad8(tokens.type),
            "input_mask": track_mask8(tokens.unit),
            "latent_index": self._latent_index,
            "latent_timestamps": self._latent_time,
            "session_index": self._session_rows[data.session.id],
            "output_timestamps": pad8(behavior.timestamps.astype(np.float32)),
            "target": pad8(target.astype(np.float32)),
            "target_mask": track_mask8(behavior.timestamps),
        }


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
