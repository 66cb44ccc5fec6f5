"""Puts the slow part of a ring there once a second, in a thread of its own, with what happened.

Only changes that nobody else keeps with their time are made to events here: fits, swaps, commands,
verdicts, and what stops or fails.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from poyo_edge.errors import UsageError
from poyo_edge.runtime.page.ring.state import StateWriter
from poyo_edge.runtime.worker import Worker

_log = logging.getLogger(__name__)
EACH_S = 1.0
_MOST_EVENTS = 200
_LONGEST_REASON = 300


class StateTeller:
    """Tells the state of a rig from ``start`` to ``stop``.

    Args:
        writer: where it is put.
        gather: the state as JSON values; called in this thread.
        now_ns: the host's monotonic clock.
    """

    def __init__(
        self,
        writer: StateWriter,
        gather: Callable[[], Mapping[str, Any]],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._writer, self._gather, self._now = writer, gather, now_ns
        self._events = Events()
        self._told: Mapping[str, Any] = {}
        """The newest state that could be told."""
        self._failures = set[str]()
        """Kinds of failure that were logged."""
        self._worker = Worker(self._run, "state")

    def start(self) -> None:
        """Tell it now and each second."""
        self._worker.start()

    def stop(self, *, ended: str = "") -> None:
        """Tell it a last time; may be called again.

        Args:
            ended: that the rig ended as it should, and how.
        """
        if self._worker.started:
            self._worker.stop()
            self.tell(ended)

    def tell(self, ended: str = "") -> None:
        """Put the state of now there; where that fails, the one before it, and why. Never raises.

        ``host_ns`` of what is put is when it was gathered, so that its readers see its age.
        """
        try:
            state, now = {**self._gather(), "ended": ended}, self._now()
            self._events.look(state, now)
            self._put({**state, "host_ns": now, "untold": ""})
            self._told = state | {"host_ns": now}
        except Exception as error:  # What is shown must not end what is decoded.
            self._say_untold(error, ended)

    def _say_untold(self, error: Exception, ended: str) -> None:
        reason, kind = f"{type(error).__name__}: {error}"[:_LONGEST_REASON], type(error).__name__
        if kind not in self._failures:
            self._failures.add(kind)
            self._events.add("state", f"the state could not be told: {reason}", self._now())
            _log.error("the state of the rig could not be told, %s", reason, exc_info=error)
        for before in (self._told, {}):  # with why it may be too large
            with contextlib.suppress(UsageError):  # then its age alone says that it is old
                self._put({**before, "ended": ended, "untold": reason})
                return

    def _put(self, state: Mapping[str, Any]) -> None:
        self._writer.put({**state, "events": list(self._events.kept)})

    def _run(self) -> None:
        while True:
            self.tell()
            if self._worker.stopping.wait(EACH_S):
                return


class Events:
    """What happened, seen in one state after the other: the newest ``_MOST_EVENTS``."""

    def __init__(self) -> None:
        self.kept = deque[dict[str, Any]](maxlen=_MOST_EVENTS)
        """Each with ``host_ns``, ``kind`` and ``text``."""
        self._before: Mapping[str, Any] = {}

    def add(self, kind: str, text: str, now_ns: int) -> None:
        """Note what no state says."""
        self.kept.append({"host_ns": now_ns, "kind": kind, "text": text})

    def look(self, state: Mapping[str, Any], now_ns: int) -> None:
        """Take the next state."""
        before, self._before = self._before, state
        for kind, text in _changes(before, state):
            self.add(kind, text, now_ns)


def _changes(before: Mapping[str, Any], state: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = list[tuple[str, str]]()
    session = _of(state, "session", "session_id")
    if before and session != _of(before, "session", "session_id"):
        found.append(("swap", f"session {session}"))
    for one in _newer(_of(before, "commands", "newest"), _of(state, "commands", "newest")):
        found.append(("command" if one.get("ok") else "refused", _told(one)))
    done = _of(before, "calibration", "fits") or []  # grows; where one is saved may change
    fits = (_of(state, "calibration", "fits") or [])[len(done) :]
    found += [("fit", "fit swapped in" if one["swapped"] else "fit refused") for one in fits]
    history = _newer(
        _of(before, "recalibration", "history"), _of(state, "recalibration", "history")
    )
    found += [("fit", _recalibrated(one)) for one in history]
    for keys, kind in _SENTENCES:
        now = _of(state, *keys)
        if now and now != _of(before, *keys):
            found.append((kind, str(now)))
    stalled = bool(state.get("stalled"))
    if stalled != bool(before.get("stalled")):
        found.append(("feed", "the feed is silent" if stalled else "the feed is back"))
    return found


_SENTENCES = (
    (("feed", "reason"), "feed"),
    (("outcome", "reason"), "control"),
    (("health", "reason"), "session"),
    (("journal", "error"), "journal"),
    (("ended",), "end"),
)
"""Where a state says in a sentence that something is wrong, and the kind of event that it is."""


def _of(state: Mapping[str, Any], *keys: str) -> Any:
    """The value behind keys; None where there is none."""
    found: Any = state
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _newer(before: Sequence[Any] | None, now: Sequence[Any] | None) -> Sequence[Any]:
    """Entries of a list that keeps its newest, which were not there before."""
    before, now = before or [], now or []
    if not before:
        return now
    for shift in range(len(before) + 1):  # as many as it has dropped since
        rest = before[shift:]
        if list(now[: len(rest)]) == list(rest):
            return now[len(rest) :]
    return now


def _told(one: Mapping[str, Any]) -> str:
    name = one.get("command") or f"{one.get('command_done', '')} done"
    said = one.get("session") or one.get("text") or ""
    return f"{name} {said}: {one.get('reason', '')}".replace(" :", ":")


def _recalibrated(one: Mapping[str, Any]) -> str:
    for key in ("taken", "rejected"):
        if key in one:
            return f"{one[key]} {key}"
    return f"{one.get('session', 'fit')} on offer" if one.get("passed") else "fit refused"
