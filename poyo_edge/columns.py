"""Rows of a stream that are kept for minutes, in few large pieces of memory.

A list of the small arrays that a stream brings takes some hundred bytes for each of them, many
times what is in them: minutes of packets of 1 ms are then hundreds of megabytes.

Legend: N rows.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 4096


class Columns:
    """Rows in the order in which they came; from its front they are forgotten.

    What came last, in one piece, is kept whole until all of it is older: a stream may bring minutes
    at once.

    Args:
        dtype: of a row, with a field ``tick`` (int64).
        most: rows that are kept at most, to a block; the oldest give way.
    """

    def __init__(self, dtype: npt.DTypeLike, *, most: int | None = None) -> None:
        self._dtype, self._most = np.dtype(dtype), most
        self._whole: deque[tuple[npt.NDArray[Any], int]] = deque()
        """Blocks that are full, and the newest tick in each."""
        self._open = np.empty(0, self._dtype)
        self._n_open, self._before = 0, -(1 << 63)
        self._n_gone, self._last = 0, 0
        """Rows in blocks that are gone, and how many rows had come before the last piece."""

    def __len__(self) -> int:
        """Rows in memory; some of them may be forgotten."""
        return _BLOCK * len(self._whole) + self._n_open

    def add(self, **columns: npt.NDArray[Any]) -> None:
        """Copy what came: field → values (N, …)."""
        n, done = len(columns["tick"]), 0
        self._last = self._n_gone + len(self)
        while done < n:
            if self._n_open == len(self._open):
                self._begin_block()
            piece = self._open[self._n_open : self._n_open + n - done]
            for name, values in columns.items():
                piece[name] = values[done : done + len(piece)]
            self._n_open += len(piece)
            done += len(piece)

    def forget(self, before: int) -> None:
        """Let go of rows that are older than a tick."""
        self._before = max(self._before, before)
        while (
            self._whole and self._whole[0][1] < self._before and self._n_gone + _BLOCK <= self._last
        ):
            self._drop()

    def rows(self) -> npt.NDArray[Any]:
        """All rows (N,), copied, as they came."""
        blocks = [*(block for block, _ in self._whole), self._open[: self._n_open]]
        rows = np.concatenate(blocks)
        kept = rows["tick"] >= self._before
        newest = rows["tick"][max(0, self._last - self._n_gone) :]
        if len(newest) and newest.max() >= self._before:
            kept[len(kept) - len(newest) :] = True
        return rows[kept]

    def copy(self) -> Columns:
        """What is there now; at once, whatever its length."""
        other = Columns(self._dtype, most=self._most)
        other._whole, other._before = self._whole.copy(), self._before
        other._open, other._n_open = self._open.copy(), self._n_open
        other._n_gone, other._last = self._n_gone, self._last
        return other

    def _begin_block(self) -> None:
        if self._n_open:
            self._whole.append((self._open, int(self._open["tick"].max())))
        self._open, self._n_open = np.empty(_BLOCK, self._dtype), 0
        while self._most is not None and len(self) + _BLOCK > self._most and self._whole:
            self._drop()

    def _drop(self) -> None:
        """Let go of the oldest block."""
        self._whole.popleft()
        self._n_gone += _BLOCK
