"""What every feed does: a thread that reads, counts what is wrong, and connects again."""

from __future__ import annotations

import abc
import dataclasses
import logging
import threading
import time
from collections.abc import Collection
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from poyo_edge.errors import PoyoEdgeError, UsageError
from poyo_edge.runtime.feeds.wire.pace import Pace
from poyo_edge.runtime.feeds.wire.task import CursorAt
from poyo_edge.runtime.worker import Worker
from poyo_edge.trials import Trial, TrialUpdate

_log = logging.getLogger(__name__)
DEFAULT_HZ = 1e9
"""Of a counter whose rate nobody states: nanoseconds."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0
POLL_S = 0.05
"""A read that waits longer than this comes back, to look whether it should stop."""
GATHER_S = 0.002
"""So long messages or packets may gather, to be taken together: that costs as much as for one."""
AHEAD_S = 0.0015
"""So long before a window is due they are taken as they come."""


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


@runtime_checkable
class Listener(Protocol):
    """A receiver that also wants to hear what went wrong on the way, as a ``DecodeLoop`` does."""

    def note_loss(self, n: int, *, host_ns: int | None = None) -> None:
        """``n`` messages that were sent never arrived."""

    def note_problem(self, said: str) -> None:
        """What the feed could not use, said once."""


@runtime_checkable
class TaskReceiver(Protocol):
    """A receiver that also takes trials and the cursor, as a ``DecodeLoop`` does."""

    def feed_trial(self, trial: Trial | TrialUpdate, *, host_ns: int | None = None) -> None:
        """Take what is said of a trial."""

    def feed_cursor(
        self, ticks: npt.ArrayLike | None, positions: npt.ArrayLike, *, host_ns: int | None = None
    ) -> None:
        """Take where the cursor was: ticks (N,), or None for now, and positions (N, D)."""


@runtime_checkable
class Punctual(Protocol):
    """A receiver that says when it wants all that has come, as a ``DecodeLoop`` does."""

    due_ns: int
    """When its next window is due (``time.monotonic_ns``)."""


def gather_s(receiver: Receiver) -> float:
    """For how long messages may gather now: not while a window is nearly due."""
    if not isinstance(receiver, Punctual):
        return GATHER_S
    left_s = (receiver.due_ns - time.monotonic_ns()) / 1e9
    return GATHER_S if left_s < 0 else min(GATHER_S, max(0.0, left_s - AHEAD_S))


@dataclasses.dataclass(slots=True)
class FeedCounters:
    """What came in since the start."""

    messages: int = 0
    malformed: int = 0
    """Could not be read: dropped."""
    ignored: int = 0
    """Well-formed, but nothing for a decoder."""
    artifacts: int = 0
    """Events that the device itself marks as artifacts: dropped."""
    lost: int = 0
    """Messages that were sent and never arrived, where that can be seen."""
    connections: int = 0
    failures: int = 0
    """Connections that could not be made or broke; each is tried again."""

    def to_json(self) -> dict[str, int]:
        """Name → count."""
        return dataclasses.asdict(self)


class OnlyTask:
    """A receiver that passes on trials and the cursor alone: another feed brings the spikes.

    Args:
        feed: what hands over; told of what else it brings.
        receiver: where trials and the cursor go.
    """

    def __init__(self, feed: Feed, receiver: TaskReceiver) -> None:
        self._feed, self._receiver = feed, receiver
        self.feed_trial, self.feed_cursor = receiver.feed_trial, receiver.feed_cursor

    def note_loss(self, n: int, *, host_ns: int | None = None) -> None:
        """Of a task's messages no window lacks any."""

    def note_problem(self, said: str) -> None:
        """Pass on what the feed could not use."""
        if isinstance(self._receiver, Listener):
            self._receiver.note_problem(said)

    def feed(
        self, ticks: npt.ArrayLike, units: npt.ArrayLike, *, host_ns: int | None = None,
        sync: Any = None,
    ) -> None:  # fmt: skip
        """Drop spikes."""
        self._other("spikes", "name their feed with --from")

    def feed_labels(
        self, ticks: npt.ArrayLike, values: npt.ArrayLike, *, host_ns: int | None = None
    ) -> None:
        """Drop behaviour."""
        self._other("behaviour", "send it with the spikes, to --from")

    def _other(self, what: str, do: str) -> None:
        self._feed.malformed(f"--trials: expected trials and the cursor alone, got {what}; {do}")


class Feed(abc.ABC):
    """Reads one source in a thread of its own.

    A kind of feed adds ``read``, which counts in ``counters`` what it reads.

    Attributes:
        tick_rate_hz: ticks per second of the packets' times.
        bits: width of the device's counter, None if it never wraps.
        speed: seconds of the source per second; 1 but for a recording that is played faster.
        counters: what came in since the start.
        last_failure: why it broke or ended, "" if it never did.
        first_problem: what could not be used the first time, in a sentence; "" while all could.
        first_ignored: the first that was well-formed and nothing for a decoder; "" if none was.
        details: what else is worth knowing, such as the receive buffer that was granted.
        unit_names: what the decoder knows units as; a rig says it before the start.
        beside: feeds of the same address that bring trials and the cursor; they start and stop with
            this one.
        own_clock: whether its stamps are ticks of the device; False where another feed brings the
            device's spikes.
        n_dims: how many values a label has; a rig says it before the start, None takes any.
        title: what it is called where it has no address; "" for the name of its kind.
        finished: set when the source has ended by itself (a file) or, with a
            ``last_failure``, can never be read.
    """

    def __init__(
        self, tick_rate_hz: float = DEFAULT_HZ, bits: int | None = None, *, speed: float = 1.0
    ) -> None:
        self.tick_rate_hz = tick_rate_hz
        self.bits = bits
        self.speed = speed
        self.counters = FeedCounters()
        self.last_failure = self.first_problem = self.first_ignored = ""
        self.details: dict[str, int] = {}
        self.unit_names: Collection[str] = ()
        self.n_dims: int | None = None
        self.beside: tuple[Feed, ...] = ()
        self.own_clock, self.title = True, ""
        self.finished = threading.Event()
        self._worker = Worker(self._run, "feed")
        self._receiver: Receiver | None = None
        self._used = self._broke = False
        self._pace = Pace(tick_rate_hz * speed)

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
        for one in self.beside:
            one.start(receiver)
        self._worker.start(receiver)

    def stop(self) -> None:
        """Stop reading and let the source go; may be called again."""
        for one in self.beside:
            one.stop()
        self._worker.stop()

    def to_json(self) -> dict[str, Any]:
        """Counters, the first reasons and details, as JSON values."""
        return {
            **self.counters.to_json(),
            "last_failure": self.last_failure,
            "first_problem": self.first_problem,
            "first_ignored": self.first_ignored,
            **self.details,
        }

    def hand_over(
        self, receiver: Receiver, ticks: npt.NDArray[Any], units: npt.ArrayLike, *, host_ns: int,
        sync: Any = None,
    ) -> None:  # fmt: skip
        """Give spikes to the receiver; times that contradict the stated rate are a problem."""
        if self._broke and len(ticks):
            self._broke = False
            self.lost(1, host_ns=host_ns)  # How many came meanwhile is not known.
        self._used = self._used or bool(len(ticks))
        if contradicted := self._pace.add(ticks, host_ns):
            self.note_problem(contradicted)
        receiver.feed(ticks, units, host_ns=host_ns, sync=sync)

    def hand_over_labels(
        self, receiver: Receiver, ticks: npt.NDArray[Any], values: npt.NDArray[Any], *,
        host_ns: int | None = None,
    ) -> None:  # fmt: skip
        """Give behaviour to the receiver, which drops labels of another width; that is said."""
        if said := self.other_width(values):
            self.note_problem(said)
        receiver.feed_labels(ticks, values, host_ns=host_ns)

    def hand_over_task(
        self, receiver: Receiver, trial: TrialUpdate | None, cursor: CursorAt | None, *,
        host_ns: int,
    ) -> None:  # fmt: skip
        """Give a trial or the cursor to the receiver."""
        if not isinstance(receiver, TaskReceiver):
            self.ignored("expected spikes, got messages about a task, which nobody takes here")
            return
        if trial is not None:
            receiver.feed_trial(trial, host_ns=host_ns)
        if cursor is not None:
            receiver.feed_cursor(cursor.ticks, cursor.positions, host_ns=host_ns)

    def other_width(self, values: npt.NDArray[Any]) -> str:
        """What is wrong with labels (N, D) that the decoder's values cannot be compared with."""
        width = values.shape[-1]
        if self.n_dims is None or width == self.n_dims:
            return ""
        return (
            f"labels: expected {self.n_dims} values each, as the model decodes, got {width}; send "
            f"the behaviour that it was trained for"
        )

    def malformed(self, said: str, n: int = 1) -> None:
        """Count what could not be read; the first reason is kept."""
        self.counters.malformed += n
        self.note_problem(said)

    def ignored(self, said: str, n: int = 1) -> None:
        """Count what is nothing for a decoder; the first example is kept."""
        self.counters.ignored += n
        self.first_ignored = self.first_ignored or said

    def note_problem(self, said: str) -> None:
        """Keep the first problem and say it once.

        Args:
            said: expected, got, what to do.
        """
        if self.first_problem:
            return
        self.first_problem = said
        _log.warning("the feed: %s", said)
        if isinstance(self._receiver, Listener):
            self._receiver.note_problem(said)

    def lost(self, n: int, *, host_ns: int | None = None) -> None:
        """Count messages that never arrived; windows that lack them are flagged.

        Args:
            n: how many; below 0 where some have come after all.
            host_ns: when that was seen.
        """
        self.counters.lost += n
        if n > 0 and isinstance(self._receiver, Listener):
            self._receiver.note_loss(n, host_ns=host_ns)

    def refused(self, said: str) -> Exception:
        """What to raise for a source of another kind: it ends a feed that has used nothing yet."""
        self.note_problem(said)
        return ConnectionError(said) if self._used else UsageError(said)

    def _run(self, receiver: Receiver) -> None:
        self._receiver = receiver
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
                if self.first_problem != str(error):  # Then it has been said.
                    _log.error("the feed ended: %s", error)
                self.finished.set()
                return
            except Exception as error:  # Whatever a library raises when its peer goes away.
                self.counters.failures += 1
                self._broke = self._used
                if self.last_failure != str(error):
                    _log.warning("the feed broke and is tried again: %s", error)
                self.last_failure = str(error)
            wait_s = FIRST_WAIT_S if self.counters.messages > before else wait_s
            stop.wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
