"""One reader of a ring for all browsers of a page: it looks often, and keeps what they show."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from poyo_edge.errors import PoyoEdgeError
from poyo_edge.runtime.page.history import History
from poyo_edge.runtime.page.ring.layout import STATUSES, flags_of
from poyo_edge.runtime.page.ring.reader import FrameReader
from poyo_edge.runtime.page.timeline import Timeline
from poyo_edge.runtime.page.words import FLAG_WORDS, age_text

EACH_S = 0.04
_BACK_S = 60.0
_STATE_EACH_S = 0.3
_HANGS_S = 1.0


class Watch:
    """Follows a run, and the next one of the same name when it has ended.

    Args:
        run: name or path of its ring.
        now_ns: the host's monotonic clock.

    Raises:
        UsageError, RingError: there is no such ring.
    """

    def __init__(self, run: str, *, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.run, self._now = run, now_ns
        self.lost_before = 0
        """Frames that this page missed of runs before this one."""
        self.attach(FrameReader(run, back_s=_BACK_S))

    def attach(self, reader: FrameReader) -> None:
        """Follow this ring from now on."""
        self.reader = reader
        self.rate_hz = float(reader.head["rate_hz"])
        self.tick_rate_hz = float(reader.head["tick_rate_hz"])
        self.history = History(self.rate_hz, reader.frame_dtype)
        self.timeline = Timeline(1 / self.rate_hz)
        self.state: dict[str, Any] = {}
        self.alive = True
        self._state_number, self._state_looked = 0, 0.0
        self.unix_less_monotonic_s = (
            float(reader.head["began_unix_s"]) - float(reader.head["began_ns"]) / 1e9
        )
        """What to add to seconds of the host's clock to have the time of day."""
        self.look()

    @property
    def lost(self) -> int:
        """Frames that this page never saw."""
        return self.lost_before + self.reader.lost + self.reader.torn

    def look(self) -> None:
        """Read what is new; call it each ``EACH_S``."""
        frames = self.reader.read()
        self.history.add(frames)
        self.timeline.add(frames)
        now_s = self._now() / 1e9
        if now_s - self._state_looked < _STATE_EACH_S:
            return
        self._state_looked = now_s
        self.timeline.forget(now_s)
        self.alive = self.reader.alive
        number, state = self.reader.state()
        if number and number != self._state_number:
            self._state_number, self.state = number, state
        if not self.alive and self.reader.replaced:
            self._follow()

    def value_age_s(self) -> float | None:
        """Seconds since the newest value; None before the first."""
        last = self.history.last
        return None if last is None else (self._now() - int(last["host_ns"])) / 1e9

    def state_age_s(self) -> float:
        """Seconds since what changes by the second was gathered; where it never was, since the ring
        began."""
        gathered = self.state.get("host_ns", self.reader.head["began_ns"])
        return max(0.0, (self._now() - int(gathered)) / 1e9)

    def spike_age_s(self) -> float | None:
        """Seconds since the newest spike that was decoded with; None before any."""
        last = self.history.last
        if last is None:
            return None
        return float(last["silence_s"]) + max(0.0, (self._now() - int(last["due_ns"])) / 1e9)

    @property
    def stands(self) -> bool:
        """Whether there is a value that may still be acted on."""
        last = self.history.last
        return last is not None and self._now() <= int(last["valid_until_ns"])

    def headline(self) -> tuple[str, str]:
        """What matters most now, in a sentence, and its tone: good, wait, warn or bad."""
        last, age = self.history.last, self.value_age_s()
        if not self.alive:
            return self._ended()
        if last is None:
            reason = self.state.get("feed", {}).get("reason") or "nothing has come yet"
            return f"Waiting for spikes: {reason}", "wait"
        if not self.stands:
            why = "the loop hangs" if (age or 0) > _HANGS_S else "too old to act on"
            return f"No new value for {age_text(age)}: {why}", "bad"
        flags = flags_of(int(last["flags"]))
        status = STATUSES[int(last["status"])]
        if "stream_lost" in flags:
            return f"The stream is lost: last spike {age_text(self.spike_age_s())} ago", "bad"
        words = "; ".join(FLAG_WORDS[flag] for flag in flags) or "decoding"
        tones = {"VALID": "good", "WARMUP": "wait", "DEGRADED": "warn"}
        return words[:1].upper() + words[1:], tones.get(status, "bad")

    def _ended(self) -> tuple[str, str]:
        ended, age = self.state.get("ended"), self.value_age_s()
        since = "" if age is None else f"; last value {age_text(age)} ago"
        if ended:
            return f"The run has {ended if ended == 'ended' else f'been {ended}'}{since}", "wait"
        return f"The rig is gone: its process died{since}. This page stays", "bad"

    def _follow(self) -> None:
        """Go on with the next run of this name."""
        with contextlib.suppress(PoyoEdgeError):  # it is gone again
            reader = FrameReader(self.run, back_s=_BACK_S)
            self.lost_before = self.lost
            self.reader.close()
            self.attach(reader)
