"""Decoding against the clock, as beside an implant: spikes arrive, values are due at a fixed rate.

One loop does both, as an implant's software does: it pushes each chunk when the device would have
delivered it and decodes when a value is due. What counts is the time from when a value was due to
when it was there, so waiting for a late start counts too.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.latency import LatencyHistogram

_POOL_S = 10.0
"""Seconds of spikes that are made once and then repeated, so that nothing is made on the way."""
_STATM = Path("/proc/self/statm")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """What the stream is like."""

    spikes_per_s: float = 5000.0
    rate_hz: float = 100.0
    """Values per second."""
    seconds: float = 60.0
    chunk_s: float = 0.001
    """The device delivers spikes so often."""
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "spikes_per_s": (0.0, 1e6),
            "rate_hz": (1.0, 1e4),
            "seconds": (0.05, 7 * 86400.0),
            "chunk_s": (1e-4, 1.0),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise UsageError(f"{name}: expected {least:g} to {most:g}, got {value:g}")


class Clock(Protocol):
    """The time that the stream keeps to."""

    def now(self) -> float:
        """Seconds from any beginning."""

    def wait_until(self, t: float) -> None:
        """Return at ``t`` or after; at once when that is past."""


class WallClock:
    """The machine's own."""

    def now(self) -> float:
        """Seconds from any beginning."""
        return time.perf_counter()

    def wait_until(self, t: float) -> None:
        """Return at ``t`` or after; at once when that is past."""
        left = t - time.perf_counter()
        if left > 0:
            time.sleep(left)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What came of it."""

    settings: LoadSettings
    n_decodes: int
    missed: int
    """Values that were there later than the next one was due, or never."""
    skipped: int
    """Those of them that were never decoded, because the next one was due already."""
    n_spikes: float
    """Spikes in a window, in the mean."""
    latency: LatencyHistogram
    """From when a value was due to when it was there."""
    decode: LatencyHistogram
    """Of the call of ``decode`` alone."""
    rss_mb: tuple[float, float]
    """Resident memory after the first second, and at the end; 0 where it cannot be read."""
    stats: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        settings = dataclasses.asdict(self.settings)
        start, end = self.rss_mb
        return {
            "load": settings,
            "n_decodes": self.n_decodes,
            "missed": self.missed,
            "skipped": self.skipped,
            "spikes_per_window": self.n_spikes,
            "latency_ms": self.latency.summary_ms(),
            "decode_ms": self.decode.summary_ms(),
            "rss_mb": {"start": round(start, 1), "end": round(end, 1)},
            "statuses": self.stats["statuses"],
            "counters": self.stats["counters"],
        }


def run_load(
    decoder: Decoder,
    settings: LoadSettings,
    *,
    clock: Clock | None = None,
    on_second: Callable[[int, int], None] | None = None,
) -> LoadReport:
    """Keep a decoder under load.

    Args:
        decoder: opened with times in seconds, and not used for anything else meanwhile.
        settings: of the stream.
        clock: what it keeps to; None for the machine's.
        on_second: called with seconds done and all of them.
    """
    return _Load(decoder, settings, clock or WallClock(), on_second).run()


class _Load:
    """One run."""

    def __init__(
        self,
        decoder: Decoder,
        settings: LoadSettings,
        clock: Clock,
        on_second: Callable[[int, int], None] | None,
    ) -> None:
        self.decoder, self.settings, self.clock = decoder, settings, clock
        self.on_second = on_second or (lambda _done, _all: None)
        self.chunks = spike_chunks(settings, len(decoder.unit_ids))
        self.latency, self.decode = LatencyHistogram(), LatencyHistogram()
        self.pushed = self.n_spikes = self.missed = self.skipped = 0
        self.start = clock.now()

    def run(self) -> LoadReport:
        """Push and decode until the time is over."""
        period, total = 1.0 / self.settings.rate_hz, self.n_values()
        rss, second, i = 0.0, 0, 1
        while i <= total:
            self.push_until(i * period)
            self.clock.wait_until(self.start + i * period)
            late_s = self.value_due(i * period)
            self.missed += late_s > period
            # What is due by now is decoded next; what is past even that never will be.
            lost = min(max(0, int(late_s / period) - 1), total - i)
            self.skipped += lost
            i += 1 + lost
            if int(i * period) > second:
                second = int(i * period)
                rss = rss or resident_mb()
                self.on_second(second, int(total * period))
        n_decodes = total - self.skipped
        return LoadReport(
            settings=self.settings,
            n_decodes=n_decodes,
            missed=self.missed + self.skipped,
            skipped=self.skipped,
            n_spikes=round(self.n_spikes / n_decodes, 1),
            latency=self.latency,
            decode=self.decode,
            rss_mb=(rss or resident_mb(), resident_mb()),
            stats=self.decoder.stats(),
        )

    def n_values(self) -> int:
        """How many values are due in all, at least one."""
        return max(1, round(self.settings.seconds * self.settings.rate_hz))

    def push_until(self, t: float) -> None:
        """Push every chunk that ends by ``t`` seconds of the stream, each when it is over."""
        chunk_s = self.settings.chunk_s
        while (self.pushed + 1) * chunk_s <= t + 1e-9:
            begin = self.pushed * chunk_s
            self.clock.wait_until(self.start + begin + chunk_s)
            times, rows = self.chunks[self.pushed % len(self.chunks)]
            lap = self.pushed // len(self.chunks)
            self.decoder.push(times + lap * len(self.chunks) * chunk_s, rows)
            self.pushed += 1

    def value_due(self, t: float) -> float:
        """Decode at ``t`` seconds of the stream; how many seconds later the value was there."""
        result = self.decoder.decode(t)
        late_s = self.clock.now() - self.start - t
        self.latency.add(int(late_s * 1e9))
        self.decode.add(result.latency_ns)
        self.n_spikes += result.n_spikes
        return late_s


def spike_chunks(
    settings: LoadSettings, n_units: int
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]]:
    """Some seconds of Poisson spikes, cut into what the device delivers at once.

    Returns:
        For each chunk times (N,) in seconds of the stream and rows (N,).
    """
    rng = np.random.default_rng(settings.seed)
    n_chunks = max(1, round(_POOL_S / settings.chunk_s))
    counts = rng.poisson(settings.spikes_per_s * settings.chunk_s, n_chunks)
    chunks = []
    for i, count in enumerate(counts):
        times = np.sort(rng.uniform(i, i + 1, count)) * settings.chunk_s
        chunks.append((times, rng.integers(0, n_units, count).astype(np.int32)))
    return chunks


def resident_mb() -> float:
    """Resident memory of this process in MB; 0 where the system does not tell."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
