"""Sinks that the loop never waits for: each that may wait sends from a thread of its own.

While a sink is busy, the newest value waits for it and replaces the one that waited before. So a
peer that hangs delays nobody else, and when it comes back it gets the newest value first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds.values import LoopResult, Sink
from poyo_edge.runtime.rig.settings import LoopCounters

_log = logging.getLogger(__name__)
CLOSE_S = 1.0
"""For the last values, of all sinks together."""


class SinkFailures:
    """Counts values that could not be sent, from any thread, and says the first of each sink."""

    def __init__(self, counters: LoopCounters) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._said = set[int]()

    def __call__(self, sink: object, error: BaseException) -> None:
        """A value could not be sent to ``sink``."""
        with self._lock:
            self._counters.sink_failures += 1
            first = id(sink) not in self._said
            self._said.add(id(sink))
        if first:
            _log.warning(
                "a value could not be sent to %s (%s); later failures are counted",
                sink, _named(error),
            )  # fmt: skip


class Outlet:
    """A sink and what became of its values; sends in the thread that hands them over.

    Args:
        sink: called with each value, and closed by ``close``.
        now_ns: the clock by which it is behind.
    """

    def __init__(self, sink: Sink, *, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.sink = sink
        self.on_failure: Callable[[object, BaseException], None] = lambda *_: None
        """Called with this and the error where nobody else is told."""
        self._now = now_ns
        self._lock = threading.Lock()
        self._sent = self._superseded = self._failures = 0
        self._last_failure = ""
        self._behind_since: int | None = None
        """When the oldest value was handed over after which none was sent."""
        self._ended_ns: int | None = None

    def __call__(self, value: LoopResult) -> None:
        """Send a value.

        Raises:
            UsageError: it was closed.
            Exception: it could not be sent.
        """
        with self._lock:
            self._note_value()
        try:
            self.sink(value)
        except Exception as error:
            self._note_failure(error)
            raise
        with self._lock:
            self._note_sent(None)

    def __str__(self) -> str:
        return str(self.sink)

    def to_json(self) -> dict[str, Any]:
        """Its address, what is counted, and how long the oldest value waits that was not sent."""
        with self._lock:
            now = self._now() if self._ended_ns is None else self._ended_ns
            since = now if self._behind_since is None else self._behind_since
            return {
                "address": self.sink.address,
                "sent": self._sent,
                "superseded": self._superseded,
                "failures": self._failures,
                "behind_ms": round((now - since) / 1e6, 1),
                "last_failure": self._last_failure,
            }

    def end(self) -> None:
        """No more values come."""

    def close(self, until_s: float | None = None) -> None:
        """Close the sink; it has nothing to wait for."""
        with self._lock:
            closed, self._ended_ns = self._ended_ns is not None, self._ended_ns or self._now()
        if not closed:
            self.sink.close()

    def _note_value(self) -> int:
        if self._ended_ns is not None:
            raise UsageError(f"{self}: expected a sink that is open, got one that was closed")
        now = self._now()
        if self._behind_since is None:
            self._behind_since = now
        return now

    def _note_sent(self, next_ns: int | None) -> None:
        self._sent += 1
        self._behind_since = next_ns

    def _note_failure(self, error: BaseException) -> None:
        with self._lock:
            self._failures += 1
            self._last_failure = _named(error)


class OwnThread(Outlet):
    """A sink that may wait: what is handed over is sent from a thread of its own.

    The thread begins with the first value, so that it has the core and the priority that the
    loop's thread was granted.
    """

    def __init__(self, sink: Sink, *, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(sink, now_ns=now_ns)
        self._changed = threading.Condition(self._lock)
        self._waiting: tuple[LoopResult, int] | None = None
        """With when it was handed over."""
        self._ending = False
        self._thread: threading.Thread | None = None

    def __call__(self, value: LoopResult) -> None:
        """Hand a value over; returns at once. One that still waits is superseded.

        Raises:
            UsageError: it was closed.
        """
        with self._changed:
            now = self._note_value()
            self._superseded += self._waiting is not None
            self._waiting = (value, now)
            if self._thread is None:
                name = f"poyo-edge-sink {self}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                thread.start()
                self._thread = thread
            self._changed.notify()

    def end(self) -> None:
        """Take no more values; the thread ends when it has sent the last."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def close(self, until_s: float | None = None) -> None:
        """Wait for the last value for ``CLOSE_S`` or until ``until_s`` (monotonic), and no longer.

        A sink that hangs still is closed by its thread, when it wakes, without another value.
        """
        until_s = time.monotonic() + CLOSE_S if until_s is None else until_s
        self.end()
        thread = self._thread
        if thread is None:
            super().close()
            return
        thread.join(max(0.0, until_s - time.monotonic()))
        with self._changed:
            first = self._ended_ns is None
            self._ended_ns = self._ended_ns or self._now()
            self._waiting = None
        if first and thread.is_alive():
            _log.warning(
                "%s: expected to take its last value within %g s of the end, but it hangs; what "
                "it has not taken is lost", self, CLOSE_S,
            )  # fmt: skip

    def _note_value(self) -> int:
        if self._ending:
            raise UsageError(f"{self}: expected a sink that is open, got one that was closed")
        return super()._note_value()

    def _run(self) -> None:
        while (value := self._next()) is not None:
            try:
                self.sink(value)
            except BaseException as error:  # Whatever it is, the next value is tried.
                self._note_failure(error)
                self.on_failure(self, error)
            else:
                with self._changed:
                    self._note_sent(None if self._waiting is None else self._waiting[1])
        try:
            self.sink.close()
        except Exception as error:
            _log.warning("%s could not be closed (%s)", self, _named(error))

    def _next(self) -> LoopResult | None:
        """The newest value when there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._ending)
            waiting, self._waiting = self._waiting, None
            return None if waiting is None else waiting[0]


def outlet(sink: Sink, *, now_ns: Callable[[], int] = time.monotonic_ns) -> Outlet:
    """The outlet for a sink: with a thread of its own, unless it never waits."""
    return (Outlet if sink.never_waits else OwnThread)(sink, now_ns=now_ns)


def close_all(outlets: Sequence[Outlet]) -> None:
    """Close them together, so that several that hang take no longer than one."""
    for one in outlets:
        one.end()
    until_s = time.monotonic() + CLOSE_S
    for one in outlets:
        one.close(until_s)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
