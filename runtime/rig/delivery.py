"""Values on their way to sinks, one at a time; and a zero from elsewhere while the loop hangs."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence

from poyo_edge.runtime.control.control import zero_of
from poyo_edge.runtime.failsafe import Status
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.result import Controlled
from poyo_edge.runtime.rig.outlets import SinkFailures

_log = logging.getLogger(__name__)


class Delivery:
    """Gives each value to all sinks, and sees to it that a stop leaves though nothing else does.

    Args:
        sinks: called one after the other; one that raises is told to ``failed``.
        failed: told of what could not be sent.
        limit_s: a loop that gives no value for so long after a command hangs.
        now_ns: the host's clock.
    """

    def __init__(
        self,
        sinks: Sequence[Callable[[LoopResult], None]],
        failed: SinkFailures,
        *,
        limit_s: float,
        now_ns: Callable[[], int],
    ) -> None:
        self.last: LoopResult | None = None
        self.zeros = 0
        """Given because the loop hung; they are numbered along with the values."""
        self.statuses = dict.fromkeys(Status, 0)
        """How many values left with each; the decoder's own may differ."""
        self._sinks, self._failed, self._limit_s, self._now = sinks, failed, limit_s, now_ns
        self._given = threading.Condition()
        self._held: Callable[[], str] = lambda: ""

    def give(self, value: LoopResult) -> LoopResult:
        """Give a value to all sinks; what left: zero, where a command came while it was made."""
        with self._given:
            if not _is_zero(value) and (why := self._held()):
                value = _zeroed(value, why)
            self.last = value
            self._to_sinks(value)
            self._given.notify_all()
            return value

    def wait(self, timeout_s: float) -> bool:
        """Wait until the next value has been given; False where none was in the time."""
        before = self.last
        with self._given:
            return self._given.wait_for(lambda: self.last is not before, timeout_s)

    def watch(self, held: Callable[[], str], then: Callable[[], None]) -> None:
        """See to it, in a thread of its own, that zero leaves within ``limit_s``; returns at once.

        Args:
            held: why values are zero; "" once they are not any more.
            then: called when zero has left, or cannot.
        """
        self._held = held
        threading.Thread(
            target=self._watch, args=(held, then), name="poyo-edge-halt", daemon=True
        ).start()

    def settle(self, held: Callable[[], str]) -> None:
        """See to it that zero leaves in the calling thread, before a loop ends; at once where it
        has left, or where no command holds values back."""
        if held():
            self._watch(held, lambda: None)

    def _watch(self, held: Callable[[], str], then: Callable[[], None]) -> None:
        try:
            if not self._given.acquire(timeout=self._limit_s):
                _log.error("a sink in the loop's own thread hangs: no zero can be given to it")
                return
            try:
                left = self._given.wait_for(lambda: _is_zero(self.last), self._limit_s)
                if not left and self.last is not None and (why := held()):
                    self._give_zero(self.last, why)
            finally:
                self._given.release()
        finally:
            then()

    def _give_zero(self, before: LoopResult, held: str) -> None:
        now = self._now()
        self.zeros += 1
        self.last = dataclasses.replace(
            _zeroed(before, held),
            seq=before.seq + 1,
            host_ns=now,
            valid_until_ns=now + before.valid_until_ns - before.host_ns,
        )
        self._to_sinks(self.last)
        _log.error("the loop hangs: zero was given in its place (%s)", held)

    def _to_sinks(self, value: LoopResult) -> None:
        self.statuses[value.result.status] += 1
        for sink in self._sinks:
            try:
                sink(value)
            except Exception as error:  # A dead peer must not stop the decoder.
                self._failed(sink, error)


def _zeroed(value: LoopResult, held: str) -> LoopResult:
    """The same with zero in its place; the decoder's own value stands beside it."""
    of = value.control
    return dataclasses.replace(
        value,
        result=zero_of(value.result, held),
        control=Controlled(
            decoded=value.result.value if of is None else of.decoded,
            status=value.result.status if of is None else of.status,
            ramp=0.0,
            assist=0.0,
            click=False,
            held=held,
        ),
    )


def _is_zero(value: LoopResult | None) -> bool:
    return value is not None and value.control is not None and bool(value.control.held)
