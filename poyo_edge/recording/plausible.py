"""Whether times and values can be meant: what no recording of neurons is, each with the flag that
says what it is.

Nothing is guessed: times in milliseconds look like an unusual session in seconds, and only people
know which it is. ``poyo-edge convert`` is told, and keeps in the recording what it was told.

Legend: M spikes, U units, S behaviour samples, K intervals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64
from poyo_edge.recording.rules import refuse

DOUBTS = ("time-unit", "float32", "sampling-rate", "overlap", "offset", "truncated")
"""What ``--accept`` takes."""
LEAST_SPIKES = 32
"""Of fewer, nothing can be said: a dozen times may be whole numbers by chance."""
MOST_HZ = 1000.0
"""Of one unit for a whole session: a neuron rests for a millisecond after each spike, and channels
of several neurons were measured up to 300 Hz."""
LONG_S = 3600.0
LEAST_HZ = 0.1
"""Mean of all units that spike: the sparsest populations are at 0.2 Hz; times in ms of 60 Hz units
look like 0.06 Hz."""
LONGEST_S = 86400.0
"""A day; in milliseconds, a session of 86 seconds."""
COARSEST_S = 1e-3
"""Of spike times; float32 is coarser beyond 16384 s."""
SLOWEST_S = 1.0
"""Between samples of a series that is sampled regularly: slower is no movement."""
REGULAR = 0.2
"""Spread of intervals around their median, as a share of it, that is still regular."""
LEAST_SAMPLES = 8
LEAST_OVERLAP = 0.1
"""Of the shorter of spikes and behaviour: less is another clock, or another session."""
LEAST_COVERED = 0.01
"""Of a behaviour's time that has spikes: times in milliseconds reach 1000 times as far."""
LEAST_SHARED = 0.5
"""Of the longer of spikes and behaviour: less may be meant, and is said."""
OFFSET_TIMES = 10.0
"""An offset larger than the data by more moves nothing to where it belongs."""
_UNITS = "ms, us or samples:30000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """What can hardly be meant, in the words of a message."""

    name: str
    """One of ``DOUBTS``."""
    field: str
    expected: str
    got: str
    do: str


class SpikeSummary:
    """What is asked of spikes, gathered from pieces of them in the order of time."""

    def __init__(self, n_units: int) -> None:
        self.counts: Int64 = np.zeros(n_units, np.int64)
        self.first = self.last = 0.0
        self._whole = self._float32 = True

    @classmethod
    def of(cls, times: Float64, units: npt.NDArray[Any], n_units: int) -> SpikeSummary:
        """Of all spikes: times (M,) seconds, ascending, and units (M,) rows."""
        summary = cls(n_units)
        summary.add(times, units)
        return summary

    def add(self, times: npt.NDArray[Any], units: npt.NDArray[Any]) -> None:
        """Take the next piece into account; errors of its arrays have been looked for."""
        if not len(times):
            return
        self.first = self.first if self.n else float(times[0])
        self.last = float(times[-1])
        self.counts += np.bincount(units, minlength=len(self.counts))
        self._whole = self._whole and bool((times == np.rint(times)).all())
        if self._float32:
            with np.errstate(over="ignore"):
                self._float32 = bool((times.astype(np.float32) == times).all())

    @property
    def n(self) -> int:
        """Spikes."""
        return int(self.counts.sum())

    @property
    def seconds(self) -> float:
        """From the first spike to the last."""
        return self.last - self.first

    def doubts(self) -> Iterator[Doubt]:
        """What can hardly be meant of the spikes."""
        if self.n < LEAST_SPIKES:
            return
        wrong = self._other_unit()
        if wrong:
            yield Doubt(
                name="time-unit",
                field="spike times",
                expected=wrong[0],
                got=wrong[1],
                do=f"say their unit with poyo-edge convert --time-unit {_UNITS}, or --accept "
                f"time-unit if these are seconds",
            )
        step = float(np.spacing(np.float32(max(abs(self.first), abs(self.last)))))
        if self._float32 and not self._whole and step > COARSEST_S:
            yield Doubt(
                name="float32",
                field="spike times",
                expected=f"steps of {COARSEST_S * 1000:g} ms at most",
                got=f"float32, {step * 1000:.3g} ms apart at {self.last:.0f} s",
                do="save them as float64, or from the beginning of the session on, or take them "
                "as they are with poyo-edge convert --accept float32",
            )

    def _other_unit(self) -> tuple[str, str] | None:
        """What was expected of times in seconds, and what came."""
        if self._whole:
            return "seconds with fractions", f"{self.n} whole numbers, like {self.first:.0f}"
        if self.seconds > LONGEST_S:
            hours = f"{self.seconds / 3600:.1f} hours"
            return f"a session of at most {LONGEST_S / 3600:.0f} hours", hours
        if self.seconds > 0 and self.counts.max() > max(MOST_HZ, MOST_HZ * self.seconds):
            got = f"{self.counts.max() / self.seconds:.0f} Hz in unit {self.counts.argmax()}"
            return f"at most {MOST_HZ:.0f} spikes/s of a unit", got
        active = int((self.counts > 0).sum())
        rate = self.n / active / self.seconds if self.seconds > LONG_S else np.inf
        if rate < LEAST_HZ:
            got = f"{rate:.2g} Hz for {self.seconds / 3600:.1f} hours"
            return f"at least {LEAST_HZ} spikes/s of a unit on average", got
        return None


def behavior_doubts(
    name: str,
    spikes: SpikeSummary,
    times: Float64,
    values: npt.NDArray[Any] | None = None,
    offset: float = 0.0,
) -> Iterator[Doubt]:
    """What can hardly be meant of a behaviour beside these spikes.

    Args:
        name: for messages.
        spikes: of the same recording.
        times: (S,) seconds, ascending.
        values: (S,) or (S, D), ``offset`` added; None leaves them aside.
        offset: that the file says to add.
    """
    if len(times) >= LEAST_SAMPLES:
        low, middle, high = np.quantile(np.diff(times), [0.05, 0.5, 0.95])
        if middle > SLOWEST_S and high - low <= REGULAR * middle:
            yield Doubt(
                name="sampling-rate",
                field=name,
                expected=f"at least {1 / SLOWEST_S:g} sample each second",
                got=f"one each {middle:g} s",
                do=f"correct the rate in the file, or say the unit of its times with poyo-edge "
                f"convert --behavior-time-unit {_UNITS}, or --accept sampling-rate",
            )
    if spikes.n >= LEAST_SPIKES and len(times) > 1:
        yield from _overlap(name, spikes, float(times[0]), float(times[-1]))
    if values is not None and offset:
        yield from _offset(name, values, offset)


def _overlap(name: str, spikes: SpikeSummary, start: float, end: float) -> Iterator[Doubt]:
    both = max(0.0, min(end, spikes.last) - max(start, spikes.first))
    shorter, length = min(spikes.seconds, end - start), end - start
    if both < LEAST_OVERLAP * shorter or both < LEAST_COVERED * length:
        yield Doubt(
            name="overlap",
            field=name,
            expected=f"times on the clock of the spikes, {spikes.first:.3f} to {spikes.last:.3f} s",
            got=f"{start:.3f} to {end:.3f} s, {both:.3f} s of them beside spikes",
            do=f"say what to add to its times with poyo-edge convert --shift-behavior SECONDS, or "
            f"their unit with --behavior-time-unit {_UNITS}, or --accept overlap",
        )


def overlap_notes(name: str, spikes: SpikeSummary, times: Float64) -> list[str]:
    """What to say of behaviour at times (S,) that shares little of its time with the spikes."""
    if spikes.n < LEAST_SPIKES or len(times) < 2:
        return []
    start, end = float(times[0]), float(times[-1])
    both = max(0.0, min(end, spikes.last) - max(start, spikes.first))
    longer = max(spikes.seconds, end - start)
    if both >= LEAST_SHARED * longer:
        return []
    if spikes.seconds < end - start:
        who, so = "spikes cover", "was the file of the spikes cut, or is their clock another?"
    else:
        who, so = "it covers", "nothing can be learned or judged beside it"
    return [
        f"{name} is from {start:.3f} to {end:.3f} s, spikes from {spikes.first:.3f} to "
        f"{spikes.last:.3f} s: {who} {both / longer:.0%} of the longer; {so}"
    ]


def _offset(name: str, values: npt.NDArray[Any], offset: float) -> Iterator[Doubt]:
    inside = np.abs(values - offset)
    most = float(inside[np.isfinite(inside)].max(initial=0.0))
    if 0 < most * OFFSET_TIMES < abs(offset):
        yield Doubt(
            name="offset",
            field=name,
            expected=f"an offset of values of up to {most:.4g}",
            got=f"{offset:g}, as if it were a time",
            do="correct the offset in the file, or add it with poyo-edge convert --accept offset",
        )


def check_plausible(path: Path, doubts: Iterable[Doubt], accepted: Collection[str]) -> None:
    """Refuse the first doubt that nobody has answered.

    Raises:
        RecordingError: there is one.
    """
    for doubt in doubts:
        if doubt.name not in accepted:
            refuse(path, doubt.field, doubt.expected, doubt.got, doubt.do)
