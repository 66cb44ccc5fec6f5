"""Starts a page in a process of its own, that nobody waits for and that ends with nobody."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable

from poyo_edge.runtime.page.server import require_bokeh

_MODULE = "poyo_edge"


class PageProcess:
    """A page of a ring, started when it is made; the rig goes on whatever becomes of it.

    It is in a session of its own, so Ctrl-C in the rig's terminal, or its end, does not reach it:
    it says that the rig is gone, and ends when no browser looks at it any more.

    Args:
        run: name or path of the ring.
        port: None takes a free one.
        say: told, from a thread, in one sentence, where it is or why it is not.

    Raises:
        MissingExtraError: Bokeh is not there.
    """

    def __init__(self, run: str, *, port: int | None, say: Callable[[str], None]) -> None:
        require_bokeh()
        self.url = ""
        words = [sys.executable, "-m", _MODULE, "page", run, "--json"]
        self._process = subprocess.Popen(
            words + ([] if port is None else ["--port", str(port)]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        self._say = say
        self.told = threading.Event()
        """Set when it has been said where the page is, or why there is none."""
        threading.Thread(target=self._listen, name="poyo-edge-page", daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the page's process."""
        return self._process.pid

    def _listen(self) -> None:
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        with contextlib.suppress(ValueError, LookupError, TypeError):
            self.url = json.loads(line)["url"]
        if self.url:
            self._say(f"the page is at {self.url}")
        self.told.set()
        last = ""
        for line in process.stderr:  # it must never wait for somebody to read
            last = line.strip() or last
        process.wait()
        if not self.url:
            self._say(f"there is no page: {last.removeprefix('error: ')}")
            self.told.set()
