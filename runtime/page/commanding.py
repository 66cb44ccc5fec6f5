"""What one browser may tell a run: nothing, until it has the token that the terminal printed.

The token goes to the run's own port of commands, which knows it (``runtime.control``): this process
never does. It is tried with a mark, so that the journal says that a page was armed, and kept for
this one browser until it is disarmed or gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from poyo_edge.errors import PoyoEdgeError
from poyo_edge.runtime.control.client import COMMANDS, tell

Tell = Callable[..., Any]
_MOST_TOKEN = 256


class Commander:
    """Answers what a browser asks for; never waits.

    Args:
        address: where the run takes commands now, or None if it takes none.
        changed: called, from another thread, when ``values`` have changed.
        send: ``runtime.control.client.tell``.
    """

    def __init__(
        self,
        address: Callable[[], str | None],
        changed: Callable[[], None],
        send: Tell = tell,
    ) -> None:
        self._address, self._changed, self._send = address, changed, send
        self._token = ""
        self._busy = False
        self._said, self._tone = "", ""
        self._lock = threading.Lock()

    @property
    def armed(self) -> bool:
        """Whether this browser may tell the run something."""
        return bool(self._token)

    def values(self) -> dict[str, Any]:
        """``armed``, ``busy``, ``said`` and ``tone``, as JSON values."""
        with self._lock:
            return {"armed": self.armed, "busy": self._busy, "said": self._said,
                    "tone": self._tone}  # fmt: skip

    def ask(self, asked: Mapping[str, Any]) -> None:
        """Do what a browser asks for, or say why not.

        Args:
            asked: ``{"do": "arm", "token": …}``, ``{"do": "disarm"}`` or ``{"do": "tell",
                "command": …, "argument": …, "now": …}``; whatever else it is, is refused.
        """
        match asked.get("do"):
            case "arm":
                self._arm(asked.get("token"))
            case "disarm":
                self._token = ""
                self._say("Read-only again", "")
            case "tell":
                self._tell(asked)
            case _:
                self._say("The page asked for something that there is not", "bad")

    def _arm(self, token: object) -> None:
        if not isinstance(token, str) or not 32 <= len(token.strip()) <= _MOST_TOKEN:
            self._say("Not armed: paste the token that the terminal printed", "bad")
            return
        given = token.strip()

        def armed() -> None:
            self._token = given

        self._in_thread(given, "mark", "a page was armed", False, armed, "Armed: ")

    def _tell(self, asked: Mapping[str, Any]) -> None:
        name, argument = asked.get("command"), asked.get("argument", "")
        if not self.armed:
            self._say("Read-only: arm this page with the token that the terminal printed", "bad")
        elif name not in COMMANDS or not isinstance(argument, str):
            self._say("The page asked for a command that there is not", "bad")
        else:
            self._in_thread(
                self._token, name, argument, asked.get("now") is True, lambda: None, f"{name}: "
            )

    def _in_thread(
        self,
        token: str,
        name: str,
        argument: str,
        now: bool,
        done: Callable[[], None],
        words: str,
    ) -> None:
        address = self._address()
        if address is None:
            self._say("This run takes no commands: start it with --control", "bad")
            return
        urgent = name in ("stop", "zero")
        with self._lock:
            if self._busy and not urgent:
                return
            self._busy = True

        def work() -> None:
            try:
                answer = self._send(address, token, name, argument, now=now)
                if answer.ok:
                    done()
                said, tone = answer.reason, "good" if answer.ok else "bad"
            except PoyoEdgeError as error:
                said, tone = str(error), "bad"
            self._busy = False
            self._say(words + said, tone)

        threading.Thread(target=work, name="poyo-edge-tell", daemon=True).start()

    def _say(self, said: str, tone: str) -> None:
        with self._lock:
            self._said, self._tone = said, tone
        self._changed()
