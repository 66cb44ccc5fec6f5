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
from poyo_edge.converting.trial_table import with_table
from poyo_edge.journal import (
    STATUSES,
    Controlled,
    Cursor,
    Decoded,
    Entry,
    Journal,
    JournalHeader,
    Labels,
    Spikes,
    TrialTold,
    swap_of,
)
from poyo_edge.recording.rules import refuse

Kind = TypeVar("Kind")
DecodedAt = tuple[int, Decoded]
ControlledAt = tuple[int, Controlled]
"""The epoch that it belongs to, and a decoded value or what left instead of it."""
CURSOR, _ELSEWHERE = "cursor.pos", "cursor_shown.pos"
"""Where the cursor's positions go."""
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
    spikes, labels, decoded, controlled = _entries(journal, entries, units, notes)
    cursor = [one for one in entries if isinstance(one, Cursor) and len(one.ticks)]
    cursor = _of_one_width(cursor, None, "positions", notes, lambda one: one.positions)
    told = [one for one in entries if isinstance(one, TrialTold)]
    rate, header = journal.header.tick_rate_hz, journal.header
    shifts, observed = _one_clock(_ticks_by_epoch(spikes, labels, decoded, cursor), rate)
    if len(shifts) > 1:
        notes.append(
            f"the device's clock began anew {len(shifts) - 1} times; times go on {_APART_S:g} s "
            f"behind the last, so that nothing is laid over anything"
        )
    seconds = _joined([(one.ticks / rate + shifts[one.epoch]) for one in spikes])
    rows = np.concatenate([np.empty(0, np.int32), *(one.rows for one in spikes)])
    known = (rows >= 0) & (rows < len(units.ids))
    order = np.argsort(seconds[known], kind="stable")
    series = _all_series(labels, decoded, controlled, header, shifts)
    if cursor:
        series.append(_shown(cursor, series, rate, shifts, notes))
    columns = _trials(told, rate, shifts, notes)
    source = Source(
        path=path,
        format="journal",
        session_id=header.session_id,
        subject_id=header.subject_id,
        unit_ids=tuple(units.ids),
        spike_times=seconds[known][order],
        spike_units=rows[known][order].astype(np.int64),
        series=tuple(series),
        observed=observed,
        trials=NO_INTERVALS,
        notes=tuple(notes),
    )
    return with_table(source, columns)


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
) -> tuple[list[Spikes], list[Labels], list[DecodedAt], list[ControlledAt]]:
    """Spikes, labels, decoded and controlled values, and what was wrong with them as notes."""
    spikes, labels, decoded = list[Spikes](), list[Labels](), list[DecodedAt]()
    controlled = list[ControlledAt]()
    for entry in entries:
        if isinstance(entry, Spikes) and len(entry.ticks):
            spikes.append(units.of(entry))
        elif (swap := swap_of(entry)) is not None:
            units.swap(swap.unit_ids)
        elif isinstance(entry, Decoded):
            decoded.append((spikes[-1].epoch if spikes else 0, entry))
        elif isinstance(entry, Controlled) and decoded and decoded[-1][1].tick == entry.tick:
            controlled.append((decoded[-1][0], entry))
        elif isinstance(entry, Labels) and len(entry.ticks):
            labels.append(entry)
    decoded = _of_one_width(decoded, None, "values", notes, lambda one: one[1].value[None])
    width = len(decoded[0][1].value) if decoded else None
    controlled = _of_one_width(
        controlled, width, "controlled values", notes, lambda one: one[1].value[None]
    )
    labels = _of_one_width(labels, width, "labels", notes, lambda one: one.values)
    if journal.bytes_left_out:
        notes.append(
            f"it was cut off: {journal.bytes_left_out} bytes of a last frame were left out"
        )
    return spikes, labels, decoded, controlled


def _ticks_by_epoch(
    spikes: list[Spikes], labels: list[Labels], decoded: list[DecodedAt], cursor: list[Cursor]
) -> dict[int, npt.NDArray[np.int64]]:
    """All ticks of each epoch, in the order of epochs."""
    found: dict[int, list[npt.NDArray[np.int64]]] = {}
    pairs = [(one.epoch, one.ticks) for one in spikes]
    pairs += [(one.epoch, one.ticks) for one in labels]
    pairs += [(one.epoch, one.ticks) for one in cursor]
    pairs += [(epoch, np.array([value.tick], np.int64)) for epoch, value in decoded]
    for epoch, ticks in pairs:
        found.setdefault(epoch, []).append(ticks)
    return {epoch: np.concatenate(found[epoch]) for epoch in sorted(found)}


def _all_series(
    labels: list[Labels],
    decoded: list[DecodedAt],
    controlled: list[ControlledAt],
    header: JournalHeader,
    shifts: dict[int, float],
) -> list[Series]:
    """What was decoded, what left instead of it, and the behaviour that came in."""
    rate, series = header.tick_rate_hz, list[Series]()
    if decoded:
        at = np.array([one.tick / rate + shifts[epoch] for epoch, one in decoded])
        values = np.stack([one.value for _, one in decoded])
        states = np.array([STATUSES.index(one.status) for _, one in decoded], np.int64)
        series += [_series("decoded.value", at, values), _series("decoded.status", at, states)]
    if controlled:
        at = np.array([one.tick / rate + shifts[epoch] for epoch, one in controlled])
        values = np.stack([one.value for _, one in controlled])
        series.append(_series("controlled.value", at, values))
    if labels:
        at = _joined([one.ticks / rate + shifts[one.epoch] for one in labels])
        values = np.concatenate([one.values for one in labels])
        by_time = np.argsort(at, kind="stable")
        series.append(_series(header.behavior or "labels.value", at[by_time], values[by_time]))
    return series


def _shown(
    cursor: list[Cursor],
    others: list[Series],
    rate: float,
    shifts: dict[int, float],
    notes: list[str],
) -> Series:
    """Where the cursor was; under another name where the labels of its group have other times."""
    at = _joined([one.ticks / rate + shifts[one.epoch] for one in cursor])
    values = np.concatenate([one.positions for one in cursor])
    by_time = np.argsort(at, kind="stable")
    times, key = at[by_time], CURSOR
    group = [one.read()[0] for one in others if one.key.partition(".")[0] == "cursor"]
    taken = any(one.key == CURSOR for one in others)
    if taken or not all(np.array_equal(one, times) for one in group):
        key = _ELSEWHERE
        notes.append(f"the cursor's positions are {key}: labels of cursor have other times")
    return _series(key, times, values[by_time])


def _trials(
    told: list[TrialTold], rate: float, shifts: dict[int, float], notes: list[str]
) -> dict[str, npt.NDArray[np.generic]]:
    """Columns of the trials, each as it was told last."""
    newest = {(one.epoch, one.trial.number, one.trial.start): one for one in told}
    known = [one for one in newest.values() if one.epoch in shifts]
    if not known:
        return {}
    dims = Counter(len(one.trial.target) for one in known if one.trial.target is not None)
    width = dims.most_common(1)[0][0] if dims else 0
    if len(dims) > 1:
        stray = dims.total() - dims[width]
        notes.append(f"targets of {stray} trials do not have {width} coordinates: left out")
    nan = (np.nan,) * width
    trials = [one.trial for one in known]

    def seconds(name: str) -> Float64:
        ticks = [getattr(one, name) for one in trials]
        return np.array(
            [
                np.nan if tick is None else tick / rate + shifts[one.epoch]
                for tick, one in zip(ticks, known, strict=True)
            ]
        )

    targets = [one.target if len(one.target or ()) == width else nan for one in trials]
    columns: dict[str, npt.NDArray[np.generic]] = {
        name: seconds(name) for name in ("start", "end", "go_time")
    }
    columns["target"] = np.array(targets, np.float64).reshape(len(trials), width)
    columns["radius"] = np.array([one.radius or np.nan for one in trials])
    columns["success"] = np.array([bool(one.success) for one in trials])
    columns["judged"] = np.array([one.success is not None for one in trials])
    return columns


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
