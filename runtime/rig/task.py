"""The task that runs beside the decoder: its trials and its cursor, on the device's clock.

Legend: N samples, D dimensions of the workspace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64
from poyo_edge.errors import UsageError
from poyo_edge.journal import JournalWriter
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.settings import LoopCounters
from poyo_edge.trials import MOST_DIMS, NOW, TIMES, Trial, TrialUpdate

_log = logging.getLogger(__name__)
BACK_S = 600.0
"""Labels, trials and positions may come so late; a trial without an end ends after as long."""
_MOST_TICKS = 1 << 61
"""Half of what a decoder takes: 73 years of nanoseconds, and the clock can go on for as long."""
_MOST_KNOWN = 64
"""Trials back of which more may be told."""


class _Known(NamedTuple):
    """A trial, and what was said of it before it was placed on the clock."""

    trial: Trial
    given: Mapping[str, Any]


class Task:
    """Uses what is said of trials and the cursor, in the loop's thread; nothing in it raises.

    Args:
        clock: the device's.
        counters: where messages are counted.
        journal: where all that is used is recorded.
        on_trial: called with what is known of a trial.
        on_cursor: called with ticks (N,) and positions (N, D).
        on_problem: told, once, why something could not be used; None logs it.
    """

    def __init__(
        self,
        clock: DeviceClock,
        *,
        counters: LoopCounters,
        journal: JournalWriter | None,
        on_trial: Callable[[Trial], None] | None,
        on_cursor: Callable[[Int64, Float64], None] | None,
        on_problem: Callable[[str], None] | None,
    ) -> None:
        self.number: int | None = None
        """Of the trial that ran at the last window's end; None between trials."""
        self._clock, self._counters, self._journal = clock, counters, journal
        self._on_trial, self._on_cursor = on_trial, on_cursor
        self._on_problem = on_problem
        self._epoch = 0
        self._known: dict[int, _Known] = {}
        self._dims: tuple[int, str] | None = None
        self._said = False

    def running(self, tick: int) -> int | None:
        """Number of the trial that runs at a tick; asked at each window's end."""
        self._look_at_clock()
        begun = [one.trial for one in self._known.values() if one.trial.start <= tick]
        newest = max(begun, key=lambda trial: trial.start, default=None)
        over = newest is None or (newest.end is not None and newest.end <= tick)
        forgotten = newest is None or tick - newest.start > BACK_S * self._clock.rate_hz
        self.number = None if newest is None or over or forgotten else newest.number
        return self.number

    def take_trial(self, update: TrialUpdate, host_ns: int) -> None:
        """Use what is said of a trial, which arrived at ``host_ns``."""
        self._look_at_clock()
        before = self._known.get(update.number)
        if before is not None and self._is_another(update, before):
            before = None
        try:
            placed = self._placed(update, before, host_ns)
            trial = placed.onto(None if before is None else before.trial)
            self._require_apart(trial)
            if trial.target is not None:
                self._require_width(len(trial.target), f"the target of trial {trial.number}")
        except (UsageError, ValueError, TypeError, OverflowError) as error:
            self._refuse(str(error))
            return
        given = update.given if before is None else {**before.given, **update.given}
        if before is None:
            self._known.pop(trial.number, None)  # what is new stands last
        self._known[trial.number] = _Known(trial, given)
        if len(self._known) > _MOST_KNOWN:
            self._known.pop(next(iter(self._known)))
        self._counters.trials += 1
        if self._journal is not None:
            self._journal.trial(self._clock.epoch, trial)
        self._tell(self._on_trial, trial)

    def take_cursor(self, ticks: npt.NDArray[Any], positions: Float64, host_ns: int) -> None:
        """Use positions (N, D) at ticks (N,), or one of now if there are no ticks."""
        self._look_at_clock()
        try:
            self._require_positions(len(ticks), positions)
            if len(ticks):
                placed = self._covered(ticks, host_ns, "cursor")
            else:
                placed = np.array([self._now(host_ns, "cursor")], np.int64)
            self._require_width(positions.shape[1], "the cursor")
        except UsageError as error:
            self._refuse(str(error))
            return
        self._counters.cursor += len(placed)
        if self._journal is not None:
            self._journal.cursor(self._clock.epoch, placed, positions)
        self._tell(self._on_cursor, placed, positions)

    def _is_another(self, update: TrialUpdate, before: _Known) -> bool:
        """Whether a number is used again, as by a task that was started again."""
        start = update.given.get("start")
        if start is None:
            return False
        if start != before.given.get("start"):
            return True
        over = before.trial.end is not None or update.number != next(reversed(self._known))
        return start == NOW and update.given.get("end") is None and over

    def _look_at_clock(self) -> None:
        """Trials of a clock that has begun anew have no place on it."""
        if self._clock.epoch != self._epoch:
            self._epoch = self._clock.epoch
            self._known.clear()
            self._dims = None

    def _placed(self, update: TrialUpdate, before: _Known | None, host_ns: int) -> TrialUpdate:
        """The update with its times as unwrapped ticks; what was said before keeps its place."""
        placed = dict(update.given)
        least = -_MOST_TICKS
        for name in TIMES:
            value = placed.get(name)
            known = None if before is None else getattr(before.trial, name)
            if value is not None:
                same = known is not None and before is not None and before.given.get(name) == value
                if same:
                    placed[name] = known
                elif value == NOW:
                    placed[name] = self._now_of(name, update.number, least, host_ns)
                else:
                    what = f"trial {update.number}: {name}"
                    placed[name] = int(self._covered(_as_ticks(value, what), host_ns, what)[0])
            at = placed.get(name, known)
            least = least if at is None else max(least, at)
        return TrialUpdate(update.number, placed)

    def _now_of(self, name: str, number: int, least: int, host_ns: int) -> int:
        """Now, and not before what is known: the clock is followed, so it may go back a little."""
        now = self._now(host_ns, f"trial {number}: {name}")
        if name == "start":
            others = [one.trial for key, one in self._known.items() if key != number]
            least = max((trial.end or trial.start for trial in others), default=least)
            if least - now > self._clock.rate_hz:  # more than that is another's mistake
                return now
        return max(now, least)

    def _now(self, host_ns: int, what: str) -> int:
        if not self._clock.known:
            raise UsageError(
                f"{what}: expected a time in ticks before the first spikes have come, got one of "
                f"now, which has no place on the device's clock yet; start the task after the feed"
            )
        return self._clock.device_now(host_ns)

    def _covered(self, raw: npt.NDArray[Any], host_ns: int, what: str) -> Int64:
        ticks = self._clock.unwrapped(raw)
        if not self._clock.covers(ticks, host_ns, back_s=BACK_S):
            raise UsageError(
                f"{what}: expected ticks of the device's counter, not from the future and of the "
                f"last {BACK_S:g} s, got {int(raw.max())} while it is at about "
                f'{self._clock.device_now(host_ns)}; send "now" where that counter is not known'
            )
        return ticks

    def _require_apart(self, trial: Trial) -> None:
        for other in (one.trial for one in self._known.values()):
            if other.number == trial.number:
                continue
            first, second = sorted((trial, other), key=lambda one: (one.start, one.number))
            if first.end is not None and first.end > second.start:
                raise UsageError(
                    f"trial {trial.number}: expected trials apart from each other, got trial "
                    f"{second.number} that starts at {second.start} and trial {first.number} that "
                    f"ends at {first.end}"
                )

    def _require_positions(self, n_ticks: int, positions: Float64) -> None:
        n, dims = positions.shape if positions.ndim == 2 else (0, 0)
        if n != (n_ticks or 1) or not 1 <= dims <= MOST_DIMS or not np.isfinite(positions).all():
            raise UsageError(
                f"cursor: expected {n_ticks or 1} row(s) of 1 to {MOST_DIMS} finite numbers, got "
                f"shape {positions.shape}"
            )

    def _require_width(self, dims: int, what: str) -> None:
        """Targets and cursor lie in one space: that of the first of them."""
        if self._dims is None:
            self._dims = (dims, what)
        if dims != self._dims[0]:
            raise UsageError(
                f"{what}: expected {self._dims[0]} coordinates, as {self._dims[1]} has, got {dims}"
            )

    def _refuse(self, said: str) -> None:
        self._counters.bad_packets += 1
        if self._said:
            return
        self._said = True
        if self._on_problem is not None:
            self._on_problem(said)
        else:
            _log.warning("the task: %s", said)

    def _tell(self, listener: Callable[..., None] | None, *what: Any) -> None:
        if listener is None:
            return
        try:
            listener(*what)
        except UsageError as error:
            self._counters.task_failures += 1
            _log.warning("what the task said was refused: %s", error)


def told_to(*listeners: Callable[..., None] | None) -> Callable[..., None]:
    """One listener that tells all of these, in their order; None is nobody."""
    known = [one for one in listeners if one is not None]

    def tell(*what: Any) -> None:
        for one in known:
            one(*what)

    return tell


def can_be_ticks(ticks: npt.NDArray[Any]) -> bool:
    """Whether a packet's times (N,) are integers that a clock can go on from."""
    if ticks.ndim != 1 or not ticks.size:
        return ticks.ndim == 1
    whole = ticks.dtype.kind in "iu"
    return whole and int(ticks.min()) >= -_MOST_TICKS and int(ticks.max()) <= _MOST_TICKS


def _as_ticks(value: Any, what: str) -> Int64:
    ticks = np.array([value])
    if not can_be_ticks(ticks):
        raise UsageError(f"{what}: expected a whole number of ticks, got {value!r:.40}")
    return ticks.astype(np.int64)
