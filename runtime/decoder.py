"""The decoder that implant-side software embeds: push spikes, decode, read status."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Rows
from poyo_edge.artifact import Artifact, Session
from poyo_edge.artifact.signing import require_signed
from poyo_edge.errors import UsageError
from poyo_edge.runtime.backends.keep_warm import keep_warm
from poyo_edge.runtime.clock.units import ClockUnits
from poyo_edge.runtime.core import Core
from poyo_edge.runtime.failsafe import STREAM_LOST, Failsafe, Status
from poyo_edge.runtime.health import SLOW, LatencyBudget
from poyo_edge.runtime.intake import Intake, SessionRows, UnitTable, are_plain_rows, as_times
from poyo_edge.runtime.latency import LatencyHistogram
from poyo_edge.runtime.open_session import OpenSession, Swaps
from poyo_edge.runtime.result import DecoderSettings, Result, status_of
from poyo_edge.runtime.ring import SpikeRing, Times
from poyo_edge.runtime.session_check import WRONG_SESSION, SessionCheck
from poyo_edge.tokens import relative_times

_log = logging.getLogger(__name__)


class Decoder:
    """Decodes a stream of spikes. Made by ``Decoder.open``.

    ``push`` and ``decode`` may be called from different threads. Times are float64 seconds, or
    integer device ticks when opened with ``tick_rate_hz``; the device's clock decides the window.
    """

    def __init__(
        self,
        core: Core,
        session: Session,
        *,
        tick_rate_hz: float | None = None,
        settings: DecoderSettings | None = None,
    ) -> None:
        settings = settings or DecoderSettings()
        manifest = core.artifact.manifest
        self.artifact = core.artifact
        self.window_s = manifest.spec.window_seconds
        self._core = core
        self._clock = ClockUnits(tick_rate_hz)
        self._window = self._clock.span(self.window_s)
        ring = SpikeRing(settings.capacity, self._clock.dtype)
        self._intake = Intake(ring, self._window, self._clock.span(settings.future_limit_s))
        self._scale, self._offset = manifest.output.arrays(manifest.spec.dim_out)
        self._query = np.array([self.window_s], np.float32)
        self._failsafe = Failsafe(manifest.spec.dim_out, settings.failsafe)
        self._settings = settings
        self._budget = LatencyBudget(settings.health.latency_budget_ms)
        self._latency = LatencyHistogram()
        self._statuses = dict.fromkeys(Status, 0)
        self._backend_failing = False
        self._lock = threading.Lock()
        self._decode_lock = threading.Lock()
        self._opened_with = session.header
        self._session = self.prepare(session)
        self._previous: OpenSession | None = None
        self._swaps = Swaps()

    @classmethod
    def open(
        cls,
        artifact: str | Path,
        session: str | Path | Session | None = None,
        *,
        backend: str = "auto",
        threads: int = 1,
        tick_rate_hz: float | None = None,
        settings: DecoderSettings | None = None,
        keep_warm_s: float | None = None,
        require_signature: str | Path | None = None,
    ) -> Decoder:
        """Open an artifact and a session, and warm up.

        Args:
            artifact: the folder ``NAME.poyo``.
            session: a ``.session`` file, the id of a session in the artifact, or None for the
                only one there.
            backend: "auto" or a name from ``list_backends``.
            threads: threads for one window.
            tick_rate_hz: ticks per second if times are integer device ticks.
            settings: limits and failsafe.
            keep_warm_s: with TensorRT, run an engine whenever nothing was decoded for so long,
                so that its clocks have less reason to fall; None does not.
            require_signature: a public key file; the artifact must have been signed with it.

        Raises:
            SignatureError: the artifact was not signed with that key, or was changed since.
            ArtifactError, SessionError: a file is damaged or does not fit.
            UsageError, MissingExtraError, BackendError: as an argument or backend cannot be used.
        """
        opened = Artifact.open(artifact)
        if require_signature is not None:
            require_signed(opened, require_signature)
        if not isinstance(session, Session):
            session = opened.session(session)
        core = Core.open(opened, backend=backend, threads=threads)
        decoder = cls(core, session, tick_rate_hz=tick_rate_hz, settings=settings)
        core.warm_up(decoder._session.constants)
        if keep_warm_s is not None:
            keep_warm(core.backend, keep_warm_s)
        _log.info("decoding with %s, session %s", core.backend.name, session.header.session_id)
        return decoder

    def push(self, times: npt.ArrayLike, units: npt.ArrayLike) -> None:
        """Hand over spikes in any order and in chunks of any size; from any thread.

        Bad spikes are counted and ignored (see ``stats``); they never raise.

        Args:
            times: (N,) float64 seconds or integer ticks.
            units: (N,) rows that ``rows`` gave, or unit ids. Plain integers are rows of the session
                that the decoder was opened with; while one of other units is in use they are
                refused as unknown units, with the flag ``stale_rows``.

        Raises:
            UsageError: shapes or dtypes that cannot be meant.
        """
        chunk = as_times(times, self._clock.dtype)
        with self._lock:
            session = self._in_use()
            rows = session.units.as_rows(units)
            if len(rows) != len(chunk):
                raise UsageError(
                    f"push: expected as many units as times ({len(chunk)}), got {len(rows)}"
                )
            if not session.takes_integers and are_plain_rows(units):
                rows = self._intake.refuse(rows, session.session_id, self._opened_with.session_id)
            self._intake.add(chunk, rows, len(session.units))

    def decode(self, t: float | int, *, stream_lost: bool = False) -> Result:
        """Decode the window ``[t - T, t)``; never raises for what the stream or backend did.

        Args:
            t: end of the window in the clock of the spikes; it should never go back.
            stream_lost: the source is known to have ended, so nothing is decoded any more.

        Raises:
            UsageError: ``t`` is not finite, or of the wrong kind for this decoder's clock.
        """
        started = time.perf_counter_ns()
        with self._decode_lock:
            now = self._clock.time(t)
            with self._lock:
                session = self._in_use()
                flags = self._advance(now)
                times, rows = self._intake.ring.window(now - self._window, now)
                flags += self._intake.reservations(now, times)
                last = times[-1] if len(times) else self._intake.silent_since
            session.silence.look(now, last, times, flags, lost=stream_lost)
            seconds = self._clock.seconds(now)
            session.look(now, seconds, self._window, rows, self._intake.counters, flags)
            flags += [SLOW] * self._budget.exceeded
            budget = self.artifact.manifest.max_spikes
            if len(times) > budget:
                self._intake.counters.over_budget += len(times) - budget
                times, rows = times[-budget:], rows[-budget:]
                flags.append("over_budget")
            if not len(times):
                flags.append("silent")
            value, status = self._value(session, now, times, rows, flags)
            result = Result(
                value=value,
                status=status,
                flags=tuple(flags),
                t=t,
                n_spikes=len(times),
                t_last_spike=times[-1].item() if len(times) else None,
                latency_ns=time.perf_counter_ns() - started,
                session_id=session.session_id,
            )
            self._latency.add(result.latency_ns)
            self._budget.add(result.latency_ns)
            self._statuses[status] += 1
            return result

    def rows(self, unit_ids: npt.ArrayLike) -> SessionRows:
        """Rows of unit ids in the current session, (N,) int32; -1 for unknown ones.

        They know of which session they are: pushed after ``swap_session``, they are looked up again
        by their ids. Integers of your own become such rows as ``rows(unit_ids)[integers]``.
        """
        return self._session.units.rows(unit_ids)

    def swap_session(self, session: str | Path | Session | OpenSession) -> None:
        """Decode with another session from the next window on.

        All preparation happens before the swap; a session that cannot be used leaves the current
        one in place. Spikes already heard are kept where the new session has the same unit id.

        Raises:
            SessionError, UsageError: the session cannot be used with this core.
        """
        prepared = session if isinstance(session, OpenSession) else self.prepare(session)
        with self._lock:
            if prepared is not self._session:
                self._previous = self._session
                self._use(prepared)

    def prepare(self, session: str | Path | Session) -> OpenSession:
        """What ``swap_session`` takes without any work left to do; raises what that raises."""
        if not isinstance(session, Session):
            session = self.artifact.session(session)
        opened_with = self._opened_with.unit_ids
        return OpenSession.prepare(self._core, session, opened_with, self._settings, self._clock)

    def revert(self) -> None:
        """Go back to the session before the last ``swap_session``, from the next window on.

        Raises:
            UsageError: no session was swapped in, or it has been reverted already.
        """
        with self._lock:
            if self._previous is None:
                raise UsageError(
                    f"revert: expected a session before {self.session_id!r}, got none; "
                    f"swap_session takes any session"
                )
            previous, self._previous = self._previous, None
            self._use(previous)

    def reset(self) -> None:
        """Forget all spikes and held values, as if the stream began now. Counters stay."""
        with self._decode_lock, self._lock:
            self._intake.reset(None)
            self._intake.decoded_until = None
            self._failsafe.forget()
            self._session.restart()

    def take_swaps(self) -> list[Session]:
        """Sessions swapped in since the last call, in order, up to the one that the last ``push``
        or ``decode`` used; the newest 1,024. Call it in the thread that pushes and decodes."""
        return self._swaps.take()

    @property
    def session(self) -> Session:
        """The session in use."""
        return self._session.session

    @property
    def session_id(self) -> str:
        """Id of the session in use."""
        return self._session.session_id

    @property
    def session_check(self) -> SessionCheck:
        """Whether the session in use is that of what is heard."""
        return self._session.check

    @property
    def unit_ids(self) -> tuple[str, ...]:
        """Unit ids of the session in use; rows count along them."""
        return self._session.units.unit_ids

    @property
    def units(self) -> UnitTable:
        """The same for looking up; another object after each swap."""
        return self._session.units

    @property
    def tick_rate_hz(self) -> float | None:
        """Ticks per second of its times; None for seconds."""
        return self._clock.rate_hz

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._core.backend.name

    @property
    def precision(self) -> str:
        """Precision of the backend in use, like "fp32"."""
        return self._core.backend.precision

    def set_period(self, period_s: float) -> None:
        """Say how often a window is decoded: half of it is a GPU's deadline (docs/jetson.md)."""
        self._core.backend.set_period(period_s)

    def stats(self) -> dict[str, Any]:
        """Counters, statuses and latencies since opening, as JSON values."""
        with self._lock:
            counters = self._intake.counters.to_json()
            buffered = len(self._intake.ring)
        statuses = {status.value: count for status, count in self._statuses.items()}
        return {
            "backend": self.backend,
            "session_id": self.session_id,
            "n_decodes": sum(statuses.values()),
            "backend_late": self._core.backend.late,
            "statuses": statuses,
            "counters": counters,
            "buffered_spikes": buffered,
            "latency_ms": self._latency.summary_ms(),
            "health": self.health(),
        }

    def health(self) -> dict[str, Any]:
        """Whether the stream is still what the session was calibrated on, as JSON values.

        ``status`` is "ok", "degraded", or "unknown" before ``horizon_s`` of whole windows;
        ``flags`` say why it is degraded. ``rate_z`` holds each unit's mean rate against
        calibration in sd of a window's rate; it is empty, and drift is not judged, when the
        session does not know how its units fired (``reference`` is false). ``session_check`` says
        whether it is the session of what is heard, and if not, why.
        """
        session = self._session  # no lock: a backend that hangs must not hide it
        found, check = session.health.to_json(), session.check.to_json()
        flags = found["flags"] + [WRONG_SESSION] * (check["state"] == WRONG_SESSION)
        flags += [SLOW] * self._budget.exceeded
        status = "degraded" if flags else "ok" if found["judged"] else "unknown"
        names = {"status": status, "session_id": session.session_id}
        return {**names, **found, "flags": flags, "session_check": check}

    def excuse_drift(self, excused: bool) -> None:
        """Rates may differ from the session's record: control is known to be as it was."""
        self._session.health.drift_excused = excused

    @property
    def latency(self) -> LatencyHistogram:
        """The histogram behind ``stats()["latency_ms"]``."""
        return self._latency

    def _use(self, session: OpenSession) -> None:
        """Exchange the session; the lock is held."""
        new_row = session.take_over(self._session)
        self._intake.counters.session_change += self._intake.ring.remap(new_row)
        self._session = session
        self._swaps.note(session.session)

    def _in_use(self) -> OpenSession:
        """The session to push or decode with now; the lock is held."""
        self._swaps.use()
        return self._session

    def _advance(self, now: Any) -> list[str]:
        """Move the clock to ``now`` and say what is wrong with the window that ends there."""
        intake, flags = self._intake, list[str]()
        if self._clock_jumped(now):
            intake.counters.clock_resets += 1
            intake.reset(now)
            self._failsafe.forget()
            flags.append("clock_reset")
        intake.decoded_until = now
        if intake.covered_since is None:
            intake.covered_since = now
        if now - self._window < intake.covered_since:
            flags.append("warmup")
        lost_until = intake.ring.lost_until
        if lost_until is not None and lost_until >= now - self._window:
            flags.append("overflow")
        return flags

    def _clock_jumped(self, now: Any) -> bool:
        """Back at all, or ahead by more than a window of everything decoded and heard."""
        last = self._intake.decoded_until
        if last is None:
            return False
        newest = self._intake.newest
        heard_until = last if newest is None else max(last, newest)
        return bool(now < last or now - heard_until > self._window)

    def _value(
        self, session: OpenSession, now: Any, times: Times, rows: Rows, flags: list[str]
    ) -> tuple[npt.NDArray[np.float64], Status]:
        seconds = self._clock.seconds(now)
        if STREAM_LOST in flags:
            return self._failsafe.instead(seconds)
        spike_time = relative_times(times, now - self._window, self.window_s, self._clock.rate_hz)
        try:
            prediction = self._core.predict(session.constants, spike_time, rows, self._query)[0]
            value = prediction.astype(np.float64) * self._scale + self._offset
            value = session.mixed(value, rows, spike_time, self._query)
            failed = not bool(np.isfinite(value).all())
            if self._core.backend.fallen_back:
                flags.append("fallback")
        except Exception as problem:  # Whatever a backend raises, a value has to leave.
            failed = True
            if not self._backend_failing:
                _log.error("the backend failed; the last good value is held: %r", problem)
        self._backend_failing = failed
        if failed:
            self._intake.counters.backend_failures += 1
            flags.append("backend")
            return self._failsafe.instead(seconds)
        self._failsafe.note_good(None if WRONG_SESSION in flags else value, seconds)
        session.health.note_value(value)
        return value, status_of(flags)
