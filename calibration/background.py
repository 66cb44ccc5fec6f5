"""A fit beside decoding: in a thread of its own that gives way to everything else."""

from __future__ import annotations

import atexit
import ctypes
import functools
import logging
import os
import threading
from collections.abc import Callable

from poyo_edge.calibration.calibrated import CalibratedSession
from poyo_edge.calibration.fit.pace import Progress
from poyo_edge.errors import PoyoEdgeError
from poyo_edge.runtime.turns import short_turns

_log = logging.getLogger(__name__)
_NICE = 10
_M_MMAP_THRESHOLD, _LARGE = -3, 1 << 18
"""A parameter of glibc's ``mallopt``, and the bytes from which a piece of memory stands alone."""


class BackgroundFit:
    """A fit that runs. Made by ``Calibrator.start``."""

    def __init__(
        self,
        fit: Callable[[threading.Event, Callable[[Progress], None]], CalibratedSession],
        on_done: Callable[[BackgroundFit], None] | None = None,
    ) -> None:
        self._fit: Callable[..., CalibratedSession] | None = fit
        self._on_done = on_done
        self._stop = threading.Event()
        self._session: CalibratedSession | None = None
        self._error: BaseException | None = None
        self._progress: Progress | None = None
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poyo-edge-fit", daemon=True)
        atexit.register(self._leave)
        self._thread.start()

    @property
    def progress(self) -> Progress | None:
        """How far it is; None before the first step."""
        return self._progress

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._finished.is_set()

    def stop(self) -> None:
        """Ask it to end with the best so far; it does so within a step."""
        self._stop.set()

    def result(self, timeout: float | None = None) -> CalibratedSession:
        """Wait for the session.

        Raises:
            TimeoutError: it still runs after ``timeout`` seconds.
            Exception: what the fit raised.
        """
        if not self._finished.wait(timeout):
            raise TimeoutError(f"the fit still runs after {timeout} s; wait longer or stop it")
        if self._error is not None:
            raise self._error
        assert self._session is not None
        return self._session

    def _run(self) -> None:
        _give_way()
        _let_large_pieces_go()
        fit, self._fit = self._fit, None
        assert fit is not None
        try:
            with short_turns:
                self._session = fit(self._stop, self._note)
        except BaseException as error:  # Handed to whoever asks for the result.
            known = isinstance(error, PoyoEdgeError)
            _log.warning("the fit ended with an error: %s", error, exc_info=not known)
            self._error = _alone(error)
        finally:
            del fit
            self._finished.set()
            atexit.unregister(self._leave)
            if self._on_done is not None:
                self._on_done(self)

    def _leave(self) -> None:
        """The program ends: so does the fit, within a step, before Python is taken down."""
        self._stop.set()
        self._thread.join()

    def _note(self, progress: Progress) -> None:
        self._progress = progress


def _alone(error: BaseException) -> BaseException:
    """An error without tracebacks, which hold all that the fit worked on: with the error in hand
    that is a circle, and Python may take an hour to look for it."""
    one: BaseException | None = error
    while one is not None and one.__traceback__ is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error


def _give_way() -> None:
    """Lower this thread's priority (Linux; elsewhere nothing is done)."""
    try:
        thread = threading.get_native_id()
        nicer = max(_NICE, os.getpriority(os.PRIO_PROCESS, thread))  # root could go the other way
        os.setpriority(os.PRIO_PROCESS, thread, nicer)
    except (AttributeError, OSError) as problem:
        _log.info("the fit keeps the priority of the process: %s", problem)


@functools.cache
def _let_large_pieces_go() -> None:
    """Let memory of large arrays return to the system when they are freed (glibc; else nothing).

    By itself glibc takes ever larger arrays out of pieces that it keeps, and what another thread
    got there meanwhile holds them: a rig grew by 15 to 40 MB with each fit.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    except (AttributeError, OSError) as problem:
        _log.info("memory of fits may stay with the process: %s", problem)
