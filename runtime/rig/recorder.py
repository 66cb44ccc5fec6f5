"""What a loop writes into its journal, so that it can be decoded again from it alone."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

import poyo_edge
from poyo_edge.arrays import Rows
from poyo_edge.artifact import Session
from poyo_edge.journal import Controlled as Frame
from poyo_edge.journal import JournalHeader, JournalWriter, Swap
from poyo_edge.runtime.backends.machine import same_bits
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.intake import UnitTable
from poyo_edge.runtime.result import Controlled, Result
from poyo_edge.runtime.session_check import VERIFIED, WRONG_SESSION

_FIRST_UNKNOWN = -2
_MOST_UNKNOWN = 4096
"""Names of units that the session does not have; those of a feed gone mad get no name."""


class Recorder:
    """Writes in the order of the decoder; does nothing without a journal."""

    def __init__(self, journal: JournalWriter | None, decoder: Decoder) -> None:
        self._journal, self._decoder = journal, decoder
        self._unknown: dict[str, int] = {}
        self._units = decoder.units
        self._check_said = ("", "")
        if journal is not None:
            decoder.take_swaps()
            session, core = decoder.session, decoder.artifact.manifest.core_hash
            journal.start(
                version=poyo_edge.__version__,
                artifact=decoder.artifact.path.name,
                core=core,
                session={"session_id": session.header.session_id, "sha256": session.digest},
                backend=decoder.backend,
                precision=decoder.precision,
                machine=same_bits(),
            )

    def spikes(
        self,
        host_ns: int,
        epoch: int,
        ticks: npt.NDArray[np.int64],
        rows: Rows,
        units: npt.NDArray[Any],
    ) -> None:
        """Spikes that were pushed: ticks (N,), rows (N,), and what the feed called them (N,)."""
        if self._journal is None:
            return
        self._swaps()
        rows = self._units.as_rows(rows)  # another session may have been swapped in meanwhile
        if units.dtype.kind not in "iu" and (rows < 0).any():
            rows = self._named(rows, units)
        self._journal.spikes(host_ns, epoch, ticks, rows)

    def decoded(self, tick: int, host_ns: int, result: Result, sync: Any) -> None:
        """A value, with its flags and its ``sync``."""
        if self._journal is None:
            return
        self._swaps()
        self._session_check()
        self._journal.decoded(
            tick, host_ns, result.status.value, result.n_spikes, result.value,
            flags=result.flags, sync=sync,
        )  # fmt: skip

    def controlled(self, tick: int, given: Result, of: Controlled) -> None:
        """What left instead of the value that was decoded at the tick."""
        if self._journal is not None:
            self._journal.controlled(
                Frame(
                    tick=tick, status=given.status.value, value=given.value, ramp=of.ramp,
                    assist=of.assist, click=of.click, held=of.held,
                )
            )  # fmt: skip

    def _session_check(self) -> None:
        """The verdict on the session, when there is one; until then the flags of values say all."""
        assert self._journal is not None
        said = self._decoder.session_check
        if said.state not in (VERIFIED, WRONG_SESSION):
            return
        if (said.state, said.session_id) != self._check_said:
            self._check_said = said.state, said.session_id
            self._journal.event(session_check={
                "session_id": said.session_id, "state": said.state, "reason": said.reason or None
            })  # fmt: skip

    def _swaps(self) -> None:
        """Sessions that were in use from the last push or decode on, before what it gave."""
        assert self._journal is not None
        for session in self._decoder.take_swaps():
            self._journal.event(swap=swap_to(session).to_json())
            self._units = UnitTable(session.header.unit_ids)

    def _named(self, rows: Rows, units: npt.NDArray[Any]) -> Rows:
        """Rows (N,) in which each unknown name has a negative row of its own."""
        rows = rows.copy()
        for at in np.flatnonzero(rows < 0).tolist():
            unit = units[at]
            name = unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
            row = self._unknown.get(name)
            if row is None and len(self._unknown) < _MOST_UNKNOWN:
                row = self._unknown[name] = _FIRST_UNKNOWN - len(self._unknown)
                assert self._journal is not None
                self._journal.event(unknown_unit=name, row=row)
            rows[at] = -1 if row is None else row
        return rows


def swap_to(session: Session) -> Swap:
    """What a journal says of a session that was swapped in."""
    header = session.header
    return Swap(session_id=header.session_id, sha256=session.digest, unit_ids=header.unit_ids)


def journal_header(decoder: Decoder, tick_rate_hz: float) -> JournalHeader:
    """What a journal of the session in use says about itself, from now on."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return JournalHeader(
        session_id=f"{decoder.session_id}-{now:%Y%m%dT%H%M%S}",
        unit_ids=decoder.unit_ids,
        tick_rate_hz=tick_rate_hz,
        behavior=decoder.artifact.manifest.behavior,
        created=now.isoformat(timespec="seconds"),
    )
