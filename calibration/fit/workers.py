"""Several windows at once: threads that share the items of a list, and who has a turn when.

A window that is run by one thread leaves the other cores alone, and two windows side by side are
done sooner than one window by two threads: most of its matrices are small. The threads live no
longer than the list, so they have the priority of whoever asks, and none is left behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def each(function: Callable[[_T], _R], items: Sequence[_T], workers: int) -> list[_R]:
    """``function`` of every item, in their order, by as many threads at once.

    The calling thread is one of them. What raises first, in order of the items, is raised here
    once all have ended; so is a Ctrl-C meanwhile.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        return [function(item) for item in items]
    shares = [_Share(function, items[first::workers]) for first in range(workers)]
    # No daemons: a program that ends waits for them, and does not end them within native code.
    threads = [threading.Thread(target=share.run, daemon=False) for share in shares[1:]]
    try:
        for thread, share in zip(threads, shares[1:], strict=True):
            try:
                thread.start()
            except RuntimeError:  # The program ends, and no thread begins any longer.
                share.run()
        shares[0].run()
    finally:
        begun = zip(threads, shares[1:], strict=True)
        _wait_for([pair for pair in begun if pair[0].ident is not None])
    for share in shares:
        if share.error is not None:
            raise share.error
    return [shares[i % workers].results[i // workers] for i in range(len(items))]


class Stepping(Protocol):
    """Something that takes steps and counts them."""

    @property
    def steps(self) -> int:
        """Steps taken."""


_S = TypeVar("_S", bound=Stepping)


def turns(those: Sequence[_S], target: Callable[[], int], workers: int) -> Iterator[list[_S]]:
    """Who takes a step next, as many at once as there are workers, until all have taken ``target``.

    Whoever lags behind comes first, and none is more than a step ahead of the others then. A turn
    goes on with the step after, where this one leaves workers without work: three at two workers
    take two steps each in three turns, not in four.

    Args:
        those: what takes steps; each is expected to take one before the next turn is asked for.
        target: steps; asked again before each one, so it may fall meanwhile.
        workers: at most so many in one turn.
    """
    turn: list[_S] = []
    step = min(one.steps for one in those)
    while step < target():
        for one in those:
            if one.steps > step:
                continue
            if any(one is other for other in turn):
                yield turn
                turn = []
            turn.append(one)
            if len(turn) == workers:
                yield turn
                turn = []
        step += 1
    if turn:
        yield turn


def _wait_for(begun: Sequence[tuple[threading.Thread, _Share[_T, _R]]]) -> None:
    """Until all have ended. A Ctrl-C meanwhile is raised then, not before.

    Python up to 3.12 takes a thread for ended once a Ctrl-C came while it was joined, so each says
    itself that it has.
    """
    interrupted = None
    for thread, share in begun:
        while True:
            try:
                share.ended.wait()
                thread.join()
                break
            except KeyboardInterrupt as error:
                interrupted = error
    if interrupted is not None:
        raise interrupted


class _Share(Generic[_T, _R]):
    """The items of one thread."""

    def __init__(self, function: Callable[[_T], _R], items: Sequence[_T]) -> None:
        self._function = function
        self._items = items
        self.results: list[_R] = []
        self.error: Exception | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        """All of them, until one raises."""
        try:
            for item in self._items:
                self.results.append(self._function(item))
        except Exception as error:  # Raised where the results are wanted.
            self.error = error
        finally:
            self.ended.set()
