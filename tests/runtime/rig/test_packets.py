"""Packets that wait for the loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from poyo_edge.runtime.feeds.values import Packet
from poyo_edge.runtime.rig.packets import PacketQueue
from poyo_edge.runtime.rig.settings import LoopCounters


def clock(*ticks: int) -> Callable[[], int]:
    """Times that are asked for one after the other; the last one stays."""
    left = list(ticks)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_packets_that_were_left_and_taken_between_windows_are_no_flood() -> None:
    waiting = PacketQueue(8, 20_000_000, LoopCounters())
    for _ in range(2):
        waiting.put(Packet(ticks=np.array([1]), units=np.array([0]), host_ns=1))
    assert len(list(waiting.take(clock(0, 20_000_000)))) == 1  # no time for the second
    assert len(list(waiting.take_until(clock(0), 1))) == 1
    assert list(waiting.take(clock(0))) == []


def test_a_task_s_packets_are_no_spikes_that_wait() -> None:
    waiting = PacketQueue(8, 20_000_000, LoopCounters())
    waiting.put(Packet(ticks=np.array([1]), units=np.empty(0, np.int64), host_ns=1))
    assert (len(waiting), waiting.spikes_wait) == (1, False)
    waiting.put(Packet(ticks=np.array([1]), units=np.array([0]), host_ns=1))
    assert waiting.spikes_wait
