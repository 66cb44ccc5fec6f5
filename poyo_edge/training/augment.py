"""Windows in which a movement holds, made of pieces of a recording in which it was alike.

A model that has seen reaches alone has learned that movements end, and lets go of a command that is
held. Recordings of animals have no held movements. But what the units fire while one is held, they
fire in passing whenever the movement is that: so a window is put together from short pieces from
all over the session. Each piece has its own spikes, and its own behaviour for labels. What is held
in one window changes at once in another; both end a reliance on how movements go on.

A unit fires before the movement: spikes of a piece go with the behaviour ``lead_s`` later.
Where the leads of units differ, labels are off around a change of the movement, and nowhere else.

Legend: S behaviour samples, O outputs, K pieces, M spikes, J pieces of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from poyo_edge.arrays import Float32, Float64, Int64
from poyo_edge.training.lazy import LazyRecording

_CANDIDATES = 256
"""Pieces drawn for each place of a window; the one whose behaviour is nearest is taken."""
_SHORTEST_S = 0.15
"""A behaviour is held for this long at least, and for up to twice the window."""
_FASTEST = 95.0
"""Percentile of the distance from the mean behaviour up to which held ones are spread evenly."""


class Window(NamedTuple):
    """A window that was put together; times in seconds from its start."""

    spike_times: Float64
    """(M,) ascending, in [0, T)."""
    spike_units: Int64
    times: Float64
    """(S,) ascending, in [0, T]."""
    values: Float64
    """(S, O)."""
    weights: Float32
    """(S,) of the samples, as the recording has them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pieces:
    """Where in a recording the pieces are, and what the behaviour is after each."""

    recording: LazyRecording
    piece_s: float
    lead_s: float
    starts: Float64
    """(K,) seconds."""
    values: Float32
    """(K, O) mean behaviour ``lead_s`` later."""
    distance: Float32
    """(K,) of the values from their mean, in standard deviations."""
    farthest: float
    """Up to which distance held behaviours are spread evenly."""

    @classmethod
    def of(
        cls, recording: LazyRecording, intervals: Float64, piece_s: float, lead_s: float
    ) -> Pieces:
        """All pieces that lie, with their behaviour, within intervals (K, 2) in seconds.

        They overlap by half.
        """
        times, values = recording.samples(intervals)
        span, every = piece_s + lead_s, piece_s / 2
        starts = np.concatenate([np.arange(a, b - span + 1e-9, every) for a, b in intervals])
        first = np.searchsorted(times, starts + lead_s)
        last = np.searchsorted(times, starts + span)
        heard = last > first
        sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
        counts = (last - first)[heard, None]
        means = (sums[last[heard]] - sums[first[heard]]) / counts
        sd = np.maximum(values.std(axis=0), 1e-12)
        distance = np.sqrt((((means - values.mean(axis=0)) / sd) ** 2).sum(axis=1))
        return cls(
            recording=recording,
            piece_s=piece_s,
            lead_s=lead_s,
            starts=starts[heard],
            values=means.astype(np.float32),
            distance=distance.astype(np.float32),
            farthest=float(np.percentile(distance, _FASTEST)),
        )

    def window(self, window_s: float, rng: np.random.Generator) -> Window:
        """A window of so many seconds; the same state of ``rng`` gives the same one."""
        places = np.arange(window_s - self.piece_s, -self.piece_s, -self.piece_s)
        chosen = [self._like(value, rng) for value in self._profile(window_s, rng)]
        parts = [
            self._part(piece, place, window_s) for piece, place in zip(chosen, places, strict=True)
        ]
        spikes, units, times, values, weights = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        by_spike = np.argsort(spikes, kind="stable")
        by_sample = np.argsort(times, kind="stable")
        return Window(
            spikes[by_spike],
            units[by_spike],
            times[by_sample],
            values[by_sample],
            weights[by_sample].astype(np.float32),
        )

    def _profile(self, window_s: float, rng: np.random.Generator) -> list[Float32]:
        """What each place (J,) shall be like, (O,) each, from the end of the window backward."""
        n_places = len(np.arange(window_s - self.piece_s, -self.piece_s, -self.piece_s))
        wanted: list[Float32] = []
        while len(wanted) < n_places:
            length = np.exp(rng.uniform(*np.log([_SHORTEST_S, 2 * window_s])))
            wanted += [self._drawn(rng)] * max(1, round(length / self.piece_s))
        return wanted[:n_places]

    def _drawn(self, rng: np.random.Generator) -> Float32:
        """Behaviour (O,) of a piece, near and far from the mean alike."""
        far = rng.uniform(0.0, self.farthest)
        rows = rng.integers(len(self.starts), size=16)
        return np.asarray(self.values[rows[np.abs(self.distance[rows] - far).argmin()]])

    def _like(self, value: Float32, rng: np.random.Generator) -> float:
        """The start of the piece whose behaviour is nearest to (O,), of those that are drawn."""
        rows = rng.integers(len(self.starts), size=_CANDIDATES)
        away = ((self.values[rows] - value) ** 2).sum(axis=1)
        return float(self.starts[rows[away.argmin()]])

    def _part(self, piece: float, place: float, window_s: float) -> tuple[np.ndarray, ...]:
        """Spikes and samples of a piece, moved to its place in the window."""
        cut = self.recording.cut(piece, piece + self.piece_s + self.lead_s)
        weights = self.recording.sample_weights(cut.times)
        spikes, times = cut.spike_times - piece + place, cut.times - piece + place
        inside = (cut.spike_times < piece + self.piece_s) & (spikes >= 0) & (spikes < window_s)
        labelled = (cut.times >= piece + self.lead_s) & (times >= 0) & (times <= window_s)
        return (
            spikes[inside],
            cut.spike_units[inside],
            times[labelled],
            cut.values[labelled],
            weights[labelled],
        )
