"""The one place where the command line prints: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Console:
    """Where a command's words go.

    Args:
        as_json: print exactly one JSON object, and no other results.
        quiet: print no progress.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._bar_open = False

    def step(self, sentence: str) -> None:
        """A sentence about what happens next (stderr)."""
        if not self.quiet:
            self._close_bar()
            print(f"· {printable(sentence)}", file=sys.stderr, flush=True)

    def progress(self, done: int, total: int, note: str = "") -> None:
        """A bar that stays on its line; on a stream that is no terminal, a line each quarter."""
        last = done >= total
        if self.quiet:
            return
        if not sys.stderr.isatty():
            if last or done % max(1, total // 4) == 0:
                print(f"  {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)
            return
        filled = int(24 * done / max(total, 1))
        bar = "█" * filled + "░" * (24 - filled)
        print(f"\r  {bar} {done}/{total} {note:<24}", end="", file=sys.stderr, flush=True)
        self._bar_open = True
        if last:
            self._close_bar()

    def result(self, values: Mapping[str, Any], text: str) -> None:
        """The result: ``values`` as one JSON object, or ``text`` for people."""
        self._close_bar()
        print(printable(json.dumps(values, ensure_ascii=False) if self.as_json else text))

    def _close_bar(self) -> None:
        if self._bar_open:
            print(file=sys.stderr)
            self._bar_open = False


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
