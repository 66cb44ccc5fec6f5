"""Waiting for what another thread or process does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 180.0
"""For what comes in a moment, unless something is broken, or the machine starves a thread in the
background."""


def wait_until(condition: Callable[[], object], *, every_s: float = 0.01) -> None:
    """Look again and again until it is so, or patience is at its end: the test then says."""
    until = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < until:
        time.sleep(every_s)


def until(event: threading.Event, act: Any) -> None:
    """Do it again and again until the event is set."""
    deadline = time.monotonic() + PATIENCE_S
    while not event.wait(0.01):
        assert time.monotonic() < deadline
        act()
