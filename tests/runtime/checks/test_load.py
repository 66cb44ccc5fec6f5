"""A stream against the clock: everything is pushed in time, and what is late is counted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from poyo_edge.errors import UsageError
from poyo_edge.runtime import Decoder, Result
from poyo_edge.runtime.checks.load import LoadSettings, run_load, spike_chunks

if TYPE_CHECKING:
    from conftest import Rig


class FakeClock:
    """Time that passes only where a test lets it."""

    def __init__(self) -> None:
        self.t = 100.0

    def now(self) -> float:
        return self.t

    def wait_until(self, t: float) -> None:
        self.t = max(self.t, t)


def slow(decoder: Decoder, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, taken: Any) -> None:
    """Let the i-th decode take ``taken(i)`` seconds of the clock."""
    whole, count = decoder.decode, iter(range(10**6))

    def decode(t: float) -> Result:
        result = whole(t)
        clock.t += taken(next(count))
        return result

    monkeypatch.setattr(decoder, "decode", decode)


def test_a_fast_decoder_misses_nothing_and_hears_every_spike(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, clock = rig.decoder(), FakeClock()
    slow(decoder, clock, monkeypatch, lambda _: 0.004)
    seconds = list[tuple[int, int]]()
    settings = LoadSettings(spikes_per_s=200, rate_hz=50, seconds=2)
    report = run_load(decoder, settings, clock=clock, on_second=lambda *now: seconds.append(now))
    assert (report.n_decodes, report.missed, report.skipped) == (100, 0, 0)
    assert report.latency.summary_ms()["p50"] == pytest.approx(4.0, rel=0.02)
    counters = report.stats["counters"]
    assert counters["accepted"] == counters["received"] == decoder.stats()["counters"]["received"]
    assert 300 < counters["accepted"] < 500
    assert counters["delayed"] == counters["late"] == counters["future"] == 0
    assert seconds == [(1, 2), (2, 2)]
    assert clock.t == pytest.approx(102.004)


def test_a_value_behind_its_deadline_is_missed_and_the_next_is_decoded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, clock = rig.decoder(), FakeClock()
    slow(decoder, clock, monkeypatch, lambda i: 0.025 if i == 10 else 0.001)
    report = run_load(decoder, LoadSettings(rate_hz=50, seconds=1), clock=clock)
    assert (report.n_decodes, report.missed, report.skipped) == (50, 1, 0)


def test_values_whose_successor_is_due_already_are_never_decoded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, clock = rig.decoder(), FakeClock()
    slow(decoder, clock, monkeypatch, lambda i: 0.090 if i == 10 else 0.001)
    report = run_load(decoder, LoadSettings(rate_hz=50, seconds=1), clock=clock)
    # Due at 220 ms, there at 310: of those due at 240, 260, 280 and 300 only the last is decoded.
    assert (report.n_decodes, report.missed, report.skipped) == (47, 4, 3)
    assert report.stats["counters"]["delayed"] == 0


def test_chunks_hold_their_spikes_in_order_and_in_time() -> None:
    settings = LoadSettings(spikes_per_s=3000, chunk_s=0.002)
    chunks = spike_chunks(settings, 7)
    assert len(chunks) == 5000
    assert sum(len(times) for times, _ in chunks) == pytest.approx(30_000, rel=0.05)
    for i in (0, 17, 4999):
        times, rows = chunks[i]
        assert (np.diff(times) >= 0).all()
        assert ((times >= i * 0.002) & (times < (i + 1) * 0.002)).all()
        assert set(rows) <= set(range(7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spikes_per_s": -1}, "spikes_per_s: expected 0 to 1e+06, got -1"),
        ({"rate_hz": 0}, "rate_hz: expected 1 to 10000, got 0"),
        ({"seconds": float("nan")}, "seconds: expected 0.05 to 604800, got nan"),
    ],
)
def test_a_stream_that_makes_no_sense_is_refused(change: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        LoadSettings(**change)
