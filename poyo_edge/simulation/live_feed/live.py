"""A simulated person, array and task as a feed in real time: what a rig hears in a demo.

The closed loop is that of the studies (``closed_loop``), its decoder the ``DecodeLoop`` of the rig
that this feed belongs to: each step waits for its time, hands over what the array fired, and takes
the newest value that the rig gave. Somebody's mouse may take the place of what the person intends.

Legend: N spikes, D dimensions (2).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from poyo_edge.arrays import Float64, Int64, Rows
from poyo_edge.runtime.feeds.feed import Feed, Receiver, TaskReceiver
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.simulation.array import TICK_HZ, SimulatedArray
from poyo_edge.simulation.closed_loop import ClosedLoop
from poyo_edge.simulation.person import PersonSettings
from poyo_edge.simulation.tasks import TaskSettings
from poyo_edge.trials import Trial

_NS = 1_000_000_000
_PIECE_S = 1.0
_LATE_S = 0.5
"""A step that is so late is taken as if it were in time: a machine that slept does not catch up."""
_STALE_NS = 200_000_000
"""A value that is older moves the cursor no more."""
Aim = Callable[[], tuple[float, float] | None]


class LiveFeed(Feed):
    """Give ``on_value`` to the rig that is opened with it.

    Args:
        array: of the units of the rig's session; ticks are its.
        task: whose targets are shown.
        person: who controls.
        aim: where somebody's mouse is in the workspace, cm; None while nobody steers.
        seed: of spikes, aiming and targets.
    """

    def __init__(
        self,
        array: SimulatedArray,
        *,
        task: TaskSettings | None = None,
        person: PersonSettings | None = None,
        aim: Aim = lambda: None,
        seed: int = 0,
    ) -> None:
        super().__init__(float(TICK_HZ))
        self.title = "a simulated person"
        self.array, self._aim, self._seed = array, aim, seed
        self._task, self._person = task, person
        self._value: LoopResult | None = None

    def on_value(self, value: LoopResult) -> None:
        """Take a value of the rig, in its loop's thread."""
        self._value = value

    def read(self, receiver: Receiver, stop: threading.Event) -> None:
        """Go on until it is stopped."""
        assert isinstance(receiver, TaskReceiver)
        self.counters.connections += 1
        decoding = _RigDecoding(self, receiver, stop)
        loop = ClosedLoop(
            self.array, decoding, task=self._task, person=self._person, seed=self._seed,
            on_trial=lambda trial: self._on_trial(receiver, trial),
            on_cursor=lambda ticks, positions: receiver.feed_cursor(ticks, positions),
            steered=self._steered,
        )  # fmt: skip
        while not stop.is_set():
            loop.run(seconds=_PIECE_S)
            loop.forget()

    def value(self) -> Float64 | None:
        """The newest value (D,) of the rig; None where it is too old to move anything."""
        value = self._value
        if value is None or time.monotonic_ns() - value.host_ns > _STALE_NS:
            return None
        return value.result.value

    def _on_trial(self, receiver: TaskReceiver, trial: Trial) -> None:
        receiver.feed_trial(trial)

    def _steered(self, cursor: Float64) -> Float64 | None:
        """The intention (D,) in cm/s of who holds the mouse; None while nobody does."""
        aimed = self._aim()
        if aimed is None:
            return None
        way = np.asarray(aimed, np.float64) - cursor
        distance = float(np.linalg.norm(way))
        push = np.array((self._person or PersonSettings()).push, np.float64).T
        return way / distance * np.interp(distance, *push) if distance > 0 else np.zeros(2)


class _RigDecoding:
    """A ``Decoding`` whose decoder is the rig that hears the feed."""

    name = "rig"

    def __init__(self, feed: LiveFeed, receiver: Receiver, stop: threading.Event) -> None:
        self._feed, self._receiver, self._stop = feed, receiver, stop
        self._names = np.array(feed.array.unit_ids)
        self._silence = np.zeros(2)
        self.restart()

    def restart(self) -> None:
        """The device's counter is at 0 now."""
        self._began_ns = time.monotonic_ns()

    def step(self, end: int, ticks: Int64, rows: Rows) -> Float64:
        """Wait until the step that ends at tick ``end`` is over, and hand over its spikes."""
        due_ns = self._began_ns + end * _NS // TICK_HZ
        left_ns = due_ns - time.monotonic_ns()
        if left_ns > 0:
            self._stop.wait(left_ns / _NS)
        elif -left_ns > _LATE_S * _NS:
            self._began_ns -= left_ns
        feed = self._feed
        feed.counters.messages += 1
        feed.hand_over(self._receiver, ticks, self._names[rows], host_ns=time.monotonic_ns())
        value = feed.value()
        return self._silence if value is None else value
