"""When a backend fails or is late, the same window is decoded by another one."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque

import numpy as np
import numpy.typing as npt

from poyo_edge.runtime.backends.base import Backend, Feeds, LateError
from poyo_edge.runtime.backends.buckets import WindowTooLargeError

_log = logging.getLogger(__name__)
GOOD_WINDOWS = 20
"""A backend that was late is used again after so many windows in a row that were back before the
other one had answered them."""
_REHEARSALS = 3
"""Windows after opening that the second backend decodes too, so that it is warm and was timed."""
_TIMED = 512


class FallbackBackend(Backend):
    """A backend with a second one behind it, opened and warm, for when the first fails.

    After a failure the first one is not asked again: an engine that failed once, or a GPU that
    was lost, would cost every later window its deadline. Open the decoder again to return to it.
    One that was only late is given windows whose answer nobody waits for, until ``GOOD_WINDOWS``
    of them were back in time.
    """

    def __init__(self, first: Backend, second: Backend) -> None:
        self._first, self._second = first, second
        self._lost = False
        self._good: int | None = None
        """Windows in a row that were back in time since it was late; None while it is trusted."""
        self._period_s: float | None = None
        self._took = deque[float](maxlen=_TIMED)
        """Seconds of the second one, each window."""
        self._decoded_by(first)

    def keep_warm(self, pause_s: float) -> None:
        """See ``TensorRTBackend.keep_warm``.

        Raises:
            UsageError: the first backend has nothing to keep warm.
        """
        self._first.keep_warm(pause_s)

    def set_period(self, period_s: float) -> None:
        """Say how often a window is decoded, in seconds."""
        self._period_s = period_s
        self._first.set_period(period_s)

    def run(self, feeds: Feeds) -> npt.NDArray[np.float32]:
        """(B, Q, O) float32 predictions in the model's scale.

        Raises:
            BackendError: both failed, or the first is late and the second would be late too.
        """
        ends = None if self._period_s is None else time.perf_counter() + self._period_s
        if not self._lost:
            try:
                prediction = self._ask(feeds, ends)
            except WindowTooLargeError:  # this window, or this session, and no other
                pass
            except LateError as problem:
                self._note_late(problem)
                if not self._fits(ends):
                    raise
            except Exception as problem:  # Whatever it is, this window still has a second chance.
                self._lost = True
                _log.error(
                    "%s failed, %s decodes: %r", self._first.name, self._second.name, problem
                )
            else:
                if np.isfinite(prediction).all():
                    return prediction
                self._lost = True
                _log.error("%s gave NaN, %s decodes", self._first.name, self._second.name)
        return self._behind(feeds)

    def _ask(self, feeds: Feeds, ends: float | None) -> npt.NDArray[np.float32]:
        """What the first one says; while it is on trial, what the second says where it has time."""
        if self._good is not None and self._fits(ends):
            begun = self._first.offer(feeds)
            prediction = self._behind(feeds)
            self._judge(begun and self._first.idle())
            return prediction
        prediction = self._first.run(feeds)
        if self._good is not None:
            self._judge(True)
        if len(self._took) < _REHEARSALS:
            with contextlib.suppress(Exception):  # then it is not timed, and fails when needed
                self._behind(feeds)
        if self.fallen_back or self.name != self._first.name:
            self._decoded_by(self._first)
        return prediction

    def _judge(self, in_time: bool) -> None:
        """One more window of a backend on trial."""
        self.late += not in_time
        self._good = (self._good or 0) + 1 if in_time else 0
        if self._good >= GOOD_WINDOWS:
            self._good = None
            _log.warning("%s is in time again and decodes", self._first.name)

    def _note_late(self, problem: LateError) -> None:
        self.late += 1
        if self._good is None:
            _log.error("%s is late, %s decodes: %s", self._first.name, self._second.name, problem)
        self._good = 0

    def _fits(self, ends: float | None) -> bool:
        """Whether the second one is back before ``ends`` in 99 of 100 windows, as measured."""
        if ends is None or not self._took:
            return True
        return time.perf_counter() + float(np.percentile(self._took, 99)) <= ends

    def _behind(self, feeds: Feeds) -> npt.NDArray[np.float32]:
        if not self.fallen_back:
            self._decoded_by(self._second)
        started = time.perf_counter()
        prediction = self._second.run(feeds)
        self._took.append(time.perf_counter() - started)
        return prediction

    def _decoded_by(self, backend: Backend) -> None:
        self.name, self.precision = backend.name, backend.precision
        self.fallen_back = backend is self._second
