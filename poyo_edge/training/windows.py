"""From sessions to training batches, with torch_brain's samplers, transforms and ``collate``.

All that is random about a window follows from the recipe's seed, the epoch and the window's place
in it. So a run that goes on after a kill, or on another number of devices, sees the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import MissingExtraError
from poyo_edge.tokens import latent_tokens, window_tokens
from poyo_edge.training.augment import Pieces, Window
from poyo_edge.training.recipe import Recipe
from poyo_edge.training.sharing import twin_of
from poyo_edge.training.sources import TrainingSession

try:
    import torch
    from torch.utils.data import DataLoader, Dataset, Sampler
    from torch_brain.batching import collate, pad8, track_mask8
    from torch_brain.data import ArrayDict, Data, Interval, IrregularTimeSeries
    from torch_brain.samplers import RandomFixedWindowSampler
    from torch_brain.transforms import UnitDropout
except ImportError as error:
    package = (error.name or "torch_brain").partition(".")[0]
    raise MissingExtraError(package, "train", "training") from error

_SEEDS = 1 << 63
_HELD = 1
"""Put beside a window's seed: what is drawn of it does not depend on anything else."""


class Draw(NamedTuple):
    """A window to read, and the seed of what is random about it."""

    session: str
    start: float
    end: float
    seed: int


def mixed(*numbers: int) -> int:
    """A seed below 2**63 that any change of the numbers changes (Knuth's multiplicative hash)."""
    value = 0x9E3779B97F4A7C15
    for number in numbers:
        value = ((value ^ (number + 1)) * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        value ^= value >> 31
    return value % _SEEDS


class StepBatches(Sampler[list[Draw]]):
    """The windows of each step of a whole run, or of what is left of it.

    Each epoch is one pass of torch_brain's sampler over all sessions; a device takes every
    ``world``th window of a step, so that together they see what a single one would.

    Args:
        sessions: where to draw from.
        recipe: window, batch size and seed.
        steps: of the whole run.
        first_step: steps that are done.
        rank, world: which of how many devices.
    """

    def __init__(
        self,
        sessions: Sequence[TrainingSession],
        recipe: Recipe,
        steps: int,
        first_step: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._recipe = recipe
        self._intervals = {s.session_id: _interval(s.intervals) for s in sessions}
        self.n_windows = len(self._sampler(0))
        self.steps_per_epoch = max(1, self.n_windows // recipe.batch_size)
        self.steps = steps
        self.first_step = first_step
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        size = self._recipe.batch_size
        epoch, drawn = -1, []
        for step in range(self.first_step, self.steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                drawn = list(self._sampler(epoch))
            first = step % self.steps_per_epoch * size
            places = range(first, min(first + size, len(drawn)))[self._rank :: self._world]
            yield [
                Draw(
                    drawn[i].recording_id,
                    drawn[i].start,
                    drawn[i].end,
                    mixed(self._recipe.seed, epoch, i),
                )
                for i in places
            ]

    def _sampler(self, epoch: int) -> Any:
        return RandomFixedWindowSampler(
            sampling_intervals=self._intervals,
            window_length=self._recipe.spec.window_seconds,
            generator=torch.Generator().manual_seed(mixed(self._recipe.seed, epoch)),
        )


def _interval(intervals: Float64) -> Any:
    return Interval(start=intervals[:, 0].copy(), end=intervals[:, 1].copy())


class WindowDataset(Dataset[dict[str, Any]]):
    """Windows of recordings in their files, augmented and as the model's inputs and targets."""

    def __init__(
        self,
        sessions: Sequence[TrainingSession],
        recipe: Recipe,
        unit_rows: Mapping[str, int],
        session_rows: Mapping[str, int],
    ) -> None:
        self._recipe = recipe
        self._sessions = {s.session_id: s for s in sessions}
        self._units = {
            s.session_id: np.array([unit_rows[u] for u in s.recording.unit_ids], dtype=np.int64)
            for s in sessions
        }
        self._rows = session_rows
        self._latent_index, latent_time = latent_tokens(recipe.spec)
        self._latent_time = latent_time.astype(np.float32)
        self._pieces = {
            s.session_id: Pieces.of(
                s.recording, s.intervals, recipe.held_piece_s, recipe.held_lead_s
            )
            for s in sessions
            if recipe.held_share
        }
        self._dropout = None
        if recipe.unit_dropout is not None:
            fewest, mode, most = recipe.unit_dropout
            self._dropout = UnitDropout(
                min_units=fewest, mode_units=mode, max_units=most, peak=recipe.unit_dropout_peak
            )

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Inputs and targets of a training window."""
        held = self._held(draw)
        window = held or self._read(draw)
        session, twin = draw.session, twin_of(draw.session)
        if held is not None and twin in self._rows:
            session = twin
        times, rows, units = window.spike_times, window.spike_units, self._units[draw.session]
        if self._dropout is not None and len(units) > 1:
            times, rows, units = self._dropped(times, rows, units, draw.seed)
        return {
            **self._tokens(times, rows, units, session),
            **self._targets(self._sessions[draw.session], window),
        }

    def _read(self, draw: Draw) -> Window:
        """The window as it is in the recording.

        With ``end_at_samples`` it ends at its last sample, is queried there too, and begins up to
        a sample earlier; behaviour from before the draw, which may be of another split, stays out.
        """
        recording, start = self._sessions[draw.session].recording, draw.start
        cut = recording.cut(draw.start, draw.end)
        spikes = cut
        if self._recipe.end_at_samples and len(cut.times):
            end = float(cut.times[-1])
            start = end - self._recipe.spec.window_seconds
            spikes = recording.cut(start, end)
        return Window(
            spikes.spike_times - start,
            spikes.spike_units,
            cut.times - start,
            cut.values,
            recording.sample_weights(cut.times),
        )

    def _held(self, draw: Draw) -> Window | None:
        """A window of like pieces of the session instead, as often as the recipe wants one."""
        if not self._pieces:
            return None
        rng = np.random.default_rng([draw.seed, _HELD])
        if rng.random() >= self._recipe.held_share:
            return None
        return self._pieces[draw.session].window(self._recipe.spec.window_seconds, rng)

    def causal(self, session_id: str, time: float) -> dict[str, Any]:
        """Inputs of the window [time - T, time), queried at its end; nothing is dropped."""
        window_s = self._recipe.spec.window_seconds
        cut = self._sessions[session_id].recording.cut(time - window_s, time)
        spikes = cut.spike_times - (time - window_s)
        tokens = self._tokens(spikes, cut.spike_units, self._units[session_id], session_id)
        return {**tokens, "output_timestamps": np.array([window_s], dtype=np.float32)}

    def _tokens(self, times: Any, units: Any, rows: Any, session_id: str) -> dict[str, Any]:
        tokens = window_tokens(times, units, len(rows), self._recipe.spec.window_seconds)
        return {
            "input_unit_index": pad8(rows[tokens.unit]),
            "input_timestamps": pad8(tokens.time.astype(np.float32)),
            "input_token_type": pad8(tokens.type),
            "input_mask": track_mask8(tokens.unit),
            "latent_index": self._latent_index,
            "latent_timestamps": self._latent_time,
            "session_index": self._rows[session_id],
        }

    def _targets(self, session: TrainingSession, window: Window) -> dict[str, Any]:
        recipe = self._recipe
        scale, offset = session.scale.arrays(recipe.spec.dim_out)
        times, weights = window.times.astype(np.float32), window.weights
        if recipe.recency_s:
            weights = weights * np.exp((times - recipe.spec.window_seconds) / recipe.recency_s)
        tail = times >= recipe.spec.window_seconds - recipe.tail_s
        return {
            "output_timestamps": pad8(times),
            "target": pad8(((window.values - offset) / scale).astype(np.float32)),
            "target_weight": pad8(
                np.where(tail, weights * recipe.tail_weight, weights).astype(np.float32)
            ),
        }

    def _dropped(self, times: Any, units: Any, rows: Any, seed: int) -> tuple[Any, Any, Any]:
        """What torch_brain's ``UnitDropout`` keeps of a window, with this window's own seed."""
        assert self._dropout is not None
        self._dropout.distribution.rng = np.random.default_rng(seed)
        np.random.seed(seed % (1 << 32))  # noqa: NPY002  (what UnitDropout draws from)
        domain = Interval(start=np.zeros(1), end=np.full(1, self._recipe.spec.window_seconds))
        data = self._dropout(
            Data(
                units=ArrayDict(id=rows),
                spikes=IrregularTimeSeries(timestamps=times, unit_index=units, domain=domain),
                domain=domain,
            )
        )
        return data.spikes.timestamps, data.spikes.unit_index, data.units.id


def training_loader(dataset: WindowDataset, batches: StepBatches, workers: int) -> DataLoader[Any]:
    """Batches of all steps that are left, cut by ``workers`` processes (0: by this one)."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
