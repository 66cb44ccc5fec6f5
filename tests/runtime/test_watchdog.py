"""What a watchdog says, and how often."""

from __future__ import annotations

import logging

import pytest

from poyo_edge.runtime.watchdog import Watchdog

S = 1_000_000_000


def test_each_stall_is_told_with_its_own_length_and_the_log_is_not_flooded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    beat, now, recovered = [1], [1], list[float]()
    dog = Watchdog(
        lambda: beat[0], limit_s=0.1, now_ns=lambda: now[0], on_recovery=recovered.append
    )
    with caplog.at_level(logging.WARNING):
        for length_s in (3, 1, 2, 5):
            now[0] = beat[0] + length_s * S
            assert dog.check()
            beat[0] = now[0]
            assert not dog.check()
    assert recovered == [3.0, 1.0, 2.0, 5.0]
    assert (dog.stalls, dog.longest_s) == (4, 5.0)
    assert [record.message for record in caplog.records] == [
        "nothing was decoded for 3.000 s",
        "decoding goes on after 3.000 s",
    ]
    with caplog.at_level(logging.WARNING):
        now[0] += 4 * S
        assert dog.check()
    assert caplog.records[-1].message == "nothing was decoded for 4.000 s"
