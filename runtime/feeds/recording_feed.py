"""A recording as a feed: at real speed, faster, or as fast as the loop takes it."""

from __future__ import annotations

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

_PACKET_S = 0.001
_NS = 1_000_000_000


class RecordingFeed(Feed):
    """Packets of 1 ms of a split, with the behaviour as labels if it is named.

    Args:
        path: the recording.
        split: which part; holes between its intervals pass as silence.
        speed: seconds of recording per second.
        behavior: "GROUP.KEY" to hand over as labels; empty for none.
    """

    def __init__(
        self, path: str | Path, *, split: str = "all", speed: float = 1.0, behavior: str = ""
    ) -> None:
        super().__init__(1e9, speed=speed)
        if not 0.01 <= speed <= 1000:
            raise UsageError(f"speed: expected 0.01 to 1000, got {speed!r}")
        self.recording = open_confined(path)
        spans = self.recording.intervals(split)
        inside = self.recording.within(self.recording.spike_times, split)
        self._times = self.recording.spike_times[inside]
        self._names = np.array(self.recording.unit_ids)[self.recording.spike_units[inside]]
        self._start, self._end = float(spans[0, 0]), float(spans[-1, 1])
        self._labels = None
        if behavior:
            series = self.recording.behavior(behavior, allow_nan=True)
            keep = self.recording.within(series.times, split) & np.isfinite(series.values).all(1)
            self._labels = (series.times[keep], series.values[keep])
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
        done, labelled = self._start, 0
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
            pushed, done = last, now


def open_feed(address: Address) -> RecordingFeed:
    """``file:RECORDING.h5?split=test&speed=1&labels=cursor.vel``."""
    return RecordingFeed(
        address.place,
        split=address.option("split", "all"),
        speed=address.number("speed", 1.0),
        behavior=address.option("labels"),
    )


def _ticks(seconds: Float64) -> npt.NDArray[np.int64]:
    """Nanoseconds of the recording."""
    return np.rint(seconds * _NS).astype(np.int64)
