"""Trials or the cursor from a stream of Lab Streaming Layer.

Trials: an irregular stream of one text channel, a JSON object for each sample; its ticks are
nanoseconds of the sender's LSL clock, and "now" is the sample's stamp. The cursor: a stream of
numbers, a channel for each coordinate, stamped when it was shown.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from poyo_edge.runtime.feeds.feed import POLL_S, Feed, Receiver
from poyo_edge.runtime.feeds.wire.lsl_inlet import LATEST_S, NS, Inlet, described, import_pylsl
from poyo_edge.runtime.feeds.wire.parsing import Malformed
from poyo_edge.runtime.feeds.wire.task import CursorAt, read_cursor, trial_of_text
from poyo_edge.trials import MOST_DIMS, NOW, TrialUpdate


class _LslTask(Feed):
    """Reads the one stream of a name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._lsl = import_pylsl()
        self.name = name

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Find the stream and receive.

        Raises:
            ConnectionError: no stream of that name answers.
            UsageError: several do, or it is of another kind.
            pylsl.LostError: the stream is gone.
        """
        inlet = Inlet(self.name, "", self.unlike, self.refused)
        try:
            inlet.open()
            self.counters.connections += 1
            while not stop.is_set():
                samples, stamps = inlet.pull(POLL_S)
                now_ns, now_s = time.monotonic_ns(), self._lsl.local_clock()
                self.counters.messages += len(samples)
                for sample, stamp in zip(samples, stamps, strict=True):
                    try:
                        at_s = _of_lsl(float(stamp) + inlet.correction_s)
                        age_ns = round((now_s - at_s) * NS)
                        trial, cursor = self.parse(sample, at_s, inlet.correction_s)
                    except Malformed as error:
                        self.malformed(f"lsl://{self.name}: {error}")
                        continue
                    self._used = True
                    host_ns = now_ns if self.own_clock else now_ns - max(0, age_ns)
                    self.hand_over_task(receiver, trial, cursor, host_ns=host_ns)
        finally:
            inlet.close()

    def unlike(self, info: Any) -> str:
        """What is wrong with a stream's description."""
        raise NotImplementedError

    def parse(
        self, sample: list[Any], at_s: float, correction_s: float
    ) -> tuple[TrialUpdate | None, CursorAt | None]:
        """What a sample says, which was stamped ``at_s`` on this machine's LSL clock."""
        raise NotImplementedError


class LslTrials(_LslTask):
    """Trials of a text stream."""

    def unlike(self, info: Any) -> str:
        """What is wrong with a stream's description."""
        text = info.channel_format() == self._lsl.cf_string
        if text and info.channel_count() == 1 and info.nominal_srate() == self._lsl.IRREGULAR_RATE:
            return ""
        return (
            f"expected an irregular stream of one text channel with a JSON object for each message "
            f"about a trial, got {described(info)}; name the stream of trials"
        )

    def parse(
        self, sample: list[Any], at_s: float, correction_s: float
    ) -> tuple[TrialUpdate | None, CursorAt | None]:
        """The trial of a sample; where another feed brings the spikes, only "now" has a place."""
        update = trial_of_text(sample[0], self.tick_rate_hz)
        if not self.own_clock:
            return update, None
        return update.with_times(lambda at: _placed(at, at_s, correction_s)), None


class LslCursor(_LslTask):
    """The cursor of a stream of numbers."""

    def unlike(self, info: Any) -> str:
        """What is wrong with a stream's description."""
        if info.channel_format() != self._lsl.cf_string and info.channel_count() <= MOST_DIMS:
            return ""
        return (
            f"expected a stream of numbers with a channel for each coordinate of the cursor, got "
            f"{described(info)}; name the stream of its positions"
        )

    def parse(
        self, sample: list[Any], at_s: float, correction_s: float
    ) -> tuple[TrialUpdate | None, CursorAt | None]:
        """Where the cursor was."""
        cursor = read_cursor({"pos": [list(sample)]}, NS)
        if not self.own_clock:
            return None, cursor
        return None, cursor._replace(ticks=np.array([round(at_s * NS)], np.int64))


def task_feeds(trials: str, cursor: str) -> list[Feed]:
    """Feeds of the streams that are named."""
    found: list[Feed] = [LslTrials(trials)] if trials else []
    return [*found, *([LslCursor(cursor)] if cursor else [])]


def _of_lsl(stamp_s: float) -> float:
    if not abs(stamp_s) <= LATEST_S:
        raise Malformed(
            f"expected stamps of LSL's clock (local_clock), got {stamp_s:.6g} s; let the sender "
            f"stamp with local_clock"
        )
    return stamp_s


def _placed(at: int | str, stamp_s: float, correction_s: float) -> int:
    """Nanoseconds of this machine's LSL clock."""
    return round(stamp_s * NS) if at == NOW else int(at) + round(correction_s * NS)
