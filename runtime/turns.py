"""How long a thread may keep Python's lock while another one wants it."""

from __future__ import annotations

import sys
import threading

SECONDS = 5e-4
"""The default is 5 ms, as long as a decode. Shorter ones interrupt the decoding thread more."""


class ShortTurns:
    """While anyone is inside, no thread keeps Python's lock for longer than ``SECONDS``.

    The switch interval belongs to the whole process, so it is set when the first comes and given
    back when the last leaves, whichever order they leave in.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._usual = 0.0

    def __enter__(self) -> float:
        """The switch interval from here on, in seconds."""
        with self._lock:
            if not self._inside:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual, SECONDS))
            self._inside += 1
            return sys.getswitchinterval()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                sys.setswitchinterval(self._usual)


short_turns = ShortTurns()
"""Of this process: loops and fits enter the same."""
