"""Sends a command to a run on this machine, and waits for the answer."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

from poyo_edge.errors import UsageError
from poyo_edge.runtime.control.envelope import ARGUMENT, Answer, Command
from poyo_edge.runtime.control.port import loopback_address

_AGAIN_S = 0.2
"""A message that was lost is sent again; a run that got it answers again and obeys once."""


def tell(
    address: str,
    token: str,
    command: str,
    argument: str = "",
    *,
    now: bool = False,
    timeout_s: float = 2.0,
) -> Answer:
    """Tell a run with ``--control`` what to do.

    Messages are numbered by the clock (ns since 1970), so those of several senders ascend.

    Args:
        address: that of the run, ``udp://127.0.0.1:PORT``.
        token: that the run printed.
        command: ``swap``, ``revert``, ``zero``, ``pause``, ``resume``, ``mark`` or ``stop``.
        argument: the session of a swap, or the text of a mark.
        now: swap in the middle of a trial, too.
        timeout_s: how long to wait for the answer.

    Raises:
        UsageError: no such command or address, or nobody answers.
    """
    sent = Command(name=command, argument=argument, now=now, seq=time.time_ns())
    peer, data = loopback_address(address, "address"), sent.message(token.strip())
    until = time.monotonic() + timeout_s
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.connect(peer)  # what others send is no answer
        ours.settimeout(_AGAIN_S)
        while time.monotonic() < until:
            try:
                ours.send(data)
                return Answer.from_json(json.loads(ours.recv(1 << 16)))
            except (TimeoutError, ValueError):
                continue
            except ConnectionRefusedError:
                time.sleep(_AGAIN_S)
    raise UsageError(
        f"{address}: expected a run that answers, got no answer within {timeout_s:g} s; start it "
        f"with --control {address}"
    )


def read_token(path: str | Path) -> str:
    """The token in a file that ``run --control-token-file`` wrote.

    Raises:
        UsageError: no such file, or none that holds a token.
    """
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: expected the file of run --control-token-file, got none that can be read "
            f"({getattr(error, 'strerror', None) or error}); check the path, and that it runs"
        ) from None
    if not 32 <= len(token) <= 256:
        raise UsageError(f"{path}: expected a token of a run, got {len(token)} letters")
    return token


COMMANDS = tuple(ARGUMENT)
"""What can be told."""
