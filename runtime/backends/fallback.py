"""When a backend fails, the same window is decoded by another one: nothing waits for a repair."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from poyo_edge.runtime.backends.base import Backend, Feeds
from poyo_edge.runtime.backends.buckets import WindowTooLargeError

_log = logging.getLogger(__name__)


class FallbackBackend(Backend):
    """A backend with a second one behind it, opened and warm, for when the first fails.

    After a failure the first one is not asked again: an engine that failed once, or a GPU that
    was lost, would cost every later window its deadline. Open the decoder again to return to it.
    """

    def __init__(self, first: Backend, second: Backend) -> None:
        self._first, self._second = first, second
        self._lost = False
        self._decoded_by(first)

    def keep_warm(self, pause_s: float) -> None:
        """See ``TensorRTBackend.keep_warm``.

        Raises:
            UsageError: the first backend has nothing to keep warm.
        """
        self._first.keep_warm(pause_s)

    def run(self, feeds: Feeds) -> npt.NDArray[np.float32]:
        """(B, Q, O) float32 predictions in the model's scale.

        Raises:
            BackendError: both failed.
        """
        if not self._lost:
            try:
                prediction = self._first.run(feeds)
            except WindowTooLargeError:  # this window, or this session, and no other
                pass
            except Exception as problem:  # Whatever it is, this window still has a second chance.
                self._lost = True
                _log.error(
                    "%s failed, %s decodes: %r", self._first.name, self._second.name, problem
                )
            else:
                if np.isfinite(prediction).all():
                    if self.fallen_back:
                        self._decoded_by(self._first)
                    return prediction
                self._lost = True
                _log.error("%s gave NaN, %s decodes", self._first.name, self._second.name)
        if not self.fallen_back:
            self._decoded_by(self._second)
        return self._second.run(feeds)

    def _decoded_by(self, backend: Backend) -> None:
        self.name, self.precision = backend.name, backend.precision
        self.fallen_back = backend is self._second
