"""Items that several threads share."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable

import pytest

from poyo_edge.calibration.fit.workers import each, turns


@pytest.mark.parametrize("workers", [1, 2, 3, 50])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_are_in_the_order_of_the_items(count: int, workers: int) -> None:
    assert each(lambda x: 10 * x, range(count), workers) == [10 * i for i in range(count)]


def test_as_many_items_as_workers_run_at_once() -> None:
    together = threading.Barrier(3, timeout=10)
    assert each(lambda x: (together.wait(), x)[1], [1, 2, 3], 3) == [1, 2, 3]


def test_one_worker_is_the_calling_thread_and_none_is_left_behind() -> None:
    before = threading.active_count()
    idents = each(lambda _: threading.get_ident(), range(4), 2)
    assert threading.get_ident() in idents
    assert len(set(idents)) == 2
    assert threading.active_count() == before
    assert set(each(lambda _: threading.get_ident(), range(4), 1)) == {threading.get_ident()}


def test_what_an_item_raises_is_raised_after_all_have_ended() -> None:
    ended = list[int]()

    def work(x: int) -> None:
        if x == 1:
            raise ValueError("item 1")
        ended.append(x)

    with pytest.raises(ValueError, match="item 1"):
        each(work, [0, 1, 2, 3], 2)
    assert sorted(ended) == [0, 2]


def test_a_program_that_ends_gets_its_items_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert each(lambda x: x + 1, [1, 2, 3], 2) == [2, 3, 4]


@pytest.mark.parametrize("where", ["own share", "join"])
def test_ctrl_c_is_raised_once_all_have_ended(where: str) -> None:
    """What they work on is nobody else's before, and none is left to a program that ends."""
    ended, main = list[int](), threading.main_thread()
    begun = threading.Event()

    def work(x: int) -> None:
        if threading.current_thread() is main:
            assert begun.wait(10)
            if where == "own share":
                signal.raise_signal(signal.SIGINT)
            return
        begun.set()
        time.sleep(0.1)
        if where == "join":
            signal.pthread_kill(main.ident or 0, signal.SIGINT)
        time.sleep(0.1)
        ended.append(x)

    with pytest.raises(KeyboardInterrupt):
        each(work, [0, 1], 2)
    assert ended == [1]


class Stepper:
    """Counts its steps."""

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps


def taken(those: list[Stepper], target: Callable[[], int], workers: int) -> list[list[int]]:
    """The turns, as numbers of those who have them; each takes its step."""
    found = []
    for turn in turns(those, target, workers):
        assert max(one.steps for one in turn) - min(one.steps for one in those) <= 1
        for one in turn:
            one.steps += 1
        found.append([those.index(one) for one in turn])
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
def test_turns_leave_no_worker_without_work_but_in_the_last(count: int, workers: int) -> None:
    those = [Stepper() for _ in range(count)]
    found = taken(those, lambda: 6, workers)
    assert {one.steps for one in those} == {6}
    assert all(len(turn) == min(workers, count) for turn in found[:-1])
    assert len(found) == math.ceil(6 * count / min(workers, count))


def test_who_lags_behind_comes_first_and_all_are_in_step_at_the_target() -> None:
    those = [Stepper(2), Stepper(1), Stepper(2)]
    assert taken(those, lambda: 3, 2) == [[1, 0], [1, 2]]
    assert taken(those, lambda: 3, 2) == []


@pytest.mark.parametrize("falls_after", range(1, 9))
def test_a_target_that_falls_meanwhile_ends_the_turns_in_step(falls_after: int) -> None:
    those, targets = [Stepper() for _ in range(3)], [6]
    for seen, turn in enumerate(turns(those, lambda: targets[-1], 2), start=1):
        for one in turn:
            one.steps += 1
        if seen == falls_after:
            targets.append(max(one.steps for one in those))
    assert {one.steps for one in those} == {targets[-1]}
