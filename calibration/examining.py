"""What stands behind a calibration: each unit's part, odd units, and how many labels it takes.

Legend: U units.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.beside import mix, wiener_beside
from poyo_edge.calibration.fit.fitting import FitSettings
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.calibration.fit.search import Search
from poyo_edge.metrics import r2_per_dim
from poyo_edge.records import JsonRecord

_BIN_S = 0.01
_ALIKE = 0.8
_MOST_JUDGED = 60
"""Held-out samples of each fold that a unit's part is measured on."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UnitPart(JsonRecord):
    """One unit in a calibrated session."""

    unit: str
    rate_hz: float
    """Spikes per labelled second."""
    part: float
    """R² lost on held-out blocks when the unit is taken away."""
    distance: float
    """From the trained units (``Prior.distance``): 1 is typical of them, 2 is far."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """All units, and pairs of units that look like one."""

    units: tuple[UnitPart, ...]
    alike: tuple[tuple[str, str, float], ...]
    """Pairs whose spike counts in 10 ms bins correlate by more than 0.8, and by how much."""
    r2_by_seconds: tuple[tuple[float, float], ...]
    """Labelled seconds that a fold learned from, and the R² on the same held-out blocks."""

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return {
            "units": [unit.to_json() for unit in self.units],
            "alike": [list(pair) for pair in self.alike],
            "r2_by_seconds": [[round(s, 3), round(r2, 6)] for s, r2 in self.r2_by_seconds],
        }


def examined(
    adapter: Adapter,
    search: Search,
    settings: FitSettings,
    unit_ids: Sequence[str],
    shares: Sequence[float],
    on_progress: Callable[[int, int], None] | None,
) -> Examination:
    """What stands behind a fit; see ``Calibrator.examine``."""
    total = len(shares) + len(unit_ids)
    report = on_progress or (lambda done, total: None)
    points = [(search.learned_s, search.chosen.point.r2)]
    for share in sorted(shares, reverse=True):
        part = Search(
            adapter, search.prior, search.labels, settings, search.start, search.seed, share=share,
            all_folds=search.all_folds,
        )  # fmt: skip
        part.run(math.inf, threading.Event(), lambda _: None)
        if settings.mix:
            mix(part, wiener_beside(part))
        points.append((part.learned_s, part.chosen.point.r2))
        report(len(points) - 1, total)
    parts = list[UnitPart]()
    for part_of_unit in unit_parts(adapter, search.prior, search, unit_ids):
        parts.append(part_of_unit)
        report(len(shares) + len(parts), total)
    return Examination(
        units=tuple(sorted(parts, key=lambda part: -part.part)),
        alike=alike(search.labels, unit_ids),
        r2_by_seconds=tuple(reversed(points)),
    )


def unit_parts(
    adapter: Adapter, prior: Prior, search: Search, unit_ids: Sequence[str]
) -> Iterator[UnitPart]:
    """Each unit's rate, part and distance, in order of their rows, as they are found."""
    labels = search.labels
    counts = np.bincount(labels.spike_rows, minlength=labels.n_units)
    heard = float((labels.stretches[:, 1] - labels.stretches[:, 0]).sum())
    distance = prior.distance(search.chosen.tables[-1].units)
    everyone = np.arange(labels.n_units)
    whole = _r2_of_units(adapter, search, everyone)
    for i, unit in enumerate(unit_ids):
        others = np.delete(everyone, i)
        yield UnitPart(
            unit=unit,
            rate_hz=round(float(counts[i] / heard), 3),
            part=round(whole - (_r2_of_units(adapter, search, others) if len(others) else 0.0), 5),
            distance=round(float(distance[i]), 3),
        )


def alike(labels: Labels, unit_ids: Sequence[str]) -> tuple[tuple[str, str, float], ...]:
    """Pairs of units whose spikes come together more than two neurons' do."""
    # Bins of what was heard only: being silent in one hole makes no two units alike.
    edges = [np.arange(start, end + _BIN_S, _BIN_S) for start, end in labels.stretches]
    first = np.cumsum([0, *(len(e) - 1 for e in edges)])
    counts = np.zeros((first[-1], labels.n_units), np.float32)
    for offset, bounds in zip(first, edges, strict=False):
        inside = slice(*np.searchsorted(labels.spike_times, bounds[[0, -1]]))
        bins = ((labels.spike_times[inside] - bounds[0]) / _BIN_S).astype(np.int64)
        bins = np.minimum(bins, len(bounds) - 2)
        np.add.at(counts, (offset + bins, labels.spike_rows[inside]), 1)
    counts -= counts.mean(0)
    sd = np.sqrt((counts**2).sum(0))
    correlation = (counts.T @ counts) / np.maximum(np.outer(sd, sd), 1e-12)
    rows, columns = np.nonzero(np.triu(correlation > _ALIKE, 1))
    return tuple(
        (unit_ids[int(i)], unit_ids[int(j)], round(float(correlation[i, j]), 3))
        for i, j in zip(rows, columns, strict=True)
    )


def _r2_of_units(adapter: Adapter, search: Search, rows: npt.NDArray[np.int64]) -> float:
    """Held-out R² of each fold's best fit with only these units."""
    labels = search.labels.of_units(rows)
    truth, decoded = [], []
    for fit, best in zip(search.fits[:-1], search.chosen.tables[:-1], strict=True):
        samples = fit.judged()
        samples = samples[:: max(1, -(-len(samples) // _MOST_JUDGED))]
        decoded.append(
            adapter.predict(
                labels, samples, best.units[rows], best.session, best.encoder,
                best.wiener and best.wiener.of_units(rows),
            )
        )  # fmt: skip
        truth.append(labels.values[samples])
    return float(r2_per_dim(np.concatenate(truth), np.concatenate(decoded)).mean())
