"""What is collected beside a decoder: whose units its rows are, and what may take its place."""

from __future__ import annotations

from collections.abc import Callable

import numpy.typing as npt

from poyo_edge.arrays import Rows
from poyo_edge.artifact import Session
from poyo_edge.calibration.calibrated import CalibratedSession
from poyo_edge.errors import UsageError
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.intake import UnitTable


class Followed:
    """A decoder whose spikes are kept: rows are those of the units that it began with.

    Args:
        decoder: whose session may be swapped.
        epoch: number of the device's clock; when it goes up, times before mean nothing.
    """

    def __init__(self, decoder: Decoder, epoch: Callable[[], int]) -> None:
        self._decoder, self._epoch_of = decoder, epoch
        self.begin()

    def begin(self) -> tuple[str, ...]:
        """From here on rows are of the units in use; their ids."""
        self._epoch = self._epoch_of()
        self._seen = self._decoder.units
        self._units = UnitTable(self._seen.unit_ids)
        return self._units.unit_ids

    @property
    def unit_ids(self) -> tuple[str, ...]:
        """Of the units that rows are of."""
        return self._units.unit_ids

    def changed(self) -> bool:
        """Whether what was kept means nothing any more: another clock, or other units."""
        return self._epoch_of() != self._epoch or self._other_units()

    def as_rows(self, rows: npt.ArrayLike) -> Rows:
        """Rows (N,); those that know their session are looked up by their ids, should it have been
        swapped."""
        return self._units.as_rows(rows)

    def _other_units(self) -> bool:
        """Whether the session in use has other units, in whatever order."""
        if self._decoder.units is self._seen:
            return False
        self._seen = self._decoder.units
        return {*self._seen.unit_ids} != {*self._units.unit_ids}


def require_in_use(session: Session, decoder: Decoder, in_use: Session) -> None:
    """Refuse a session if what it was compared with is not in use any more.

    Raises:
        UsageError: another one is in use meanwhile.
    """
    if decoder.session is not in_use:
        raise UsageError(
            f"session {session.header.session_id!r}: expected the session that it was compared "
            f"with, {in_use.header.session_id!r}, to be in use still, got "
            f"{decoder.session_id!r}; the session in use stays"
        )


def swap_for(session: CalibratedSession, decoder: Decoder, in_use: Session) -> None:
    """Swap a good session in, if what it was compared with is in use still.

    Raises:
        CheckFailedError: the session is bad.
        UsageError: another one is in use meanwhile.
    """
    session.require_good()
    require_in_use(session, decoder, in_use)
    session.swap_into(decoder)
