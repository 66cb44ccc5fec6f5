"""What a rig calls its units → rows of a session."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.runtime.intake import SessionRows, UnitTable

_log = logging.getLogger(__name__)


class UnitNames:
    """Looks units up by id, by what follows its last "/" where that is one unit's, or by alias.

    A session names units like ``day_3/ch12``; the rig says ``ch12``. Rows are those of the units
    given here, and say so: for another session, ``of`` gives its names.
    """

    def __init__(
        self,
        unit_ids: Sequence[str],
        aliases: Mapping[str, str] | None = None,
        *,
        all_known: bool = True,
    ) -> None:
        self.unknown = ""
        """The first name that no unit of the session has, in a sentence; "" while there is none."""
        self._like = unit_ids[0] if unit_ids else ""
        self._aliases = dict(aliases or {})
        row = {unit: i for i, unit in enumerate(unit_ids)}
        unknown = [unit for unit in self._aliases.values() if unit not in row]
        if unknown and all_known:
            raise UsageError(
                f"units: expected unit ids of the session, like {unit_ids[0]!r}, got {unknown[0]!r}"
            )
        self._full = UnitTable(unit_ids)
        short = [unit.rpartition("/")[2] for unit in unit_ids]
        count = Counter(short)
        others = {name: i for i, name in enumerate(short) if name and count[name] == 1}
        said = {name: row.get(unit, -1) for name, unit in self._aliases.items()}
        others |= said
        self._short = UnitTable(list(others) or ["\0"])
        self._row = np.array([*others.values()] or [-1], np.int32)
        self._said = np.array([name in said for name in others] or [False])
        self._turned = any(row.get(name, at) != at for name, at in said.items())
        """Whether an alias is the id of another unit: what was said counts, not the id."""

    @property
    def known(self) -> frozenset[str]:
        """What a feed may call the units."""
        return frozenset((*self._full.unit_ids, *self._short.unit_ids)) - {"\0"}

    def of(self, unit_ids: Sequence[str]) -> UnitNames:
        """The same names for another session; an alias of a unit that it lacks is unknown."""
        return UnitNames(unit_ids, self._aliases, all_known=False)

    @property
    def table(self) -> UnitTable:
        """The units that rows are of."""
        return self._full

    def rows(self, names: npt.ArrayLike) -> SessionRows:
        """(N,) int32 rows of names (N,); -1 for unknown ones."""
        rows = self._full.as_rows(names)
        unknown = rows < 0
        if self._turned or unknown.any():
            other = self._short.as_rows(names)
            found = np.where(other < 0, np.int32(-1), self._row[other])
            said = (other >= 0) & self._said[other]
            rows = np.where(said | unknown, found, rows).astype(np.int32)
            if not self.unknown and (rows < 0).any():
                self._note(np.asarray(names)[rows < 0][0])
        return self._full.own(rows)

    def _note(self, name: object) -> None:
        said = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        self.unknown = (
            f"expected units of the session, like {self._like!r}, got {said!r}; "
            f"units (--units) says which is which; units that no session knows are fitted first "
            f"(poyo-edge calibrate)"
        )
        _log.warning("spikes of an unknown unit are left out: %s", self.unknown)
