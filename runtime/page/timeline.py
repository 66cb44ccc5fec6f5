"""Which status and which flags there were when: stretches of time, joined and bounded."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.runtime.page.ring.layout import STATUSES, flags_of

KEPT_S = 3600.0
_MOST = 2000
"""Stretches of one row; a status that flickers for an hour loses its oldest ones."""
_JOINS_S = 0.5
"""Two stretches of a flag that are so near are one; a status is said from window to window."""


@dataclasses.dataclass(slots=True)
class Stretch:
    """Seconds of the host's clock, from the first window to behind the last."""

    begin_s: float
    end_s: float
    name: str


class Timeline:
    """Statuses and flags of the last hour.

    Args:
        period_s: from one window to the next.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self.statuses = list[Stretch]()
        self.flags = dict[str, list[Stretch]]()
        """Flag → when it stood, in the order in which flags were first seen."""

    def add(self, frames: npt.NDArray[Any]) -> None:
        """Take frames (F,) that were just read."""
        if not len(frames):
            return
        changed = np.flatnonzero(
            (np.diff(frames["status"].astype(np.int16)) != 0) | (np.diff(frames["flags"]) != 0)
        )
        edges = [0, *(changed + 1).tolist(), len(frames)]
        for first, last in itertools.pairwise(edges):
            begin_s = float(frames["host_ns"][first]) / 1e9
            end_s = float(frames["host_ns"][last - 1]) / 1e9 + self._period_s
            status = STATUSES[int(frames["status"][first])]
            self._extend(self.statuses, begin_s, end_s, status, 3 * self._period_s)
            for flag in flags_of(int(frames["flags"][first])):
                rows = self.flags.setdefault(flag, [])
                self._extend(rows, begin_s, end_s, flag, max(_JOINS_S, 3 * self._period_s))

    def forget(self, now_s: float) -> None:
        """Let go what is older than ``KEPT_S``."""
        oldest = now_s - KEPT_S
        for rows in (self.statuses, *self.flags.values()):
            while rows and (rows[0].end_s < oldest or len(rows) > _MOST):
                del rows[0]
        self.flags = {flag: rows for flag, rows in self.flags.items() if rows}

    @staticmethod
    def _extend(
        rows: list[Stretch], begin_s: float, end_s: float, name: str, joins_s: float
    ) -> None:
        if rows and rows[-1].name == name and begin_s - rows[-1].end_s <= joins_s:
            rows[-1].end_s = max(rows[-1].end_s, end_s)
        else:
            rows.append(Stretch(begin_s, end_s, name))
