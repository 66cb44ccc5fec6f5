"""Trials and the cursor in the loop: placed on the device's clock, in order with the spikes."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.loops import Bench, S, stream
from helpers.waiting import wait_until

from poyo_edge.errors import UsageError
from poyo_edge.journal import Cursor, Journal, JournalHeader, JournalWriter, TrialTold
from poyo_edge.runtime.checks.again import decoded_again
from poyo_edge.runtime.feeds.sockets import UdpFeed
from poyo_edge.runtime.rig import Rig, RigSettings
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.simulation.recordings import Simulation, simulate_recording
from poyo_edge.trials import NOW, Trial, TrialUpdate

if TYPE_CHECKING:
    from conftest import Rig as Core

SECOND = 4096
"""Ticks of the bench's device."""


class Told:
    """What a loop told of the task, and why it used something not."""

    def __init__(self, core: Core, clock: DeviceClock | None = None, **more: Any) -> None:
        self.trials, self.said = list[Trial](), list[str]()
        self.cursor = list[tuple[list[int], Any]]()
        self.bench = Bench(
            core,
            clock,
            on_trial=self.trials.append,
            on_cursor=lambda ticks, at: self.cursor.append((ticks.tolist(), at.tolist())),
            on_task_problem=self.said.append,
            **more,
        )
        self.times, self.rows = stream(core, 4.0)
        self.at = 1

    @property
    def bad(self) -> int:
        return self.bench.loop.counters.bad_packets

    def run_to(self, seconds: float, shift: int = 0) -> None:
        end = round(64 * seconds) + 1
        self.bench.run(self.times, self.rows, range(self.at, end), shift=shift)
        self.at = end

    def tell(self, number: int, **given: Any) -> None:
        self.bench.loop.feed_trial(TrialUpdate(number, given))
        self.bench.loop.step()


def test_a_trial_is_told_and_its_number_goes_out_with_the_values(rig: Core) -> None:
    told = Told(rig)
    told.run_to(0.5)
    told.bench.loop.feed_trial(Trial(number=3, start=SECOND // 2, target=(8.0, 0.0)))
    told.run_to(1.0)
    told.bench.loop.feed_trial(
        Trial(number=3, start=SECOND // 2, end=SECOND, target=(8.0, 0.0), success=True)
    )
    told.run_to(1.5)
    assert [one.success for one in told.trials] == [None, True]
    running = {float(one.t_s): one.trial for one in told.bench.out}
    assert (running[0.25], running[0.75], running[1.25]) == (None, 3, None)
    assert told.bench.out[40].to_json()["trial"] == told.bench.out[40].trial == 3
    assert (told.bench.loop.counters.trials, told.bad) == (2, 0)


def test_who_does_not_know_the_device_says_now(rig: Core) -> None:
    told = Told(rig)
    told.run_to(0.5)
    told.tell(3, start=NOW, target=(8.0, 0.0))
    told.run_to(0.75)
    told.tell(3, start=NOW, go_time=NOW)
    told.run_to(1.0)
    told.tell(3, end=NOW, success=True)
    told.tell(4, start=NOW)
    told.bench.loop.feed_cursor(None, [[1.5, -3.0]])
    told.bench.loop.step()
    last = told.trials[2]
    assert last == Trial(
        number=3, start=SECOND // 2 - 1, go_time=SECOND * 3 // 4 - 1, end=SECOND - 1,
        target=(8.0, 0.0), success=True,
    )  # fmt: skip
    assert told.trials[3].start >= SECOND - 1
    assert told.cursor == [([SECOND - 1], [[1.5, -3.0]])]


def test_what_is_told_of_now_before_the_first_spikes_has_no_place(rig: Core) -> None:
    told = Told(rig)
    told.tell(1, start=NOW)
    told.bench.loop.feed_cursor(None, [[1.5, -3.0]])
    told.bench.loop.step()
    assert (told.trials, told.cursor, told.bad) == ([], [], 2)
    assert told.said == [
        "trial 1: start: expected a time in ticks before the first spikes have come, got one of "
        "now, which has no place on the device's clock yet; start the task after the feed"
    ]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no start": ({"end": 900}, "trial 9: expected its start in the first message about it"),
    "ends before it begins": ({"start": 3900, "end": 3800}, "expected end at or after its start"),
    "from the future": ({"start": 20 * SECOND}, "trial 9: start: expected ticks of the device's"),
    "overlap": ({"start": 3000}, "got trial 9 that starts at 3000 and trial 8 that ends at 3500"),
    "wrong width": (
        {"start": 3900, "target": (1.0,)},
        "the target of trial 9: expected 2 coordinates, as the target of trial 8 has, got 1",
    ),
    "a huge start": ({"start": 1 << 70}, "start: expected a whole number of ticks"),
    "a start of text": ({"start": "then"}, "start: expected a whole number of ticks"),
    "no such field": ({"start": 3900, "stop": 5}, "stop"),
    "half a target": ({"start": 3900, "target": (np.nan, 0.0)}, "target"),
}


@pytest.mark.parametrize("name", BAD)
def test_trials_that_cannot_be_are_dropped_counted_and_said(rig: Core, name: str) -> None:
    given, said = BAD[name]
    told = Told(rig)
    told.run_to(1.0)
    told.tell(8, start=2500, end=3500, target=(8.0, 0.0))
    for _ in range(2):
        told.tell(9, **given)
    told.run_to(1.2)
    assert ([one.number for one in told.trials], told.bad) == ([8], 2)
    assert len(told.said) == 1
    assert said in told.said[0]
    assert {one.trial for one in told.bench.out[-10:]} == {None}


def test_positions_that_cannot_be_are_dropped_and_counted(rig: Core) -> None:
    told = Told(rig)
    told.run_to(1.0)
    told.tell(8, start=2500, target=(8.0, 0.0))
    for ticks, positions in (
        ([3000], [[1.0]]), ([3000], [[np.nan, 0.0]]), ([3000, 3001], [[1.0, 2.0]]),
        ([20 * SECOND], [[1.0, 2.0]]), ([1.5], [[1.0, 2.0]]), ([3000], [["x"]]),
        (None, [[1.0, 2.0], [3.0, 4.0]]),
    ):  # fmt: skip
        told.bench.loop.feed_cursor(ticks, positions)
    told.bench.loop.feed_cursor([3000, 3001], [[1.0, 2.0], [3.0, 4.0]])
    told.bench.loop.step()
    assert told.cursor == [([3000, 3001], [[1.0, 2.0], [3.0, 4.0]])]
    assert (told.bad, told.bench.loop.counters.cursor) == (7, 2)
    assert told.said == ["the cursor: expected 2 coordinates, as the target of trial 8 has, got 1"]


def test_a_task_that_dies_in_mid_trial_leaves_no_trial_that_runs_for_ever(rig: Core) -> None:
    told = Told(rig)
    told.run_to(1.0)
    told.tell(8, start=2500)
    running = told.bench.loop._task.running
    assert running(3 * SECOND) == 8
    assert running(2500 + 600 * SECOND + 1) is None
    told.tell(0, start=4000)  # it was started again
    assert running(3 * SECOND) == 0


@pytest.mark.parametrize("start", [NOW, 3900])
def test_a_task_that_was_started_again_may_use_its_numbers_again(rig: Core, start: Any) -> None:
    told = Told(rig)
    told.run_to(0.5)
    told.tell(0, start=NOW, target=(8.0, 0.0))
    told.run_to(0.75)
    for _ in range(2):
        told.tell(0, start=NOW, end=NOW, success=True)
    told.run_to(1.0)
    told.tell(0, start=start)
    assert [one.start for one in told.trials[:3]] == [SECOND // 2 - 1] * 3
    assert told.trials[1] == told.trials[2]
    assert told.trials[3] == Trial(number=0, start=3900 if start != NOW else SECOND - 1)
    assert told.bench.loop._task.running(SECOND) == 0


def test_a_clock_that_begins_anew_has_none_of_the_trials_before(rig: Core) -> None:
    told = Told(rig)
    told.run_to(1.0)
    told.tell(8, start=2500)
    told.run_to(2.0, shift=100 * SECOND)
    assert told.bench.clock.epoch == 1
    assert told.bench.out[-1].trial is None
    told.tell(8, end=101 * SECOND)
    assert (len(told.trials), told.bad) == (1, 1)


def test_ticks_of_a_counter_that_wraps_keep_their_place(rig: Core) -> None:
    told = Told(rig, DeviceClock(rig.grid_hz, bits=12))  # a turn is a second
    told.run_to(0.4)
    told.tell(8, start=1600)
    told.run_to(1.3)
    told.tell(8, start=1600, end=5000 % 4096)
    assert [(one.start, one.end) for one in told.trials] == [(1600, None), (1600, 5000)]


def test_a_listener_that_refuses_is_counted_and_the_loop_goes_on(rig: Core) -> None:
    def refuse(trial: Trial) -> None:
        raise UsageError("no")

    bench = Bench(rig, on_trial=refuse)
    bench.loop.feed_trial(Trial(number=1, start=5))
    bench.loop.step()
    assert (bench.loop.counters.task_failures, bench.loop.counters.trials) == (1, 1)


def test_a_journal_keeps_them_and_decodes_to_the_same_bits(rig: Core, tmp_path: Path) -> None:
    header = JournalHeader(session_id="s", unit_ids=rig.a.header.unit_ids, tick_rate_hz=4096.0)
    journal = JournalWriter(tmp_path / "a.journal", header)
    told = Told(rig, journal=journal)
    told.run_to(1.0)
    told.tell(8, start=2500, target=(8.0, 0.0))
    told.bench.loop.feed_cursor([3000], [[1.0, 2.0]])
    told.run_to(2.0)
    told.tell(8, end=8000, success=False)
    journal.close()
    entries = list(Journal(journal.path).entries())
    assert [one.trial for one in entries if isinstance(one, TrialTold)] == told.trials
    (cursor,) = (one for one in entries if isinstance(one, Cursor))
    assert (cursor.ticks.tolist(), cursor.positions.tolist()) == ([3000], [[1.0, 2.0]])
    again = list(decoded_again(Journal(journal.path), rig.decoder(tick_rate_hz=4096.0)))
    assert len(again) == len(told.bench.out)
    assert all(np.array_equal(value.value, now.value) for value, now in again)


@pytest.fixture
def recording(rig: Core, tmp_path: Path) -> Path:
    simulation = Simulation(duration_s=30.0, n_units=12)
    return simulate_recording(
        tmp_path / "tiny_a.h5", session_id="tiny_a", seed=1, simulation=simulation
    )


@pytest.mark.slow
def test_a_second_address_brings_trials_alone(tiny: Path, recording: Path) -> None:
    trials, numbers = list[Trial](), list[int | None]()
    task = UdpFeed("127.0.0.1", 0)
    opened = Rig.open(
        tiny,
        f"file:{recording}",
        settings=RigSettings(session="tiny_a", trials=task),
        on_trial=trials.append,
        on_value=lambda value: numbers.append(value.trial),
    )
    with opened, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        assert task.bound.wait(30)
        wait_until(lambda: opened.loop.last)
        for data in (
            b'{"trial": {"number": 5, "start": "now"}}',
            b'{"t": 1.0, "units": "a"}',
            b'{"trial": {"number": 6}}',
        ):
            peer.sendto(data, ("127.0.0.1", task.port))
        wait_until(lambda: 5 in numbers and opened.loop.counters.bad_packets)
        opened.require_alive()
    stats = opened.stats()
    assert [one.number for one in trials] == [5]
    assert stats["task_feeds"][0]["messages"] == 3
    assert stats["task_feeds"][0]["first_problem"].startswith("--trials: expected trials and the")
    assert stats["feed"]["first_problem"] != stats["task_feeds"][0]["first_problem"]
    assert abs(trials[0].start / 1e9 - opened.loop.last.t_s) < 5.0 if opened.loop.last else False


@pytest.mark.slow
def test_a_second_address_that_cannot_be_used_ends_the_run(tiny: Path, recording: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        settings = RigSettings(session="tiny_a", trials=f"udp://127.0.0.1:{taken.getsockname()[1]}")
        opened = Rig.open(tiny, f"file:{recording}", settings=settings)
        with opened, pytest.raises(UsageError, match=r"feed of trials ended: .* a free port"):
            until = time.monotonic_ns() + S
            while time.monotonic_ns() < until:
                opened.require_alive()
                time.sleep(0.01)


def test_a_second_address_has_no_rate_of_its_own(tiny: Path, recording: Path) -> None:
    settings = RigSettings(session="tiny_a", trials="udp://127.0.0.1:0?rate=5")
    with pytest.raises(UsageError, match="--trials: expected ticks of the device's counter, 1e"):
        Rig.open(tiny, f"file:{recording}", settings=settings)
