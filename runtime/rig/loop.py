"""The decode loop: windows on a grid of the device's clock, decoded when they are due.

Feeds hand over packets from any thread; the loop's own thread places them on the device's clock,
pushes them, decodes and gives the value to the sinks. So the order of all that happens is one
order, which a journal records and a replay repeats.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.journal import JournalWriter
from poyo_edge.runtime.clock.rate import WrongRate
from poyo_edge.runtime.control.control import Control
from poyo_edge.runtime.control.envelope import Answer
from poyo_edge.runtime.control.outcome import CONTROL, OutcomeMonitor
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.failsafe import Status
from poyo_edge.runtime.feeds.feed import AHEAD_S, GATHER_S
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.latency import LatencyHistogram
from poyo_edge.runtime.page.ring.writer import FrameWriter
from poyo_edge.runtime.result import Result
from poyo_edge.runtime.rig.arrivals import Arrivals
from poyo_edge.runtime.rig.delivery import Delivery
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.losses import Losses
from poyo_edge.runtime.rig.outlets import SinkFailures
from poyo_edge.runtime.rig.packets import Inbox, PacketQueue
from poyo_edge.runtime.rig.realtime import RealtimeSettings, realtime
from poyo_edge.runtime.rig.recorder import Recorder
from poyo_edge.runtime.rig.settings import (
    HostClock,
    LoopCounters,
    LoopSettings,
    MonotonicClock,
)
from poyo_edge.runtime.rig.source_watch import SourceWatch
from poyo_edge.runtime.rig.task import Task, told_to
from poyo_edge.runtime.unit_names import UnitNames
from poyo_edge.runtime.worker import Stopping, Worker
from poyo_edge.trials import Trial

_log = logging.getLogger(__name__)
_SECOND = 1_000_000_000
_GATHER_NS, _AHEAD_NS = int(GATHER_S * _SECOND), int(AHEAD_S * _SECOND)
FLOOD = "flood"
"""Flag: more packets came than the loop could take, and some were dropped or still wait."""
WRONG_RATE = "clock_rate"
"""Flag: the device's counter does not run at its stated rate."""


class DecodeLoop(Inbox):
    """Decodes at a steady rate of the device's clock until stopped.

    Args:
        decoder: opened with ``tick_rate_hz``.
        clock: the device's. A recording that is replayed faster has a clock that ticks faster.
        sinks: called with each value in the loop's thread; one that raises is counted, and named
            as ``str`` names it.
        settings: when to decode.
        realtime_settings: what to ask of the operating system.
        journal: where everything is recorded, in its order.
        on_spikes: called in the loop's thread with ticks (N,) and rows (N,) that were pushed; rows
            are of the session in use and say so.
        on_labels: called in the loop's thread with ticks (N,) and values (N, D) of behaviour.
        on_trial: called in the loop's thread with what is known of a trial, each time that more
            is; times are unwrapped ticks.
        on_cursor: called in the loop's thread with ticks (N,) and positions (N, D) of the cursor.
        on_task_problem: told, once, why a trial or the cursor could not be used; None logs it.
        unit_names: what the feed calls units of the session that the loop begins with; None knows
            them by their ids. After a swap the names are looked up in the session in use.
        source_ended: whether the feed has ended; once what it brought is used, its stream is lost.
        host: the host's clock.
        control: what stands between decoder and cursor, and takes commands; None shapes nothing
            and takes ``command`` alone.
        frames: where a frame for each value is written, for who watches from another process.
    """

    def __init__(
        self,
        decoder: Decoder,
        clock: DeviceClock,
        sinks: Sequence[Callable[[LoopResult], None]] = (),
        *,
        settings: LoopSettings | None = None,
        realtime_settings: RealtimeSettings | None = None,
        journal: JournalWriter | None = None,
        on_spikes: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int32]], None] | None = None,
        on_labels: Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64]], None] | None = None,
        on_trial: Callable[[Trial], None] | None = None,
        on_cursor: Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64]], None] | None = None,
        on_task_problem: Callable[[str], None] | None = None,
        unit_names: UnitNames | None = None,
        source_ended: Callable[[], bool] = lambda: False,
        host: HostClock | None = None,
        control: Control | None = None,
        frames: FrameWriter | None = None,
    ) -> None:
        if decoder.tick_rate_hz is None:
            raise UsageError("decoder: expected one opened with tick_rate_hz, got one in seconds")
        self._tick_rate = decoder.tick_rate_hz
        self.decoder = decoder
        self.clock = clock
        self.settings = settings or LoopSettings()
        self.journal, self.frames = journal, frames
        self._recorder = Recorder(journal, decoder)
        counters, period_ns = LoopCounters(), int(_SECOND / self.settings.rate_hz)
        waiting = PacketQueue(self.settings.most_packets, period_ns, counters)
        super().__init__(waiting, counters, host or MonotonicClock())
        self.sink_failed = SinkFailures(self.counters)
        """Told by sinks with threads of their own, from there."""
        self.granted: dict[str, str] = {}
        """What the operating system said to each real-time setting."""
        self.due_ns = 0
        """When the next window is due, on the host's clock; 0 before the first packet."""
        self.error: BaseException | None = None
        self._sinks = list(sinks)
        self._realtime = realtime_settings or RealtimeSettings()
        self._was_lost = False
        self._source = SourceWatch(self.settings, self.counters, source_ended)
        self._delivery = Delivery(
            self._sinks, self.sink_failed, limit_s=self.settings.hangs_after_s,
            now_ns=self._host.now_ns,
        )  # fmt: skip
        self.control = control or Control(decoder)
        self._period = clock.rate_hz / self.settings.rate_hz
        self._period_ns, self._settle_ns = period_ns, int(self.settings.settle_ms * 1e6)
        decoder.set_period(1 / self.settings.rate_hz)
        self._window_ns = decoder.window_s * decoder.tick_rate_hz / clock.rate_hz * _SECOND
        self._next: int | None = None
        self._epoch = 0
        self._answered = 0
        self._latency, self._lag = LatencyHistogram(), LatencyHistogram()
        self._heartbeat = 0
        self._worker = Worker(self._guarded, "loop", Stopping(self._arrived))
        self.control.attach(journal, self._delivery.watch, self._worker.stopping)
        self._wrong_rate = WrongRate(clock.rate_hz)
        window = decoder.artifact.manifest.spec.window_s * self._tick_rate
        self._losses = Losses(window, journal)
        self.outcome = OutcomeMonitor(self._tick_rate, journal=journal)
        """What became of the trials that were told."""
        seen = None if frames is None else frames.listeners
        self._task = Task(
            clock,
            counters=self.counters,
            journal=journal,
            on_trial=told_to(
                seen and seen.trial, self.control.note_trial, self.outcome.note_trial, on_trial
            ),
            on_cursor=told_to(
                seen and seen.cursor,
                self.control.note_positions,
                self.outcome.note_cursor,
                on_cursor,
            ),
            on_problem=on_task_problem,
        )
        self._arrivals = Arrivals(
            decoder,
            clock,
            counters=self.counters,
            names=unit_names or UnitNames(decoder.unit_ids),
            source=self._source,
            losses=self._losses,
            journal=journal,
            recorder=self._recorder,
            placed=self._placed,
            on_spikes=told_to(seen and seen.spikes, on_spikes),
            on_labels=told_to(seen and seen.labels, self.control.labels_to(on_labels)),
            task=self._task,
        )

    def start(self) -> None:
        """Run in a thread of its own until ``stop``."""
        self._worker.start()

    def stop(self, within_s: float | None = None) -> None:
        """End after the window being decoded; waits for it. May be called again.

        The zero of a command leaves first, however soon after it this is called.

        Args:
            within_s: wait no longer than so; a decode that hangs is left to the end of the process.
        """
        if not self._worker.stopping.is_set():  # in a thread of its own or in the caller's
            self._delivery.settle(lambda: self.control.commands.held)
        self._worker.stop(within_s)
        self.control.record()

    def command(self, name: str, argument: str = "", *, now: bool = False) -> Answer:
        """Tell it what to do, from any thread; see docs/control.md.

        Args:
            name: one of ``control.envelope.ARGUMENT``.
            argument: the session of a swap, or the text of a mark.
            now: swap or take in the middle of a trial, too.

        Raises:
            UsageError: it is refused; why.
        """
        return self.control.command(name, argument, now=now)

    def run(self) -> None:
        """Run in the calling thread until ``stop`` is called from another."""
        with realtime(self._realtime) as granted:
            self.granted = granted
            while not self._worker.stopping.is_set():
                self.rest(self.step())

    def rest(self, until_ns: int) -> None:
        """Use packets as they arrive, so that none is left to use when the next window is due.

        Nothing is decoded, and all else happens as if ``step`` used them.

        Args:
            until_ns: what ``step`` gave; it ends then, or when the loop is to stop.
        """
        stopping = self._worker.stopping
        while (now := self._host.now_ns()) < until_ns and not stopping.is_set():
            self._arrived.clear()
            some = False
            for packet in self._waiting.take_until(self._host.now_ns, until_ns):
                self._arrivals.take(packet)
                some = True
            gathered = min(now + _GATHER_NS, until_ns - _AHEAD_NS)
            if some and gathered > now:  # A few at once cost less, while nothing is due.
                self._host.wait_until(gathered, stopping)
            elif not self._waiting:
                self._host.wait_until(until_ns, self._arrived)

    def step(self) -> int:
        """Use what has arrived and decode what is due; returns when to come again (host ns)."""
        self._losses.look(self.counters.packets_dropped, self._host.now_ns(), self.clock)
        for packet in self._waiting.take(self._host.now_ns):
            self._arrivals.take(packet)
        now = self._host.now_ns()
        self._heartbeat = now
        self._source.look(now)
        if not self.clock.known:
            self.control.record()
            return now + self._period_ns
        device_now = self.clock.device_now(now - self._settle_ns)
        self.control.look(device_now)
        self.control.record()
        if self.clock.epoch != self._epoch or self._next is None:
            self._begin_epoch(device_now)
        due = self._next
        assert due is not None
        if device_now >= self._edge(due):
            newest = math.floor(device_now / self._period)
            self.counters.skipped += newest - due
            self._losses.skipped(newest - due)
            self.due_ns = self._due_ns(newest + 1)
            self._decode(newest)
            self._next = due = newest + 1
        self.due_ns = self._due_ns(due)
        return max(self.due_ns, now + 1)  # Rounded, it may be a moment before the window's end.

    @property
    def last(self) -> LoopResult | None:
        """The newest value that left."""
        return self._delivery.last

    def wait_for_value(self, timeout_s: float) -> bool:
        """Wait until the next value has left, from another thread; False where none did in time.

        What takes processor time beside the loop does so best then: no window is due for a while.
        """
        return self._delivery.wait(timeout_s)

    @property
    def heartbeat_ns(self) -> int:
        """When the loop last came round; a host that watches it can act when it stays behind."""
        return self._heartbeat

    @property
    def running(self) -> bool:
        """Whether the loop's thread is alive."""
        return self._worker.alive

    def stats(self) -> dict[str, Any]:
        """Everything that is counted, as JSON values."""
        journal = self.journal
        return {
            "loop": self.counters.to_json(),
            "given": {status.value: n for status, n in self._delivery.statuses.items()},
            "waiting_packets": len(self._waiting),
            "stalled": self._source.stalled,
            "unknown_units": self._arrivals.unknown_units,
            "trial": self._task.number,
            "clock": self.clock.to_json(),
            "decoder": self.decoder.stats(),
            "in_to_out_ms": self._latency.summary_ms(),
            "late_ms": self._lag.summary_ms(),
            **self.control.to_json(),
            "outcome": self.outcome.to_json(),
            "realtime": self.granted,
            "journal": None if journal is None else {
                "path": str(journal.path),
                "bytes": journal.n_bytes,
                "lost_frames": journal.lost_frames,
                "error": None if journal.error is None else str(journal.error),
            },
        }  # fmt: skip

    @property
    def in_to_out(self) -> LatencyHistogram:
        """From the arrival of a window's newest packet to the value, where there was a new one."""
        return self._latency

    def _guarded(self) -> None:
        try:
            self.run()
        except BaseException as error:  # Kept for whoever watches the loop.
            self.error = error
            _log.exception("the decode loop ended")

    def _placed(self, host_ns: int) -> None:
        """A packet is on the clock, which may have begun anew with it."""
        if self.clock.epoch != self._epoch and self._next is not None:
            self._begin_epoch(self.clock.device_now(host_ns))

    def _begin_epoch(self, device_now: int) -> None:
        if self._next is not None:
            self.decoder.reset()
            self._losses.reset()
            self.control.controller.new_clock()
            self.outcome.new_clock()
            if self.frames is not None:
                self.frames.new_clock()
            if self.journal is not None:
                self.journal.event(clock="discontinuity", epoch=self.clock.epoch)
        self._epoch = self.clock.epoch
        self._next = math.floor(device_now / self._period) + 1

    def _edge(self, number: int) -> int:
        """The tick at which a window of the grid ends."""
        return math.ceil(number * self._period)

    def _due_ns(self, number: int) -> int:
        """When a window of the grid is due, on the host's clock."""
        return self.clock.to_monotonic_ns(self._edge(number)) + self._settle_ns

    def _decode(self, number: int) -> None:
        end, due_ns = self._edge(number), self._due_ns(number)
        lost = not self._waiting.spikes_wait and self._source.lost(self._host.now_ns())
        if lost != self._was_lost and self.journal is not None:
            self.journal.event(stream_lost=lost)
        self._was_lost = lost
        self.decoder.excuse_drift(self.outcome.holds(end))
        result = self._marked(self.decoder.decode(end, stream_lost=lost))
        given, controlled = self.control.out(result)
        self.outcome.note_value(end, given.value, result.session_id)
        ready = self._host.now_ns()
        self.counters.decoded += 1
        self.counters.deadline_misses += ready > due_ns + self._period_ns
        self._lag.add(max(0, ready - due_ns))
        newer = self._source.newest_ns > self._answered
        if newer:
            self._latency.add(max(0, ready - self._source.newest_ns))
            self._answered = self._source.newest_ns
        value = LoopResult(
            seq=self.counters.decoded + self._delivery.zeros,
            result=given,
            t_s=end / self._tick_rate,
            epoch=self._epoch,
            sync=self._arrivals.sync,
            host_ns=ready,
            newest_in_ns=self._source.newest_ns,
            valid_until_ns=ready + self.settings.valid_for_ns,
            control=controlled,
            trial=self._task.running(end),
        )
        value = self._delivery.give(value)
        self._recorder.decoded(end, ready, result, self._arrivals.sync)
        if value.control is not None:
            self._recorder.controlled(end, value.result, value.control)
        if self.frames is not None:
            self.frames.write(value, due_ns=due_ns, newest=newer, counters=self.counters)

    def _marked(self, result: Result) -> Result:
        """The result, not VALID where it lacks data or the clock contradicts its stated rate."""
        more = self._losses.flags(result.t)
        more += (FLOOD,) * self._waiting.lack(self._host.now_ns(), self._window_ns)
        more += (WRONG_RATE,) * self._wrong_rate.look(self.clock.wrong_rate_hz)
        more += (CONTROL,) * self.outcome.worse(int(result.t))
        if not more:
            return result
        status = Status.DEGRADED if result.status is Status.VALID else result.status
        return dataclasses.replace(result, status=status, flags=(*result.flags, *more))
