"""A UDP port of this machine where signed commands arrive, with a thread of its own."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from poyo_edge.errors import UsageError
from poyo_edge.files.writing import atomic_path
from poyo_edge.runtime.control.commands import Commands
from poyo_edge.runtime.control.envelope import MOST_BYTES, Refused, read_message
from poyo_edge.runtime.feeds.wire.address import Address, AddressRow
from poyo_edge.runtime.worker import Worker

_POLL_S = 0.05
_PER_POLL = 100
"""Messages that are read in so long; under a flood the others wait, or the system drops them."""
_KNOWN = {"udp": AddressRow(help="commands", load="", address="udp://127.0.0.1:5100")}


def loopback_address(text: str, option: str = "--control") -> tuple[str, int]:
    """Host and port of ``udp://HOST:PORT`` on this machine.

    Raises:
        UsageError: no such address, or one that other machines can reach.
    """
    host, port = Address.parse(option, text, _KNOWN).host_port()
    host = "127.0.0.1" if host == "localhost" else host
    try:
        at = ipaddress.ip_address(host)
    except ValueError:
        at = None
    if not isinstance(at, ipaddress.IPv4Address) or not at.is_loopback:
        raise UsageError(
            f"{option}: expected an address of this machine alone, like udp://127.0.0.1:5100, got "
            f"{text!r}; commands from elsewhere come through a tunnel of yours, such as ssh -L"
        )
    return host, port


class ControlPort:
    """Bound when it is made; answers from ``start`` to ``stop``.

    Each message is answered with one line of JSON. Numbers have to ascend; the newest message, if
    it comes again, is answered again and not obeyed again. A stop is obeyed whatever its number.

    Args:
        address: ``udp://127.0.0.1:PORT``; port 0 takes a free one.
        commands: what obeys.
        token_file: where the token is written for this user alone (0600), and removed by ``stop``.

    Raises:
        UsageError: not of this machine, taken, or the file cannot be written.
    """

    def __init__(
        self, address: str, commands: Commands, *, token_file: str | Path | None = None
    ) -> None:
        host, port = loopback_address(address)
        self.token = secrets.token_hex(32)
        self._commands = commands
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise UsageError(
                f"--control: expected a free port, got {address!r}, which cannot be bound "
                f"({error.strerror}); name another, or end what holds it"
            ) from None
        self._socket.settimeout(_POLL_S)
        self.address = "udp://{}:{}".format(*self._socket.getsockname())
        self.messages = 0
        self._newest, self._last = 0, (b"", b"")
        self._file = None if token_file is None else Path(token_file)
        try:
            if self._file is not None:
                _write_for_owner(self._file, self.token)
        except BaseException:
            self._socket.close()
            raise
        self._worker = Worker(self._run, "control")

    def start(self) -> None:
        """Answer, in a thread of its own."""
        self._worker.start()

    def stop(self) -> None:
        """Answer no more and let the port go. May be called again."""
        self._worker.stop()
        self._socket.close()
        if self._file is not None:
            with contextlib.suppress(OSError):
                if self._file.read_text(encoding="ascii").strip() == self.token:
                    self._file.unlink()

    def to_json(self) -> dict[str, Any]:
        """Where it is, and how much came."""
        return {"address": self.address, "messages": self.messages}

    def answer(self, data: bytes, source: str) -> bytes:
        """What to answer to a datagram, having obeyed it or not."""
        self.messages += 1
        if data and data == self._last[0]:
            return self._last[1]
        try:
            command = read_message(data, self.token)
            if command.seq <= self._newest and command.name != "stop":
                raise Refused(
                    f"seq: expected more than {self._newest}, the newest so far, got "
                    f"{command.seq}", command.seq, command.name,
                )  # fmt: skip
        except Refused as no:
            return self._commands.refuse(str(no), source, no.seq, no.name).line()
        said = self._commands.do(command, source).line()
        self._newest, self._last = max(self._newest, command.seq), (data, said)
        return said

    def _run(self) -> None:
        began, read = time.monotonic(), 0
        while not self._worker.stopping.is_set():
            try:
                data, peer = self._socket.recvfrom(MOST_BYTES + 1)
            except TimeoutError:
                continue
            except OSError:
                self._worker.stopping.wait(_POLL_S)
                continue
            said = self.answer(data, f"{peer[0]}:{peer[1]}")
            with contextlib.suppress(OSError):  # who asked may be gone
                self._socket.sendto(said, peer)
            read += 1
            if read >= _PER_POLL:
                self._worker.stopping.wait(max(0.0, began + _POLL_S - time.monotonic()))
            if time.monotonic() - began >= _POLL_S:
                began, read = time.monotonic(), 0


def _write_for_owner(path: Path, token: str) -> None:
    """Write a file that only its owner may read; one that is there is replaced."""
    try:
        with atomic_path(path) as temporary:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(temporary, flags, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(token + "\n")
    except OSError as error:
        raise UsageError(
            f"{path}: expected a file that the token can be written to, got none "
            f"({error.strerror}); name another"
        ) from None
