"""Too few spikes, too many, none at all: what is decoded, and what the status says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from poyo_edge.runtime import DecoderSettings, Status

if TYPE_CHECKING:
    from conftest import Rig

T = 1.0


def test_silence_that_the_rates_allow_is_decoded_and_flagged(rig: Rig) -> None:
    times, rows = rig.stream(12, 2.0)  # 30 spikes would take five seconds
    decoder = rig.decoder()
    decoded = rig.run(decoder, times, rows, [2.0, *(2.0 + i / 4 for i in range(1, 9))])
    silent = [result for result in decoded if "silent" in result.flags]
    assert [result.t for result in silent] == [3.0, 3.25, 3.5, 3.75, 4.0]
    nothing = rig.window(np.empty(0, np.float32), np.empty(0, np.int32))
    for result in silent:
        assert result.status is Status.DEGRADED
        assert np.array_equal(result.value, nothing)
        assert (result.n_spikes, result.t_last_spike) == (0, None)


def test_after_a_gap_windows_are_flagged_until_one_is_whole(rig: Rig) -> None:
    decoder = rig.decoder()
    times = np.concatenate([np.arange(0, 2, 1 / 64), np.arange(3.5, 6, 1 / 64)])
    rows = np.zeros(len(times), np.int32)
    ends = [t / 8 for t in range(8, 48)]
    decoded = rig.run(decoder, times, rows, ends)
    flagged = [result.t for result in decoded if "gap" in result.flags]
    # The window that ends at 4.625 is the first without the silence.
    assert flagged == [t for t in ends if 3.5 < t <= 4.5]
    assert {result.status for result in decoded if "gap" in result.flags} == {Status.DEGRADED}
    assert decoded[-1].status is Status.VALID
    assert decoder.stats()["counters"]["gaps"] == 1


def test_units_that_drop_out_change_the_value_and_it_recovers(rig: Rig) -> None:
    times, rows = rig.stream(900, 3.0)
    dead = (rows < 6) & (times >= 1) & (times < 2)
    whole = rig.run(rig.decoder(), times, rows, [1.0, 2.0, 3.0])
    lossy = rig.run(rig.decoder(), times[~dead], rows[~dead], [1.0, 2.0, 3.0])
    same = [np.array_equal(a.value, b.value) for a, b in zip(whole, lossy, strict=True)]
    assert same == [True, False, True]
    assert [result.status for result in lossy[1:]] == [Status.VALID, Status.VALID]


def test_a_burst_keeps_the_newest_spikes_and_counts_the_rest(rig: Rig) -> None:
    budget = rig.core.artifact.manifest.max_spikes
    times, rows = rig.stream(4000, T)
    decoder = rig.decoder()
    decoder.push([-0.5], [0])
    decoder.push(times, rows)
    result = decoder.decode(T)
    assert (result.status, result.flags) == (Status.DEGRADED, ("unverified", "over_budget"))
    assert result.n_spikes == budget == 600
    expected = rig.window(times[-budget:].astype(np.float32), rows[-budget:])
    assert np.array_equal(result.value, expected)
    assert decoder.stats()["counters"]["over_budget"] == 4000 - budget
    decoder.decode(T)
    assert decoder.stats()["counters"]["over_budget"] == 2 * (4000 - budget)


def test_as_many_spikes_as_the_budget_are_not_too_many(rig: Rig) -> None:
    times, rows = rig.stream(600, T)
    decoder = rig.decoder()
    decoder.push([-0.5], [0])
    decoder.push(times, rows)
    assert decoder.decode(T).flags == ("unverified",)


def test_windows_that_lack_spikes_pushed_out_of_the_ring_say_so(rig: Rig) -> None:
    decoder = rig.decoder(settings=DecoderSettings(capacity=100))
    times, rows = rig.stream(500, 1.0)
    decoder.push([-0.5], [0])
    decoder.push(times, rows)
    decoded = [decoder.decode(1.0 + i / 8) for i in range(9)]
    last_lost = times[-101]
    assert [("overflow" in r.flags) for r in decoded] == [r.t - T <= last_lost for r in decoded]
    assert decoder.stats()["counters"]["overflow"] == 401
    assert np.array_equal(
        decoded[0].value, rig.window(times[-100:].astype(np.float32), rows[-100:])
    )


def test_a_decoder_is_warming_up_until_it_has_heard_a_whole_window(rig: Rig) -> None:
    times, rows = rig.stream(300, 2.0)
    ends = [times[0] + i / 8 for i in range(1, 14)]
    decoded = rig.run(rig.decoder(), times, rows, ends)
    assert [result.status for result in decoded] == [Status.WARMUP] * 7 + [Status.VALID] * 6


def test_a_silent_stream_counts_as_heard_from_the_first_decode(rig: Rig) -> None:
    decoder = rig.decoder()
    statuses = [decoder.decode(5.0 + i / 4).status for i in range(6)]
    assert statuses == [Status.WARMUP] * 4 + [Status.DEGRADED] * 2


def test_reset_begins_anew(rig: Rig) -> None:
    times, rows = rig.stream(300, 2.0)
    decoder = rig.decoder()
    rig.run(decoder, times, rows, [2.0])
    decoder.reset()
    assert decoder.stats()["buffered_spikes"] == 0
    again = rig.run(decoder, times, rows, [0.5])[0]
    assert (again.status, again.flags) == (Status.WARMUP, ("warmup", "unverified"))
    assert np.array_equal(again.value, rig.batch(times, rows, 0.5))
    assert decoder.stats()["counters"]["received"] == 300 + int((times < 0.5).sum())
