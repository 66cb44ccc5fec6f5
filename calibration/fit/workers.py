"""Several windows at once: threads that share the items of a list, or steps to take.

A window that is run by one thread leaves the other cores alone, and two windows side by side are
done sooner than one window by two threads: most of its matrices are small. The threads live no
longer than the list, so they have the priority of whoever asks, and none is left behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from threadpoolctl import threadpool_limits

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
    others = [_Other(share.run) for share in shares[1:]]
    try:
        for other, share in zip(others, shares[1:], strict=True):
            try:
                other.thread.start()
            except RuntimeError:  # The program ends, and no thread begins any longer.
                share.run()
        shares[0].run()
    finally:
        _wait_for([other for other in others if other.thread.ident is not None])
    for share in shares:
        if share.error is not None:
            raise share.error
    return [shares[i % workers].results[i // workers] for i in range(len(items))]


class OneBlasThread:
    """While anyone is inside, products of numpy are made by the thread that asks for them alone.

    A BLAS that shares small products among its own threads lets them wait for the next one at full
    speed: a fit in one thread kept two cores busy, and one in two was slower for it. The limit
    belongs to the whole process, so it is set when the first comes and given back when the last
    leaves, whichever order they leave in. Only the thread that has set it can give it back, so
    one of its own does both. Where the program itself limits BLAS meanwhile, that stays.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._left = threading.Event()
        self._keeper: threading.Thread | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                limited, self._left = threading.Event(), threading.Event()
                keeper = threading.Thread(target=_limit, args=(limited, self._left), daemon=True)
                try:
                    keeper.start()
                except RuntimeError:  # The program ends, and no thread begins any longer.
                    self._keeper = None
                else:
                    self._keeper = keeper
                    limited.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._keeper is not None:
                self._left.set()
                self._keeper.join()


def _limit(limited: threading.Event, left: threading.Event) -> None:
    """Limit BLAS until all have left."""
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            limited.set()
            left.wait()
    finally:
        limited.set()


one_blas_thread = OneBlasThread()
"""Of this process: all fits enter the same."""


class Stepping(Protocol):
    """Something that takes steps and counts them."""

    @property
    def steps(self) -> int:
        """Steps taken."""


_S = TypeVar("_S", bound=Stepping)


class Crew(Generic[_S, _R]):
    """Threads that let several things take steps: whoever is free takes what lags behind most.

    Nobody waits for others to end theirs: a thing begins its next step where it is no more than
    one ahead. The calling thread is one of them, and with one worker there is no other.
    """

    def __init__(
        self,
        those: Sequence[_S],
        workers: int,
        step: Callable[[_S], _R],
        target: Callable[[], int],
        *,
        may_begin: Callable[[_S], bool] = lambda _: True,
        taken: Callable[[_S, _R], None] = lambda _, __: None,
    ) -> None:
        """Prepare.

        Args:
            those: what takes steps.
            workers: at most so many take one at the same time.
            step: lets one of them take a step, and says what came of it.
            target: how many steps each is to take; asked before each one, so it may fall.
            may_begin: asked before each step, for one thread at a time; False ends it all.
            taken: told what came of each step, by one thread at a time.
        """
        self._those = those
        self._others = min(workers, len(those)) - 1
        self._step, self._target = step, target
        self._may_begin, self._taken = may_begin, taken
        self._changed = threading.Condition()
        self._busy = set[int]()
        self._ended = False
        self._errors: list[Exception] = []

    def reached(self) -> int:
        """Steps of what is ahead of the others, with those that are under way."""
        return max(one.steps + (i in self._busy) for i, one in enumerate(self._those))

    def advance(self) -> None:
        """Until all have taken the target's steps, or may not begin another.

        What raises first is raised here once all have ended theirs; so is a Ctrl-C meanwhile.
        """
        self._ended = False
        others = [_Other(self._work_beside) for _ in range(self._others)]
        begun = list[_Other]()
        try:
            for other in others:
                try:
                    other.thread.start()
                except RuntimeError:  # The program ends, and no thread begins any longer.
                    break
                begun.append(other)
            self._work()
        finally:
            self._end()
            _wait_for(begun)
        if self._errors:
            raise self._errors.pop(0)

    def _work(self) -> None:
        while (i := self._next()) is not None:
            found = self._step(self._those[i])
            with self._changed:
                self._busy.discard(i)
                self._taken(self._those[i], found)
                self._changed.notify_all()

    def _work_beside(self) -> None:
        try:
            self._work()
        except Exception as error:  # Raised where the steps are wanted.
            self._errors.append(error)
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._busy.clear()
            self._changed.notify_all()

    def _next(self) -> int | None:
        """The one to take a step now; None once there is none any more."""
        with self._changed:
            while not self._ended:
                target, steps = self._target(), [one.steps for one in self._those]
                if min(steps) >= target:
                    return None
                ready = [
                    i
                    for i, taken in enumerate(steps)
                    if i not in self._busy and taken < target and taken <= min(steps) + 1
                ]
                if ready:
                    chosen = min(ready, key=lambda i: steps[i])
                    if not self._may_begin(self._those[chosen]):
                        self._end()
                        return None
                    self._busy.add(chosen)
                    return chosen
                self._changed.wait()
        return None


class _Other:
    """A thread beside the calling one, which says itself that it has ended."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.ended = threading.Event()
        # No daemon: a program that ends waits for it, and does not end it within native code.
        self.thread = threading.Thread(target=self._run, daemon=False)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self.ended.set()


def _wait_for(begun: Sequence[_Other]) -> None:
    """Until all have ended. A Ctrl-C meanwhile is raised then, not before.

    Python up to 3.12 takes a thread for ended once a Ctrl-C came while it was joined, so each says
    itself that it has.
    """
    interrupted = None
    for other in begun:
        while True:
            try:
                other.ended.wait()
                other.thread.join()
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

    def run(self) -> None:
        """All of them, until one raises."""
        try:
            for item in self._items:
                self.results.append(self._function(item))
        except Exception as error:  # Raised where the results are wanted.
            self.error = error
