"""What feeds hand to the decode loop, and what it hands to sinks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from poyo_edge.runtime.result import Controlled, Result
from poyo_edge.trials import TrialUpdate


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packet:
    """What a feed hands over."""

    ticks: npt.NDArray[Any]
    """(N,) integers of the device's counter."""
    units: npt.NDArray[Any]
    """(N,) unit ids, or rows: those that say so, or of the session that the loop began with."""
    host_ns: int
    """``time.monotonic_ns`` at arrival."""
    sync: Any = None
    """Passed through to the value that this packet is first part of."""
    labels: npt.NDArray[np.float64] | None = None
    """(N, D): behaviour at ``ticks``; then there are no units."""
    trial: TrialUpdate | None = None
    """What was said of a trial; then there is nothing else."""
    cursor: npt.NDArray[np.float64] | None = None
    """(N, D): positions at ``ticks``, or one at arrival if there are none; nothing else then."""
    lost: int = 0
    """Messages that never arrived before this one; then there is nothing else."""
    problem: str = ""
    """What the feed could not use; then there is nothing else."""

    @classmethod
    def note(
        cls, host_ns: int, *, lost: int = 0, problem: str = "", trial: TrialUpdate | None = None
    ) -> Packet:
        """A packet of no spikes, that tells of something."""
        none = np.empty(0, np.int32)
        return cls(ticks=none, units=none, host_ns=host_ns, lost=lost, problem=problem, trial=trial)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoopResult:
    """One decoded window on its way out."""

    seq: int
    result: Result
    t_s: float
    """End of the window in seconds of the device's clock."""
    epoch: int
    sync: Any
    """Of the newest packet that the loop has used."""
    host_ns: int
    """When the value was ready, ``time.monotonic_ns``."""
    newest_in_ns: int
    """When the newest packet of spikes arrived."""
    valid_until_ns: int = 0
    """``time.monotonic_ns`` from which on it is too old to act on; 0 where nobody says."""
    control: Controlled | None = None
    """What stood between decoder and ``result``, which is to be acted on; None where nothing."""
    trial: int | None = None
    """Number of the trial that runs at the window's end; None between trials."""

    @property
    def valid_for_ms(self) -> float | None:
        """How long it stands from when it was ready; None where nobody says."""
        return (self.valid_until_ns - self.host_ns) / 1e6 if self.valid_until_ns else None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for feeds that carry text."""
        control = self.control
        return {
            "seq": self.seq,
            "t": self.t_s,
            "tick": int(self.result.t),
            "epoch": self.epoch,
            "value": self.result.value.tolist(),
            "status": self.result.status.value,
            "flags": list(self.result.flags),
            "n_spikes": self.result.n_spikes,
            "host_ns": self.host_ns,
            "latency_us": round((self.host_ns - self.newest_in_ns) / 1e3, 1),
            "sync": self.sync,
            "valid_for_ms": self.valid_for_ms,
            "trial": self.trial,
            **({} if control is None else
               {"decoded": control.decoded.tolist(), "control": control.to_json()}),
        }  # fmt: skip


class Sender(Protocol):
    """What the file of a kind of sink opens."""

    def __call__(self, value: LoopResult) -> None:
        """Send a value; whatever is raised is a value that was not sent."""

    def close(self) -> None:
        """Let the peer go; called once."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sink:
    """Where values go: called with one after the other, and closed when the loop has ended.

    A rig calls it in a thread of its own unless it never waits; a loop without a rig in the loop's.
    """

    address: str
    """As it was typed; messages name the sink by it."""
    send: Callable[[LoopResult], None]
    close: Callable[[], None]
    never_waits: bool = False
    """Whether no peer, network or lock can make it wait."""

    def __call__(self, value: LoopResult) -> None:
        """Send a value.

        Raises:
            Exception: it could not be sent; that is counted, and the next one is tried.
        """
        self.send(value)

    def __str__(self) -> str:
        return self.address
