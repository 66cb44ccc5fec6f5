"""Decoders as a closed loop sees them: the spikes of a step in, the velocity at its end out.

POYO runs as on a rig: the ``DecodeLoop`` of ``poyo-edge run`` takes packets, places them on the
device's clock and calls the ``Decoder``; only the host's clock is simulated, so that it runs as
fast as it can. Wiener and Kalman filter get the same spikes at the same ticks.

Legend: N spikes, U units, D dimensions, F features.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from poyo_edge.arrays import Float64, Int64, Rows
from poyo_edge.errors import UsageError
from poyo_edge.filters.kalman import VelocityKalman, fit_kalman_with_lag
from poyo_edge.filters.wiener import BIN_S, BINS, bin_counts, fit_ridge
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.loop import DecodeLoop
from poyo_edge.runtime.rig.settings import LoopSettings
from poyo_edge.simulation.array import TICK_HZ, SimulatedArray
from poyo_edge.simulation.observing import Labelled

_SECOND = 1_000_000_000
_STARTS_NS = 100 * _SECOND
_LAG_S = 0.1
"""The longest lag of a Kalman filter that is tried."""


class Decoding(Protocol):
    """A decoder in a closed loop."""

    name: str

    def restart(self) -> None:
        """Begin anew: the device's counter is at 0, and nothing has been heard."""

    def step(self, end: int, ticks: Int64, rows: Rows) -> Float64:
        """The velocity (D,) at tick ``end``, from the spikes of the step that ends there.

        Args:
            end: of the step, in ticks of ``TICK_HZ``.
            ticks: (N,) ascending, before ``end``.
            rows: (N,) rows of the array's units.
        """


class SimulatedHost:
    """A host's clock that moves when told, so that time runs as fast as the machine allows."""

    def __init__(self) -> None:
        self.ns = _STARTS_NS

    def now_ns(self) -> int:
        """Nanoseconds since some start."""
        return self.ns

    def wait_until(self, ns: int, stop: threading.Event) -> None:
        """It is then."""
        self.ns = max(self.ns, ns)


class LoopDecoding:
    """POYO, by the loop and the decoder that a rig runs.

    Args:
        decoder: opened with ``tick_rate_hz=TICK_HZ`` and with a session of the array's units.
        unit_ids: (U,) names of the array's units.
        rate_hz: windows per second.
        loop_arguments: more of those that ``DecodeLoop`` takes, such as ``journal``.
    """

    name = "poyo"

    def __init__(
        self,
        decoder: Decoder,
        unit_ids: Sequence[str],
        *,
        rate_hz: float = 50.0,
        **loop_arguments: Any,
    ) -> None:
        if decoder.tick_rate_hz != TICK_HZ:
            raise UsageError(
                f"decoder: expected one opened with tick_rate_hz={TICK_HZ}, got "
                f"{decoder.tick_rate_hz}"
            )
        known = np.asarray(decoder.rows(list(unit_ids))) >= 0
        if not known.any():
            raise UsageError(
                f"session {decoder.session_id!r}: expected one of the array's units, like "
                f"{unit_ids[0]!r}, got units like {decoder.unit_ids[0]!r}; name the session that "
                f"was calibrated on this array"
            )
        self.decoder = decoder
        self.missing = tuple(u for u, there in zip(unit_ids, known, strict=True) if not there)
        """Units of the array that the session does not know: their spikes are left out."""
        self._unit_ids, self._rate_hz, self._arguments = tuple(unit_ids), rate_hz, loop_arguments
        self.restart()

    def restart(self) -> None:
        """Another loop on another clock; the decoder forgets what it heard."""
        self.decoder.reset()
        self._rows = self.decoder.rows(list(self._unit_ids))
        self.host = SimulatedHost()
        self.last: LoopResult | None = None
        self.loop = DecodeLoop(
            self.decoder,
            DeviceClock(TICK_HZ),
            [self._note],
            settings=LoopSettings(rate_hz=self._rate_hz),
            host=self.host,
            **self._arguments,
        )
        self._silence = np.zeros(self.decoder.artifact.manifest.spec.dim_out)

    def step(self, end: int, ticks: Int64, rows: Rows) -> Float64:
        """The value (D,) of the window that ends at ``end``; 0 before the first spike."""
        now = _STARTS_NS + end * _SECOND // TICK_HZ
        self.host.ns = now
        self.loop.feed(ticks, self._rows[rows], host_ns=now)
        again = self.loop.step()
        # One way alone cannot show a clock's offset: the loop waits until a little after the step,
        # and as any sleep this one ends when the time is past, here by a tick.
        if self.last is None or self.last.result.t < end:
            self.host.ns = max(now, again) + _SECOND // TICK_HZ
            self.loop.step()
        return self._silence if self.last is None else self.last.result.value

    def _note(self, value: LoopResult) -> None:
        self.last = value


class BinnedDecoding:
    """Any decoder of binned spikes on a stream: bins of 50 ms before each value.

    Args:
        name: of the decoder.
        decode: counts (U, K) int64 → value (D,).
        n_units: U.
        bins: K.
    """

    def __init__(
        self, name: str, decode: Callable[[Int64], Float64], n_units: int, bins: int
    ) -> None:
        self.name = name
        self._decode, self._n_units, self._bins = decode, n_units, bins
        self.restart()

    def restart(self) -> None:
        """Forget all spikes."""
        self._ticks, self._rows = np.empty(0, np.int64), np.empty(0, np.int32)

    def step(self, end: int, ticks: Int64, rows: Rows) -> Float64:
        """The value (D,) of the bins that end at ``end``."""
        width, n = round(BIN_S * TICK_HZ), self._bins
        heard = np.concatenate([self._ticks, ticks])
        old = int(np.searchsorted(heard, end - n * width))
        self._ticks = heard[old:]
        self._rows = np.concatenate([self._rows, rows])[old:]
        bins = n - 1 - (end - 1 - self._ticks) // width
        counts = np.bincount(self._rows * n + bins, minlength=self._n_units * n)
        return self._decode(counts.reshape(self._n_units, n))


class WienerDecoding(BinnedDecoding):
    """The Wiener filter on a stream: ten bins of 50 ms before each value."""

    def __init__(self, weights: Float64, bias: Float64, n_units: int) -> None:
        """Weights (U·BINS, D), units first, and bias (D,)."""
        self._weights, self._bias = weights, bias
        super().__init__("wiener", self._filtered, n_units, BINS)

    @classmethod
    def fitted(cls, labelled: Labelled) -> WienerDecoding:
        """Fitted to labelled data by ridge regression."""
        counts = bin_counts(
            labelled.spike_times, labelled.spike_rows, labelled.n_units, labelled.times
        )
        features = counts.reshape(len(counts), -1).astype(np.float64)
        weights, bias, _ridge = fit_ridge(features, labelled.values, labelled.times)
        return cls(weights, bias, labelled.n_units)

    def _filtered(self, counts: Int64) -> Float64:
        return np.asarray(counts.ravel() @ self._weights + self._bias)


class KalmanDecoding:
    """The velocity Kalman filter, a bin for each step."""

    name = "kalman"

    def __init__(self, fitted: VelocityKalman) -> None:
        self._fitted, self._n_units = fitted, len(fitted.level)
        self.restart()

    @classmethod
    def fitted(cls, labelled: Labelled) -> KalmanDecoding:
        """Fitted to labelled data whose samples are one step apart.

        Its lag is chosen by what it decodes of the last fifth, as Wu et al. 2006 choose theirs: a
        bin tells most of the movement that comes some steps after it, which the Wiener filter's
        weights find by themselves.
        """
        period = float(np.median(np.diff(labelled.times)))
        counts = bin_counts(
            labelled.spike_times, labelled.spike_rows, labelled.n_units, labelled.times,
            before=1, bin_s=period,
        )[:, :, 0].astype(np.float64)  # fmt: skip
        follows = np.diff(labelled.times) < 1.5 * period
        return cls(fit_kalman_with_lag(counts, labelled.values, follows, most=_LAG_S / period))

    def restart(self) -> None:
        """At rest."""
        self._running = self._fitted.begin()

    def step(self, end: int, ticks: Int64, rows: Rows) -> Float64:
        """The value (D,) after the spikes of this step."""
        counts = np.bincount(rows, minlength=self._n_units).astype(np.float64)
        return self._running.step(counts)


class KnownIntention:
    """A perfect decoder, as a limit: it gives what was intended ``delay_s`` before.

    Args:
        array: the one in the loop.
    """

    name = "perfect"

    def __init__(self, array: SimulatedArray) -> None:
        self._array = array

    def restart(self) -> None:
        """There is nothing to forget."""

    def step(self, end: int, ticks: Int64, rows: Rows) -> Float64:
        """What was intended (D,)."""
        return self._array.intention()
