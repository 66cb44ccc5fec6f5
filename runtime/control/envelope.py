"""Commands on the wire: one JSON object, signed with the token that the run printed.

    {"command": "swap", "session": "day_2", "seq": 7, "mac": "…"}

``mac`` is HMAC-SHA256 in hexadecimal, its key the token as it was printed (ASCII), over the lines

    poyo-edge/1
    7            seq
    swap         command
    0            1 with "now": true
    day_2        session, text, or nothing

joined by one newline each, without one at the end, in UTF-8. So no language has to write JSON the
way another one does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from typing import Any

from poyo_edge.errors import UsageError
from poyo_edge.records import JsonRecord, is_text

ARGUMENT = {
    "swap": "session",
    "revert": "",
    "take": "",
    "reject": "",
    "zero": "",
    "pause": "",
    "resume": "",
    "mark": "text",
    "stop": "",
}
"""Command → the key of what it is said with; "" for nothing."""
WAITS = ("swap", "take")
"""What waits for the end of a trial unless it is to be now."""
MOST_BYTES = 4096
"""Of a message."""
_MOST_LETTERS = 1000
_MOST_SEQ = (1 << 63) - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command, well-formed."""

    name: str
    argument: str = ""
    """A session's name, or the text of a mark."""
    now: bool = False
    """One of ``WAITS`` does not wait for the end of the trial."""
    seq: int = 0
    """0 where nobody counts: commands of the same program."""

    def __post_init__(self) -> None:
        if self.name not in ARGUMENT:
            raise UsageError(
                f"command: expected one of {', '.join(ARGUMENT)}, got {self.name!r:.80}"
            )
        key = ARGUMENT[self.name]
        if key and not self.argument:
            raise UsageError(f"{self.name}: expected {key!r} with it, got none")
        if self.argument and not key:
            raise UsageError(f"{self.name}: expected nothing with it, got {self.argument!r:.80}")
        if len(self.argument) > _MOST_LETTERS:
            raise UsageError(
                f"{self.name}: expected at most {_MOST_LETTERS} letters, got {len(self.argument)}"
            )
        if self.now and self.name not in WAITS:
            raise UsageError(f"{self.name}: expected no 'now' with it, got one; it never waits")

    def to_json(self) -> dict[str, Any]:
        """As it stands in a message, without ``mac``."""
        values: dict[str, Any] = {"command": self.name}
        if key := ARGUMENT[self.name]:
            values[key] = self.argument
        return values | ({"now": True} if self.now else {}) | {"seq": self.seq}

    def mac(self, token: str) -> str:
        """What proves that whoever sends it knows the token, in hexadecimal."""
        words = ("poyo-edge/1", str(self.seq), self.name, str(int(self.now)), self.argument)
        return hmac.new(token.encode(), "\n".join(words).encode(), hashlib.sha256).hexdigest()

    def message(self, token: str) -> bytes:
        """The datagram."""
        return json.dumps({**self.to_json(), "mac": self.mac(token)}).encode()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer(JsonRecord):
    """What became of a command."""

    seq: int | None
    """Of the command; None where none could be read."""
    ok: bool
    reason: str
    """Why it was refused, or what happens and when."""

    def line(self) -> bytes:
        """As it is sent."""
        return json.dumps(self.to_json()).encode() + b"\n"


class Refused(Exception):
    """A message that nobody has to obey; says why."""

    def __init__(self, reason: str, seq: int | None = None, name: str = "") -> None:
        self.seq, self.name = seq, name
        super().__init__(reason)


def read_message(data: bytes, token: str) -> Command:
    """A command that was signed with the token.

    Raises:
        Refused: everything else.
    """
    if len(data) > MOST_BYTES:
        raise Refused(f"expected a message of at most {MOST_BYTES} bytes, got a longer one")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise Refused("expected one JSON object, got something else") from None
    if not isinstance(values, dict):
        raise Refused(f"expected one JSON object, got {type(values).__name__}")
    seq = values.get("seq")
    if not isinstance(seq, int) or isinstance(seq, bool) or not 0 < seq <= _MOST_SEQ:
        raise Refused(f"seq: expected an integer from 1 to 2^63 - 1, got {seq!r:.80}")
    name = values.get("command")
    if not isinstance(name, str):
        raise Refused(f"command: expected its name, got {name!r:.80}", seq)
    return _authentic(values, name, seq, token)


def _authentic(values: dict[str, Any], name: str, seq: int, token: str) -> Command:
    key = ARGUMENT.get(name, "")
    unknown = sorted(set(values) - {"command", "seq", "mac", "now", key})
    if unknown:
        raise Refused(f"expected no key {unknown[0]!r:.80} with {name!r:.80}", seq, name)
    argument = values.get(key, "") if key else ""
    now, mac = values.get("now", False), values.get("mac")
    if not is_text(argument) or not isinstance(now, bool):
        raise Refused(f"{key or 'now'}: expected text, and 'now' true or false", seq, name)
    try:
        command = Command(name=name, argument=argument, now=now, seq=seq)
    except UsageError as error:
        raise Refused(str(error), seq, name) from None
    if not isinstance(mac, str) or not mac.isascii():
        raise Refused("mac: expected 64 hexadecimal digits, got none", seq, name)
    if not hmac.compare_digest(mac.lower(), command.mac(token)):
        raise Refused(
            "mac: expected that of this message with the token of this run, got another one; read "
            "the token that the run printed", seq, name,
        )  # fmt: skip
    return command
