"""A whole rig: feed, decoder, clock, loop, sinks and journal, opened and closed as one."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.journal import JournalWriter
from poyo_edge.runtime.control.control import Control
from poyo_edge.runtime.control.envelope import Answer
from poyo_edge.runtime.control.port import ControlPort
from poyo_edge.runtime.control.settings import ControlSettings
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.feeds.feed import DEFAULT_HZ, Feed, OnlyTask
from poyo_edge.runtime.feeds.opening import open_feed, open_sink
from poyo_edge.runtime.feeds.values import LoopResult, Sink
from poyo_edge.runtime.health import HealthSettings
from poyo_edge.runtime.open_session import OpenSession
from poyo_edge.runtime.page.ring.session_state import session_state
from poyo_edge.runtime.page.ring.telling import StateTeller
from poyo_edge.runtime.page.ring.writer import FrameWriter, RingShape
from poyo_edge.runtime.result import DecoderSettings
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.ends import first_reason
from poyo_edge.runtime.rig.loop import DecodeLoop
from poyo_edge.runtime.rig.outlets import CLOSE_S, Outlet, close_all, outlet
from poyo_edge.runtime.rig.realtime import RealtimeSettings
from poyo_edge.runtime.rig.recorder import journal_header
from poyo_edge.runtime.rig.settings import LoopSettings
from poyo_edge.runtime.unit_names import UnitNames
from poyo_edge.runtime.watchdog import Watchdog
from poyo_edge.trials import Trial

OnSpikes = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int32]], None]
OnLabels = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64]], None]
OnCursor = OnLabels
_MOST_COMMANDS = 16
"""The newest, that a page is told."""
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
    control: ControlSettings | None = None
    """What stands between decoder and cursor; None is nothing."""
    also_sessions: tuple[str | Path, ...] = ()
    """Sessions that a command may swap in, beside the first: loaded and made ready before the
    run."""
    control_address: str | None = None
    """``udp://127.0.0.1:PORT``: where signed commands arrive."""
    control_token_file: str | Path | None = None
    """Where the token of that port is written, for this user alone."""
    ring: str | None = None
    """Name in ``/dev/shm``, or a path: where a frame for each value is written, for a page."""


class Rig:
    """Opened by ``Rig.open``; use it with ``with`` or call ``stop``."""

    def __init__(
        self,
        decoder: Decoder,
        feed: Feed,
        outlets: Sequence[Outlet],
        loop: DecodeLoop,
        port: ControlPort | None = None,
        trials: Feed | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.decoder, self.feed, self.loop, self.trials = decoder, feed, loop, trials
        self.port = port
        """Where commands arrive, with its address and token; None without ``control_address``."""
        self.told_beside: dict[str, Callable[[], Any]] = {}
        """What ``state`` has beside: name → what gives JSON values, once a second."""
        self._about = dict(about or {})
        frames = loop.frames
        self._teller = None if frames is None else StateTeller(frames.state, self.state)
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
        loop_settings = LoopSettings(
            rate_hz=_host_rate_hz(settings, feed, source), settle_ms=settings.settle_ms
        )
        decoder = _decoder(artifact, feed, settings)
        names = UnitNames(decoder.unit_ids, settings.units)
        feed.unit_names, feed.n_dims = names.known, decoder.artifact.manifest.spec.dim_out
        control = Control(decoder, settings.control, _ready(decoder, settings))
        with contextlib.ExitStack() as undo:
            port = _port(settings, control, undo)
            valid_for_ms = loop_settings.valid_for_ns / 1e6
            outlets = [outlet(_sink(one, feed.n_dims, valid_for_ms, undo)) for one in targets]
            journal = None
            if settings.journal is not None:
                journal = JournalWriter(
                    settings.journal, journal_header(decoder, feed.tick_rate_hz)
                )
                undo.callback(journal.close)
            frames = _frames(settings.ring, decoder, control, loop_settings, undo)
            loop = DecodeLoop(
                decoder,
                DeviceClock(feed.tick_rate_hz * feed.speed, bits=feed.bits),
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
                control=control,
                frames=frames,
            )
            for one in outlets:
                one.on_failure = loop.sink_failed
            undo.pop_all()
        manifest = decoder.artifact.manifest
        about = {
            "artifact": decoder.artifact.path.name,
            "source": source if isinstance(source, str) else source.title or type(source).__name__,
            "targets": [str(one) for one in targets],
            "behavior": manifest.behavior,
            "unit": manifest.output.unit,
        }
        return cls(decoder, feed, outlets, loop, port, trials, about)

    def start(self) -> None:
        """Start the loop, then the feeds."""
        self._started_ns = time.monotonic_ns()
        if self.port is not None:
            self.port.start()
        self.loop.start()
        self.watchdog.start()
        if self.trials is not None:
            self.trials.start(OnlyTask(self.trials, self.loop))
        self.feed.start(self.loop)
        if self._teller is not None:
            self._teller.start()

    def stop(self) -> None:
        """Stop the feeds, then the loop; close sinks and journal. May be called again.

        Values that are on their way out are waited for, for a second at most. After a command to
        stop, a decode that hangs is waited for no longer either.
        """
        self.feed.stop()
        if self.trials is not None:
            self.trials.stop()
        self.watchdog.stop()
        self.loop.stop(CLOSE_S if self.stopped else None)
        if self.port is not None:
            self.port.stop()
        close_all(self._outlets)
        if self.loop.journal is not None:
            self.loop.journal.close()
        if self._teller is not None and self.loop.frames is not None:
            self._teller.stop(ended="stopped by a command" if self.stopped else "ended")
            self.loop.frames.close()

    def __enter__(self) -> Rig:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def stopped(self) -> bool:
        """Whether a command has stopped it; whoever opened it is to call ``stop``."""
        return self.loop.control.commands.stopped

    def command(self, name: str, argument: str = "", *, now: bool = False) -> Answer:
        """``DecodeLoop.command``."""
        return self.loop.command(name, argument, now=now)

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

    def state(self) -> dict[str, Any]:
        """What a page shows that frames do not hold, as JSON values."""
        values, loop = self.stats(), self.loop
        health = {k: v for k, v in values["decoder"]["health"].items() if k != "rate_z"}
        commands = {**values["commands"], "newest": values["commands"]["newest"][-_MOST_COMMANDS:]}
        return {
            "run": {
                **self._about, "backend": self.decoder.backend,
                "control": None if self.port is None else self.port.address,
            },
            "session": session_state(self.decoder.session),
            "health": health,
            "commands": commands,
            "feed": {"reason": first_reason(values), **values["feed"]},
            "outcome": {**values["outcome"], "blocks": list(loop.outcome.blocks)},
            **{name: values[name] for name in ("stalled", "control", "sinks", "journal")},
            **{name: give() for name, give in self.told_beside.items()},
        }  # fmt: skip

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
            "control_port": None if self.port is None else self.port.to_json(),
        }


def _host_rate_hz(settings: RigSettings, feed: Feed, source: str | Feed) -> float:
    """Windows per second of this host; the settings' are per second of the source."""
    rate_hz = settings.rate_hz * feed.speed
    if feed.speed != 1.0 and not 1 <= rate_hz <= 1000:
        raise UsageError(
            f"{source}: expected a speed that gives 1 to 1000 windows per second, got "
            f"{settings.rate_hz:g} Hz × {feed.speed:g}; lower the speed or --rate"
        )
    return rate_hz


def _decoder(artifact: str | Path, feed: Feed, settings: RigSettings) -> Decoder:
    return Decoder.open(
        artifact,
        session=settings.session,
        backend=settings.backend,
        threads=settings.threads,
        tick_rate_hz=feed.tick_rate_hz,
        settings=DecoderSettings(health=HealthSettings(latency_budget_ms=1000 / settings.rate_hz)),
        require_signature=settings.require_signature,
    )


def _frames(
    ring: str | None,
    decoder: Decoder,
    control: Control,
    loop: LoopSettings,
    undo: contextlib.ExitStack,
) -> FrameWriter | None:
    """Where a page reads, which ``undo`` takes away; None without a name."""
    if ring is None:
        return None
    assert decoder.tick_rate_hz is not None
    shape = RingShape(
        dims=decoder.artifact.manifest.spec.dim_out,
        units=max(len(decoder.unit_ids), control.commands.most_units),
        rate_hz=loop.rate_hz,
        tick_rate_hz=decoder.tick_rate_hz,
        window_s=decoder.window_s,
    )
    frames = FrameWriter(ring, shape)
    undo.callback(frames.close)
    return frames


def _sink(
    target: str | Sink, dim_out: int, valid_for_ms: float, undo: contextlib.ExitStack
) -> Sink:
    """The target itself, or what its address opens, which ``undo`` closes."""
    if not isinstance(target, str):
        return target
    sink = open_sink(target, dim_out, valid_for_ms=valid_for_ms)
    undo.callback(sink.close)
    return sink


def _port(
    settings: RigSettings, control: Control, undo: contextlib.ExitStack
) -> ControlPort | None:
    """Where commands arrive, which ``undo`` closes; None without an address."""
    if settings.control_address is None:
        return None
    port = ControlPort(
        settings.control_address, control.commands, token_file=settings.control_token_file
    )
    undo.callback(port.stop)
    return port


def _ready(decoder: Decoder, settings: RigSettings) -> dict[str, OpenSession]:
    """Name → session that a command may swap in; the first is one of them."""
    if settings.control_token_file is not None and settings.control_address is None:
        raise UsageError("control_token_file: expected control_address with it, got none")
    found = dict[str, OpenSession]()
    for one in (decoder.session, *settings.also_sessions):
        ready = decoder.prepare(one)
        known = found.get(ready.session_id)
        if known is not None and known.session.digest != ready.session.digest:
            raise UsageError(
                f"also_sessions: expected names that differ, got {ready.session_id!r} twice, of "
                f"different contents; a command names a session by it"
            )
        found.setdefault(ready.session_id, ready)
    return found


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
