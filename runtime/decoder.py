"""The decoder that implant-side software embeds: push spikes, decode, read status."""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.artifact import Artifact
from poyo_edge.errors import UsageError
from poyo_edge.runtime.constants import SessionConstants
from poyo_edge.runtime.core import Core
from poyo_edge.runtime.failsafe import Failsafe, FailsafeSettings, Status
from poyo_edge.runtime.intake import Intake, UnitTable, as_times
from poyo_edge.runtime.keep_warm import keep_warm
from poyo_edge.runtime.latency import LatencyHistogram
from poyo_edge.runtime.ring import Rows, SpikeRing, Times
from poyo_edge.session import Session
from poyo_edge.tokens import relative_times

_log = logging.getLogger(__name__)
_MOST_TICKS = 2**62
"""Beyond this, spans of time would not fit into 64 bits."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSettings:
    """Limits of a decoder; every one has a default that suits 100 units at 50 spikes/s each."""

    capacity: int = 1 << 18
    """Most spikes kept, those of windows to come included."""
    future_limit_s: float = 60.0
    """Spikes further ahead of the last decoded time are taken for a broken clock."""
    failsafe: FailsafeSettings = dataclasses.field(default_factory=FailsafeSettings)

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise UsageError(f"capacity: expected an integer >= 1, got {self.capacity!r}")
        if not self.future_limit_s > 0:
            raise UsageError(f"future_limit_s: expected seconds > 0, got {self.future_limit_s!r}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """One decoded value."""

    value: npt.NDArray[np.float64]
    """(dim_out,) in behaviour units; always finite."""
    status: Status
    flags: tuple[str, ...]
    """Why the status is what it is: warmup, silent, gap, over_budget, overflow, clock_reset,
    backend, fallback."""
    t: float | int
    """End of the window, in the unit that ``decode`` was called with."""
    n_spikes: int
    """Spikes that the value was decoded from."""
    t_last_spike: float | int | None
    latency_ns: int
    session_id: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _OpenSession:
    """A session ready to decode with; replaced as a whole."""

    session_id: str
    units: UnitTable
    constants: SessionConstants


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
        if tick_rate_hz is not None and not (
            isinstance(tick_rate_hz, (int, float, np.integer))
            and math.isfinite(tick_rate_hz)
            and tick_rate_hz > 0
        ):
            raise UsageError(f"tick_rate_hz: expected a number > 0, got {tick_rate_hz!r}")
        manifest = core.artifact.manifest
        self.artifact = core.artifact
        self.window_s = manifest.spec.window_seconds
        self._core = core
        self._rate = tick_rate_hz
        self._dtype = np.float64 if tick_rate_hz is None else np.int64
        self._window = self._in_clock_units(self.window_s)
        ring = SpikeRing(settings.capacity, self._dtype)
        self._intake = Intake(ring, self._window, self._in_clock_units(settings.future_limit_s))
        self._scale, self._offset = manifest.output.arrays(manifest.spec.dim_out)
        self._query = np.array([self.window_s], np.float32)
        self._failsafe = Failsafe(manifest.spec.dim_out, settings.failsafe)
        self._latency = LatencyHistogram()
        self._statuses = dict.fromkeys(Status, 0)
        self._backend_failing = False
        self._gap_end: Any = None
        self._lock = threading.Lock()
        self._decode_lock = threading.Lock()
        self._session = self._prepare(session)
        self._previous: _OpenSession | None = None

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
                so that the GPU's clocks stay up; None leaves them alone.

        Raises:
            ArtifactError, SessionError: a file is damaged or does not fit.
            UsageError: an argument makes no sense.
            MissingExtraError, BackendError: the backend cannot be used.
        """
        opened = Artifact.open(artifact)
        if not isinstance(session, Session):
            session = opened.session(session)
        core = Core.open(opened, backend=backend, threads=threads)
        decoder = cls(core, session, tick_rate_hz=tick_rate_hz, settings=settings)
        decoder._warm_up()
        if keep_warm_s is not None:
            keep_warm(core.backend, keep_warm_s)
        _log.info("decoding with %s, session %s", core.backend.name, session.header.session_id)
        return decoder

    def push(self, times: npt.ArrayLike, units: npt.ArrayLike) -> None:
        """Hand over spikes in any order and in chunks of any size; from any thread.

        Bad spikes are counted and ignored (see ``stats``); they never raise.

        Args:
            times: (N,) float64 seconds or integer ticks.
            units: (N,) rows of the current session's units, or unit ids.

        Raises:
            UsageError: shapes or dtypes that cannot be meant.
        """
        chunk = as_times(times, self._dtype)
        with self._lock:
            session = self._session
            rows = session.units.as_rows(units)
            if len(rows) != len(chunk):
                raise UsageError(
                    f"push: expected as many units as times ({len(chunk)}), got {len(rows)}"
                )
            self._intake.add(chunk, rows, len(session.units))

    def decode(self, t: float | int) -> Result:
        """Decode the window ``[t - T, t)``; never raises for what the stream or backend did.

        Args:
            t: end of the window in the clock of the spikes; it should never go back.

        Raises:
            UsageError: ``t`` is not finite, or of the wrong kind for this decoder's clock.
        """
        started = time.perf_counter_ns()
        with self._decode_lock:
            now = self._clock_time(t)
            with self._lock:
                session = self._session
                flags = self._advance(now)
                times, rows = self._intake.ring.window(now - self._window, now)
                if self._after_gap(times):
                    flags.append("gap")
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
            self._statuses[status] += 1
            return result

    def rows(self, unit_ids: npt.ArrayLike) -> Rows:
        """Rows of unit ids in the current session, (N,) int32; -1 for unknown ones.

        Ask again after ``swap_session``: rows belong to one session.
        """
        return self._session.units.rows(unit_ids)

    def swap_session(self, session: str | Path | Session) -> None:
        """Decode with another session from the next window on.

        All preparation happens before the swap; a session that cannot be used leaves the current
        one in place. Spikes already heard are kept where the new session has the same unit id.

        Raises:
            SessionError, UsageError: the session cannot be used with this core.
        """
        if not isinstance(session, Session):
            session = self.artifact.session(session)
        prepared = self._prepare(session)
        with self._lock:
            self._previous = self._session
            self._use(prepared)

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

    @property
    def session_id(self) -> str:
        """Id of the session in use."""
        return self._session.session_id

    @property
    def unit_ids(self) -> tuple[str, ...]:
        """Unit ids of the session in use; rows count along them."""
        return self._session.units.unit_ids

    @property
    def tick_rate_hz(self) -> float | None:
        """Ticks per second of its times; None for seconds."""
        return self._rate

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._core.backend.name

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
            "statuses": statuses,
            "counters": counters,
            "buffered_spikes": buffered,
            "latency_ms": self._latency.summary_ms(),
        }

    @property
    def latency(self) -> LatencyHistogram:
        """The histogram behind ``stats()["latency_ms"]``."""
        return self._latency

    def _prepare(self, session: Session) -> _OpenSession:
        if session.header.core_hash != self.artifact.manifest.core_hash:
            raise UsageError(
                f"session {session.header.session_id!r}: expected one made for core "
                f"{self.artifact.manifest.core_hash[:12]}, got {session.header.core_hash[:12]}; "
                f"use a session that was made for this artifact"
            )
        return _OpenSession(
            session_id=session.header.session_id,
            units=UnitTable(session.header.unit_ids),
            constants=self._core.constants(session.unit_embedding, session.session_embedding),
        )

    def _use(self, session: _OpenSession) -> None:
        """Exchange the session; the lock is held."""
        new_row = session.units.rows(self._session.units.unit_ids)
        self._intake.counters.session_change += self._intake.ring.remap(new_row)
        self._session = session

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

    def _after_gap(self, times: Times) -> bool:
        """Whether the first spike of a window ended a silence longer than a window."""
        before = self._intake.ring.forgotten_until
        if not len(times) or before is None or times[0] - before <= self._window:
            return False
        self._intake.counters.gaps += bool(times[0] != self._gap_end)
        self._gap_end = times[0]
        return True

    def _value(
        self, session: _OpenSession, now: Any, times: Times, rows: Rows, flags: list[str]
    ) -> tuple[npt.NDArray[np.float64], Status]:
        seconds = float(now) if self._rate is None else float(now) / self._rate
        spike_time = relative_times(times, now - self._window, self.window_s, self._rate)
        try:
            prediction = self._core.predict(session.constants, spike_time, rows, self._query)[0]
            value = prediction.astype(np.float64) * self._scale + self._offset
            failed = not bool(np.isfinite(value).all())
            if getattr(self._core.backend, "fallen_back", False):
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
        self._failsafe.note_good(value, seconds)
        if "warmup" in flags or "clock_reset" in flags:
            return value, Status.WARMUP
        return value, Status.DEGRADED if flags else Status.VALID

    def _warm_up(self) -> None:
        """Run windows of several sizes, so that the first real one pays for no set-up."""
        for count in (0, 256, 1024):
            times = np.linspace(0, self.window_s, count, endpoint=False, dtype=np.float32)
            rows = np.zeros(count, np.int32)
            self._core.predict(self._session.constants, times, rows, self._query)

    def _clock_time(self, t: float | int) -> Any:
        whole = isinstance(t, (int, np.integer)) and not isinstance(t, bool)
        if self._rate is None:
            if (whole or isinstance(t, float)) and abs(int(t) if whole else t) < _MOST_TICKS:
                return np.float64(t)
            raise UsageError(f"decode: expected finite float64 seconds, got {t!r}")
        if whole and abs(int(t)) < _MOST_TICKS:
            return np.int64(t)
        raise UsageError(f"decode: expected integer ticks below 2**62, got {t!r}")

    def _in_clock_units(self, seconds: float) -> Any:
        """A span in ticks, whole where the rate allows it, or in seconds."""
        if self._rate is None:
            return np.float64(seconds)
        ticks = seconds * self._rate
        return np.int64(ticks) if float(ticks).is_integer() else np.float64(ticks)
