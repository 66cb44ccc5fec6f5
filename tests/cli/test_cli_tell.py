"""``poyo-edge run --control`` and ``poyo-edge tell``, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.arrays import written_again
from helpers.commands import run, start
from helpers.waiting import wait_until

from poyo_edge.cli.control import control_lines
from poyo_edge.journal import Controlled, Journal
from poyo_edge.runtime.control import ControlSettings
from poyo_edge.simulation.recordings import Simulation, simulate_recording


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute under the unit ids of session a of the tiny artifact."""
    folder = tmp_path_factory.mktemp("tell")
    simulation = Simulation(duration_s=60.0, n_units=12)
    made = simulate_recording(folder / "sim.h5", session_id="s", seed=1, simulation=simulation)
    units = [f"tiny_a/unit_{i:02d}" for i in range(12)]
    return written_again(made, folder / "a.h5", unit_ids=units, domains={})


class Running:
    """A run that takes commands and sends its values to a socket of ours."""

    def __init__(self, tiny: Path, recording: Path, folder: Path, *more: str) -> None:
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))
        # A socket that nobody reads while commands take their time drops what comes last.
        self.values = queue.SimpleQueue[bytes]()
        threading.Thread(target=self._listen, daemon=True).start()
        self.token, self.journal = folder / "run.token", folder / "a.journal"
        self.child = start(
            "run", tiny, "--session", "tiny_a", "--from", f"file:{recording}", "--to",
            f"udp://127.0.0.1:{self.peer.getsockname()[1]}", "--control", "udp://127.0.0.1:0",
            "--also-session", "tiny_b", "--record", self.journal, "--json", *more,
        )  # fmt: skip
        assert self.child.stderr is not None
        self.said = ""
        for line in self.child.stderr:
            self.said += line
            if "commands arrive at" in line:
                break
        found = re.search(r"commands arrive at (udp://127.0.0.1:\d+)", self.said)
        assert found, self.said
        self.address = found[1]

    def until(self, wanted: Any) -> dict[str, Any]:
        """The first value that is wanted; those before are gone."""
        found: list[dict[str, Any]] = []

        def came() -> bool:
            found.append(json.loads(self.values.get(timeout=30)))
            return bool(wanted(found[-1]))

        wait_until(came, every_s=0)
        assert wanted(found[-1]), found[-1]
        return found[-1]

    def rest(self) -> list[dict[str, Any]]:
        """What came since the last one, up to the end."""
        found = list[dict[str, Any]]()
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(json.loads(self.values.get(timeout=0.5)))
        return found

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                self.values.put(self.peer.recv(65536))

    def tell(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run("tell", self.address, *words, "--token-file", self.token)


@pytest.fixture
def running(tiny: Path, recording: Path, tmp_path: Path) -> Iterator[Running]:
    token = str(tmp_path / "run.token")
    made = Running(
        tiny, recording, tmp_path, "--control-token-file", token, "--gain", "1.5",
        "--speed-cap", "8",
    )  # fmt: skip
    yield made
    made.child.kill()
    made.child.communicate()
    made.peer.close()


def test_a_run_is_told_what_to_do_until_it_is_told_to_stop(running: Running) -> None:
    assert stat.S_IMODE(running.token.stat().st_mode) == 0o600
    running.until(lambda one: any(one["value"]))
    done = running.tell("swap", "tiny_b")
    assert (done.returncode, done.stdout.strip()) == (0, "swap: from the next value on")
    assert running.tell("zero").returncode == 0
    zero = running.until(lambda one: one["flags"] == ["zeroed"] or "zeroed" in one["flags"])
    assert (zero["value"], zero["status"], any(zero["decoded"])) == ([0.0, 0.0], "HELD", True)
    refused = running.tell("swap", "/etc/passwd", "--json")
    assert refused.returncode == 3
    assert json.loads(refused.stdout)["ok"] is False
    assert "expected one of the sessions that were loaded at the start" in refused.stderr
    assert running.tell("resume").returncode == 0
    one = running.until(lambda one: any(one["value"]))
    assert abs(one["value"][0]) <= 8
    stopped = running.tell("stop")
    assert (stopped.returncode, stopped.stdout.strip()) == (
        0, "stop: values are zero, and the run ends"
    )  # fmt: skip
    out, said = running.child.communicate(timeout=60)
    assert running.child.returncode == 0, said
    values = json.loads(out)
    assert values["commands"]["accepted"] == {"swap": 1, "zero": 1, "resume": 1, "stop": 1}
    assert values["commands"]["refused"] == 1
    assert values["control"]["settings"]["gain"] == 1.5
    assert values["decoder"]["session_id"] == "tiny_b"
    assert not running.token.exists()
    entries = list(Journal(running.journal).entries())
    assert any(isinstance(one, Controlled) and one.held == "zeroed" for one in entries)
    # The zero is the loop's, or on a busy machine that of the command's side, and nothing follows.
    assert running.rest()[-1]["value"] == [0.0, 0.0]
    told = [one["command"] for one in entries if isinstance(one, dict) and "command" in one]
    assert told == ["swap", "zero", "swap", "resume", "stop"]


@pytest.mark.slow
def test_what_was_controlled_is_decoded_again(running: Running, tiny: Path) -> None:
    running.until(lambda one: any(one["value"]))
    running.tell("swap", "tiny_b")
    running.until(lambda one: one["status"] == "VALID" and any(one["value"]))
    running.tell("stop")
    running.child.communicate(timeout=60)
    done = run("verify", running.journal, "--artifact", tiny, "--json")
    assert done.returncode == 0, done.stdout
    values = json.loads(done.stdout)
    assert (values["exact"], values["swaps"], values["differ"]) == (True, 1, 0)


@pytest.mark.slow
def test_the_token_is_printed_where_no_file_is_wanted_even_when_quiet(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    made = Running(tiny, recording, tmp_path, "--quiet")
    try:
        found = re.search(r"its token is ([0-9a-f]{64})\n", made.said)
        assert found
        made.token.write_text(found[1])
        assert made.tell("mark", "a word").returncode == 0
        made.token.write_text("0" * 64)
        wrong = made.tell("stop")
        assert wrong.returncode == 3
        assert "stop was refused: mac: expected that of this message" in wrong.stderr
    finally:
        made.child.kill()
        made.child.communicate()
        made.peer.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--control", "udp://0.0.0.0:5100"], "expected an address of this machine alone"),
        (["--also-session", "tiny_b"], "--also-session: expected --control with it, got none"),
        (["--control-token-file", "t"], "--control-token-file: expected --control with it"),
        (["--control-settings", "none.json"], "none.json: expected a file of control settings"),
        (["--smoothing", "-3"], "smoothing_ms: expected 0 to 2000 ms, got -3"),
        (["--control", "udp://127.0.0.1:0", "--also-session", "x"], "one of the 2 ids"),
    ],
)
def test_words_that_cannot_be_meant_are_one_line(
    tiny: Path, words: list[str], message: str
) -> None:
    done = run("run", tiny, "--session", "tiny_a", "--from", "udp://127.0.0.1:0", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    token = tmp_path / "t"
    token.write_text("0" * 64)
    words = ["tell", "udp://127.0.0.1:9", "stop", "--token-file", token, "--timeout", "0.3"]
    done = run(*words)
    assert done.returncode == 2
    assert "expected a run that answers, got no answer within 0.3 s" in done.stderr


def test_the_end_says_what_was_shaped_and_told() -> None:
    off = {"control": None, "commands": {"accepted": {}, "refused": 0, "held": "", "newest": []}}
    assert control_lines(off) == {}
    settings = ControlSettings(gain=1.5, dwell_s=0.3, speed_cap=8.0)
    shaped = {"settings": settings.to_json(), "clicks": 2, "first_refused": "cursor: expected 2"}
    newest = [{"ok": False, "reason": "mac: expected another"}, {"ok": True, "reason": "done"}]
    told = {"accepted": {"stop": 1}, "refused": 4, "held": "stopped", "newest": newest}
    assert control_lines({"control": shaped, "commands": told}) == {
        "control": "gain 1.5, speed_cap 8, dwell_s 0.3, 2 clicks",
        "control left out": "cursor: expected 2",
        "commands": "stop 1, refused 4",
        "last refused": "mac: expected another",
        "values are zero": "stopped",
    }


@pytest.mark.slow
def test_without_a_terminal_or_a_file_no_token_is_asked_for() -> None:
    done = run("tell", "udp://127.0.0.1:9", "zero")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: --token-file: expected one where no terminal is to ask at, got none"
    )
