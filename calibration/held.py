"""What a decoder gives for a command that is held, from data in which nobody held one.

Reaches end after half a second, so their labels do not say what becomes of a command that a person
holds, as in a closed loop: a model that was trained on reaches lets it decay. Windows of a held
command are put together from pieces of 0.1 s of held-out spikes, each from a moment whose label is
near the command. On simulated arrays, what is decoded of such windows agreed with what was decoded
of a command that was really held (docs/calibration.md).

Legend: S judged samples, O outputs, W windows, M spikes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from poyo_edge.arrays import Float64, Int64
from poyo_edge.calibration.control import moving, top_speed
from poyo_edge.calibration.fit.labels import Labels

_PIECE_S = 0.1
_BEFORE_S = 0.1
"""The middle of a piece is so long before its label: the lead of motor cortex."""
_SPEED_PERCENT = 75.0
_NEAREST, _FEWEST = 20, 40
"""Moments that a command is made of, and judged samples that move below which none is."""
_REPEATS = 2
_APART_S = 0.5
_LEAST_ALONG = 0.8
"""Cosine between a command and the mean label of its moments, at least."""


def held_steps(labels: Labels, samples: Int64, window_s: float, seed: int) -> Labels | None:
    """Windows of held commands in all directions; None where too few moments are near them.

    ``values`` (W, O) of what is returned are the commands: the mean labels of the moments.

    Args:
        labels: spikes and labels.
        samples: (S,) held-out samples.
        window_s: of the model.
        seed: of the choice of moments.
    """
    times, values = labels.times[samples], labels.values[samples]
    moves = moving(values, top_speed(values))
    if moves.sum() < _FEWEST:
        return None
    speed = float(np.percentile(np.linalg.norm(values[moves], axis=1), _SPEED_PERCENT))
    rng = np.random.default_rng(seed)
    spikes, rows, ends, commands = [], [], [], []
    begin, n_pieces = 0.0, round(window_s / _PIECE_S)
    for direction in _directions(values.shape[1]):
        near = np.linalg.norm(values - speed * direction, axis=1).argsort(kind="stable")[:_NEAREST]
        mean = values[near].mean(0)
        if mean @ direction < _LEAST_ALONG * max(float(np.linalg.norm(mean)), speed / 2):
            continue
        for _ in range(_REPEATS):
            moments = rng.choice(near, n_pieces)
            for piece, moment in enumerate(moments):
                start = times[moment] - _BEFORE_S - _PIECE_S / 2
                inside = slice(*labels.spike_times.searchsorted([start, start + _PIECE_S]))
                spikes.append(labels.spike_times[inside] - start + begin + piece * _PIECE_S)
                rows.append(labels.spike_rows[inside])
            ends.append(begin + window_s)
            commands.append(values[moments].mean(0))
            begin += window_s + _APART_S
    if not ends:
        return None
    return _windows(labels, spikes, rows, ends, commands)


def _windows(
    labels: Labels,
    spikes: list[Float64],
    rows: list[np.ndarray[tuple[int], np.dtype[np.int32]]],
    ends: list[float],
    commands: list[Float64],
) -> Labels:
    heard = np.concatenate(spikes)
    order = heard.argsort(kind="stable")
    return dataclasses.replace(
        labels,
        spike_times=heard[order],
        spike_rows=np.concatenate(rows)[order],
        times=np.array(ends),
        values=np.array(commands),
        stretches=np.array([[0.0, ends[-1]]]),
    )


def _directions(n_dims: int) -> Float64:
    """Unit vectors (., O): both ways along each axis, and between them in a plane."""
    axes = np.concatenate([np.eye(n_dims), -np.eye(n_dims)])
    if n_dims != 2:
        return axes
    angles = np.arange(8) * np.pi / 4
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)
