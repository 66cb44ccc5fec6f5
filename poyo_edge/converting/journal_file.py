"""Journals of ``poyo-edge run`` → recordings, whole or cut off by a crash."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.converting.clocks import together
from poyo_edge.converting.source import NO_INTERVALS, Series, Source
from poyo_edge.frames import STATUSES
from poyo_edge.journal import (
    Decoded,
    Entry,
    Journal,
    JournalHeader,
    Labels,
    Spikes,
    swap_of,
)
from poyo_edge.recording.rules import refuse

Kind = TypeVar("Kind")
DecodedAt = tuple[int, Decoded]
"""The epoch that it belongs to, and a decoded value."""
_APART_S = 2.0
"""Between two clocks of one journal: more than any window, so that none holds both."""


@contextmanager
def open_journal(path: Path) -> Iterator[Source]:
    """Open a journal.

    Spikes of units that the session does not have are left out. Where another session was swapped
    in, its units join those of the first. After a discontinuity of the device's clock, times go on
    where the last clock ended. Starts of which nobody noted that the clock began anew are segments.

    Raises:
        RecordingError: not a journal, or another one was appended to it.
    """
    journal = Journal(path)
    starts, again = _by_start(journal)
    found = [_source(journal, entries) for entries in starts]
    yield together(found, again) if again else found[0]


def _by_start(journal: Journal) -> tuple[list[list[Entry]], str]:
    """Entries of each start, and where the second begins; "" for one."""
    starts: list[list[Entry]] = [[]]
    again, epoch, newest = "", -1, 0
    least = _APART_S * journal.header.tick_rate_hz
    for number, entry in enumerate(journal.entries()):
        if isinstance(entry, Spikes) and len(entry.ticks):
            first, last = int(entry.ticks.min()), int(entry.ticks.max())
            same = entry.epoch == epoch
            if entry.epoch < epoch or (same and first < newest - least):
                again = again or f"entry {number}: tick {first} after {newest}"
                starts.append([])
                same = False
            epoch, newest = entry.epoch, max(last, newest) if same else last
        starts[-1].append(entry)
    if journal.appended:
        at = journal.path.stat().st_size - journal.bytes_left_out
        got, do = f"another one from byte {at} on", "save each as a file of its own"
        refuse(journal.path, "file", "the journal of one start", got, do)
    return starts, again


def _source(journal: Journal, entries: list[Entry]) -> Source:
    path, notes = journal.path, list[str]()
    units = _Units(journal.header.unit_ids)
    spikes, labels, decoded = _entries(journal, entries, units, notes)
    rate, header = journal.header.tick_rate_hz, journal.header
    shifts, observed = _one_clock(_ticks_by_epoch(spikes, labels, decoded), rate)
    if len(shifts) > 1:
        notes.append(
            f"the device's clock began anew {len(shifts) - 1} times; times go on {_APART_S:g} s "
            f"behind the last, so that nothing is laid over anything"
        )
    seconds = _joined([(one.ticks / rate + shifts[one.epoch]) for one in spikes])
    rows = np.concatenate([np.empty(0, np.int32), *(one.rows for one in spikes)])
    known = (rows >= 0) & (rows < len(units.ids))
    order = np.argsort(seconds[known], kind="stable")
    return Source(
        path=path,
        format="journal",
        session_id=header.session_id,
        subject_id=header.subject_id,
        unit_ids=tuple(units.ids),
        spike_times=seconds[known][order],
        spike_units=rows[known][order].astype(np.int64),
        series=tuple(_all_series(labels, decoded, header, shifts)),
        observed=observed,
        trials=NO_INTERVALS,
        notes=tuple(notes),
    )


class _Units:
    """Units of all sessions of a journal, and what the rows of the session in use mean there."""

    def __init__(self, unit_ids: Sequence[str]) -> None:
        self.ids = dict.fromkeys(unit_ids)
        self._to = np.arange(len(unit_ids), dtype=np.int32)

    def swap(self, unit_ids: Sequence[str]) -> None:
        """Rows count along these from here on."""
        self.ids |= dict.fromkeys(unit_ids)
        place = {unit: i for i, unit in enumerate(self.ids)}
        self._to = np.array([place[unit] for unit in unit_ids], np.int32)

    def of(self, spikes: Spikes) -> Spikes:
        """The same spikes with rows of all units; -1 for those that the session does not have."""
        known = (spikes.rows >= 0) & (spikes.rows < len(self._to))
        rows = np.full(len(spikes.rows), -1, np.int32)
        rows[known] = self._to[spikes.rows[known]]
        return dataclasses.replace(spikes, rows=rows)


def _entries(
    journal: Journal, entries: list[Entry], units: _Units, notes: list[str]
) -> tuple[list[Spikes], list[Labels], list[DecodedAt]]:
    """Spikes, labels and decoded values, and what was wrong with them as notes."""
    spikes, labels, decoded = list[Spikes](), list[Labels](), list[DecodedAt]()
    for entry in entries:
        if isinstance(entry, Spikes) and len(entry.ticks):
            spikes.append(units.of(entry))
        elif (swap := swap_of(entry)) is not None:
            units.swap(swap.unit_ids)
        elif isinstance(entry, Decoded):
            decoded.append((spikes[-1].epoch if spikes else 0, entry))
        elif isinstance(entry, Labels) and len(entry.ticks):
            labels.append(entry)
    decoded = _of_one_width(decoded, None, "values", notes, lambda one: one[1].value[None])
    width = len(decoded[0][1].value) if decoded else None
    labels = _of_one_width(labels, width, "labels", notes, lambda one: one.values)
    if journal.bytes_left_out:
        notes.append(
            f"it was cut off: {journal.bytes_left_out} bytes of a last frame were left out"
        )
    return spikes, labels, decoded


def _ticks_by_epoch(
    spikes: list[Spikes], labels: list[Labels], decoded: list[DecodedAt]
) -> dict[int, npt.NDArray[np.int64]]:
    """All ticks of each epoch, in the order of epochs."""
    found: dict[int, list[npt.NDArray[np.int64]]] = {}
    pairs = [(one.epoch, one.ticks) for one in spikes]
    pairs += [(one.epoch, one.ticks) for one in labels]
    pairs += [(epoch, np.array([value.tick], np.int64)) for epoch, value in decoded]
    for epoch, ticks in pairs:
        found.setdefault(epoch, []).append(ticks)
    return {epoch: np.concatenate(found[epoch]) for epoch in sorted(found)}


def _all_series(
    labels: list[Labels],
    decoded: list[DecodedAt],
    header: JournalHeader,
    shifts: dict[int, float],
) -> list[Series]:
    """What was decoded, and the behaviour that came in."""
    rate, series = header.tick_rate_hz, list[Series]()
    if decoded:
        at = np.array([one.tick / rate + shifts[epoch] for epoch, one in decoded])
        values = np.stack([one.value for _, one in decoded])
        states = np.array([STATUSES.index(one.status) for _, one in decoded], np.int64)
        series += [_series("decoded.value", at, values), _series("decoded.status", at, states)]
    if labels:
        at = _joined([one.ticks / rate + shifts[one.epoch] for one in labels])
        values = np.concatenate([one.values for one in labels])
        by_time = np.argsort(at, kind="stable")
        series.append(_series(header.behavior or "labels.value", at[by_time], values[by_time]))
    return series


def _one_clock(
    ticks: dict[int, npt.NDArray[np.int64]], rate: float
) -> tuple[dict[int, float], Float64]:
    """Seconds to add to each epoch's times, and the stretch (K, 2) that each one covers."""
    shifts, stretches, end = dict[int, float](), list[tuple[float, float]](), None
    for epoch, one in ticks.items():
        first, last = one.min() / rate, one.max() / rate
        shifts[epoch] = 0.0 if end is None else max(0.0, end + _APART_S - first)
        end = last + shifts[epoch]
        if last > first:
            stretches.append((first + shifts[epoch], end))
    return shifts, np.array(stretches, np.float64).reshape(-1, 2)


def _of_one_width(
    entries: list[Kind],
    width: int | None,
    what: str,
    notes: list[str],
    values: Callable[[Kind], npt.NDArray[np.float64]],
) -> list[Kind]:
    """Those of that width, or as wide as most samples: a stray one costs no journal."""
    samples: Counter[int] = Counter()
    for one in entries:
        samples[values(one).shape[1]] += len(values(one))
    if not entries:
        return []
    width = samples.most_common(1)[0][0] if width is None else width
    left_out = samples.total() - samples[width]
    if left_out:
        notes.append(f"{left_out} {what} do not have {width} dimensions: left out")
    return [one for one in entries if values(one).shape[1] == width]


def _joined(pieces: list[npt.NDArray[np.float64]]) -> Float64:
    return np.concatenate([np.empty(0), *pieces])


def _series(key: str, times: Float64, values: npt.NDArray[np.generic]) -> Series:
    return Series(
        key=key,
        where=key,
        n_samples=len(values),
        n_dims=1 if values.ndim == 1 else int(values.shape[1]),
        read=lambda: (times, values),
    )
