"""What a fit beside decoding leaves behind in memory when it is refused: nothing."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from helpers.waiting import PATIENCE_S

from poyo_edge.calibration import BackgroundFit, CalibratedSession
from poyo_edge.errors import CheckFailedError


def test_what_a_refused_fit_worked_on_is_let_go_at_once() -> None:
    """A rig that refuses one fit after the other grew by what each of them had in its hands."""
    pieces = list[weakref.ref[Any]]()

    def refused(stop: threading.Event, note: Any) -> CalibratedSession:
        large = np.zeros(1000)
        pieces.append(weakref.ref(large))
        raise CheckFailedError("no better than the session in use")

    gc.collect()
    gc.disable()
    try:
        fit = BackgroundFit(refused)
        with pytest.raises(CheckFailedError, match="no better"):
            fit.result(PATIENCE_S)
        fit._thread.join(PATIENCE_S)
        assert pieces[0]() is None
    finally:
        gc.enable()


def test_what_a_fit_was_made_of_is_let_go_when_it_ends() -> None:
    class Minutes:
        """Of spikes."""

    kept = Minutes()
    seen = weakref.ref(kept)

    def fitted(stop: threading.Event, note: Any, kept: Minutes = kept) -> CalibratedSession:
        raise CheckFailedError("no")

    fit = BackgroundFit(fitted)
    del kept, fitted
    fit._thread.join(PATIENCE_S)
    assert seen() is None
