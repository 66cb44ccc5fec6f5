"""What the decode loop is set with, waits by and counts."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Protocol

from poyo_edge.errors import UsageError

_SECOND = 1_000_000_000
_PERIODS = 3
"""A loop waits for up to one period and may decode for one; behind by a third, it hangs."""
_LEAST_VALID_S = 0.02


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """When to decode, and what to keep of packets that wait."""

    rate_hz: float = 50.0
    """Windows per second, 1 to 1000; 20 to 100 is usual."""
    settle_ms: float = 0.0
    """Decode so long after a window's end, for spikes that take longer than the fastest."""
    stall_s: float = 1.0
    """A feed that was silent for longer is called stalled."""
    most_packets: int = 1 << 16
    """Packets that may wait for the loop; beyond them the oldest are dropped and counted."""

    def __post_init__(self) -> None:
        if not 1 <= self.rate_hz <= 1000:
            raise UsageError(f"rate_hz: expected 1 to 1000 windows per second, got {self.rate_hz}")
        if not 0 <= self.settle_ms < 1000:
            raise UsageError(f"settle_ms: expected 0 to 1000 ms, got {self.settle_ms!r}")
        if not (self.stall_s > 0 and self.most_packets >= 1):
            raise UsageError("stall_s, most_packets: expected numbers > 0")

    @property
    def hangs_after_s(self) -> float:
        """How long the loop may stay behind before it hangs."""
        return _PERIODS / self.rate_hz + self.settle_ms / 1e3

    @property
    def valid_for_ns(self) -> int:
        """How long a value stands: when no newer one has come until then, none may come."""
        return int(max(_LEAST_VALID_S, self.hangs_after_s) * _SECOND)


class HostClock(Protocol):
    """The host's time, and how to wait for it."""

    def now_ns(self) -> int:
        """Nanoseconds that never go back."""

    def wait_until(self, ns: int, stop: threading.Event) -> None:
        """Return at ``ns``, or when ``stop`` is set: a packet has come, or the loop is to end."""


class MonotonicClock:
    """``time.monotonic_ns``."""

    def now_ns(self) -> int:
        """Nanoseconds since some start."""
        return time.monotonic_ns()

    def wait_until(self, ns: int, stop: threading.Event) -> None:
        """Sleep until then; up to some 0.1 ms late."""
        left = ns - time.monotonic_ns()
        if left > 0:
            stop.wait(left / _SECOND)


@dataclasses.dataclass(slots=True)
class LoopCounters:
    """What happened to windows and packets since the start."""

    decoded: int = 0
    skipped: int = 0
    """Windows that were past when the loop came to them: never decoded late."""
    deadline_misses: int = 0
    """Values that were ready after the next window was due."""
    packets: int = 0
    packets_dropped: int = 0
    """Waited behind too many others, or for too long."""
    bad_packets: int = 0
    """Of shapes or types that cannot be meant."""
    sink_failures: int = 0
    stalls: int = 0
    label_failures: int = 0
    """Labelled data that the listener refused."""
    trials: int = 0
    """Messages about trials that were used."""
    cursor: int = 0
    """Positions of the cursor that were used."""
    task_failures: int = 0
    """Trials and positions that the listener refused."""

    def to_json(self) -> dict[str, int]:
        """Name → count."""
        return dataclasses.asdict(self)
