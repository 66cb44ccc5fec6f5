"""The port where signed commands arrive: who is heard, who is refused, and what is answered."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.paths import ROOT
from helpers.waiting import wait_until

from poyo_edge.errors import UsageError
from poyo_edge.runtime.control import client, tell
from poyo_edge.runtime.control.commands import Commands
from poyo_edge.runtime.control.envelope import Command
from poyo_edge.runtime.control.port import ControlPort, loopback_address

if TYPE_CHECKING:
    from conftest import Rig


@pytest.fixture
def port(rig: Rig) -> Iterator[ControlPort]:
    """A port that answers."""
    opened = ControlPort("udp://127.0.0.1:0", Commands(rig.decoder()))
    opened.start()
    yield opened
    opened.stop()


def asked(port: ControlPort, message: bytes | dict[str, Any]) -> dict[str, Any]:
    """The answer to a message, without the network."""
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    line = port.answer(data, "127.0.0.1:9")
    assert line.endswith(b"\n")
    answer: dict[str, Any] = json.loads(line)
    assert sorted(answer) == ["ok", "reason", "seq"]
    return answer


def signed(port: ControlPort, name: str, seq: int, argument: str = "", **more: Any) -> bytes:
    return Command(name=name, argument=argument, seq=seq, **more).message(port.token)


def test_a_command_is_heard_over_the_network(port: ControlPort) -> None:
    answer = tell(port.address, port.token, "zero")
    assert (answer.ok, answer.reason) == (True, "values are zero until resume")
    assert tell(port.address, port.token, "resume").ok
    again = tell(port.address, port.token, "resume")
    assert not again.ok
    assert "expected values held at zero or paused" in again.reason
    assert tell(port.address, f" {port.token}\n", "mark", "ünd\nmore").ok


def test_the_mac_is_what_the_page_says_of_it(port: ControlPort) -> None:
    """docs/control.md gives the lines for other languages."""
    text = b"poyo-edge/1\n7\nmark\n0\n\xc3\xa4 word"
    mac = hmac.new(port.token.encode(), text, hashlib.sha256).hexdigest()
    message = {"command": "mark", "text": "ä word", "seq": 7, "mac": mac}
    assert asked(port, message)["ok"]
    assert asked(port, {**message, "seq": 8})["reason"].startswith("mac: expected that of this")
    if shutil.which("openssl"):
        words = ["openssl", "dgst", "-sha256", "-hmac", port.token]
        done = subprocess.run(words, input=text, capture_output=True, check=True)
        assert done.stdout.decode().split()[-1] == mac


@pytest.mark.skipif(not shutil.which("openssl"), reason="the page's lines use it")
def test_the_pages_lines_for_a_shell_are_heard(rig: Rig, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "control.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(exec 3.*?)```", page, flags=re.DOTALL)
    decoder = rig.decoder()
    commands = Commands(decoder, {"day_2": decoder.prepare(rig.b)})
    opened = ControlPort("udp://127.0.0.1:0", commands, token_file=tmp_path / "run.token")
    opened.start()
    _, number = loopback_address(opened.address)
    try:
        lines = block.replace("/5100", f"/{number}")
        done = subprocess.run(["bash", "-c", lines], cwd=tmp_path, capture_output=True, timeout=60)
        answer = json.loads(done.stdout)
    finally:
        opened.stop()
    assert (answer["ok"], answer["reason"]) == (True, "from the next value on")
    assert decoder.session_id == "tiny_b"


def test_numbers_ascend_and_what_was_recorded_cannot_be_played_again(port: ControlPort) -> None:
    first, second = signed(port, "zero", 5), signed(port, "resume", 6)
    assert asked(port, first)["ok"]
    assert asked(port, first)["ok"], "the newest, if its answer was lost"
    assert port._commands.to_json()["accepted"] == {"zero": 1}, "and is not obeyed again"
    assert asked(port, second)["ok"]
    assert asked(port, first) == {
        "seq": 5, "ok": False, "reason": "seq: expected more than 6, the newest so far, got 5"
    }  # fmt: skip
    assert port._commands.held == ""


def test_a_stop_is_obeyed_whatever_its_number(port: ControlPort) -> None:
    assert asked(port, signed(port, "zero", (1 << 63) - 1))["ok"]
    assert asked(port, signed(port, "stop", 3))["ok"]
    assert port._commands.stopped


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "expected one JSON object"),
        (b"\xff\xfe", "expected one JSON object"),
        (b"[" * 4000, "expected one JSON object"),
        (b"7", "expected one JSON object, got int"),
        (b" " * 5000, "expected a message of at most 4096 bytes"),
        ({"command": "stop"}, "seq: expected an integer from 1"),
        ({"command": "stop", "seq": True}, "seq: expected an integer from 1"),
        ({"command": "stop", "seq": 1 << 63}, "seq: expected an integer from 1"),
        ({"command": "stop", "seq": -1}, "seq: expected an integer from 1"),
        ({"command": None, "seq": 1}, "command: expected its name"),
        ({"command": "stop", "seq": 1}, "mac: expected 64 hexadecimal digits, got none"),
        ({"command": "stop", "seq": 1, "mac": "ü"}, "mac: expected 64 hexadecimal digits"),
        ({"command": "stop", "seq": 1, "mac": "00" * 32}, "mac: expected that of this message"),
        ({"command": "fly", "seq": 1, "mac": ""}, "command: expected one of swap"),
        ({"command": "swap", "seq": 1, "session": 7, "mac": ""}, "session: expected text"),
        ({"command": "swap", "seq": 1, "path": "/", "mac": ""}, "expected no key 'path'"),
        ({"command": "swap", "seq": 1, "session": "a", "now": 1, "mac": ""}, "expected text, and"),
    ],
)
def test_what_nobody_has_to_obey_is_refused_with_its_reason(
    port: ControlPort, message: bytes | dict[str, Any], reason: str
) -> None:
    answer = asked(port, message)
    assert not answer["ok"]
    assert reason in answer["reason"]
    assert port._commands.held == ""
    assert port._commands.to_json()["newest"][-1]["from"] == "127.0.0.1:9"


def test_a_signature_covers_every_part(port: ControlPort) -> None:
    real = json.loads(signed(port, "swap", 1, "tiny_b"))
    for change in ({"session": "tiny_a"}, {"now": True}, {"seq": 2}):
        assert asked(port, {**real, **change})["reason"].startswith("mac: expected that of this")
    real = json.loads(signed(port, "pause", 1))
    assert asked(port, {**real, "command": "resume"})["reason"].startswith("mac: expected that")


def test_a_stop_gets_through_a_flood(port: ControlPort) -> None:
    host, number = loopback_address(port.address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        for _ in range(3000):
            flood.sendto(b"x", (host, number))
    assert tell(port.address, port.token, "stop", timeout_s=20.0).ok
    found = port._commands.to_json()
    assert found["not_recorded"] > 0
    assert found["refused"] <= 3000


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("udp://0.0.0.0:5100", "expected an address of this machine alone"),
        ("udp://192.168.0.7:5100", "expected an address of this machine alone"),
        ("udp://rig.lab:5100", "expected an address of this machine alone"),
        ("udp://[::1]:5100", "expected an address of this machine alone"),
        ("tcp://127.0.0.1:5100", "expected an address like udp://127.0.0.1:5100"),
        ("udp://127.0.0.1", "expected HOST:PORT"),
        ("udp://127.0.0.1:99999", "expected an address"),
        ("udp://127.0.0.1:1?token=x", "expected options none"),
    ],
)
def test_addresses_of_other_machines_are_refused(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        loopback_address(address)
    assert loopback_address("udp://localhost:7") == ("127.0.0.1", 7)
    assert loopback_address("udp://127.3.2.1:7") == ("127.3.2.1", 7)


def test_a_port_that_is_taken_is_one_sentence(port: ControlPort, rig: Rig) -> None:
    with pytest.raises(UsageError, match=r"--control: expected a free port, got .* in use"):
        ControlPort(port.address, Commands(rig.decoder()))


def test_the_token_file_is_for_its_owner_alone_and_goes_with_the_run(
    rig: Rig, tmp_path: Path
) -> None:
    path = tmp_path / "run.token"
    path.write_text("of a run that was killed")
    path.chmod(0o644)
    opened = ControlPort("udp://127.0.0.1:0", Commands(rig.decoder()), token_file=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert client.read_token(path) == opened.token
    assert len(bytes.fromhex(opened.token)) == 32
    opened.stop()
    assert not path.exists()
    with pytest.raises(UsageError, match="none that can be read"):
        client.read_token(path)
    path.write_text("short")
    with pytest.raises(UsageError, match="expected a token of a run, got 5 letters"):
        client.read_token(path)
    with pytest.raises(UsageError, match="existing folder"):
        ControlPort("udp://127.0.0.1:0", Commands(rig.decoder()), token_file=tmp_path / "no" / "t")


def test_another_runs_token_file_is_left_alone(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "run.token"
    first = ControlPort("udp://127.0.0.1:0", Commands(rig.decoder()), token_file=path)
    second = ControlPort("udp://127.0.0.1:0", Commands(rig.decoder()), token_file=path)
    first.stop()
    assert client.read_token(path) == second.token
    second.stop()


def test_nobody_who_answers_is_one_sentence() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UsageError, match="expected a run that answers, got no answer within"):
            tell(address, "0" * 64, "stop", timeout_s=0.3)
        silent.settimeout(1)
        sent = {silent.recv(4096), silent.recv(4096)}
        assert len(sent) == 1, "the same message again, which is obeyed once"


def test_a_message_whose_answer_was_lost_is_obeyed_once(port: ControlPort) -> None:
    host, number = loopback_address(port.address)
    message = signed(port, "mark", 9, "once")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(3):
            peer.sendto(message, (host, number))
    wait_until(lambda: port.messages == 3)
    assert port._commands.to_json()["accepted"] == {"mark": 1}
