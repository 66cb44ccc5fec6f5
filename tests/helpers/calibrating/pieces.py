"""Pieces of a short labelled recording, and a collector that was given some."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from poyo_edge.calibration.fit.labels import LabelCollector, Labels

T = 1.0
IDS = ("a", "b", "c")
HZ, DURATION_S = 20, 6.0


class Piece(NamedTuple):
    """The arguments of ``add``."""

    spike_times: Any
    spike_units: Any
    behavior_times: Any
    behavior: Any


def recording(seed: int = 0) -> Piece:
    """Six seconds, labelled at 20 Hz from 0 on; times are exact in binary."""
    rng = np.random.default_rng(seed)
    ticks = np.sort(rng.choice(int(DURATION_S * 4096), 300, replace=False))
    times = np.arange(int(DURATION_S * HZ)) / HZ
    values = rng.standard_normal((len(times), 2))
    return Piece(ticks / 4096, rng.integers(0, len(IDS), 300), times, values)


def between(whole: Piece, start: float, end: float) -> Piece:
    spikes = (whole.spike_times >= start) & (whole.spike_times < end)
    samples = (whole.behavior_times >= start) & (whole.behavior_times < end)
    return Piece(
        whole.spike_times[spikes],
        whole.spike_units[spikes],
        whole.behavior_times[samples],
        whole.behavior[samples],
    )


def collected(pieces: Sequence[Piece], ids: Sequence[str] = IDS) -> LabelCollector:
    collector = LabelCollector(ids, 2, T)
    for piece in pieces:
        collector.add(*piece)
    return collector


def same(one: Labels, other: Labels) -> bool:
    fields = [field.name for field in dataclasses.fields(Labels)]
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and np.asarray(getattr(one, name)).dtype == np.asarray(getattr(other, name)).dtype
        for name in fields
    )
