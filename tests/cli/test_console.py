"""Progress on a terminal and without one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from poyo_edge.cli.console import Console

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_terminal(code: str) -> tuple[list[str], str]:
    """Lines that a terminal on stderr shows in the end, and what stdout got."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=theirs, text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    ) as child:  # fmt: skip
        os.close(theirs)
        said = b""
        try:
            while some := os.read(ours, 65536):
                said += some
        except OSError:  # Linux says so when the other end is closed
            pass
        os.close(ours)
        out = child.communicate()[0]
    lines = _CONTROL.sub("", said.decode()).split("\r\n")
    return [line.rpartition("\r")[2] for line in lines], out


BEGIN = """
import sys
from poyo_edge.cli.console import Console
console = Console()
console.progress(1, 4, "first [red]\\x1b[2J")
console.progress(2, 4, "second [red]\\x1b[2J")
"""


def test_without_a_terminal_there_is_a_line_each_quarter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console()
    for done in range(1, 10):
        console.progress(done, 9, f"loss {done}" if done < 9 else "")
    said = capsys.readouterr()
    assert said.err == "  2/9 loss 2\n  4/9 loss 4\n  6/9 loss 6\n  8/9 loss 8\n  9/9\n"
    assert said.out == ""
    Console(quiet=True).progress(1, 1)
    assert capsys.readouterr().err == ""


def test_without_a_terminal_there_is_a_line_each_minute_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("poyo_edge.cli.console.time.monotonic", lambda: now[0])
    console = Console()
    for done in range(1, 8):
        console.progress(done, 1000)
        now[0] += 25.0
    assert capsys.readouterr().err == "  4/1000\n  7/1000\n"
    console.progress(1000, 1000)
    assert capsys.readouterr().err == "  1000/1000\n"


def test_a_terminal_shows_one_bar_with_the_newest_figures() -> None:
    lines, out = on_terminal(BEGIN + "console.progress(4, 4, 'end')\nprint('out')")
    assert [line.split("━")[-1].strip() for line in lines] == ["4/4 end", ""]
    assert out == "out\n"


@pytest.mark.slow
def test_a_sentence_and_a_result_begin_below_an_open_bar() -> None:
    lines, out = on_terminal(BEGIN + "console.step('next'); console.result({}, 'done')")
    assert lines[0].endswith("2/4 second [red]\\u001b[2J")
    assert lines[1:] == ["· next", ""]
    assert out == "done\n"
    lines, out = on_terminal(BEGIN + "console.result({}, 'done')")
    assert (len(lines), out) == (2, "done\n")


@pytest.mark.slow
def test_a_warning_does_not_tear_an_open_bar() -> None:
    lines, _ = on_terminal(BEGIN + "print('careful', file=sys.stderr); console.progress(4, 4)")
    assert lines[0] == "careful"
    assert [line.split("━")[-1].strip() for line in lines[1:]] == ["4/4", ""]


@pytest.mark.slow
def test_an_error_begins_below_the_bar_that_it_ends() -> None:
    code = f"""
from poyo_edge.cli.shared import LOOK, app, command
from poyo_edge.errors import UsageError
@command(LOOK, example="poyo-edge broken")
def broken() -> None:
    exec({BEGIN!r})
    raise UsageError("expected more")
app(["broken"])
"""
    lines, _ = on_terminal(code)
    assert "2/4 second" in lines[0]
    assert lines[1:] == ["error: expected more", ""]
