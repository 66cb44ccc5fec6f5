"""What a POYO model is compared with: Wiener filter, MLP and GRU on binned spikes.

Each is fitted to one session. The Wiener filter chooses its ridge on held-out blocks of the train
split; MLP and GRU stop where the valid split (or the last tenth of train) is decoded best.

Legend: S samples, U units, K bins, O outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from poyo_edge.arrays import Float64
from poyo_edge.filters.wiener import BINS, SD_FLOOR, bin_counts, fit_ridge
from poyo_edge.model.threads import torch_threads

MOST_SAMPLES = 20_000
"""Samples that a baseline is fitted to; more are thinned evenly."""
GRU_BINS = 20
BATCH, EPOCHS, PATIENCE, LR = 128, 40, 6, 1e-3


class Labelled(NamedTuple):
    """Spikes of a session and the samples of one split."""

    spike_times: Float64
    spike_units: npt.NDArray[np.int64]
    n_units: int
    times: Float64
    """(S,) seconds."""
    values: Float64
    """(S, O) behaviour."""

    def thinned(self, most: int) -> Labelled:
        """At most so many of its samples, evenly spaced."""
        if len(self.times) <= most:
            return self
        rows = np.linspace(0, len(self.times) - 1, most).astype(int)
        return self._replace(times=self.times[rows], values=self.values[rows])

    def counts(self, bins: int, acausal: bool) -> npt.NDArray[np.float32]:
        """(S, U, bins), all before the sample, or half of them behind it."""
        after = bins // 2 if acausal else 0
        before = bins - after
        return bin_counts(
            self.spike_times, self.spike_units, self.n_units, self.times, before=before, after=after
        )


def wiener(train: Labelled, _: Labelled, test: Labelled, *, acausal: bool, seed: int) -> Float64:
    """Ridge regression on ten bins of 50 ms; what it decodes of ``test``, (S, O)."""
    some = train.thinned(MOST_SAMPLES)
    x = some.counts(BINS, acausal).reshape(len(some.times), -1)
    weights, bias, _ridge = fit_ridge(x.astype(np.float64), some.values, some.times)
    return np.asarray(test.counts(BINS, acausal).reshape(len(test.times), -1) @ weights + bias)


def mlp(train: Labelled, valid: Labelled, test: Labelled, *, acausal: bool, seed: int) -> Float64:
    """Two hidden layers on ten bins of 50 ms; what it decodes of ``test``, (S, O)."""

    def build(n_units: int, n_outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_units * BINS, 128),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(64, n_outputs),
        )

    return _fitted(build, BINS, train, valid, test, acausal, seed)


def gru(train: Labelled, valid: Labelled, test: Labelled, *, acausal: bool, seed: int) -> Float64:
    """One recurrent layer over twenty bins of 50 ms; what it decodes of ``test``, (S, O)."""
    return _fitted(_Gru, GRU_BINS, train, valid, test, acausal, seed)


def fit_gru(train: Labelled, valid: Labelled, *, seed: int) -> FittedNetwork:
    """The causal ``gru``, to decode with as one likes: from ``GRU_BINS`` bins before a time."""
    return _fit(_Gru, GRU_BINS, train, valid, False, seed)


BASELINES: dict[str, Callable[..., Float64]] = {"wiener": wiener, "mlp": mlp, "gru": gru}


class FittedNetwork:
    """A network and the scale of what it was fitted to.

    Args:
        network: standardised counts (S, U, K) → standardised behaviour (S, O).
        mean, size: (U, 1) each, of the counts.
        level, spread: (O,) each, of the behaviour.
    """

    def __init__(
        self, network: nn.Module, mean: Any, size: Any, level: Float64, spread: Float64
    ) -> None:
        self._network, self._mean, self._size = network, mean, size
        self._level, self._spread = torch.from_numpy(level), torch.from_numpy(spread)

    def __call__(self, counts: npt.NDArray[np.float32]) -> Float64:
        """Behaviour (S, O) of counts (S, U, K)."""
        inputs = torch.from_numpy((counts - self._mean) / self._size)
        with torch_threads(1), torch.inference_mode():
            decoded = torch.cat([self._network(piece) for piece in torch.split(inputs, 1024)])
        return np.asarray(decoded.double() * self._spread + self._level)


class _Gru(nn.Module):
    def __init__(self, n_units: int, n_outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.3)
        self.gru = nn.GRU(n_units, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, n_outputs)

    def forward(self, x_SUK: Tensor) -> Tensor:
        """(S, U, K) → (S, O)."""
        states, _ = self.gru(self.dropout(x_SUK.transpose(1, 2)))
        found: Tensor = self.readout(self.dropout(states[:, -1]))
        return found


def _fitted(
    build: Callable[[int, int], nn.Module],
    bins: int,
    train: Labelled,
    valid: Labelled,
    test: Labelled,
    acausal: bool,
    seed: int,
) -> Float64:
    """What a network that ``_fit`` fits decodes of ``test``."""
    return _fit(build, bins, train, valid, acausal, seed)(test.counts(bins, acausal))


def _fit(
    build: Callable[[int, int], nn.Module],
    bins: int,
    train: Labelled,
    valid: Labelled,
    acausal: bool,
    seed: int,
) -> FittedNetwork:
    """Fit a network by AdamW on standardised bins and behaviour; see the module."""
    train, valid = train.thinned(MOST_SAMPLES), valid.thinned(MOST_SAMPLES // 5)
    raw = train.counts(bins, acausal)
    mean, size = raw.mean((0, 2))[:, None], raw.std((0, 2))[:, None] + SD_FLOOR
    level, spread = train.values.mean(0), train.values.std(0)

    def inputs(some: Labelled, counts: Any = None) -> Tensor:
        found = some.counts(bins, acausal) if counts is None else counts
        return torch.from_numpy((found - mean) / size)

    with torch_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x, y = inputs(train, raw), torch.from_numpy((train.values - level) / spread).float()
        judged = inputs(valid), torch.from_numpy((valid.values - level) / spread).float()
        network = _trained(build(train.n_units, y.shape[1]), x, y, *judged)
    return FittedNetwork(network, mean, size, level, spread)


def _trained(
    network: nn.Module, x: Tensor, y: Tensor, x_valid: Tensor, y_valid: Tensor
) -> nn.Module:
    """The network where it decoded the valid samples best, in eval mode."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=1e-2)
    best, best_state, waited = np.inf, copy.deepcopy(network.state_dict()), 0
    for _ in range(EPOCHS):
        network.train()
        for rows in torch.split(torch.randperm(len(x)), BATCH):
            loss = (network(x[rows]) - y[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            error = float((network(x_valid) - y_valid).square().mean())
        if error < best:
            best, best_state, waited = error, copy.deepcopy(network.state_dict()), 0
        elif (waited := waited + 1) >= PATIENCE:
            break
    network.load_state_dict(best_state)
    return network.eval()
