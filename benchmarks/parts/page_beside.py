"""A page of a rig that is measured, and a client that takes all that it draws.

``python page_beside.py URL SECONDS`` is that client: it draws nothing itself, as a browser on
another machine.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2] / "tests"))
PATIENCE_S = 60.0
_CONNECTS_S = 1.5


@contextlib.contextmanager
def page_beside(ring: str, seconds: float) -> Iterator[None]:
    """A page of a ring in a process of its own, with its client in another, until the end."""
    from poyo_edge.runtime.page.launching import PageProcess

    said = list[str]()
    page = PageProcess(ring, port=0, say=said.append)
    if not page.told.wait(PATIENCE_S) or not page.url:
        raise RuntimeError(f"page: expected one that is served, got {said}")
    client = subprocess.Popen(
        [sys.executable, str(HERE), page.url, str(seconds)], stdout=subprocess.PIPE, text=True,
        preexec_fn=behind,
    )  # fmt: skip
    try:
        threading.Event().wait(_CONNECTS_S)
        if client.poll() is not None:
            raise RuntimeError("page: expected a client that stays, got one that ended")
        yield
    finally:
        client.kill()
        client.communicate()
        os.kill(page.pid, 9)


def behind() -> None:
    """Where the decoder runs under SCHED_FIFO, who looks does not."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def main(url: str, seconds: float) -> None:
    """Take all that the page draws."""
    from helpers.pages.serving import Served

    print(Served(None, url).watched(seconds), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
