"""Where spikes become tokens: windows, boundary tokens and the latent grid, in numpy.

Legend: N spike tokens, U units, L latents.

Times of spikes are absolute (float64 seconds or integer device ticks) until the start of the
window has been subtracted; only then do they become float32. The fastest rotary frequency is
62,832 rad/s: absolute times in float32 would be wrong after seconds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64
from poyo_edge.spec import ModelSpec

TOKEN_SPIKE = 0
TOKEN_START = 1
TOKEN_END = 2


class Tokens(NamedTuple):
    """Input tokens of one window, in torch_brain's order: boundary tokens first, then spikes."""

    unit: Int64
    """(2U + N,) int64: row of the unit in the recording."""
    time: Float64
    """(2U + N,) float64: seconds from the start of the window."""
    type: Int64
    """(2U + N,) int64: TOKEN_SPIKE, TOKEN_START or TOKEN_END."""


def boundary_tokens(n_units: int, window_s: float) -> Tokens:
    """A START token at 0 and an END token at ``window_s`` for every unit, unit by unit.

    Source: torch_brain ``create_start_end_unit_tokens``.
    """
    return Tokens(
        unit=np.repeat(np.arange(n_units, dtype=np.int64), 2),
        time=np.tile(np.array([0.0, window_s]), n_units),
        type=np.tile(np.array([TOKEN_START, TOKEN_END], dtype=np.int64), n_units),
    )


def window_tokens(spike_time: Float64, spike_unit: Int64, n_units: int, window_s: float) -> Tokens:
    """All input tokens of one window, as torch_brain's ``POYO.tokenize`` makes them.

    Args:
        spike_time: (N,) float64, seconds from the start of the window.
        spike_unit: (N,) int64, row of the unit in the recording.
        n_units: number of units in the recording, silent ones included.
        window_s: length of the window in seconds.
    """
    ends = boundary_tokens(n_units, window_s)
    return Tokens(
        unit=np.concatenate([ends.unit, np.asarray(spike_unit, dtype=np.int64)]),
        time=np.concatenate([ends.time, np.asarray(spike_time, dtype=np.float64)]),
        type=np.concatenate([ends.type, np.zeros(len(spike_unit), dtype=np.int64)]),
    )


def latent_tokens(spec: ModelSpec) -> tuple[Int64, Float64]:
    """``(index, time)`` of the latents, each (L,): int64 row and float64 seconds.

    Source: torch_brain ``create_linspace_latent_tokens``.
    """
    step = float(spec.latent_step_s)
    times = np.arange(0, spec.window_seconds, step) + step / 2
    index = np.arange(spec.latents_per_step, dtype=np.int64)
    return np.tile(index, len(times)), np.repeat(times, len(index))


def relative_times(
    times: npt.NDArray[np.float64] | npt.NDArray[np.int64],
    start: float | int | Float64,
    window_s: float,
    rate_hz: float | None = None,
) -> npt.NDArray[np.float32]:
    """Seconds from the start of the window, float32 in [0, window_s), in the shape of ``times``.

    Args:
        times: (N,) float64 seconds, or int64 ticks when ``rate_hz`` is given; or (B, N).
        start: start of the window in the same unit; or one for each window, (B, 1).
        window_s: length of the window in seconds.
        rate_hz: ticks per second, or None for seconds.
    """
    offset = times - start
    seconds = offset if rate_hz is None else offset / rate_hz
    last = np.nextafter(np.float32(window_s), np.float32(0))
    return np.minimum(seconds.astype(np.float32), last)


def cut_window(
    times: Float64, units: Int64, start: float, window_s: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """The spikes in ``[start, start + window_s)`` of a sorted recording.

    Args:
        times: (M,) float64 seconds, ascending.
        units: (M,) integer rows.
        start: start of the window in seconds.
        window_s: length of the window in seconds.

    Returns:
        ``(time, unit)``: (N,) float32 seconds from the start, and (N,) int32 rows.
    """
    lo, hi = np.searchsorted(times, [start, start + window_s], side="left")
    return relative_times(times[lo:hi], start, window_s), units[lo:hi].astype(np.int32)
