"""What a person or a task may tell a decode loop while it runs, and what becomes of it.

``do`` is called from any thread and waits for nobody: what stops the cursor is a flag that the
loop reads before each value leaves.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

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
                self._decoder.swap_session(self._sessions[command.argument])
                said = f"swapped: trial {number} runs no longer"
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
                "waiting": None if waiting is None else waiting[0].argument,
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
            case "revert":
                return self._revert()
            case "resume":
                return self._resume()
            case "pause":
                self._paused = True
                return "values are zero, and labels are not taken, until resume"
            case "zero":
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
        before = "" if self._waiting is None else f", instead of {self._waiting[0].argument!r}"
        trial = self._trial
        if trial is not None and not command.now:
            until = self._now() + int(LONGEST_WAIT_S * 1e9)
            self._waiting = (command, trial.number, until, source)
            return (
                f"at the end of trial {trial.number}, or not at all if it does not end within "
                f"{LONGEST_WAIT_S:g} s{before}"
            )
        self._waiting = None
        self._decoder.swap_session(self._sessions[name])
        return f"from the next value on{before}"

    def _revert(self) -> str:
        if self._waiting is not None:
            name, self._waiting = self._waiting[0].argument, None
            return f"the swap to {name!r} that waited is given up"
        self._decoder.revert()
        return f"session {self._decoder.session_id!r} from the next value on"

    def _resume(self) -> str:
        if self.stopped:
            raise UsageError("resume: expected a run that goes on, got one that was stopped")
        if not (self._zeroed or self._paused):
            raise UsageError("resume: expected values held at zero or paused, got neither")
        self._zeroed = self._paused = False
        return "values move again from the next one on"
