"""A decode loop on a clock that only the test moves."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poyo_edge.artifact import Session
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.loop import DecodeLoop
from poyo_edge.runtime.rig.settings import LoopSettings

if TYPE_CHECKING:
    from conftest import Rig

S = 1_000_000_000
PERIOD = S // 64
COST = PERIOD // 32
"""What it takes to push one packet: 16 go into half a period."""


class TestClock:
    """A host's clock that moves when told."""

    __test__ = False

    def __init__(self) -> None:
        self.ns = 100 * S

    def now_ns(self) -> int:
        return self.ns

    def wait_until(self, ns: int, stop: threading.Event) -> None:
        self.ns = max(self.ns, ns)


class Bench:
    """A loop at 64 Hz whose device sends one packet each 1/64 s, on the rig's grid of ticks."""

    def __init__(self, rig: Rig, clock: DeviceClock | None = None, **arguments: Any) -> None:
        self.rig, self.host, self.out = rig, TestClock(), list[LoopResult]()
        self.rate = rig.grid_hz
        self.clock = clock or DeviceClock(self.rate)
        arguments.setdefault("settings", LoopSettings(rate_hz=64))
        self.loop = DecodeLoop(
            arguments.pop("decoder", None) or rig.decoder(tick_rate_hz=self.rate),
            self.clock,
            [self.out.append, *arguments.pop("sinks", ())],
            host=self.host,
            **arguments,
        )

    @staticmethod
    def host_ns(step: int) -> int:
        """The host's time at so many 1/64 s."""
        return 100 * S + step * PERIOD

    def run(self, times: Any, rows: Any, ends: range, *, shift: int = 0) -> None:
        """Packets that end at each of ``ends`` (in 1/64 s); the loop steps after each."""
        for end in ends:
            inside = (times >= (end - 1) / 64) & (times < end / 64)
            ticks = (times[inside] * self.rate).astype(np.int64) + shift
            self.host.ns = self.host_ns(end)
            self.loop.feed(ticks, rows[inside])
            self.loop.step()


def stream(rig: Rig, seconds: float, seed: int = 0) -> tuple[Any, Any]:
    """Spikes with one at the very end of each 1/64 s, so that the clock is known exactly."""
    times, rows = rig.stream(int(400 * seconds), seconds, seed)
    last = (np.arange(1, int(64 * seconds) + 1) * 64 - 1) / rig.grid_hz
    times = np.concatenate([times, np.setdiff1d(last, times)])
    rows = np.concatenate([rows, np.zeros(len(times) - len(rows), np.int32)])
    order = np.argsort(times, kind="stable")
    return times[order], rows[order]


def flooded(rig: Rig, **arguments: Any) -> Bench:
    """A loop whose thread takes time for each packet."""

    def on_spikes(*_: Any) -> None:
        bench.host.ns += COST

    bench = Bench(rig, on_spikes=on_spikes, **arguments)
    return bench


def hear(bench: Bench, steps: range, packets: int) -> list[LoopResult]:
    """So many packets of one spike in each 1/64 s, then a step, unless the loop is still busy."""
    before = len(bench.out)
    for step in steps:
        for i in range(packets):
            tick = (step - 1) * 64 + (i + 1) * 64 // packets - 1
            at = 100 * S + (step - 1) * PERIOD + (i + 1) * PERIOD // packets
            bench.loop.feed([tick], [i % 12], host_ns=at)
        if bench.host.ns <= 100 * S + step * PERIOD:
            bench.host.ns = 100 * S + step * PERIOD
            bench.loop.step()
    return bench.out[before:]


def silent(bench: Bench, steps: range) -> None:
    """Nothing comes at each of so many 1/64 s; the loop steps all the same."""
    for step in steps:
        bench.host.ns = bench.host_ns(step)
        bench.loop.step()


def reordered(session: Session, order: npt.ArrayLike) -> Session:
    """The same units in another order."""
    rows = np.asarray(order)
    ids = tuple(session.header.unit_ids[row] for row in rows)
    return dataclasses.replace(
        session,
        header=dataclasses.replace(session.header, session_id="reordered", unit_ids=ids),
        unit_embedding=session.unit_embedding[rows],
    )
