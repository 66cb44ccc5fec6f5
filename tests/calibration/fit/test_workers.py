"""Items that several threads share."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from helpers.commands import run_python

from poyo_edge.calibration.fit.workers import Crew, each


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
    """Counts its steps, each of so many milliseconds."""

    def __init__(self, steps: int = 0, ms: int = 0) -> None:
        self.steps, self.ms = steps, ms

    def step(self) -> int:
        """One step; returns its number."""
        time.sleep(self.ms / 1000)
        self.steps += 1
        return self.steps


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_all_take_their_steps_in_their_order_and_none_runs_away(count: int, workers: int) -> None:
    those = [Stepper(ms=i % 3) for i in range(count)]
    seen = list[tuple[int, int]]()

    def taken(one: Stepper, step: int) -> None:
        assert step - min(other.steps for other in those) <= 2
        seen.append((those.index(one), step))

    before = threading.active_count()
    Crew(those, workers, Stepper.step, lambda: 6, taken=taken).advance()
    assert threading.active_count() == before
    for i in range(count):
        assert [step for index, step in seen if index == i] == [1, 2, 3, 4, 5, 6]
    if workers == 1:
        assert seen == [(i, step) for step in range(1, 7) for i in range(count)]


def test_whoever_is_free_goes_on_with_what_lags_behind() -> None:
    those = [Stepper(2), Stepper(1), Stepper(2)]
    order = list[int]()
    crew = Crew(
        those, 1, Stepper.step, lambda: 3, taken=lambda one, _: order.append(those.index(one))
    )
    crew.advance()
    assert order == [1, 0, 1, 2]
    crew.advance()
    assert len(order) == 4 and crew.reached() == 3


def test_nobody_waits_for_a_slow_one() -> None:
    """Two at once: while the slow one takes a step, the other worker goes on with the rest."""
    slow, quick, begun = Stepper(), Stepper(), threading.Event()
    ends = threading.Event()

    def step(one: Stepper) -> int:
        if one is slow and slow.steps == 0:
            begun.set()
            assert ends.wait(10)
        elif one is quick:
            assert begun.wait(10)
            if quick.steps == 1:  # its second step, with none of the slow one's taken
                ends.set()
        return one.step()

    Crew([slow, quick], 2, step, lambda: 3).advance()
    assert (slow.steps, quick.steps) == (3, 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_target_that_falls_meanwhile_ends_it_in_step(workers: int) -> None:
    those, targets = [Stepper(ms=1) for _ in range(3)], [9]

    def taken(_: Stepper, step: int) -> None:
        if step == 4 and len(targets) == 1:
            targets.append(crew.reached())

    crew = Crew(those, workers, Stepper.step, lambda: targets[-1], taken=taken)
    crew.advance()
    assert {one.steps for one in those} == {targets[-1]}
    assert targets[-1] in (4, 5)


def test_who_may_not_begin_ends_it_for_all() -> None:
    those = [Stepper(ms=1) for _ in range(4)]
    left = [7]

    def may_begin(_: Stepper) -> bool:
        left[0] -= 1
        return left[0] >= 0

    crew = Crew(those, 3, Stepper.step, lambda: 100, may_begin=may_begin)
    crew.advance()
    assert sum(one.steps for one in those) == 7
    left[0] = 3
    crew.advance()
    assert sum(one.steps for one in those) == 10


@pytest.mark.parametrize("where", ["own", "beside"])
def test_what_a_step_raises_ends_it_and_is_raised(where: str) -> None:
    main, those = threading.current_thread(), [Stepper(ms=1) for _ in range(4)]

    def step(one: Stepper) -> int:
        if (threading.current_thread() is main) == (where == "own") and one.steps == 2:
            raise ValueError("a step")
        return one.step()

    before = threading.active_count()
    with pytest.raises(ValueError, match="a step"):
        Crew(those, 2, step, lambda: 1000).advance()
    assert threading.active_count() == before
    assert max(one.steps for one in those) < 10


def test_ctrl_c_ends_the_others_behind_the_step_that_they_take() -> None:
    main, those = threading.main_thread(), [Stepper(ms=20) for _ in range(2)]

    def step(one: Stepper) -> int:
        if threading.current_thread() is main and one.steps == 1:
            signal.raise_signal(signal.SIGINT)
        return one.step()

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        Crew(those, 2, step, lambda: 1000).advance()
    assert threading.active_count() == before
    assert max(one.steps for one in those) <= 3


def test_a_program_that_ends_takes_all_steps_in_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    those = [Stepper(), Stepper()]
    Crew(those, 2, Stepper.step, lambda: 2).advance()
    assert [one.steps for one in those] == [2, 2]


LEAVING = """
import threading
import numpy
from threadpoolctl import threadpool_info
from poyo_edge.calibration.fit.workers import one_blas_thread as inside

def blas():
    print(*[one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"])

came, may_leave, left = (threading.Event() for _ in range(3))

def first():
    with inside:
        came.set()
        may_leave.wait()
    left.set()

blas()
thread = threading.Thread(target=first)
thread.start()
came.wait()
try:
    with inside:
        blas()
        may_leave.set()
        left.wait()
        blas()
        raise ValueError
except ValueError:
    blas()
thread.join()
with inside:
    blas()
blas()
"""


def test_numpy_takes_one_thread_while_anyone_is_inside_and_as_many_as_before_then() -> None:
    """Also where the first to come, in a thread of its own, is the first to leave."""
    environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
    done = run_python(LEAVING, environment=environment)
    assert done.returncode == 0, done.stderr
    usual, *others = done.stdout.splitlines()
    if not usual:
        pytest.skip("a BLAS that threadpoolctl does not know")
    assert others == ["1", "1", usual, "1", usual]
