"""How far a step of known length is, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Progress = Callable[[int, int], None]
"""Told how much is done, and how much there is."""
Item = TypeVar("Item")


class Meter:
    """Counts what is done in one step, over however many loops.

    Args:
        tell: called after each item; None for nobody.
        total: items in all.
    """

    def __init__(self, tell: Progress | None, total: int) -> None:
        self._tell, self._total, self._done = tell, total, 0

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; each counts when the next one is asked for."""
        for item in items:
            yield item
            self._done += 1
            if self._tell is not None:
                self._tell(self._done, self._total)
