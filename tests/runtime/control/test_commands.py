"""Commands: when each takes effect, and why one is refused."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import pytest

from poyo_edge.errors import UsageError
from poyo_edge.runtime.control.commands import LONGEST_WAIT_S, Commands
from poyo_edge.runtime.control.envelope import Command
from poyo_edge.trials import Trial

if TYPE_CHECKING:
    from conftest import Rig

T1 = Trial(number=1, start=0)


class Told:
    """Commands on a clock that only the test moves."""

    def __init__(self, rig: Rig) -> None:
        self.ns, self.halts = 0, 0
        self.decoder = rig.decoder(tick_rate_hz=rig.grid_hz)
        sessions = {name: self.decoder.prepare(one) for name, one in
                    {"tiny_a": rig.a, "tiny_b": rig.b}.items()}  # fmt: skip
        self.commands = Commands(self.decoder, sessions, on_halt=self._halt, now_ns=lambda: self.ns)

    def __call__(self, name: str, argument: str = "", **more: Any) -> tuple[bool, str]:
        answer = self.commands.do(Command(name=name, argument=argument, **more), "test")
        return answer.ok, answer.reason

    @property
    def session(self) -> str:
        return self.decoder.session_id

    def newest(self) -> dict[str, Any]:
        newest: dict[str, Any] = self.commands.to_json()["newest"][-1]
        return newest

    def _halt(self) -> None:
        self.halts += 1


@pytest.fixture
def told(rig: Rig) -> Told:
    return Told(rig)


def test_a_swap_is_at_once_between_trials_and_waits_for_the_end_of_one(told: Told) -> None:
    assert told("swap", "tiny_b") == (True, "from the next value on")
    assert told.session == "tiny_b"
    told.commands.look(T1)
    ok, reason = told("swap", "tiny_a")
    assert ok
    assert reason.startswith("at the end of trial 1, or not at all if it does not end within 30 s")
    told.commands.look(T1)
    assert (told.session, told.commands.to_json()["waiting"]) == ("tiny_b", "tiny_a")
    told.commands.look(None)
    assert (told.session, told.commands.to_json()["waiting"]) == ("tiny_a", None)
    done = told.newest()
    assert (done["command_done"], done["ok"]) == ("swap", True)
    assert "trial 1 runs no longer" in done["reason"]


def test_a_swap_that_is_told_twice_leaves_the_way_back(told: Told) -> None:
    assert told("swap", "tiny_b") == (True, "from the next value on")
    assert told("swap", "tiny_b") == (True, "session 'tiny_b' is in use already")
    assert told("revert")[0]
    assert told.session == "tiny_a"


def test_a_swap_is_made_when_the_next_trial_has_begun_already(told: Told) -> None:
    told.commands.look(T1)
    told("swap", "tiny_b")
    told.commands.look(dataclasses.replace(T1, number=2))
    assert told.session == "tiny_b"


def test_now_does_not_wait_and_takes_the_place_of_what_waits(told: Told) -> None:
    told.commands.look(T1)
    told("swap", "tiny_a")
    ok, reason = told("swap", "tiny_b", now=True)
    assert (ok, reason) == (True, "from the next value on, instead of 'tiny_a'")
    told.commands.look(None)
    assert told.session == "tiny_b"


def test_a_task_that_dies_in_a_trial_holds_no_swap_for_ever(told: Told) -> None:
    told.commands.look(T1)
    told("swap", "tiny_b")
    told.ns = int(LONGEST_WAIT_S * 1e9) - 1
    told.commands.look(T1)
    assert told.commands.to_json()["waiting"] == "tiny_b"
    told.ns += 1
    told.commands.look(T1)
    assert (told.session, told.commands.to_json()["waiting"]) == ("tiny_a", None)
    given_up = told.newest()
    assert not given_up["ok"]
    assert "expected trial 1 to end within 30 s, got no end" in given_up["reason"]
    told.commands.look(None)
    assert told.session == "tiny_a"


def test_revert_takes_back_what_waits_or_else_the_last_swap(told: Told) -> None:
    told("swap", "tiny_b")
    told.commands.look(T1)
    told("swap", "tiny_a")
    assert told("revert") == (True, "the swap to 'tiny_a' that waited is given up")
    assert told.session == "tiny_b"
    assert told("revert") == (True, "session 'tiny_a' from the next value on")
    ok, reason = told("revert")
    assert not ok
    assert "expected a session before 'tiny_a', got none" in reason


def test_a_session_that_was_not_loaded_is_refused(told: Told) -> None:
    ok, reason = told("swap", "../secret.session")
    assert not ok
    assert "expected one of the sessions that were loaded at the start ['tiny_a', 'tiny_b']" in (
        reason
    )
    assert told.session == "tiny_a"


def test_zero_and_pause_hold_until_resume_and_a_stop_for_ever(told: Told) -> None:
    seen = []
    for name in ("zero", "resume", "pause", "zero", "resume", "resume", "stop", "resume", "swap"):
        ok, _ = told(name, "tiny_b" if name == "swap" else "")
        seen.append((name, ok, told.commands.held, told.commands.paused))
    assert seen == [
        ("zero", True, "zeroed", False),
        ("resume", True, "", False),
        ("pause", True, "paused", True),
        ("zero", True, "zeroed", True),
        ("resume", True, "", False),
        ("resume", False, "", False),
        ("stop", True, "stopped", True),
        ("resume", False, "stopped", True),
        ("swap", False, "stopped", True),
    ]
    assert told.halts == 3


def test_a_stop_is_a_flag_that_waits_for_no_lock(told: Told) -> None:
    halted = []
    told.commands.on_halt = lambda: halted.append(told.commands.held)
    with told.commands._lock:  # as if a swap hung in the loop's thread
        import threading

        thread = threading.Thread(target=told, args=("stop",))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive(), "only its answer waits"
        assert halted == ["stopped"]
    thread.join()


def test_a_zero_that_was_acknowledged_holds_though_a_resume_was_quicker(told: Told) -> None:
    """The flag goes up before any lock; whoever gets the lock first may take it down again."""
    told("pause")
    lock = told.commands._lock

    class Late:
        """The zero waits at the lock until a resume of somebody else is done."""

        def __enter__(self) -> None:
            told.commands._lock = lock
            assert told("resume")[0]
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    told.commands._lock = Late()  # type: ignore[assignment]
    assert told("zero") == (True, "values are zero until resume")
    assert told.commands.held == "zeroed"


def test_what_was_told_is_kept_with_its_source_and_a_flood_is_only_counted(told: Told) -> None:
    told("mark", "the cat sat down", seq=4)
    (event,) = told.commands.take_events()
    assert event == {
        "command": "mark", "text": "the cat sat down", "seq": 4, "ok": True,
        "reason": "it is in the journal, if one is written", "from": "test",
    }  # fmt: skip
    for _ in range(5000):
        told.commands.refuse("not JSON", "127.0.0.1:9")
    found = told.commands.to_json()
    assert (found["refused"], found["not_recorded"]) == (5000, 4990)
    assert len(told.commands.take_events()) == 10
    told.ns = 2_000_000_000
    told.commands.refuse("not JSON", "127.0.0.1:9")
    assert len(told.commands.take_events()) == 1
    assert len(found["newest"]) <= 64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "fly"}, "command: expected one of swap, revert, take, .* got 'fly'"),
        ({"name": "swap"}, "swap: expected 'session' with it, got none"),
        ({"name": "stop", "argument": "please"}, "stop: expected nothing with it, got 'please'"),
        ({"name": "zero", "now": True}, "zero: expected no 'now' with it"),
        ({"name": "mark", "argument": "x" * 1001}, "mark: expected at most 1000 letters, got 1001"),
    ],
)
def test_a_command_that_cannot_be_meant_is_one_sentence(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Command(**values)


class Offers:
    """Offers one session, once."""

    def __init__(self) -> None:
        self.left, self.taken = True, threading.Event()

    def take(self) -> str:
        """Its id."""
        self.reject()
        self.taken.set()
        return "free_1"

    def reject(self) -> str:
        """Its id."""
        if not self.left:
            raise UsageError("take: expected a session on offer, got none; wait for one")
        self.left = False
        return "free_1"


@pytest.mark.parametrize("name", ["take", "reject"])
def test_an_offer_is_taken_or_rejected_once(told: Told, name: str) -> None:
    ok, reason = told(name)
    assert not ok and "--recalibrate offer" in reason
    told.commands.offering = Offers()
    assert told(name)[0]
    ok, reason = told(name)
    assert not ok and "expected a session on offer" in reason


def test_a_take_waits_for_the_end_of_a_trial_and_can_be_taken_back(told: Told) -> None:
    offers = told.commands.offering = Offers()
    running = Trial(number=4, start=0)
    told.commands.look(running)
    assert "at the end of trial 4" in told("take")[1]
    assert told.commands.to_json()["waiting"] == "take"
    assert told("revert") == (True, "the take that waited is given up")
    told("take")
    told.commands.look(running)
    assert not offers.taken.is_set()
    told.commands.look(None)
    assert offers.taken.wait(10)
    assert told("take", now=True)[0] is False
