"""A GRU pretrained on many sessions of a chronic array: what POYO has to beat there.

Its inputs are named by subject and electrode, so that all sessions share their weights; the counts
of each unit are divided by their own spread in each session, which needs no labels. It learns from
pieces of sessions, and is tuned to the labels of a new one.

Legend: N bins, C channels (subject and electrode), U units, O outputs, P pieces, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from poyo_edge.arrays import Float32, Float64, Int64
from poyo_edge.filters.wiener import BIN_S, bin_counts
from poyo_edge.recording.recording import first_seconds, within
from poyo_edge.training.lazy import LazyRecording
from poyo_edge.unit_guess import electrode_of

PRETRAINED = "gru-pretrained"
"""Its name among the baselines."""
HIDDEN, DROPOUT = 128, 0.3
WARM_UP, PIECE = 20, 80
"""Bins: those at the beginning of a piece that are not judged, and all of it."""
MEMORY = 40
"""Bins that a decoded sample is decoded from."""
BATCH, LR = 64, 3e-3
STEPS_PER_SESSION, FEWEST_STEPS = 200, 1000
TUNING_LR, FEWEST_TUNING, TUNING_PER_S, MOST_TUNING = 1e-4, 30, 1.5, 800
"""Rate and steps of tuning: the fewest, those for each labelled second, the most. Chosen on the
valid splits of two later sessions, whose test splits docs/training.md reports: at 3e-4 about half
of what 30 labelled seconds gained was lost again within 100 steps, at 1e-4 it stayed.
"""
LEAST_UNLABELLED_S = 60.0
"""Of activity that means and spreads of the counts are taken from, however few the labels."""
_SD_FLOOR = 0.05
"""Spikes a bin: silent units stay silent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Binned:
    """A session on a grid of 50 ms."""

    channels: tuple[str, ...]
    """(U,) subject and electrode of each unit."""
    counts: Float32
    """(N, U) spikes in each bin, divided by the unit's spread around its mean."""
    values: Float32
    """(N, O) behaviour at the end of each bin."""
    labelled: Int64
    """Bins whose values may be learned."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """Mean and spread of the counts of each unit, (U,) each: what a session needs no labels for."""

    mean: Float32
    sd: Float32

    @classmethod
    def of(cls, counts_NU: Float32) -> Activity:
        """Of counts (N, U)."""
        return cls(mean=counts_NU.mean(0), sd=np.maximum(counts_NU.std(0), _SD_FLOOR))

    def standardised(self, counts_NU: Float32) -> Float32:
        """Counts (..., U) less their mean, by their spread."""
        return np.asarray((counts_NU - self.mean) / self.sd, dtype=np.float32)


def grid_counts(
    spike_times: Float64, spike_units: Int64, n_units: int, start: float, n_bins: int
) -> Float32:
    """Spikes of each unit in ``n_bins`` bins of 50 ms from ``start`` s on, (N, U) float32."""
    first, last = np.searchsorted(spike_times, [start, start + n_bins * BIN_S])
    rows = ((spike_times[first:last] - start) / BIN_S).astype(np.int64)
    flat = np.minimum(rows, n_bins - 1) * n_units + spike_units[first:last]
    counts = np.bincount(flat, minlength=n_bins * n_units)
    return counts.reshape(n_bins, n_units).astype(np.float32)


def channels_of(recording: LazyRecording) -> tuple[str, ...]:
    """Subject and electrode of each unit, (U,)."""
    return tuple(f"{recording.subject_id}/{electrode_of(unit)}" for unit in recording.unit_ids)


def binned(
    recording: LazyRecording,
    intervals: Float64,
    *,
    activity: Activity | None = None,
    unlabelled: Float64 | None = None,
) -> tuple[Binned, Activity]:
    """A session on a grid of 50 ms, and the activity that its counts were divided by.

    Args:
        recording: the session.
        intervals: (K, 2) seconds whose behaviour may be learned.
        activity: of the session; None takes it from the bins in ``unlabelled``.
        unlabelled: (K, 2) seconds; None takes ``intervals``.
    """
    times, values = recording.samples(intervals)
    heard = intervals if unlabelled is None else unlabelled
    start = min(float(times[0]), float(heard[0, 0])) - MEMORY * BIN_S
    n_bins = int(np.ceil((max(float(times[-1]), float(heard[-1, 1])) - start) / BIN_S - 1e-6))
    ends: Float64 = start + BIN_S * np.arange(1, n_bins + 1, dtype=np.float64)
    cut = recording.cut(start, float(ends[-1]))
    counts = grid_counts(cut.spike_times, cut.spike_units, len(recording.unit_ids), start, n_bins)
    if activity is None:
        activity = Activity.of(counts[within(ends - BIN_S / 2, heard)])
    after = np.clip(np.searchsorted(times, ends - BIN_S / 2), 0, len(times) - 1)
    found = Binned(
        channels=channels_of(recording),
        counts=activity.standardised(counts),
        values=np.stack([np.interp(ends, times, one) for one in values.T], -1).astype(np.float32),
        labelled=np.flatnonzero(np.abs(times[after] - ends) < BIN_S),
    )
    return found, activity


class ChronicGru(nn.Module):
    """One recurrent layer over standardised counts of all channels."""

    def __init__(self, n_channels: int, n_outputs: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        self.gru = nn.GRU(n_channels, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, n_outputs)

    def forward(self, x_PNC: Tensor) -> Tensor:
        """(P, N, C) → (P, N, O): the behaviour at the end of each bin."""
        states, _ = self.gru(self.dropout(x_PNC))
        found: Tensor = self.readout(self.dropout(states))
        return found


@dataclass(kw_only=True, eq=False)
class PretrainedGru:
    """The network, what its inputs are called, and the scale of what it decodes."""

    channels: dict[str, int]
    network: ChronicGru
    level: Float32
    """(O,) mean and spread of the behaviour that it was trained on."""
    spread: Float32
    valid_errors: list[float] = field(default_factory=list)

    def inputs(self, channels: Sequence[str], counts_U: Float32) -> Float32:
        """Standardised counts (..., U) put where the network expects them, (..., C)."""
        placed = np.zeros((*counts_U.shape[:-1], len(self.channels)), dtype=np.float32)
        for unit, name in enumerate(channels):
            if name in self.channels:
                placed[..., self.channels[name]] += counts_U[..., unit]
        return placed

    def widened(self, channels: Sequence[str]) -> PretrainedGru:
        """A copy that has inputs for these channels too; new ones begin as random as the known."""
        known = dict(self.channels)
        for name in channels:
            known.setdefault(name, len(known))
        network = ChronicGru(len(known), len(self.level), self.network.gru.hidden_size)
        state = {k: v.clone() for k, v in self.network.state_dict().items()}
        old = state["gru.weight_ih_l0"]
        fresh = torch.randn(len(old), len(known) - old.shape[1]) * old.std()
        state["gru.weight_ih_l0"] = torch.cat((old, fresh), dim=1)
        network.load_state_dict(state)
        return PretrainedGru(channels=known, network=network, level=self.level, spread=self.spread)

    def decode(self, channels: Sequence[str], counts_SUK: Float32) -> Float64:
        """Behaviour (S, O) from standardised counts (S, U, K) of the bins before each sample."""
        self.network.eval()
        found = []
        with torch.inference_mode():
            for first in range(0, len(counts_SUK), 512):
                piece = counts_SUK[first : first + 512].transpose(0, 2, 1)
                x = torch.from_numpy(self.inputs(channels, piece))
                found.append(self.network(x)[:, -1].double().numpy())
        return np.asarray(np.concatenate(found) * self.spread + self.level, dtype=np.float64)


def pretrain(
    sessions: Sequence[Binned],
    valid: Sequence[Binned] = (),
    *,
    seed: int = 0,
    steps: int | None = None,
    lr: float = LR,
    hidden: int = HIDDEN,
    say: Callable[[str], None] = lambda _: None,
) -> PretrainedGru:
    """Fit a network to all sessions at once, with AdamW on a cosine; the last weights are kept.

    Args:
        sessions: what is learned.
        valid: what is judged now and then, to be told.
        seed: of weights, pieces and dropout.
        steps: optimiser steps of ``BATCH`` pieces; None takes more for more sessions.
        lr: the first learning rate.
        hidden: units of the recurrent layer.
        say: told the error on ``valid``.
    """
    steps = steps or max(FEWEST_STEPS, STEPS_PER_SESSION * len(sessions))
    names = dict.fromkeys(name for one in sessions for name in one.channels)
    channels = {name: i for i, name in enumerate(names)}
    values = np.concatenate([one.values[one.labelled] for one in sessions])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ChronicGru(len(channels), values.shape[1], hidden)
        found = PretrainedGru(
            channels=channels, network=network, level=values.mean(0), spread=values.std(0)
        )
        pieces = Pieces(found, sessions)
        judged = Pieces(found, valid) if valid else None
        rng = np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(1, steps + 1):
            _step(network, optimizer, *pieces.draw(rng, BATCH))
            schedule.step()
            if judged is not None and step % max(1, steps // 10) == 0:
                found.valid_errors.append(judged.error(network))
                say(f"GRU, step {step} of {steps}: error {found.valid_errors[-1]:.3f}")
    return found


def fine_tuned(
    pretrained: PretrainedGru, session: Binned, *, seed: int = 0, lr: float = TUNING_LR
) -> PretrainedGru:
    """All weights fitted on to one session's labels: the more of them, the more steps."""
    seconds = len(session.labelled) * BIN_S
    steps = int(min(MOST_TUNING, FEWEST_TUNING + TUNING_PER_S * seconds))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = pretrained.widened(session.channels)
        pieces, rng = Pieces(found, [session]), np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(found.network.parameters(), lr=lr, weight_decay=1e-2)
        for _ in range(steps):
            _step(found.network, optimizer, *pieces.draw(rng, BATCH // 4))
    return found


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, mask: Tensor
) -> None:
    network.train()
    error = (network(x) - y).square().mean(-1)
    loss = (error * mask).sum() / mask.sum().clamp(min=1)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


class Pieces:
    """Sessions as the network sees them, cut into pieces that end at labelled bins."""

    def __init__(self, gru: PretrainedGru, sessions: Sequence[Binned]) -> None:
        self._x, self._y, self._mask, self._ends = [], [], [], []
        for one in sessions:
            pad = ((PIECE, 0), (0, 0))
            self._x.append(np.pad(gru.inputs(one.channels, one.counts), pad))
            scaled = (one.values - gru.level) / gru.spread
            self._y.append(np.pad(scaled.astype(np.float32), pad))
            mask = np.zeros(len(one.values) + PIECE, dtype=np.float32)
            mask[one.labelled + PIECE] = 1
            self._mask.append(mask)
            self._ends.append(one.labelled + PIECE + 1)
        self._sizes = np.array([len(ends) for ends in self._ends])

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random pieces: inputs (P, N, C), behaviour (P, N, O), and which bins count (P, N)."""
        which = rng.choice(len(self._sizes), n, p=self._sizes / self._sizes.sum())
        return self._cut([(s, int(rng.choice(self._ends[s]))) for s in which])

    def error(self, network: nn.Module) -> float:
        """Mean square error over all labelled bins."""
        network.eval()
        total = weight = 0.0
        places = [
            (s, min(end, int(ends[-1])))
            for s, ends in enumerate(self._ends)
            for end in range(int(ends[0]) - 1 + PIECE - WARM_UP, int(ends[-1]) + PIECE - WARM_UP,
                             PIECE - WARM_UP)
        ]  # fmt: skip
        with torch.inference_mode():
            for first in range(0, len(places), BATCH):
                x, y, mask = self._cut(places[first : first + BATCH])
                total += float(((network(x) - y).square().mean(-1) * mask).sum())
                weight += float(mask.sum())
        return total / max(1.0, weight)

    def _cut(self, places: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        parts = []
        for source in (self._x, self._y, self._mask):
            parts.append(torch.from_numpy(np.stack([source[s][e - PIECE : e] for s, e in places])))
        x, y, mask = parts
        mask[:, :WARM_UP] = 0
        return x, y, mask


def pretrained_on(
    recordings: Sequence[LazyRecording],
    *,
    split: str = "train",
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> PretrainedGru:
    """The network fitted to a split of many sessions."""
    sessions = [binned(one, one.domains[split])[0] for one in recordings]
    return pretrain(sessions, seed=seed, say=say)


def decode_session(
    pretrained: PretrainedGru,
    recording: LazyRecording,
    times: Float64,
    *,
    split: str = "train",
    seconds: float | None = None,
    seed: int = 0,
) -> Float64:
    """What the network decodes of samples (S,) after tuning to a session's labels, (S, O).

    Args:
        pretrained: the network.
        recording: the session.
        times: (S,) seconds of the samples; their bins lie before them.
        split: what is learned.
        seconds: labelled seconds, the first ones of the split; None takes all, 0 tunes nothing.
        seed: of pieces and dropout.
    """
    domain = recording.domains[split]
    least = None if seconds is None else max(seconds, LEAST_UNLABELLED_S)
    heard = first_seconds(domain, least)
    session, activity = binned(recording, heard)
    if seconds != 0:
        session, _ = binned(recording, first_seconds(domain, seconds), activity=activity)
        pretrained = fine_tuned(pretrained, session, seed=seed)
    cut, n_units = recording.cut(-np.inf, np.inf), len(recording.unit_ids)
    decoded = []
    for some in np.array_split(times, max(1, len(times) // 512)):
        counts = bin_counts(cut.spike_times, cut.spike_units, n_units, some, before=MEMORY)
        scaled = (counts - activity.mean[:, None]) / activity.sd[:, None]
        decoded.append(pretrained.decode(channels_of(recording), scaled.astype(np.float32)))
    return np.concatenate(decoded)
