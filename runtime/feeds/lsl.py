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

from poyo_edge.errors import MissingExtraError
from poyo_edge.journal import STATUSES
from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.address import Address

_CORRECT_EACH_S = 5.0
_NS = 1_000_000_000
_MOST = 4096


def import_pylsl() -> Any:
    """pylsl.

    Raises:
        ImportError: it is not installed.
        MissingExtraError: it is, without the library behind it.
    """
    try:
        import pylsl
    except (RuntimeError, OSError) as error:
        raise MissingExtraError("pylsl with liblsl", "lsl", f"an LSL feed ({error})") from None
    return pylsl


def names_of(samples: Any) -> npt.NDArray[np.str_] | None:
    """Unit names of samples: text as it is, ``chNUMBER`` of numbers; None if they are neither."""
    if not len(samples):
        return None
    first = [sample[0] if len(sample) else None for sample in samples]
    if all(isinstance(one, str) for one in first):
        return np.array(first, np.str_)
    numbers = np.asarray(first, dtype=np.float64)
    if not np.isfinite(numbers).all() or (np.abs(numbers) > 1 << 31).any():
        return None
    return np.array([f"ch{int(number)}" for number in numbers], np.str_)


class LslFeed(Feed):
    """Reads the first stream of a name. Units are ``ch1`` for channel 1, or the text of samples."""

    def __init__(self, name: str) -> None:
        super().__init__(1e9)
        self._pylsl = import_pylsl()
        self.name = name
        self.correction_s = 0.0
        """What LSL adds to the sender's stamps."""

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Find the stream and receive.

        Raises:
            ConnectionError: no stream of that name answers.
            pylsl.LostError: the stream is gone.
        """
        lsl = self._pylsl
        found = lsl.resolve_byprop("name", self.name, 1, timeout=1.0)
        if not found:
            raise ConnectionError(f"no LSL stream named {self.name!r} answers")
        inlet = lsl.StreamInlet(found[0], max_buflen=10, recover=False)
        try:
            inlet.open_stream(timeout=2.0)
            self.counters.connections += 1
            corrected = -np.inf
            while not stop.is_set():
                if time.monotonic() - corrected > _CORRECT_EACH_S:
                    self.correction_s = float(inlet.time_correction(timeout=2.0))
                    corrected = time.monotonic()
                sample, stamp = inlet.pull_sample(timeout=POLL_S)
                if sample is None:
                    continue
                more, stamps = inlet.pull_chunk(timeout=0.0, max_samples=_MOST)
                self._take([sample, *more], [stamp, *stamps], receiver, time.monotonic_ns())
        finally:
            inlet.close_stream()

    def _take(self, samples: Any, stamps: Any, receiver: Receiver, host_ns: int) -> None:
        self.counters.messages += len(samples)
        seconds = np.asarray(stamps, np.float64) + self.correction_s
        names = names_of(samples) if np.isfinite(seconds).all() else None
        if names is None or (np.abs(seconds) > 1e9).any():
            self.counters.malformed += len(samples)
            return
        receiver.feed(np.rint(seconds * _NS).astype(np.int64), names, host_ns=host_ns)


class LslSink:
    """An outlet with the value's dimensions and, last, the number of its status."""

    def __init__(self, name: str, dim_out: int) -> None:
        lsl = import_pylsl()
        info = lsl.StreamInfo(
            name, "decoded", dim_out + 1, lsl.IRREGULAR_RATE, lsl.cf_double64, f"poyo-edge-{name}"
        )
        channels = info.desc().append_child("channels")
        for label in (*(f"value_{i}" for i in range(dim_out)), "status"):
            channels.append_child("channel").append_child_value("label", label)
        self._outlet = lsl.StreamOutlet(info)

    def __call__(self, value: LoopResult) -> None:
        """Send it, stamped now."""
        state = STATUSES.index(value.result.status.value)
        self._outlet.push_sample([*value.result.value.tolist(), float(state)])

    def close(self) -> None:
        """Take the outlet away."""
        del self._outlet


def open_feed(address: Address) -> LslFeed:
    """``lsl://STREAM``."""
    return LslFeed(address.name())


def open_sink(address: Address, dim_out: int) -> LslSink:
    """``lsl://STREAM``."""
    return LslSink(address.name(), dim_out)
