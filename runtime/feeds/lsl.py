"""Lab Streaming Layer: events in, values out.

In: an irregular stream with one sample per spike, ``(channel, unit)`` or one channel of names, and
LSL time stamps. Stamps are moved to this machine's LSL clock with ``time_correction`` and not
dejittered: spikes are events. Out: an irregular stream of the decoded value and its status.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.journal import STATUSES
from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver, gather_s
from poyo_edge.runtime.feeds.task.lsl_streams import task_feeds
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.address import Address
from poyo_edge.runtime.feeds.wire.lsl_inlet import LATEST_S, NS, Inlet, described, import_pylsl
from poyo_edge.runtime.feeds.wire.parsing import shown

_CHANNELS = 2
"""Of a stream of spikes: channel and unit."""


def names_of(samples: Any) -> npt.NDArray[np.str_] | None:
    """Unit names of samples: text as it is, ``chNUMBER`` of whole numbers; None of any other."""
    if not len(samples):
        return None
    first = [sample[0] if len(sample) else None for sample in samples]
    if all(isinstance(one, str) for one in first):
        return np.array(first, np.str_)
    numbers = np.asarray(first, dtype=np.float64)
    if not np.isfinite(numbers).all() or (numbers > 1 << 31).any():
        return None
    if (numbers < 0).any() or (numbers != np.floor(numbers)).any():
        return None
    return np.array([f"ch{int(number)}" for number in numbers], np.str_)


class LslFeed(Feed):
    """Reads the one stream of a name. Units are ``ch1`` for channel 1, or the text of samples.

    Args:
        name: of the stream.
        source_id: of the one that is meant, where several have the name; "" takes the only one.
    """

    def __init__(self, name: str, source_id: str = "") -> None:
        super().__init__(1e9)
        self._pylsl = import_pylsl()
        self.name, self.source_id = name, source_id

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Find the stream and receive.

        Raises:
            ConnectionError: no stream of that name answers.
            UsageError: several do, or it is no stream of spikes.
            pylsl.LostError: the stream is gone.
        """
        inlet = Inlet(self.name, self.source_id, self._unlike, self.refused)
        try:
            inlet.open()
            self.counters.connections += 1
            while not stop.is_set():
                samples, stamps = inlet.pull(POLL_S, lambda: gather_s(receiver))
                if samples:
                    seconds = np.asarray(stamps, np.float64) + inlet.correction_s
                    self._take(samples, seconds, receiver, time.monotonic_ns())
        finally:
            inlet.close()

    def _unlike(self, info: Any) -> str:
        """What is wrong with the description of a stream that is none of spikes."""
        if info.nominal_srate() == self._pylsl.IRREGULAR_RATE and info.channel_count() <= _CHANNELS:
            return ""
        return (
            f"expected an irregular stream with a sample for each spike in 1 or {_CHANNELS} "
            f"channels, got {described(info)}; name a stream of spike events"
        )

    def _take(
        self, samples: Any, seconds: npt.NDArray[np.float64], receiver: Receiver, host_ns: int
    ) -> None:
        self.counters.messages += len(samples)
        stamped = np.abs(seconds) <= LATEST_S  # of NaN nothing is true
        names = names_of(samples) if stamped.all() else None
        if names is None:
            samples, seconds = self._without_bad(samples, seconds, stamped)
            names = names_of(samples)
        if names is not None:
            ticks = np.rint(seconds * NS).astype(np.int64)
            self.hand_over(receiver, ticks, names, host_ns=host_ns)

    def _without_bad(
        self, samples: Any, seconds: npt.NDArray[np.float64], stamped: npt.NDArray[np.bool_]
    ) -> tuple[list[Any], npt.NDArray[np.float64]]:
        """The samples (N,) and stamps that can be used; the others are counted, each by itself."""
        named = np.array([names_of([sample]) is not None for sample in samples])
        late = np.isfinite(seconds) & ~stamped
        if late.any():
            self.malformed(
                f"lsl://{self.name}: expected stamps of LSL's clock (local_clock), got "
                f"{seconds[late][0]:.6g} s; let the sender stamp with local_clock",
                int(late.sum()),
            )
        other = ~(named & stamped) & ~late
        if other.any():
            first = samples[int(np.flatnonzero(other)[0])]
            self.malformed(
                f"lsl://{self.name}: expected a whole channel number or a unit's name first in "
                f"each sample, and a finite stamp, got {shown(first)}; name a stream of spike "
                f"events",
                int(other.sum()),
            )
        good = np.flatnonzero(named & stamped)
        return [samples[i] for i in good.tolist()], seconds[good]


class LslSink:
    """An outlet with the value's dimensions and, last, the number of its status.

    How long a value stands after its stamp is in the description, as ``valid_for_ms``.
    """

    def __init__(self, name: str, dim_out: int, valid_for_ms: float | None = None) -> None:
        lsl = import_pylsl()
        info = lsl.StreamInfo(
            name, "decoded", dim_out + 1, lsl.IRREGULAR_RATE, lsl.cf_double64, f"poyo-edge-{name}"
        )
        channels = info.desc().append_child("channels")
        for label in (*(f"value_{i}" for i in range(dim_out)), "status"):
            channels.append_child("channel").append_child_value("label", label)
        if valid_for_ms is not None:
            info.desc().append_child_value("valid_for_ms", f"{valid_for_ms:g}")
        self._outlet = lsl.StreamOutlet(info)

    def __call__(self, value: LoopResult) -> None:
        """Send it, stamped now."""
        state = STATUSES.index(value.result.status.value)
        self._outlet.push_sample([*value.result.value.tolist(), float(state)])

    def close(self) -> None:
        """Take the outlet away."""
        del self._outlet


def open_feed(address: Address) -> Feed:
    """``lsl://STREAM?source_id=ID&trials=NAME&cursor=NAME``; without STREAM, trials or cursor."""
    beside = (address.option("trials"), address.option("cursor"))
    if any(beside) and not address.place.strip("/"):
        first, *others = task_feeds(*beside)
        first.beside = tuple(others)
        return first
    feed = LslFeed(address.name(), address.option("source_id"))
    feed.beside = tuple(task_feeds(*beside))
    return feed


def open_sink(address: Address, dim_out: int) -> LslSink:
    """``lsl://STREAM``."""
    return LslSink(address.name(), dim_out, address.valid_for_ms)
