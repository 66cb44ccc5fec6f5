"""How a live run ends: asked to by a signal, and as no success where it decoded nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from poyo_edge.errors import CheckFailedError


@contextmanager
def until_asked() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a terminal that is closed set.

    Behind nohup that is none. It comes more than once, so what is written in the end outlives it.
    """
    stop = threading.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        if stop.is_set() and signal.SIGHUP in before:
            before[signal.SIGHUP] = signal.SIG_IGN
        for number, handler in before.items():
            signal.signal(number, handler)


def require_decoded(who: str, stats: Mapping[str, Any]) -> None:
    """A run that decoded nothing of what it was for is no success.

    Args:
        who: ran, for the message.
        stats: ``Rig.stats()`` at its end.

    Raises:
        CheckFailedError: no spike was used, or no window decoded.
    """
    used, windows = stats["decoder"]["counters"]["accepted"], stats["loop"]["decoded"]
    if used and windows:
        return
    got = "no window was decoded" if used else "no spike was used"
    nothing = f"{stats['feed']['messages']} messages came; check the address and its options"
    raise CheckFailedError(
        f"{who}: expected spikes of the session's units, but {got}: "
        f"{first_reason(stats) or nothing}"
    )


def first_reason(stats: Mapping[str, Any]) -> str:
    """What could not be used first, in a sentence; "" if all could.

    What is well-formed and nothing for a decoder counts only while no spike has been used.
    """
    feed = stats["feed"]
    problem = feed.get("first_problem") or stats.get("unknown_units") or ""
    if problem or stats["decoder"]["counters"].get("accepted"):
        return str(problem)
    return str(feed.get("last_failure") or feed.get("first_ignored") or "")
