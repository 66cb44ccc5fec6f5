"""The one place where the command line prints: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TextIO

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_DRAW_EACH_S = 0.1
_SAY_EACH_S = 60.0


class Console:
    """Where a command's words go.

    Args:
        as_json: print exactly one JSON object, and no other results.
        quiet: print no progress.
    """

    _bar: ClassVar[_Bar | None] = None
    """The bar that is open: a terminal has one, whichever console opened it."""
    _said_s: ClassVar[float | None] = None
    """When a line of progress was last printed where no terminal is."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    def step(self, sentence: str) -> None:
        """A sentence about what happens next (stderr)."""
        if not self.quiet:
            self.close_bar()
            print(f"· {printable(sentence)}", file=sys.stderr, flush=True)

    def progress(self, done: int, total: int, note: str = "") -> None:
        """A bar that stays on its line; where no terminal is, a line each quarter and minute."""
        if self.quiet:
            return
        last, note = done >= total, printable(note)
        if not self.on_terminal():
            now = time.monotonic()
            Console._said_s = now if Console._said_s is None else Console._said_s
            if last or done % max(1, total // 4) == 0 or now - Console._said_s >= _SAY_EACH_S:
                print(f"  {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)
                Console._said_s = None if last else now
            return
        if Console._bar is None:
            Console._bar = _Bar(done, total, note)
        else:
            Console._bar.move(done, total, note)
        if last:
            self.close_bar()

    def result(self, values: Mapping[str, Any], text: str) -> None:
        """The result: ``values`` as one JSON object, or ``text`` for people."""
        self.close_bar()
        said = json.dumps(values, ensure_ascii=False) if self.as_json else text
        print(printable(said), flush=True)  # what a full disk does not take is an error now

    @staticmethod
    def on_terminal() -> bool:
        """Whether progress is a bar; behind an open one rich's stderr may say that it is none."""
        return Console._bar is not None or sys.stderr.isatty()

    @staticmethod
    def close_bar() -> None:
        """Leave the open bar as it stands; what is printed next begins below it."""
        if Console._bar is not None:
            Console._bar.close()
            Console._bar = None


class _Bar:
    """A bar of rich's on stderr, drawn in this thread: commands fork, and threads hold locks."""

    def __init__(self, done: int, total: int, note: str) -> None:
        from rich.console import Console as Screen
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn(" "),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} {task.fields[note]}", markup=False),
            console=Screen(stderr=True, highlight=False),
            auto_refresh=False,
            redirect_stdout=False,
        )
        self._task = self._progress.add_task("", completed=done, total=total, note=note)
        self._progress.start()
        self._progress.console.show_cursor(True)  # a process that is killed cannot bring it back
        self._drawn_s = time.monotonic()

    def move(self, done: int, total: int, note: str) -> None:
        """New figures; they are drawn ten times a second at most."""
        now = time.monotonic()
        due = now - self._drawn_s >= _DRAW_EACH_S
        self._progress.update(self._task, completed=done, total=total, note=note, refresh=due)
        if due:
            self._drawn_s = now

    def close(self) -> None:
        """Draw it once more and end its line."""
        self._progress.stop()


@contextmanager
def bar_closed_behind() -> Iterator[None]:
    """However the work ends, nothing is printed into a bar that it left open."""
    try:
        yield
    finally:
        Console.close_bar()


def printable(text: str) -> str:
    """Text in which nothing commands the terminal: names in files are whatever someone wrote.

    Control characters and half surrogates become \\uXXXX, as JSON writes them.
    """
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def program() -> str:
    """How to call this command line again: its name, or its path when that is not on PATH."""
    name = "poyo-edge"
    if shutil.which(name):
        return name
    beside = Path(sys.executable).with_name(name)
    if not beside.exists():
        return name
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)


def complain(error: BaseException, file: TextIO | None = None) -> None:
    """One line on stderr."""
    print(f"error: {printable(str(error))}", file=file or sys.stderr)
