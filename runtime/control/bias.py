"""The bias of a decoder, learned where trials say that the mean velocity should be zero.

Legend: D dimensions of the velocity.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np

from poyo_edge.arrays import Float64

SETTLE_S = 0.5
"""Of a rest: the movement of the trial before may still end in it."""
_LEAST_S = 0.2
"""Shorter trials and rests tell nothing."""


class Bias:
    """Means over the last whole trials, or over the last rests between them.

    Args:
        n_dims: D.
        source: which of them.
        n: how many are needed, and kept.
    """

    def __init__(self, n_dims: int, source: Literal["off", "trials", "rest"], n: int) -> None:
        self._zero: Float64 = np.zeros(n_dims)
        self._source, self._n = source, n
        self.forget()

    def forget(self) -> None:
        """Learn anew, as for another session."""
        self._means = deque[Float64](maxlen=self._n)
        self.drop()

    def drop(self) -> None:
        """What is open is not whole: it is left out."""
        self._open = False
        self._sum: Float64 = self._zero
        self._seconds = 0.0

    def begins(self, *, trial: bool) -> None:
        """A trial or a rest begins; what was not closed is left out."""
        self.drop()
        self._open = self._source == ("trials" if trial else "rest")

    def ends(self) -> None:
        """It was whole: its mean counts."""
        if self._open and self._seconds >= _LEAST_S:
            self._means.append(self._sum / self._seconds)
        self.drop()

    def add(self, velocity: Float64, dt: float, since_s: float) -> None:
        """A decoded velocity (D,) that stood for ``dt`` seconds, ``since_s`` after the begin."""
        if self._open and (self._source == "trials" or since_s >= SETTLE_S):
            self._sum = self._sum + velocity * dt
            self._seconds += dt

    @property
    def known(self) -> int:
        """Trials or rests that it has learned from."""
        return len(self._means)

    @property
    def value(self) -> Float64:
        """(D,) what to take off; zero while too few are known."""
        return np.asarray(sum(self._means) / self._n) if self.known == self._n else self._zero
