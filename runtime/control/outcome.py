"""What control is like, trial by trial: does the cursor still reach its targets as it did?

Rates alone do not say it. When the preferred directions of units wander, rates stay what they were
and the cursor no longer goes where its user wants; when all rates double, control may be as good
as ever. So the last block of trials is compared with the first one of this session: success,
angular error (between decoded velocity and the way to the target), speed toward the target, and
Fitts throughput.

Legend: S samples of a trial, D dimensions of the workspace.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import UsageError
from poyo_edge.journal import JournalWriter
from poyo_edge.metrics import angular_error, fitts_bits
from poyo_edge.runtime.control.task import is_same
from poyo_edge.trials import Trial

_log = logging.getLogger(__name__)
CONTROL = "control"
"""Flag: the cursor no longer goes where it is wanted, though values may look as ever."""
OK, DEGRADED, UNKNOWN = "ok", "degraded", "unknown"
_LONGEST_S, _MOST_SAMPLES = 60.0, 12_000
"""Of a trial: what is older, or more, is forgotten."""
_LEAST_SAMPLES = 5
_MOST_BLOCKS = 100
"""That are kept to be shown: more than an hour of trials of two seconds."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeSettings:
    """From when on control is worse than it was."""

    block_trials: int = 16
    """Trials that a verdict is made of; the first so many are the reference."""
    standard_errors: float = 4.0
    """A block is worse when it is off by so many standard errors of both blocks, and by the
    smallest change below."""
    least_success: float = 0.2
    """Smallest fall of the share of successful trials that counts."""
    least_angle_deg: float = 10.0
    """Smallest rise of the mean angular error that counts."""
    least_throughput: float = 0.25
    """Smallest fall of the throughput that counts, as a share of the reference."""
    most_angle_deg: float = 60.0
    """A mean angular error beyond this is no control, whatever the reference was; chance has 90."""
    lasts_s: float = 300.0
    """How long a verdict holds when no trial ends any more."""

    def __post_init__(self) -> None:
        if not 4 <= self.block_trials <= 1000:
            raise UsageError(f"block_trials: expected 4 to 1000, got {self.block_trials!r}")
        for name in ("standard_errors", "lasts_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: expected a number > 0, got {getattr(self, name)!r}")
        for name in ("least_success", "least_throughput"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}: expected a share, 0 to 1, got {getattr(self, name)!r}")
        for name in ("least_angle_deg", "most_angle_deg"):
            if not 0 < getattr(self, name) <= 180:
                raise UsageError(f"{name}: expected degrees, 0 to 180, got {getattr(self, name)!r}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """One trial that has ended. None where the trial does not tell."""

    number: int
    success: bool | None
    time_s: float
    """From go (or start) to end."""
    angle_deg: float | None
    """Mean angular error of the decoded velocity, outside the target."""
    turn_deg: float | None
    """The same with its sign, counter-clockwise; of two dimensions only."""
    speed: float | None
    """Mean decoded speed toward the target, outside it, in behaviour units."""
    bits_per_s: float | None
    """Fitts throughput; 0 for a trial without success; None without a radius."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Means over trials, with their standard errors."""

    trials: int
    success: float | None
    time_s: float
    angle_deg: float | None
    angle_se: float | None
    turn_deg: float | None
    speed: float | None
    bits_per_s: float | None
    bits_se: float | None

    @classmethod
    def of(cls, trials: Sequence[TrialOutcome]) -> Block:
        """The block that these trials make."""
        success = [float(one.success) for one in trials if one.success is not None]
        angle, angle_se = _mean([one.angle_deg for one in trials])
        bits, bits_se = _mean([one.bits_per_s for one in trials])
        return cls(
            trials=len(trials),
            success=float(np.mean(success)) if success else None,
            time_s=float(np.mean([one.time_s for one in trials])),
            angle_deg=angle,
            angle_se=angle_se,
            turn_deg=_mean([one.turn_deg for one in trials])[0],
            speed=_mean([one.speed for one in trials])[0],
            bits_per_s=bits,
            bits_se=bits_se,
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values, rounded."""
        return {
            name: value if value is None or name == "trials" else round(value, 3)
            for name, value in dataclasses.asdict(self).items()
        }


class OutcomeMonitor:
    """Follows trials, cursor and decoded values of one loop, in its thread; memory is bounded.

    Args:
        tick_rate_hz: ticks per second of all times.
        settings: from when on control is worse.
        journal: where a verdict is recorded when it changes.
    """

    def __init__(
        self,
        tick_rate_hz: float,
        settings: OutcomeSettings | None = None,
        *,
        journal: JournalWriter | None = None,
    ) -> None:
        self.settings = settings or OutcomeSettings()
        self._rate, self._journal = tick_rate_hz, journal
        self._session_id: str | None = None
        self._trial: Trial | None = None
        self._cursor = deque[tuple[int, tuple[float, ...]]](maxlen=_MOST_SAMPLES)
        self._values = deque[tuple[int, tuple[float, ...]]](maxlen=_MOST_SAMPLES)
        self.n_trials = 0
        """Trials that ended with a target."""
        self.blocks = deque[dict[str, Any]](maxlen=_MOST_BLOCKS)
        """Each ``block_trials`` trials that followed one another, as JSON values, with the session
        in use at their end; swaps do not end it."""
        self._in_block = list[TrialOutcome]()
        self.restart()

    def restart(self) -> None:
        """Begin with a new reference, as after a swap of the session."""
        self._reference: Block | None = None
        self._last = deque[TrialOutcome](maxlen=self.settings.block_trials)
        self._judged_at: int | None = None
        self.verdict, self.reason = UNKNOWN, ""

    def new_clock(self) -> None:
        """Ticks begin anew: what was heard is forgotten, what was found of control is not."""
        self._trial, self._judged_at = None, None
        self._cursor.clear()
        self._values.clear()

    def note_trial(self, trial: Trial) -> None:
        """Take a message about a trial; one that has ended is judged with what was heard of it.

        A trial that is told of anew while another runs takes its place: that one is forgotten.
        """
        before = self._trial
        if before is not None and trial.start < before.start:
            return  # of one before; a task that was started again may count from 1 again
        if trial.end is None:
            self._trial = trial
            return
        ended_already = before is not None and is_same(trial, before) and before.end is not None
        self._trial = trial
        if not ended_already and trial.target is not None:
            self._ended(trial, trial.end)

    def note_cursor(self, ticks: Int64, positions: Float64) -> None:
        """Take positions of the cursor: ticks (N,) and (N, D) in the unit of the targets."""
        self._cursor.extend(
            (int(tick), tuple(one)) for tick, one in zip(ticks, positions.tolist(), strict=True)
        )

    def note_value(self, tick: int, value: Float64, session_id: str = "") -> None:
        """Take what moves the cursor from ``tick`` on, (D,); another session begins anew."""
        if self._session_id not in (None, session_id):
            self.restart()
        self._session_id = session_id
        self._values.append((tick, tuple(value.tolist())))
        self._forget(tick)

    def holds(self, tick: int) -> bool:
        """Whether control was found as good as ever, lately enough to go by."""
        return self.verdict == OK and self._fresh(tick)

    def worse(self, tick: int) -> bool:
        """Whether control was found worse, lately enough to go by."""
        return self.verdict == DEGRADED and self._fresh(tick)

    def to_json(self) -> dict[str, Any]:
        """Verdict, reason, reference and newest block, as JSON values."""
        newest = Block.of(tuple(self._last)).to_json() if self._last else None
        return {
            "status": self.verdict,
            "reason": self.reason,
            "trials": self.n_trials,
            "reference": None if self._reference is None else self._reference.to_json(),
            "block": newest,
        }

    def _fresh(self, tick: int) -> bool:
        at = self._judged_at
        return at is not None and 0 <= tick - at <= self.settings.lasts_s * self._rate

    def _forget(self, tick: int) -> None:
        earliest = tick - _LONGEST_S * self._rate
        for kept in (self._values, self._cursor):
            while kept and not earliest <= kept[0][0] <= tick + self._rate:
                kept.popleft()

    def _ended(self, trial: Trial, end: int) -> None:
        self.n_trials += 1
        outcome = self._outcome(trial, end)
        self._note_block(outcome)
        self._last.append(outcome)
        if len(self._last) < self.settings.block_trials:
            return
        block = Block.of(tuple(self._last))
        if self._reference is None:
            self._reference = block
            self._last.clear()
            reason = self._no_control(block)
        else:
            reason = self._no_control(block) or self._fallen(block, self._reference)
        before = self.verdict
        self.verdict, self.reason = (DEGRADED, reason) if reason else (OK, "")
        self._judged_at = end
        if self.verdict != before:
            self._say()

    def _note_block(self, outcome: TrialOutcome) -> None:
        self._in_block.append(outcome)
        if len(self._in_block) == self.settings.block_trials:
            block = Block.of(self._in_block).to_json()
            self.blocks.append({"session": self._session_id, "until": self.n_trials, **block})
            self._in_block = []

    def _say(self) -> None:
        if self._journal is not None:
            self._journal.event(outcome=self.to_json())
        if self.verdict == DEGRADED:
            _log.warning("control is not what it was: %s", self.reason)

    def _outcome(self, trial: Trial, end: int) -> TrialOutcome:
        assert trial.target is not None
        start = trial.start if trial.go_time is None else trial.go_time
        seconds = max((end - start) / self._rate, 1.0 / self._rate)
        ticks, cursor = _between(self._cursor, start, end, len(trial.target))
        bits = None
        if trial.radius is not None and trial.success is not None and len(ticks):
            distance = float(np.linalg.norm(np.asarray(trial.target) - cursor[0]))
            bits = float(fitts_bits(distance, trial.radius)) / seconds if trial.success else 0.0
        angle, turn, speed = self._aim(trial, ticks, cursor, start, end)
        return TrialOutcome(
            number=trial.number, success=trial.success, time_s=seconds, angle_deg=angle,
            turn_deg=turn, speed=speed, bits_per_s=bits,
        )  # fmt: skip

    def _aim(
        self, trial: Trial, ticks: Int64, cursor: Float64, start: int, end: int
    ) -> tuple[float | None, float | None, float | None]:
        """Mean angular error and turn in degrees, and speed toward the target, outside it."""
        assert trial.target is not None
        at, values = _between(self._values, start, end, len(trial.target))
        if len(ticks) < 2 or len(at) < _LEAST_SAMPLES:
            return None, None, None
        here = np.stack([np.interp(at, ticks, column) for column in cursor.T], axis=1)
        way = np.asarray(trial.target) - here
        far = np.linalg.norm(way, axis=1)
        outside = (far > (trial.radius or 0.0)) & (np.linalg.norm(values, axis=1) > 0)
        if outside.sum() < _LEAST_SAMPLES:
            return None, None, None
        way, values, far = way[outside], values[outside], far[outside]
        angle = float(np.degrees(angular_error(values, way).mean()))
        speed = float(((values * way).sum(1) / far).mean())
        if values.shape[1] != 2:
            return angle, None, speed
        turns = np.arctan2(
            way[:, 0] * values[:, 1] - way[:, 1] * values[:, 0], (way * values).sum(1)
        )
        turn = float(np.degrees(np.arctan2(np.sin(turns).mean(), np.cos(turns).mean())))
        return angle, turn, speed

    def _no_control(self, block: Block) -> str:
        most = self.settings.most_angle_deg
        if block.angle_deg is not None and block.angle_deg > most:
            return (
                f"the decoded velocity is {block.angle_deg:.0f}° off the way to the target in the "
                f"mean of {block.trials} trials; beyond {most:g}° is no control: recalibrate"
            )
        return ""

    def _fallen(self, block: Block, reference: Block) -> str:
        """What is worse than in the reference, in words; "" for nothing."""
        found = [
            *self._success_fell(block, reference),
            *self._angle_rose(block, reference),
            *self._throughput_fell(block, reference),
        ]
        return f"{'; '.join(found)}: recalibrate" if found else ""

    def _success_fell(self, block: Block, reference: Block) -> list[str]:
        was, now = reference.success, block.success
        if was is None or now is None or was - now < self.settings.least_success:
            return []
        # Of the pooled share, with one more of each kind, so that 100 % has an error too.
        n = block.trials + reference.trials
        pooled = (was * reference.trials + now * block.trials + 1) / (n + 2)
        error = math.sqrt(pooled * (1 - pooled) * (1 / block.trials + 1 / reference.trials))
        if was - now < min(self.settings.standard_errors, 3.0) * error:
            return []
        return [f"success fell from {was:.0%} to {now:.0%}"]

    def _angle_rose(self, block: Block, reference: Block) -> list[str]:
        was, now = reference.angle_deg, block.angle_deg
        if was is None or now is None:
            return []
        error = math.hypot(block.angle_se or 0.0, reference.angle_se or 0.0)
        least = max(self.settings.least_angle_deg, self.settings.standard_errors * error)
        if now - was < least:
            return []
        turned = "" if block.turn_deg is None else f" (turned by {block.turn_deg:+.0f}°)"
        return [f"the angular error rose from {was:.0f}° to {now:.0f}°{turned}"]

    def _throughput_fell(self, block: Block, reference: Block) -> list[str]:
        was, now = reference.bits_per_s, block.bits_per_s
        if was is None or now is None:
            return []
        error = math.hypot(block.bits_se or 0.0, reference.bits_se or 0.0)
        least = max(self.settings.least_throughput * was, self.settings.standard_errors * error)
        if was - now < least:
            return []
        return [f"throughput fell from {was:.2f} to {now:.2f} bit/s"]


def _between(
    kept: deque[tuple[int, tuple[float, ...]]], start: int, end: int, width: int
) -> tuple[Int64, Float64]:
    """Ticks (S,) and rows (S, width) from start to end; rows of another width are left out."""
    chosen = [one for one in kept if start <= one[0] <= end and len(one[1]) == width]
    chosen.sort(key=lambda one: one[0])
    ticks = np.array([one[0] for one in chosen], np.int64)
    return ticks, np.array([one[1] for one in chosen], np.float64).reshape(-1, width)


def _mean(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard error of what is known."""
    known = np.array([one for one in values if one is not None])
    if len(known) < 2:
        return (float(known[0]) if len(known) else None), None
    return float(known.mean()), float(known.std(ddof=1) / math.sqrt(len(known)))
