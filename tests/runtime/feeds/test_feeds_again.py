"""Sources that stop and go on, and samples that cannot be used among those that can."""

from __future__ import annotations

import threading
import types
from typing import Any

import numpy as np
import pytest
from helpers.feeds import Receiver
from helpers.waiting import wait_until

from poyo_edge.runtime.feeds import brand
from poyo_edge.runtime.feeds.blackrock import BlackrockFeed
from poyo_edge.runtime.feeds.lsl import LslFeed


def test_a_blackrock_session_that_stops_and_goes_on_is_listened_to_once() -> None:
    class Session:
        running, asked = False, 0

        def on_event(self, kind: str) -> Any:
            self.asked += 1
            return lambda function: setattr(self, "callback", function)

    session, receiver = Session(), Receiver()
    feed = BlackrockFeed("NSP", session=session)
    feed.start(receiver)
    wait_until(lambda: feed.counters.failures >= 3)
    session.running = True
    wait_until(lambda: feed.counters.connections > feed.counters.failures)
    session.callback(types.SimpleNamespace(chid=1, type=0, time=10), b"")  # type: ignore[attr-defined]
    receiver.wait(1)
    feed.stop()
    session.callback(types.SimpleNamespace(chid=1, type=0, time=20), b"")  # type: ignore[attr-defined]
    assert (session.asked, receiver.spikes) == (1, [(10, "ch1")])


def test_what_a_redis_stream_lost_while_the_connection_was_gone_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("redis")
    stop = threading.Event()

    class Client:
        def ping(self) -> None:
            pass

        def xread(self, *_: Any, **__: Any) -> None:
            stop.set()

        def close(self) -> None:
            pass

    monkeypatch.setattr(brand, "connect", lambda *_, **__: Client())
    feed, receiver = brand.BrandFeed({}, "spikes"), Receiver()
    monkeypatch.setattr(feed._entries, "look", lambda _: (3, True))
    feed.read(receiver, stop)
    assert feed.counters.lost == 3


def test_a_bad_sample_of_lsl_takes_no_other_with_it() -> None:
    pytest.importorskip("pylsl", exc_type=ImportError)
    feed, receiver = LslFeed("spikes"), Receiver()
    samples = [[3.0], [-1.0], [4.0], [5.0], [6.0]]
    feed._take(samples, np.array([1.0, 2.0, np.nan, 1e12, 4.0]), receiver, 0)
    assert receiver.spikes == [(1_000_000_000, "ch3"), (4_000_000_000, "ch6")]
    assert (feed.counters.messages, feed.counters.malformed) == (5, 3)
