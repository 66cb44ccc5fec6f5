"""What every feed does: a thread that reads, counts what is wrong, and connects again."""

from __future__ import annotations

import abc
import dataclasses
import logging
import threading
from typing import Any, Protocol

import numpy.typing as npt

from poyo_edge.errors import PoyoEdgeError
from poyo_edge.runtime.worker import Worker

_log = logging.getLogger(__name__)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0
POLL_S = 0.05
"""A read that waits longer than this comes back, to look whether it should stop."""


class Receiver(Protocol):
    """Where packets go: a ``DecodeLoop``."""

    def feed(
        self, ticks: npt.ArrayLike, units: npt.ArrayLike, *, host_ns: int | None = None,
        sync: Any = None,
    ) -> None:  # fmt: skip
        """Take spikes: ticks (N,) and unit names or rows (N,)."""

    def feed_labels(
        self, ticks: npt.ArrayLike, values: npt.ArrayLike, *, host_ns: int | None = None
    ) -> None:
        """Take behaviour: ticks (N,) and values (N, D)."""


@dataclasses.dataclass(slots=True)
class FeedCounters:
    """What came in since the start."""

    messages: int = 0
    malformed: int = 0
    """Could not be read: dropped."""
    ignored: int = 0
    """Well-formed, but nothing for a decoder."""
    connections: int = 0
    failures: int = 0
    """Connections that could not be made or broke; each is tried again."""

    def to_json(self) -> dict[str, int]:
        """Name → count."""
        return dataclasses.asdict(self)


class Feed(abc.ABC):
    """Reads one source in a thread of its own.

    A kind of feed adds ``read``, which counts in ``counters`` what it reads.

    Attributes:
        tick_rate_hz: ticks per second of the packets' times.
        bits: width of the device's counter, None if it never wraps.
        speed: seconds of the source per second; 1 but for a recording that is played faster.
        counters: what came in since the start.
        last_failure: why it broke or ended, "" if it never did.
        finished: set when the source has ended by itself (a file) or, with a
            ``last_failure``, can never be read.
    """

    def __init__(
        self, tick_rate_hz: float = 1e9, bits: int | None = None, *, speed: float = 1.0
    ) -> None:
        self.tick_rate_hz = tick_rate_hz
        self.bits = bits
        self.speed = speed
        self.counters = FeedCounters()
        self.last_failure = ""
        self.finished = threading.Event()
        self._worker = Worker(self._run, "feed")

    @abc.abstractmethod
    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Connect and hand over packets until ``stop`` is set or the connection breaks.

        Raises:
            Exception: the connection could not be made or broke; it is tried again.
            PoyoEdgeError: it will never work.
        """

    def start(self, receiver: Receiver) -> None:
        """Begin to read; returns at once."""
        if not self._worker.started:
            self.finished.clear()
        self._worker.start(receiver)

    def stop(self) -> None:
        """Stop reading and let the source go; may be called again."""
        self._worker.stop()

    def _run(self, receiver: Receiver) -> None:
        wait_s, stop = FIRST_WAIT_S, self._worker.stopping
        while not stop.is_set():
            before = self.counters.messages
            try:
                self.read(receiver, stop)
                if not stop.is_set():
                    self.finished.set()
                return
            except PoyoEdgeError as error:
                self.last_failure = str(error)
                _log.error("the feed ended: %s", error)
                self.finished.set()
                return
            except Exception as error:  # Whatever a library raises when its peer goes away.
                self.counters.failures += 1
                if self.last_failure != str(error):
                    _log.warning("the feed broke and is tried again: %s", error)
                self.last_failure = str(error)
            wait_s = FIRST_WAIT_S if self.counters.messages > before else wait_s
            stop.wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
