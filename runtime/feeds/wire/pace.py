"""Do a feed's times run at about the rate that its address states?"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

_SECOND = 1_000_000_000
_FACTOR = 2.0
"""A backlog or a pause changes the pace of one second; three in a row are a rate."""
_IN_A_ROW = 3


class Pace:
    """Compares what passes on the device with what passes on the host, second by second.

    The clock of a loop follows small differences and flags larger ones, of packets that it can
    place. A rate that is wrong by a factor leaves it none: that is seen here.

    Args:
        rate_hz: ticks per second as they are stated.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._last: tuple[int, int] | None = None
        self._wrong: list[float] = []

    def add(self, ticks: npt.NDArray[Any], host_ns: int) -> str:
        """Take a packet's ticks (N,); what is wrong, in a sentence, or ""."""
        if not len(ticks) or ticks.dtype.kind not in "iu":
            return ""
        newest = int(ticks.max())
        if self._last is None:
            self._last = (newest, host_ns)
        passed_ns = host_ns - self._last[1]
        if passed_ns < _SECOND:
            return ""
        seen_hz = (newest - self._last[0]) * _SECOND / passed_ns
        self._last = (newest, host_ns)
        ratio = seen_hz / self._rate_hz
        # A counter that wraps or begins anew goes back: no rate.
        wrong = ratio > _FACTOR or 0 < ratio < 1 / _FACTOR
        steady = wrong and all(0.8 < seen_hz / one < 1.25 for one in self._wrong)
        self._wrong = [*self._wrong[-_IN_A_ROW + 1 :], seen_hz] if steady else []
        if len(self._wrong) < _IN_A_ROW:
            return ""
        return (
            f"times: expected {self._rate_hz:g} ticks per second, got about {seen_hz:.3g}; "
            f"state the counter's rate in the address as its maker gives it, near "
            f"?rate={_round(seen_hz):g}"
        )


def _round(rate_hz: float) -> float:
    return float(f"{rate_hz:.2g}")
