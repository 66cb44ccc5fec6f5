"""A session ready to decode with: its constants, its units and its health."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import numpy as np

from poyo_edge.arrays import Float32, Float64, Rows
from poyo_edge.artifact import Session
from poyo_edge.errors import UsageError
from poyo_edge.runtime.clock.units import ClockUnits
from poyo_edge.runtime.constants import SessionConstants
from poyo_edge.runtime.core import Core
from poyo_edge.runtime.failsafe import SilenceWatch
from poyo_edge.runtime.health import HealthMonitor
from poyo_edge.runtime.intake import Counters, UnitTable
from poyo_edge.runtime.result import DecoderSettings
from poyo_edge.runtime.session_check import SessionCheck

_MOST_SWAPS = 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """A session ready to decode with; replaced as a whole."""

    session: Session
    session_id: str
    units: UnitTable
    constants: SessionConstants
    health: HealthMonitor
    check: SessionCheck
    silence: SilenceWatch
    takes_integers: bool
    """Its units are those of the session that the decoder was opened with."""

    @classmethod
    def prepare(
        cls,
        core: Core,
        session: Session,
        opened_with: tuple[str, ...],
        settings: DecoderSettings,
        clock: ClockUnits,
    ) -> OpenSession:
        """A session for this core.

        Args:
            core: what decodes.
            session: what to decode with.
            opened_with: unit ids that plain integers are rows of.
            settings: from when on a stream is lost, or no longer what it was.
            clock: of the spikes.

        Raises:
            UsageError: it was made for another core, or for other outputs.
        """
        manifest = core.artifact.manifest
        if session.header.core_hash != manifest.core_hash:
            raise UsageError(
                f"session {session.header.session_id!r}: expected one made for core "
                f"{manifest.core_hash[:12]}, got {session.header.core_hash[:12]}; "
                f"use a session that was made for this artifact"
            )
        dim_out, activity = manifest.spec.dim_out, session.activity
        if activity is not None and len(activity.output_low) != dim_out:
            raise UsageError(
                f"session {session.header.session_id!r}: output_low: expected {dim_out} outputs, "
                f"got {len(activity.output_low)}; calibrate it again"
            )
        if session.wiener is not None and len(session.wiener.bias) != dim_out:
            raise UsageError(
                f"session {session.header.session_id!r}: mixed filter: expected {dim_out} outputs, "
                f"got {len(session.wiener.bias)}; calibrate it again"
            )
        ids, window_s = session.header.unit_ids, manifest.spec.window_seconds
        return cls(
            session=session,
            session_id=session.header.session_id,
            units=UnitTable(ids),
            constants=core.constants_of(session),
            health=HealthMonitor(ids, activity, window_s, settings.health),
            check=SessionCheck(session.header.session_id, ids, activity, window_s, settings.health),
            silence=SilenceWatch(
                None if activity is None else float(activity.rate_hz.sum()),
                settings.failsafe,
                clock.span(window_s),
                clock.seconds(1),
            ),
            takes_integers=ids == opened_with,
        )

    def mixed(
        self, value: Float64, rows: Rows, spike_time: Float32, query_time: Float32
    ) -> Float64:
        """A value (O,) with the session's filter, if it has one.

        Args:
            value: what the model decodes.
            rows, spike_time: (N,) of the window's spikes.
            query_time: (1,) when the value is of.
        """
        wiener = self.session.wiener
        if wiener is None:
            return value
        return np.asarray(wiener.mixed_with(value[None], rows, spike_time, query_time)[0])

    def restart(self) -> None:
        """The stream begins anew."""
        self.health.restart()
        self.check.restart()
        self.silence.restart()

    def take_over(self, before: OpenSession) -> Rows:
        """Go on with what was heard for another session; its units' rows in this one."""
        new_row = self.units.rows(before.units.unit_ids)
        self.health.begin()
        self.check.take_over(before.check, new_row)
        self.silence.restart()
        return new_row

    def look(
        self, now: Any, seconds: float, window: Any, rows: Rows, counters: Counters,
        flags: list[str],
    ) -> None:  # fmt: skip
        """Follow the stream's health, once a window, and say what is wrong with it.

        Args:
            now: end of the window, in the clock's unit.
            seconds: the same in seconds.
            window: its length, in the clock's unit.
            rows: (N,) unit of each of its spikes.
            counters: of the intake.
            flags: of the window so far; extended.
        """
        if "clock_reset" in flags:
            self.health.restart()
            self.check.restart()
        self.check.wait(seconds)
        if self.health.due(now, window) and not flags and len(rows):
            self.health.look(rows, counters)
            self.check.look(rows)
        flags += self.health.flags
        flags += self.check.flags


class Swaps:
    """Sessions that were swapped in, until whoever records them takes them; the newest 1,024."""

    def __init__(self) -> None:
        self._noted = list[Session]()
        self._used = deque[Session](maxlen=_MOST_SWAPS)

    def note(self, session: Session) -> None:
        """It was swapped in."""
        self._noted = [*self._noted[1 - _MOST_SWAPS :], session]

    def use(self) -> None:
        """What was swapped in is pushed to or decoded with from now on."""
        if self._noted:
            self._used.extend(self._noted)
            self._noted = []

    def take(self) -> list[Session]:
        """Those in use since the last call, in their order."""
        return [self._used.popleft() for _ in range(len(self._used))]
