"""When a backend fails, the same window is decoded by another one: nothing waits for a repair."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.runtime.backends.buckets import WindowTooLargeError
from poyo_edge.runtime.backends.opening import Backend, Feeds

_log = logging.getLogger(__name__)


class FallbackBackend:
    """A backend with a second one behind it, opened and warm, for when the first fails.

    After a failure the first one is not asked again: an engine that failed once, or a GPU that
    was lost, would cost every later window its deadline. Open the decoder again to return to it.
    """

    def __init__(self, first: Backend, second: Backend) -> None:
        self._first, self._second = first, second
        self._lost = False
        self.fallen_back = False
        """Whether the second one decoded the last window."""

    @property
    def name(self) -> str:
        """Name of the backend that decoded the last window."""
        return (self._second if self.fallen_back else self._first).name

    @property
    def precision(self) -> str:
        """Precision of the backend that decoded the last window."""
        backend = self._second if self.fallen_back else self._first
        return str(getattr(backend, "precision", "fp32"))

    def keep_warm(self, pause_s: float) -> None:
        """See ``TensorRTBackend.keep_warm``.

        Raises:
            UsageError: the first backend has nothing to keep warm.
        """
        keep = getattr(self._first, "keep_warm", None)
        if keep is None:
            raise UsageError(f"keep_warm_s: expected a TensorRT backend, got {self._first.name}")
        keep(pause_s)

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
                    self.fallen_back = False
                    return prediction
                self._lost = True
                _log.error("%s gave NaN, %s decodes", self._first.name, self._second.name)
        self.fallen_back = True
        return self._second.run(feeds)
