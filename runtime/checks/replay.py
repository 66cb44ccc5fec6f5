"""A recording streamed through the decoder as if it happened now: strictly causal."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.figures import draw_latency, draw_trace
from poyo_edge.metrics import r2_per_dim
from poyo_edge.recording import Recording
from poyo_edge.recording.units import require_unit
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.latency import LatencyHistogram

TRACE_PNG, LATENCY_PNG = "decoded_trace.png", "latency.png"

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """What was decoded at each behaviour sample of a split."""

    times: Float64
    """(S,) seconds."""
    truth: Float64
    """(S, O) in behaviour units."""
    decoded: Float64
    """(S, O) in behaviour units."""
    statuses: tuple[str, ...]
    """(S,) of each value, like "VALID"."""
    r2_per_dim: Float64
    stats: dict[str, Any]
    latency: LatencyHistogram

    @property
    def r2(self) -> float:
        """Mean over dimensions of R² over all samples of the split."""
        return float(self.r2_per_dim.mean())

    def to_json(self) -> dict[str, Any]:
        """The figures that ``poyo-edge replay --json`` prints."""
        return {
            "r2": round(self.r2, 6),
            "r2_per_dim": [round(float(r2), 6) for r2 in self.r2_per_dim],
            "n_predictions": len(self.times),
            "protocol": "causal",
            "backend": self.stats["backend"],
            "session_id": self.stats["session_id"],
            "latency_ms": self.stats["latency_ms"],
            "counters": self.stats["counters"],
            "statuses": self.stats["statuses"],
            "health": self.stats["health"],
        }


def replay(
    decoder: Decoder,
    recording: Recording,
    behavior: str,
    *,
    split: str = "test",
    chunk_s: float | None = None,
    on_progress: Progress | None = None,
) -> Replay:
    """Stream a recording and decode at each behaviour sample t of a split.

    Before each decode the spikes before t are pushed, and nothing at or after t. Windows are
    [t - T, t). R² is per dimension over all samples of the split.

    Args:
        decoder: freshly opened, with a clock in seconds.
        recording: whose unit ids the decoder's session knows.
        behavior: "GROUP.KEY"; samples that are NaN are left out.
        split: name of the split.
        chunk_s: push at most this many seconds of spikes at a time; None pushes all that
            arrived since the last decode at once.
        on_progress: called with samples done and samples in all.

    Raises:
        RecordingError: no such behaviour or split, no sample in it, units that the session does
            not have, or another number of dimensions than the model decodes.
        UsageError: ``chunk_s`` is too small or not finite.
    """
    if chunk_s is not None and not 1e-4 <= chunk_s < math.inf:
        raise UsageError(f"chunk_s: expected finite seconds >= 0.0001 (0.1 ms), got {chunk_s!r}")
    rows = rows_of(decoder, recording)
    times, truth = _samples(decoder, recording, behavior, split)
    decoded = np.empty_like(truth)
    spike_times, spike_rows = recording.spike_times, rows[recording.spike_units]
    statuses = list[str]()
    pushed = 0
    for i, t in enumerate(times):
        # Spikes that no window can hold need no replaying: splits may have long holes, and
        # after one the stream begins anew.
        earliest = t - 2 * decoder.window_s
        if i and times[i - 1] < earliest:
            decoder.reset()
        pushed = max(pushed, int(np.searchsorted(spike_times, earliest)))
        end = int(np.searchsorted(spike_times, t))
        for lo, hi in _chunks(spike_times, pushed, end, chunk_s):
            decoder.push(spike_times[lo:hi], spike_rows[lo:hi])
        pushed = end
        result = decoder.decode(float(t))
        decoded[i] = result.value
        statuses.append(result.status.name)
        if on_progress is not None:
            on_progress(i + 1, len(times))
    return Replay(
        times=times,
        truth=truth,
        decoded=decoded,
        statuses=tuple(statuses),
        r2_per_dim=r2_per_dim(truth, decoded),
        stats=decoder.stats(),
        latency=decoder.latency,
    )


def draw(folder: str | Path, replayed: Replay, *, title: str, unit: str = "") -> list[str]:
    """Draw the decoded trace and the latency histogram into a folder; returns the file names.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    folder = Path(folder)
    draw_trace(
        folder / TRACE_PNG,
        replayed.times,
        replayed.truth,
        replayed.decoded,
        title=f"{title}: decoded causally",
        r2_per_dim=replayed.r2_per_dim.tolist(),
        unit=unit,
    )
    n_decodes = int(replayed.latency.counts.sum())
    draw_latency(
        folder / LATENCY_PNG,
        replayed.latency.edges_ms(),
        replayed.latency.counts,
        replayed.latency.summary_ms(),
        title=f"{title}: latency of {n_decodes} decodes, {replayed.stats['backend']}",
    )
    return [TRACE_PNG, LATENCY_PNG]


def _chunks(times: Float64, first: int, end: int, chunk_s: float | None) -> list[tuple[int, int]]:
    if chunk_s is None or end <= first:
        return [(first, end)]
    edges = np.arange(times[first], times[end - 1] + chunk_s, chunk_s)
    cuts = [first, *(first + np.searchsorted(times[first:end], edges[1:])).tolist(), end]
    return [(lo, hi) for lo, hi in itertools.pairwise(cuts) if hi > lo]


def rows_of(decoder: Decoder, recording: Recording) -> npt.NDArray[np.int32]:
    """Rows of the recording's units in the decoder's session, (U,) int32; -1 for unknown ones.

    Raises:
        RecordingError: all of them are unknown.
    """
    rows = decoder.rows(recording.unit_ids)
    if (rows < 0).all():  # models put the session before units whose names do not hold it
        rows = decoder.rows([f"{recording.session_id}/{name}" for name in recording.unit_ids])
    if (rows < 0).all():
        raise RecordingError(
            recording.path,
            "units/id",
            expected=f"units of session {decoder.session_id!r}, like {decoder.unit_ids[0]!r}",
            got=f"none of them, but units like {recording.unit_ids[0]!r}",
            do="open the decoder with the recording's own session (--session)",
        )
    return rows


def _samples(
    decoder: Decoder, recording: Recording, behavior: str, split: str
) -> tuple[Float64, Float64]:
    series = recording.behavior(behavior, allow_nan=True)
    keep = recording.within(series.times, split) & np.isfinite(series.values).all(-1)
    times, truth = series.times[keep], series.values[keep]
    dim_out = decoder.artifact.manifest.spec.dim_out
    if truth.shape[1] != dim_out:
        raise RecordingError(
            recording.path,
            behavior,
            expected=f"{dim_out} dimensions, as the model decodes",
            got=truth.shape[1],
            do="name the behaviour that the model was trained on",
        )
    unit = recording.behavior_units.get(behavior, "")
    require_unit(recording.path, behavior, unit, decoder.artifact.manifest.output)
    n_inside = int(recording.within(series.times, split).sum())
    if len(times) < 2:
        raise RecordingError(
            recording.path,
            f"{split}_domain",
            expected=f"at least two samples of {behavior} that are no NaN",
            got=f"{len(times)} of {n_inside}",
            do="choose another split or behaviour",
        )
    if (truth == truth[0]).all(0).any():
        raise RecordingError(
            recording.path,
            behavior,
            expected=f"values that change in the {split} split, for R²",
            got="a dimension that does not",
            do="choose another split or behaviour",
        )
    return times, truth
