"""A thread that works until it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from poyo_edge.errors import UsageError


class Stopping(threading.Event):
    """Set when a worker is to stop, and sets what it waits for instead.

    Args:
        wakes: an event that the work waits for.
    """

    def __init__(self, wakes: threading.Event) -> None:
        super().__init__()
        self._wakes = wakes

    def set(self) -> None:
        """Set both."""
        super().set()
        self._wakes.set()


class Worker:
    """One job that can be started, stopped, and started again.

    Args:
        work: returns soon after ``stopping`` is set.
        name: of the thread, behind "poyo-edge-".
        stopping: set to stop it; None makes one.
    """

    def __init__(
        self, work: Callable[..., None], name: str, stopping: threading.Event | None = None
    ) -> None:
        self.stopping = stopping or threading.Event()
        self._work, self._name = work, name
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def started(self) -> bool:
        """Whether it was started and not stopped."""
        return self._thread is not None

    def start(self, *arguments: Any) -> None:
        """Call ``work`` in a thread of its own; returns at once.

        Raises:
            UsageError: it was started and not stopped.
        """
        if self.started:
            raise UsageError(f"start: expected a {self._name} that does not run, got one that does")
        self.stopping.clear()
        self._thread = threading.Thread(
            target=self._work, args=arguments, name=f"poyo-edge-{self._name}", daemon=True
        )
        self._thread.start()

    def stop(self, within_s: float | None = None) -> None:
        """Tell it to stop and wait until it has, unless called from within. May be called again.

        Args:
            within_s: wait no longer than so; then it may still run (``alive``).
        """
        self.stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(within_s)
            if not self._thread.is_alive():
                self._thread = None
