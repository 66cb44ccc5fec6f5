"""A whole rig: feed, decoder, clock, loop, sinks and journal, opened and closed as one."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.journal import JournalHeader, JournalWriter
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.feeds.feed import DEFAULT_HZ, Feed, OnlyTask
from poyo_edge.runtime.feeds.opening import open_feed, open_sink
from poyo_edge.runtime.feeds.values import LoopResult, Sink
from poyo_edge.runtime.health import HealthSettings
from poyo_edge.runtime.result import DecoderSettings
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.loop import DecodeLoop
from poyo_edge.runtime.rig.outlets import Outlet, close_all, outlet
from poyo_edge.runtime.rig.realtime import RealtimeSettings
from poyo_edge.runtime.rig.settings import LoopSettings
from poyo_edge.runtime.unit_names import UnitNames
from poyo_edge.runtime.watchdog import Watchdog
from poyo_edge.trials import Trial

OnSpikes = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int32]], None]
OnLabels = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64]], None]
OnCursor = OnLabels
_TASK_BEGINS_NS = 2_000_000_000
"""A feed of trials that cannot work ends the run so long after its start; decoding outlives it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RigSettings:
    """What a rig is opened with."""

    session: str | Path | None = None
    units: Mapping[str, str] | None = None
    """What the feed calls a unit → its id in the session, where the names do not say it."""
    rate_hz: float = 50.0
    settle_ms: float = 0.0
    backend: str = "auto"
    threads: int = 1
    realtime: RealtimeSettings = dataclasses.field(default_factory=RealtimeSettings)
    journal: str | Path | None = None
    trials: str | Feed | None = None
    """A second address, or feed, that brings trials and the cursor alone."""
    require_signature: str | Path | None = None
    """A public key file: an artifact that it did not sign is refused."""


class Rig:
    """Opened by ``Rig.open``; use it with ``with`` or call ``stop``."""

    def __init__(
        self,
        decoder: Decoder,
        feed: Feed,
        outlets: Sequence[Outlet],
        loop: DecodeLoop,
        trials: Feed | None = None,
    ) -> None:
        self.decoder, self.feed, self.loop, self.trials = decoder, feed, loop, trials
        self._started_ns = 0
        self._outlets = list(outlets)
        limit_s = loop.settings.hangs_after_s
        self.watchdog = Watchdog(lambda: loop.heartbeat_ns, limit_s=limit_s)

    @classmethod
    def open(
        cls,
        artifact: str | Path,
        source: str | Feed,
        targets: Sequence[str | Sink] = (),
        settings: RigSettings | None = None,
        *,
        on_value: Callable[[LoopResult], None] | None = None,
        on_spikes: OnSpikes | None = None,
        on_labels: OnLabels | None = None,
        on_trial: Callable[[Trial], None] | None = None,
        on_cursor: OnCursor | None = None,
    ) -> Rig:
        """Open everything and start nothing; what was opened is closed again if a part fails.

        Args:
            artifact: the folder ``NAME.poyo``.
            source: an address that ``open_feed`` takes, or a feed.
            targets: addresses that ``open_sink`` takes, or sinks, which ``stop`` closes. Each
                sends from a thread of its own, so the loop waits for none.
            settings: session, rate and the rest.
            on_value: called with each value in the loop's thread.
            on_spikes: called with ticks and rows that were pushed, in the loop's thread.
            on_labels: called with behaviour that the feed brings, in the loop's thread.
            on_trial: called with what is known of a trial, in the loop's thread.
            on_cursor: called with ticks and positions of the cursor, in the loop's thread.

        Raises:
            PoyoEdgeError: an address, the artifact, the session or the journal cannot be used.
        """
        settings = settings or RigSettings()
        feed = open_feed(source) if isinstance(source, str) else source
        trials = _task_feed(settings.trials, feed)
        decoder = Decoder.open(
            artifact,
            session=settings.session,
            backend=settings.backend,
            threads=settings.threads,
            tick_rate_hz=feed.tick_rate_hz,
            settings=DecoderSettings(health=_period_as_budget(settings.rate_hz)),
            require_signature=settings.require_signature,
        )
        names = UnitNames(decoder.unit_ids, settings.units)
        feed.unit_names = names.known
        speed = feed.speed
        rate_hz = settings.rate_hz * speed
        if speed != 1.0 and not 1 <= rate_hz <= 1000:
            raise UsageError(
                f"{source}: expected a speed that gives 1 to 1000 windows per second, got "
                f"{settings.rate_hz:g} Hz × {speed:g}; lower the speed or --rate"
            )
        loop_settings = LoopSettings(rate_hz=rate_hz, settle_ms=settings.settle_ms)
        opened, dim_out = list[Sink](), decoder.artifact.manifest.spec.dim_out
        feed.n_dims = dim_out
        valid_for_ms = loop_settings.valid_for_ns / 1e6
        try:
            outlets = list[Outlet]()
            for target in targets:
                if isinstance(target, str):
                    target = open_sink(target, dim_out, valid_for_ms=valid_for_ms)
                    opened.append(target)
                outlets.append(outlet(target))
            journal = None
            if settings.journal is not None:
                journal = JournalWriter(settings.journal, _header(decoder, feed))
        except BaseException:
            for sink in opened:
                sink.close()
            raise
        loop = DecodeLoop(
            decoder,
            DeviceClock(feed.tick_rate_hz * speed, bits=feed.bits),
            [*outlets, *([on_value] if on_value is not None else [])],
            settings=loop_settings,
            realtime_settings=settings.realtime,
            journal=journal,
            on_spikes=on_spikes,
            on_labels=on_labels,
            on_trial=on_trial,
            on_cursor=on_cursor,
            on_task_problem=(trials or feed).note_problem,
            unit_names=names,
            source_ended=feed.finished.is_set,
        )
        for one in outlets:
            one.on_failure = loop.sink_failed
        return cls(decoder, feed, outlets, loop, trials)

    def start(self) -> None:
        """Start the loop, then the feeds."""
        self._started_ns = time.monotonic_ns()
        self.loop.start()
        self.watchdog.start()
        if self.trials is not None:
            self.trials.start(OnlyTask(self.trials, self.loop))
        self.feed.start(self.loop)

    def stop(self) -> None:
        """Stop the feeds, then the loop; close sinks and journal. May be called again.

        Values that are on their way out are waited for, for a second at most.
        """
        self.feed.stop()
        if self.trials is not None:
            self.trials.stop()
        self.watchdog.stop()
        self.loop.stop()
        close_all(self._outlets)
        if self.loop.journal is not None:
            self.loop.journal.close()

    def __enter__(self) -> Rig:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def require_alive(self) -> None:
        """Raise what ended the feed or the loop, if anything did.

        Raises:
            UsageError: the feed can never work; or, in the first two seconds, that of trials.
        """
        if self.loop.error is not None:
            raise self.loop.error
        if self.feed.finished.is_set() and self.feed.last_failure:
            raise UsageError(f"the feed ended: {self.feed.last_failure}")
        if time.monotonic_ns() - self._started_ns > _TASK_BEGINS_NS:
            return
        for one in self._task_feeds():
            if one.finished.is_set() and one.last_failure:
                raise UsageError(f"the feed of trials ended: {one.last_failure}")

    def _task_feeds(self) -> list[Feed]:
        """Feeds that bring trials and the cursor alone."""
        second = [] if self.trials is None else [self.trials, *self.trials.beside]
        return [*self.feed.beside, *second]

    def stats(self) -> dict[str, Any]:
        """Counters of feed, loop, clock, decoder, sinks and journal, as JSON values."""
        return {
            "feed": self.feed.to_json(),
            "task_feeds": [one.to_json() for one in self._task_feeds()],
            **self.loop.stats(),
            "sinks": [one.to_json() for one in self._outlets],
            "watchdog": self.watchdog.to_json(),
        }


def _task_feed(given: str | Feed | None, device: Feed) -> Feed | None:
    """The feed of trials: its ticks, where it has any, are those of the device.

    Raises:
        UsageError: it states a rate of its own.
    """
    if given is None:
        return None
    feed = open_feed(given, option="--trials") if isinstance(given, str) else given
    if feed.tick_rate_hz not in (device.tick_rate_hz, DEFAULT_HZ):
        raise UsageError(
            f"--trials: expected ticks of the device's counter, {device.tick_rate_hz:g} Hz, got "
            f"{feed.tick_rate_hz:g} Hz; leave ?rate= to --from"
        )
    for one in (feed, *feed.beside):
        one.tick_rate_hz, one.own_clock = device.tick_rate_hz, False
    return feed


def _period_as_budget(rate_hz: float) -> HealthSettings:
    return HealthSettings(latency_budget_ms=1000 / rate_hz)


def _header(decoder: Decoder, feed: Feed) -> JournalHeader:
    now = datetime.datetime.now(datetime.timezone.utc)
    return JournalHeader(
        session_id=f"{decoder.session_id}-{now:%Y%m%dT%H%M%S}",
        unit_ids=decoder.unit_ids,
        tick_rate_hz=feed.tick_rate_hz,
        behavior=decoder.artifact.manifest.behavior,
        created=now.isoformat(timespec="seconds"),
    )
