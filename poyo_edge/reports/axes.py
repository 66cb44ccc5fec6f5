"""Axes: where they start, which numbers stand at them, and where a value is on them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

Place = Callable[[float], float]
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A range with its label."""

    label: str
    low: float
    high: float
    log: bool = False
    most: int = 5
    """Numbers that stand at it, about."""
    named: Mapping[float, str] = dataclasses.field(default_factory=dict)
    """What stands where instead of numbers."""

    @property
    def floor(self) -> float:
        """Where bars stand: zero where it is on the axis."""
        return self.low if self.log else min(max(0.0, self.low), self.high)

    def placed(self, first: float, last: float) -> Place:
        """Where a value is, from ``first`` at the low end to ``last`` at the high one."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        factor = (last - first) / (high - low)
        return lambda value: first + (self._scaled(value) - low) * factor

    def ticks(self) -> list[float]:
        """Round numbers within the range, or where names stand."""
        if self.named:
            return list(self.named)
        if self.log:
            return self._decades()
        step = _step((self.high - self.low) / self.most)
        count = math.floor((self.high - self.low) / step + 1.5)
        first = math.ceil(self.low / step - 1e-9)
        found = [(first + i) * step for i in range(count)]
        return [tick for tick in found if tick <= self.high + 1e-9 * step]

    def said(self, tick: float) -> str:
        """A number as it stands at the axis."""
        if self.named:
            return self.named[tick]
        if tick == 0:
            return "0"
        if self.log or abs(tick) >= 1e4:
            return f"{tick:,.12g}" if abs(tick) < 1e5 else f"{tick:.0e}".replace("e+0", "e")
        return f"{tick:.6g}".replace("-", "−")

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, self.low / 10)) if self.log else value

    def _decades(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for within in ((1, 2, 5), (1, 3), (1,)):
            found = [
                factor * 10.0**power for power in range(first, last + 1) for factor in within
                if self.low * 0.999 <= factor * 10.0**power <= self.high * 1.001
            ]  # fmt: skip
            if len(found) <= self.most + 1:
                return found
        stride = math.ceil(len(found) / self.most)
        return found[::stride]


def axis(
    label: str, values: Iterable[float], *, include: Iterable[float] = (), least: float = 1e-9
) -> Axis:
    """A linear axis over values, a little wider, that holds what must be on it.

    Args:
        label: with its unit.
        values: what is drawn; those that are not finite are left out.
        include: ends that are taken as they are, such as 0 for what starts there.
        least: width that it has at least.
    """
    fixed = list(include)
    known = [value for value in (*values, *fixed) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < least:
        high = low + max(least, abs(low) * 0.1, 1e-6)
    edge = 0.04 * (high - low)
    low = low if low in fixed else low - edge
    high = high if high in fixed else high + edge
    return Axis(label=label, low=low, high=high)


def log_axis(label: str, values: Iterable[float]) -> Axis:
    """A logarithmic axis over values above 0."""
    known = [value for value in values if math.isfinite(value) and value > 0] or [1.0, 10.0]
    low, high = min(known) / 1.1, max(known) * 1.1
    return Axis(label=label, low=low, high=max(high, low * 2), log=True)


def _step(about: float) -> float:
    """The round number that is the next above."""
    size = 10.0 ** math.floor(math.log10(about))
    return size * next(step for step in _STEPS if step * size >= about * 0.999)
