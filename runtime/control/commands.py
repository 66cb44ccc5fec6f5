"""What a person or a task may tell a decode loop while it runs, and what becomes of it.

``do`` is called from any thread and waits for nobody: what stops the cursor is a flag that the
loop reads before each value leaves.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from poyo_edge.errors import UsageError
from poyo_edge.runtime.control.envelope import Answer, Command
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.open_session import OpenSession
from poyo_edge.trials import Trial

ZEROED, PAUSED, STOPPED = "zeroed", "paused", "stopped"
"""Flags of values that leave as zero because of a command."""
LONGEST_WAIT_S = 30.0
"""A swap that waits for the end of a trial is given up after so long."""
_KEPT = 64
_REFUSED_PER_S = 10
"""Refusals beyond these are counted, and not kept or recorded."""
_MOST_EVENTS = 4096


class Offering(Protocol):
    """Who may offer a session, as recalibration in free use does. Neither waits for a fit."""

    def take(self) -> str:
        """Decode with what is offered; its id. UsageError if nothing is."""

    def reject(self) -> str:
        """Forget it; its id. UsageError if nothing is offered."""


class Commands:
    """Takes commands, and keeps what was said of each.

    Args:
        decoder: whose session is swapped.
        sessions: name → a session that was made ready before the run.
        on_halt: called, in the thread of the command, when values are to be zero from now on.
        now_ns: the host's clock.
    """

    def __init__(
        self,
        decoder: Decoder,
        sessions: Mapping[str, OpenSession] | None = None,
        *,
        on_halt: Callable[[], None] = lambda: None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.on_halt = on_halt
        self.offering: Offering | None = None
        """Whose offers ``take`` and ``reject`` are about."""
        self.stopped = False
        """No value other than zero leaves any more, and the run ends."""
        self._zeroed = self._paused = False
        self._decoder, self._sessions, self._now = decoder, dict(sessions or {}), now_ns
        self._lock = threading.Lock()
        self._trial: Trial | None = None
        self._waiting: tuple[Command, int, int, str] | None = None
        """With the number of the trial, until when it waits, and who sent it."""
        self._accepted = Counter[str]()
        self._refused = self._unrecorded = 0
        self._history = deque[dict[str, Any]](maxlen=_KEPT)
        self._events = deque[dict[str, Any]](maxlen=_MOST_EVENTS)
        self._second, self._in_second = -1, 0

    @property
    def most_units(self) -> int:
        """Of the largest session that may be swapped in."""
        return max((len(one.units) for one in self._sessions.values()), default=0)

    @property
    def held(self) -> str:
        """Why values leave as zero; "" if they do not."""
        if self.stopped:
            return STOPPED
        return ZEROED if self._zeroed else PAUSED if self._paused else ""

    @property
    def paused(self) -> bool:
        """Whether labels and trials teach nothing either."""
        return self._paused or self.stopped

    def do(self, command: Command, source: str = "python") -> Answer:
        """Obey, or say why not."""
        if command.name in ("stop", "zero"):  # before anything that could wait
            self._zeroed = self._zeroed or command.name == "zero"
            self.stopped = self.stopped or command.name == "stop"
            self.on_halt()
        try:
            with self._lock:
                said = self._obeyed(command, source)
        except UsageError as error:
            return self.refuse(str(error), source, command.seq, command.name)
        with self._lock:
            self._accepted[command.name] += 1
            self._note({**command.to_json(), "ok": True, "reason": said, "from": source})
        return Answer(seq=command.seq, ok=True, reason=said)

    def refuse(self, reason: str, source: str, seq: int | None = None, name: str = "") -> Answer:
        """Count and keep what is not obeyed."""
        with self._lock:
            self._refused += 1
            second = self._now() // 1_000_000_000
            self._in_second = self._in_second + 1 if second == self._second else 1
            self._second = second
            if self._in_second <= _REFUSED_PER_S:
                event = {"command": name[:80], "seq": seq, "ok": False}
                self._note({**event, "reason": reason, "from": source})
            else:
                self._unrecorded += 1
        return Answer(seq=seq, ok=False, reason=reason)

    def look(self, trial: Trial | None) -> None:
        """Swap what has waited for the end of its trial. In the loop's thread, each round.

        Args:
            trial: that runs now.
        """
        self._trial = trial
        if self._waiting is None:
            return
        with self._lock:
            if self._waiting is None:
                return
            command, number, until, source = self._waiting
            over, late = trial is None or trial.number != number, self._now() >= until
            if not (over or late):
                return
            self._waiting = None
            event = {"command_done": command.name, "session": command.argument, "seq": command.seq}
            if over:
                said = self._at_trials_end(command, number)
            else:
                said = (
                    f"expected trial {number} to end within {LONGEST_WAIT_S:g} s, got no end; the "
                    f"session in use stays; send it again with now"
                )
            self._note({**event, "ok": over, "reason": said, "from": source})

    def take_events(self) -> list[dict[str, Any]]:
        """What a journal has to know, in order, since the last call."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def to_json(self) -> dict[str, Any]:
        """What was obeyed and refused, and the newest of both, as JSON values."""
        with self._lock:
            waiting = self._waiting
            return {
                "held": self.held,
                "accepted": dict(self._accepted),
                "refused": self._refused,
                "not_recorded": self._unrecorded,
                "sessions": sorted(self._sessions),
                "waiting": None if waiting is None else waiting[0].argument or waiting[0].name,
                "newest": [dict(one) for one in self._history],
            }

    def _note(self, event: dict[str, Any]) -> None:
        self._history.append(event)
        self._events.append(event)

    def _obeyed(self, command: Command, source: str) -> str:
        """Obey; what happens, in words. The lock is held."""
        match command.name:
            case "swap":
                return self._swap(command, source)
            case "take":
                return self._take(command, source)
            case "reject":
                return f"session {self._offers('reject').reject()!r} is forgotten"
            case "revert":
                return self._revert()
            case "resume":
                return self._resume()
            case "pause":
                self._paused = True
                return "values are zero, and labels are not taken, until resume"
            case "zero":
                self._zeroed = True  # once more: a resume may have come first
                return "values are zero until resume"
            case "mark":
                return "it is in the journal, if one is written"
            case _:
                return "values are zero, and the run ends"

    def _swap(self, command: Command, source: str) -> str:
        name = command.argument
        if self.stopped:
            raise UsageError("swap: expected a run that goes on, got one that was stopped")
        if name not in self._sessions:
            raise UsageError(
                f"swap: expected one of the sessions that were loaded at the start "
                f"{sorted(self._sessions)}, got {name!r:.80}; name it with --also-session"
            )
        before = self._instead()
        waits = self._waits(command, source)
        if waits:
            return waits + before
        if self._is_used(name):
            return f"session {name!r} is in use already{before}"
        self._decoder.swap_session(self._sessions[name])
        return f"from the next value on{before}"

    def _is_used(self, name: str) -> bool:
        """Whether a session decodes as the one in use does."""
        mine, one = self._decoder.session, self._sessions[name].session
        return mine.header.session_id == one.header.session_id and mine.digest == one.digest

    def _take(self, command: Command, source: str) -> str:
        """Take the session on offer, between trials. It may be saved, which the loop is not to wait
        for."""
        offering = self._offers("take")
        if self.stopped:
            raise UsageError("take: expected a run that goes on, got one that was stopped")
        before = self._instead()
        waits = self._waits(command, source)
        return (waits or f"session {offering.take()!r} from the next value on") + before

    def _instead(self) -> str:
        if self._waiting is None:
            return ""
        command = self._waiting[0]
        return f", instead of {command.argument!r}" if command.argument else ", instead of the take"

    def _waits(self, command: Command, source: str) -> str:
        """Until when a command waits for the end of a trial; "" if it does not, and another that
        waited is given up."""
        trial, self._waiting = self._trial, None
        if trial is None or command.now:
            return ""
        until = self._now() + int(LONGEST_WAIT_S * 1e9)
        self._waiting = (command, trial.number, until, source)
        return (
            f"at the end of trial {trial.number}, or not at all if it does not end within "
            f"{LONGEST_WAIT_S:g} s"
        )

    def _at_trials_end(self, command: Command, number: int) -> str:
        """Do what has waited; in the loop's thread, which waits for nothing."""
        if command.name == "take":
            threading.Thread(target=self._take_beside, daemon=True).start()
            return f"taken: trial {number} runs no longer"
        if self._is_used(command.argument):
            return f"in use already: trial {number} runs no longer"
        self._decoder.swap_session(self._sessions[command.argument])
        return f"swapped: trial {number} runs no longer"

    def _take_beside(self) -> None:
        try:
            self._offers("take").take()
        except UsageError as error:  # Withdrawn since, or another session is in use.
            self.refuse(str(error), "trial's end", name="take")

    def _offers(self, name: str) -> Offering:
        if self.offering is None:
            raise UsageError(
                f"{name}: expected a run that offers sessions, got one without; start it with "
                f"--recalibrate offer"
            )
        return self.offering

    def _revert(self) -> str:
        if self._waiting is not None:
            given_up, self._waiting = _what(self._waiting[0]), None
            return f"{given_up} that waited is given up"
        self._decoder.revert()
        return f"session {self._decoder.session_id!r} from the next value on"

    def _resume(self) -> str:
        if self.stopped:
            raise UsageError("resume: expected a run that goes on, got one that was stopped")
        if not (self._zeroed or self._paused):
            raise UsageError("resume: expected values held at zero or paused, got neither")
        self._zeroed = self._paused = False
        return "values move again from the next one on"


def _what(command: Command) -> str:
    return f"the swap to {command.argument!r}" if command.argument else f"the {command.name}"
