"""Something to do for a GPU whose clocks may fall between two windows."""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from types import MethodType

from poyo_edge.errors import UsageError
from poyo_edge.runtime.backends.base import Backend

_log = logging.getLogger(__name__)


class KeepWarm:
    """Calls a method of a backend whenever nothing was noted for a while, from its own thread.

    It holds the backend weakly and ends with it. A call that fails ends it too: the next window
    meets the same failure, and falls back.
    """

    def __init__(self, nudge: Callable[[], None], pause_s: float) -> None:
        """``nudge`` is a bound method; ``pause_s`` is in seconds."""
        if not isinstance(nudge, MethodType):
            raise TypeError("expected a bound method")
        self._owner = weakref.WeakMethod(nudge)
        self._pause = pause_s
        self._last = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poyo-edge-keep-warm", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """A window was decoded just now."""
        self._last = time.monotonic()

    def stop(self) -> None:
        """End the thread, and wait until it has ended."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(max(self._last + self._pause - time.monotonic(), 1e-3)):
            if time.monotonic() - self._last < self._pause:
                continue
            nudge = self._owner()
            if nudge is None:
                return
            try:
                nudge()
            except Exception as problem:
                _log.error("keeping the GPU warm failed: %r", problem)
                return
            self.note()
            del nudge  # or the backend would never be let go


def keep_warm(backend: Backend, pause_s: float) -> None:
    """Ask a backend to keep its GPU's clocks up.

    Raises:
        UsageError: a pause that makes no sense, or a backend without anything to keep warm.
    """
    if not 1e-3 <= pause_s < math.inf:
        raise UsageError(f"keep_warm_s: expected finite seconds >= 0.001, got {pause_s!r}")
    backend.keep_warm(pause_s)
