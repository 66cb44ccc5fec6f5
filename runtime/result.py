"""What a decoder is set with, and what it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.runtime.failsafe import FailsafeSettings, Status
from poyo_edge.runtime.health import HealthSettings
from poyo_edge.runtime.session_check import UNVERIFIED, VERIFYING

_WAITING = frozenset(("warmup", "clock_reset", VERIFYING))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSettings:
    """Limits of a decoder; every one has a default that suits 100 units at 50 spikes/s each."""

    capacity: int = 1 << 18
    """Most spikes kept, those of windows to come included."""
    future_limit_s: float = 60.0
    """Spikes further ahead of the last decoded time are taken for a broken clock."""
    failsafe: FailsafeSettings = dataclasses.field(default_factory=FailsafeSettings)
    health: HealthSettings = dataclasses.field(default_factory=HealthSettings)

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise UsageError(f"capacity: expected an integer >= 1, got {self.capacity!r}")
        if not self.future_limit_s > 0:
            raise UsageError(f"future_limit_s: expected seconds > 0, got {self.future_limit_s!r}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """One decoded value."""

    value: npt.NDArray[np.float64]
    """(dim_out,) in behaviour units; always finite."""
    status: Status
    flags: tuple[str, ...]
    """Why the status is what it is: warmup, silent, stream_lost, gap, over_budget, overflow,
    clock_reset, backend, fallback, drift, coverage, output_range, verifying, wrong_session, slow,
    stale_rows, delayed; from a loop also clock_rate, loss, skipped, flood, and zeroed, paused,
    stopped by a command. ``unverified`` says that nothing tells the session from another, and
    changes no status."""
    t: float | int
    """End of the window, in the unit that ``decode`` was called with."""
    n_spikes: int
    """Spikes that the value was decoded from."""
    t_last_spike: float | int | None
    latency_ns: int
    session_id: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Controlled:
    """What became of a value between decoder and cursor (``runtime.control``)."""

    decoded: npt.NDArray[np.float64]
    """(dim_out,) the decoder's own value."""
    status: Status
    """Of the decoder's own value."""
    ramp: float
    """Share of the speed that a slow start lets through; 1 once it is over."""
    assist: float
    """Share of the automatic command in it."""
    click: bool
    """The cursor has been held within the target for long enough just now."""
    held: str
    """``zeroed``, ``paused`` or ``stopped`` where a command made it zero, else ""."""

    def to_json(self) -> dict[str, object]:
        """State as JSON values, without the decoder's own value."""
        return {
            "status": self.status.value,
            "ramp": self.ramp,
            "assist": self.assist,
            "click": self.click,
            "held": self.held,
        }


def status_of(flags: Sequence[str]) -> Status:
    """The status of a value that was decoded with these flags."""
    if not _WAITING.isdisjoint(flags):
        return Status.WARMUP
    return Status.DEGRADED if any(flag != UNVERIFIED for flag in flags) else Status.VALID
