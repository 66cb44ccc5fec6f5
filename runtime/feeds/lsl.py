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
from poyo_edge.frames import STATUSES
from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.address import Address
from poyo_edge.runtime.feeds.wire.parsing import shown

_CORRECT_EACH_S = 5.0
_NS = 1_000_000_000
_MOST = 4096
_CHANNELS = 2
"""Of a stream of spikes: channel and unit."""
_MANY, _OTHERS_S = 1 << 10, 0.3
"""So long streams of the same name may take to answer after the first."""
_SILENT_S = 2.0
"""After so long without a sample, other outlets of the name are looked for."""
_LATEST_S = 1e9
"""LSL's clock counts from the start of a machine; later ones count from 1970."""


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
        self.correction_s = 0.0
        """What LSL adds to the sender's stamps."""

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Find the stream and receive.

        Raises:
            ConnectionError: no stream of that name answers.
            UsageError: several do, or it is no stream of spikes.
            pylsl.LostError: the stream is gone.
        """
        lsl = self._pylsl
        info = self._found()
        inlet, others = lsl.StreamInlet(info, max_buflen=10, recover=False), None
        try:
            inlet.open_stream(timeout=2.0)
            self.counters.connections += 1
            corrected, heard = -np.inf, time.monotonic()
            while not stop.is_set():
                if time.monotonic() - corrected > _CORRECT_EACH_S:
                    self.correction_s = float(inlet.time_correction(timeout=2.0))
                    corrected = time.monotonic()
                sample, stamp = inlet.pull_sample(timeout=POLL_S)
                if sample is None:
                    silent = time.monotonic() - heard > _SILENT_S
                    if silent and others is None:
                        others = lsl.ContinuousResolver("name", self.name)
                    if silent and others is not None:
                        self._require_the_same(info, others.results())
                    continue
                heard = time.monotonic()
                more, stamps = inlet.pull_chunk(timeout=0.0, max_samples=_MOST)
                self._take([sample, *more], [stamp, *stamps], receiver, time.monotonic_ns())
        finally:
            inlet.close_stream()

    def _require_the_same(self, info: Any, answers: Any) -> None:
        """Break off where only another outlet of the name answers: this one hangs, or is gone."""
        uids = [one.uid() for one in answers if self.source_id in ("", one.source_id())]
        if uids and info.uid() not in uids:
            raise ConnectionError(f"the LSL stream {self.name!r} came back as another outlet")

    def _found(self) -> Any:
        """The one stream that is meant, if it is one of spikes."""
        answers = self._pylsl.resolve_byprop("name", self.name, 1, timeout=1.0)
        if answers:  # others may need a moment longer
            answers = self._pylsl.resolve_byprop("name", self.name, _MANY, timeout=_OTHERS_S)
        named = {info.uid(): info for info in answers}
        meant = [one for one in named.values() if self.source_id in ("", one.source_id())]
        if not named:
            raise ConnectionError(f"no LSL stream named {self.name!r} answers")
        listed = "; ".join(_described(info) for info in named.values())
        if len(meant) != 1:
            raise self.refused(
                f"lsl://{self.name}: expected one stream"
                f"{f' with source_id {self.source_id!r}' if self.source_id else ''}, got "
                f"{len(meant)} of {listed}; choose with lsl://{self.name}?source_id=..."
            )
        info = meant[0]
        if info.nominal_srate() != self._pylsl.IRREGULAR_RATE or info.channel_count() > _CHANNELS:
            raise self.refused(
                f"lsl://{self.name}: expected an irregular stream with a sample for each spike in "
                f"1 or {_CHANNELS} channels, got {_described(info)}; name a stream of spike events"
            )
        return info

    def _take(self, samples: Any, stamps: Any, receiver: Receiver, host_ns: int) -> None:
        self.counters.messages += len(samples)
        seconds = np.asarray(stamps, np.float64) + self.correction_s
        names = names_of(samples) if np.isfinite(seconds).all() else None
        if (np.abs(seconds) > _LATEST_S).any():
            self.malformed(
                f"lsl://{self.name}: expected stamps of LSL's clock (local_clock), got "
                f"{seconds[0]:.6g} s; let the sender stamp with local_clock",
                len(samples),
            )
        elif names is None:
            self.malformed(
                f"lsl://{self.name}: expected a whole channel number or a unit's name first in "
                f"each sample, and a finite stamp, got {shown(samples[0])}; name a stream of spike "
                f"events",
                len(samples),
            )
        else:
            ticks = np.rint(seconds * _NS).astype(np.int64)
            self.hand_over(receiver, ticks, names, host_ns=host_ns)


def _described(info: Any) -> str:
    rate = info.nominal_srate()
    pace = f"{rate:g} Hz" if rate else "irregular"
    return (
        f"source_id {info.source_id()!r} on {info.hostname()} (type {info.type()!r}, "
        f"{info.channel_count()} channel(s), {pace})"
    )


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


def open_feed(address: Address) -> LslFeed:
    """``lsl://STREAM?source_id=ID``."""
    return LslFeed(address.name(), address.option("source_id"))


def open_sink(address: Address, dim_out: int) -> LslSink:
    """``lsl://STREAM``."""
    return LslSink(address.name(), dim_out, address.valid_for_ms)
