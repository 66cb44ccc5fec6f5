"""From recordings to training batches, through torch_brain's datasets, samplers and transforms.

Legend: U units, O outputs, S behaviour samples, K intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import MissingExtraError, RecordingError, UsageError
from poyo_edge.recording import Behavior, Recording
from poyo_edge.spec import OutputScale
from poyo_edge.tokens import latent_tokens, window_tokens
from poyo_edge.training_recipe import Recipe

try:
    import torch
    from torch.utils.data import DataLoader
    from torch_brain.batching import collate, pad8, track_mask8
    from torch_brain.data import ArrayDict, Data, Interval, IrregularTimeSeries
    from torch_brain.datasets import Dataset
    from torch_brain.samplers import RandomFixedWindowSampler
    from torch_brain.transforms import Compose, UnitDropout
except ImportError as error:
    package = (error.name or "torch_brain").partition(".")[0]
    raise MissingExtraError(package, "train", "training") from error

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSession:
    """A recording that passed the checks, with the behaviour to decode and where to train."""

    recording: Recording
    behavior: Behavior
    intervals: FloatArray
    """(K, 2) float64 seconds."""
    values: FloatArray
    """(S, O) float64 behaviour in the split."""

    @classmethod
    def open(cls, path: Path, recipe: Recipe) -> TrainingSession:
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


def check_distinct(sessions: Sequence[TrainingSession]) -> None:
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


def measured_scale(sessions: Sequence[TrainingSession]) -> OutputScale:
    values = np.concatenate([s.values for s in sessions])
    return OutputScale(
        scale=tuple(values.std(axis=0).tolist()), offset=tuple(values.mean(axis=0).tolist())
    )


def training_loader(
    sessions: Sequence[TrainingSession],
    recipe: Recipe,
    scale: OutputScale,
    unit_rows: Mapping[str, int],
    session_rows: Mapping[str, int],
) -> DataLoader[Any]:
    tokenizer = _Tokenizer(recipe, scale, unit_rows, session_rows)
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

    def __init__(self, sessions: Sequence[TrainingSession], behavior: str, transform: Any) -> None:
        self._sessions = {s.recording.session_id: _session_data(s, behavior) for s in sessions}
        self.transform = transform

    @property
    def recording_ids(self) -> list[str]:
        """Ids of the sessions, sorted."""
        return sorted(self._sessions)

    def get_recording(self, recording_id: str, _namespace: str = "") -> Any:
        """The whole session; ``slice`` copies, so windows never change it."""
        return self._sessions[recording_id]


def _session_data(session: TrainingSession, behavior: str) -> Any:
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
