"""Says when a heartbeat stays behind: a decode that hangs cannot say so itself.

It runs in a thread of its own, so it works for whatever lets go of Python's lock: ONNX Runtime,
CUDA, sockets and files do. What holds the lock, or a process that is gone, only another process
can notice: watch the shared memory (``shm:NAME``) or the stream of values from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from poyo_edge.errors import UsageError
from poyo_edge.runtime.worker import Worker

_log = logging.getLogger(__name__)
_SAY_EACH_NS = 10_000_000_000
"""Stalls that follow each other sooner are counted and not logged."""


class Watchdog:
    """Calls ``on_stall`` once each time that a heartbeat stays behind for longer than a limit.

    Args:
        beat: gives the time of the last heartbeat in ns of ``now_ns``; 0 before the first.
        limit_s: how far it may stay behind.
        on_stall: called with the seconds that it is behind, in the watchdog's thread.
        on_recovery: called with the seconds that it had been behind in this stall when it goes on.
        now_ns: the clock of the heartbeat.
    """

    def __init__(
        self,
        beat: Callable[[], int],
        *,
        limit_s: float,
        on_stall: Callable[[float], None] | None = None,
        on_recovery: Callable[[float], None] | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if not limit_s > 0:
            raise UsageError(f"limit_s: expected seconds > 0, got {limit_s!r}")
        self.limit_s = limit_s
        self.stalled = False
        self.stalls = 0
        self.longest_s = 0.0
        self._behind_s = 0.0
        self._quiet_until: int | None = None
        self._said = False
        self._beat, self._now = beat, now_ns
        self._on_stall = on_stall or (lambda _: None)
        self._on_recovery = on_recovery or (lambda _: None)
        self._worker = Worker(self._run, "watchdog")

    def check(self) -> bool:
        """Look once; True while the heartbeat is behind."""
        beat, now = self._beat(), self._now()
        behind = (now - beat) / 1e9 if beat else 0.0
        if behind > self.limit_s:
            self.longest_s = max(self.longest_s, behind)
            self._behind_s = behind
            if not self.stalled:
                self.stalled = True
                self.stalls += 1
                self._said = self._quiet_until is None or now >= self._quiet_until
                if self._said:
                    self._quiet_until = now + _SAY_EACH_NS
                    _log.error("nothing was decoded for %.3f s", behind)
                self._on_stall(behind)
        elif self.stalled:
            self.stalled = False
            if self._said:
                _log.warning("decoding goes on after %.3f s", self._behind_s)
            self._on_recovery(self._behind_s)
        return self.stalled

    def start(self) -> None:
        """Look four times per limit, in a thread of its own, until ``stop``."""
        self._worker.start()

    def stop(self) -> None:
        """End the thread. May be called again."""
        self._worker.stop()

    def to_json(self) -> dict[str, Any]:
        """What was seen, as JSON values."""
        return {
            "stalled": self.stalled,
            "stalls": self.stalls,
            "longest_s": round(self.longest_s, 3),
        }

    def _run(self) -> None:
        while not self._worker.stopping.wait(self.limit_s / 4):
            try:
                self.check()
            except Exception:  # A listener that fails must not end the watch.
                _log.exception("the watchdog's listener failed")
