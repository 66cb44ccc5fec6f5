"""A recording as a feed: at real speed, faster, or as fast as the loop takes it."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.recording.confined import open_confined
from poyo_edge.runtime.feeds.feed import Feed, Receiver
from poyo_edge.runtime.feeds.wire.address import Address
from poyo_edge.runtime.feeds.wire.task import CursorAt
from poyo_edge.trials import Trial, Trials, TrialUpdate

_PACKET_S = 0.001
_NS = 1_000_000_000


class RecordingFeed(Feed):
    """Packets of 1 ms of a split, with the behaviour as labels if it is named.

    Args:
        path: the recording.
        split: which part; holes between its intervals pass as silence.
        speed: seconds of recording per second.
        behavior: "GROUP.KEY" to hand over as labels; empty for none.
        trials: whether to tell of the trials that lie in the split, each by its row: at its start,
            when the person is told to move, and at its end.
        cursor: "GROUP.KEY" to hand over as the cursor's positions; empty for none.

    Raises:
        RecordingError: it cannot be read, or lacks what is asked for.
        UsageError: no spikes or trials in the split, or a speed that cannot be.
    """

    def __init__(
        self, path: str | Path, *, split: str = "all", speed: float = 1.0, behavior: str = "",
        trials: bool = False, cursor: str = "",
    ) -> None:  # fmt: skip
        super().__init__(1e9, speed=speed)
        if not 0.01 <= speed <= 1000:
            raise UsageError(f"speed: expected 0.01 to 1000, got {speed!r}")
        self.recording = open_confined(path)
        spans = self.recording.intervals(split)
        inside = self.recording.within(self.recording.spike_times, split)
        self._times = self.recording.spike_times[inside]
        self._names = np.array(self.recording.unit_ids)[self.recording.spike_units[inside]]
        self._start, self._end = float(spans[0, 0]), float(spans[-1, 1])
        self._labels = self._series(behavior, split) if behavior else None
        self._cursor = self._series(cursor, split) if cursor else None
        self._updates = self._trials(split) if trials else []
        if not len(self._times):
            raise UsageError(f"split: expected spikes in {split!r} of {path}, got none")

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Hand over each packet when its end has come.

        Raises:
            UsageError: its labels have another width than what is decoded.
        """
        if self._labels is not None and (said := self.other_width(self._labels[1])):
            raise self.refused(said)
        self.counters.connections += 1
        began = time.monotonic_ns()
        done, labelled, shown, told = self._start, 0, 0, 0
        pushed = 0
        while done < self._end and not stop.is_set():
            passed = (time.monotonic_ns() - began) / _NS * self.speed
            now = min(self._start + passed, self._end)
            if now - done < _PACKET_S * self.speed and now < self._end:
                stop.wait(_PACKET_S)
                continue
            last = int(np.searchsorted(self._times, now))
            if last > pushed:
                receiver.feed(_ticks(self._times[pushed:last]), self._names[pushed:last])
                self.counters.messages += 1
            if self._labels is not None:
                times, values = self._labels
                end = int(np.searchsorted(times, now))
                if end > labelled:
                    receiver.feed_labels(_ticks(times[labelled:end]), values[labelled:end])
                labelled = end
            at = time.monotonic_ns()
            while told < len(self._updates) and self._updates[told][0] <= now:
                self.hand_over_task(receiver, self._updates[told][1], None, host_ns=at)
                told += 1
            if self._cursor is not None:
                times, values = self._cursor
                end = int(np.searchsorted(times, now))
                if end > shown:
                    where = CursorAt(_ticks(times[shown:end]), values[shown:end])
                    self.hand_over_task(receiver, None, where, host_ns=at)
                shown = end
            pushed, done = last, now

    def _series(self, key: str, split: str) -> tuple[Float64, Float64]:
        """Times (S,) and finite values (S, D) of a behaviour in a split."""
        series = self.recording.behavior(key, allow_nan=True)
        keep = self.recording.within(series.times, split) & np.isfinite(series.values).all(1)
        return series.times[keep], series.values[keep]

    def _trials(self, split: str) -> list[tuple[float, TrialUpdate]]:
        """When what is said of each trial that lies in a split, in the order of time."""
        trials = self.recording.trials()
        if trials is not None:
            whole = self.recording.within(trials.start, split)
            whole &= self.recording.within(np.nextafter(trials.end, -np.inf), split)
        if trials is None or not whole.any():
            raise UsageError(
                f"trials: expected trials in {split!r} of {self.recording.path}, got none; leave "
                f"out trials=1"
            )
        return [update for row in np.flatnonzero(whole) for update in _told(trials, int(row))]


def open_feed(address: Address) -> RecordingFeed:
    """``file:RECORDING.h5?split=test&speed=1&labels=cursor.vel&trials=1&cursor=cursor.pos``."""
    return RecordingFeed(
        address.place,
        split=address.option("split", "all"),
        speed=address.number("speed", 1.0),
        behavior=address.option("labels"),
        trials=address.flag("trials"),
        cursor=address.option("cursor"),
    )


def _told(trials: Trials, row: int) -> list[tuple[float, TrialUpdate]]:
    """When a trial begins, goes and ends, with all that is known of it by then."""
    start, go_time, end = (
        float(one[row]) for one in (trials.start, trials.go_time, trials.end)
    )  # fmt: skip
    target, radius = trials.target[row], float(trials.radius[row])
    trial = Trial(
        number=row,
        start=_tick(start),
        target=tuple(target.tolist()) if trials.has_target[row] else None,
        radius=None if np.isnan(radius) else radius,
    )
    told = [(start, trial)]
    if np.isfinite(go_time):
        trial = dataclasses.replace(trial, go_time=_tick(go_time))
        told.append((go_time, trial))
    judged = trials.judged is not None and bool(trials.judged[row])
    success = bool(trials.success[row]) if judged else None
    told.append((end, dataclasses.replace(trial, end=_tick(end), success=success)))
    return [(at, TrialUpdate.of(one)) for at, one in told]


def _tick(seconds: float) -> int:
    return round(seconds * _NS)


def _ticks(seconds: Float64) -> npt.NDArray[np.int64]:
    """Nanoseconds of the recording."""
    return np.rint(seconds * _NS).astype(np.int64)
