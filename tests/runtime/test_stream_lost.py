"""A lost stream stops what it moved: hold, decay, zero, within a stated time."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from poyo_edge.artifact import Activity, Session
from poyo_edge.errors import UsageError
from poyo_edge.runtime import DecoderSettings, FailsafeSettings, Result, Status
from poyo_edge.runtime.decoder import Decoder

if TYPE_CHECKING:
    from conftest import Rig

CUT = 3.0
AT_50_HZ = [i / 50 for i in range(50, 301)]


def with_rates(session: Session, total_hz: float) -> Session:
    """The session, which knows that all units together fire so often."""
    n = len(session.header.unit_ids)
    rate = np.full(n, total_hz / n, np.float32)
    activity = Activity(
        rate_hz=rate, rate_sd_hz=rate, output_low=np.full(2, -1e9, np.float32),
        output_high=np.full(2, 1e9, np.float32),
    )  # fmt: skip
    return dataclasses.replace(session, activity=activity)


def cut_at(decoder: Decoder, rig: Rig, rate_hz: int) -> list[Result]:
    """What is decoded at 50 Hz, 1 s to 6 s, of a stream that ends at 3 s."""
    times, rows = rig.stream(6 * rate_hz, 6.0)
    decoder.push([-0.5], [0])
    return rig.run(decoder, times[times < CUT], rows[times < CUT], AT_50_HZ)


@pytest.mark.parametrize("knows_its_rates", [False, True])
def test_a_cut_stream_is_held_then_fades_then_is_zero(rig: Rig, knows_its_rates: bool) -> None:
    session = with_rates(rig.a, 400) if knows_its_rates else rig.a
    decoded = cut_at(Decoder(rig.core, session), rig, 400)
    after = [one for one in decoded if one.t >= CUT]
    assert {one.status for one in decoded if one.t < CUT} == {Status.VALID}
    lost = [one for one in after if "stream_lost" in one.flags]
    assert lost == after[-len(lost) :], "to the end"
    assert CUT + 0.08 < lost[0].t < CUT + 0.14
    assert lost[0].status is Status.HELD
    good = after[after.index(lost[0]) - 1]
    assert np.array_equal(lost[0].value, good.value)
    assert {one.status for one in lost if one.t > good.t + 0.1} == {Status.INVALID}
    assert all((one.value == 0).all() for one in lost if one.t > CUT + 0.75)
    assert len([one for one in after if one.status is Status.VALID and one.t < CUT + 1]) <= 7


@pytest.mark.parametrize(("rate_hz", "allowed_s"), [(300, 0.1), (100, 0.3), (20, 1.5)])
def test_how_long_silence_may_last_goes_by_the_rate(
    rig: Rig, rate_hz: int, allowed_s: float
) -> None:
    for session in (rig.a, with_rates(rig.a, rate_hz)):
        decoded = cut_at(Decoder(rig.core, session), rig, rate_hz)
        first = next(one.t for one in decoded if "stream_lost" in one.flags)
        assert allowed_s * 0.7 < first - CUT < allowed_s * 1.4 + 0.02


def test_a_quiet_session_may_be_silent(rig: Rig) -> None:
    for session in (rig.a, with_rates(rig.a, 4)):
        decoded = cut_at(Decoder(rig.core, session), rig, 4)
        assert not any("stream_lost" in one.flags for one in decoded)
        assert decoded[-1].flags == ("unverified", "silent")
        assert decoded[-1].status is Status.DEGRADED


def test_a_session_that_knows_its_rates_is_lost_if_it_never_hears_a_spike(rig: Rig) -> None:
    decoder = Decoder(rig.core, with_rates(rig.a, 400))
    decoded = [decoder.decode(5.0 + i / 50) for i in range(60)]
    assert decoded[0].status is Status.WARMUP
    assert all("stream_lost" in one.flags for one in decoded[6:])
    for one in decoded[36:]:
        assert (one.status, one.value.tolist()) == (Status.INVALID, [0.0, 0.0])


def test_after_a_loss_windows_are_flagged_until_one_is_whole(rig: Rig) -> None:
    times, rows = rig.stream(3200, 8.0)
    kept = (times < 3.0) | (times >= 3.5)
    decoder = rig.decoder()
    decoder.push([-0.5], [0])
    decoded = rig.run(decoder, times[kept], rows[kept], [1 + i / 50 for i in range(200)])
    lost = [one.t for one in decoded if "stream_lost" in one.flags]
    gap = [one for one in decoded if "gap" in one.flags]
    assert lost[-1] < gap[0].t < lost[-1] + 0.03
    assert lost[-1] + 0.96 < gap[-1].t < 4.6
    assert {one.status for one in gap} == {Status.DEGRADED}
    assert decoded[-1].status is Status.VALID


def test_a_silence_that_no_window_ended_in_is_flagged_too(rig: Rig) -> None:
    times, rows = rig.stream(2400, 6.0)
    kept = (times < 3.0) | (times >= 3.5)
    decoder = rig.decoder()
    decoder.push([-0.5], [0])
    ends = [1.0, 2.0, 3.0, 3.625, 4.0, 4.25, 4.625]
    decoded = rig.run(decoder, times[kept], rows[kept], ends)
    assert ["gap" in one.flags for one in decoded] == [3.5 < t < 4.5 for t in ends]
    assert decoded[3].status is Status.DEGRADED
    assert decoded[-1].status is Status.VALID


def test_whoever_knows_that_the_source_has_ended_says_so(rig: Rig) -> None:
    times, rows = rig.stream(400, 1.0)
    decoder = rig.decoder()
    decoder.push([-0.5], [0])
    good = rig.run(decoder, times, rows, [1.0])[0]
    held = decoder.decode(1.02, stream_lost=True)
    assert (held.status, held.flags) == (Status.HELD, ("stream_lost", "unverified"))
    assert np.array_equal(held.value, good.value)
    assert (decoder.decode(1.7, stream_lost=True).value == 0).all()


def test_a_swap_and_a_reset_judge_silence_anew(rig: Rig) -> None:
    decoder = Decoder(rig.core, with_rates(rig.a, 400))
    cut_at(decoder, rig, 400)
    decoder.reset()
    again = cut_at(decoder, rig, 400)
    assert {one.status for one in again if one.t < CUT} == {Status.VALID}
    decoder.swap_session(with_rates(rig.a, 2))
    assert "stream_lost" not in decoder.decode(6.02).flags


def test_it_can_be_set_and_turned_off(rig: Rig) -> None:
    settings = DecoderSettings(failsafe=FailsafeSettings(missed_spikes=math.inf))
    decoded = cut_at(rig.decoder(settings=settings), rig, 400)
    assert not any("stream_lost" in one.flags for one in decoded)
    settings = DecoderSettings(failsafe=FailsafeSettings(silence_s=0.5))
    decoded = cut_at(rig.decoder(settings=settings), rig, 400)
    first = next(one.t for one in decoded if "stream_lost" in one.flags)
    assert 3.45 < first < 3.55
    with pytest.raises(UsageError, match=re.escape("missed_spikes: expected spikes > 0, got 0")):
        FailsafeSettings(missed_spikes=0)
    with pytest.raises(UsageError, match="silence_s: expected seconds >= 0"):
        FailsafeSettings(silence_s=-1)
