"""Trials and the cursor over sockets, from recordings, Redis and Lab Streaming Layer."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.feeds import Receiver
from helpers.labs.redis_server import Server, redis_server
from helpers.waiting import PATIENCE_S, until, wait_until

from poyo_edge.errors import UsageError
from poyo_edge.recording import Recording
from poyo_edge.runtime.feeds import open_feed
from poyo_edge.runtime.feeds.feed import OnlyTask
from poyo_edge.runtime.feeds.sockets import TcpFeed, UdpFeed
from poyo_edge.runtime.feeds.task.lsl_streams import LslCursor, LslTrials
from poyo_edge.runtime.feeds.task.redis_streams import RedisTask
from poyo_edge.simulation.recordings import Simulation, simulate_recording

TRIAL = {"number": 7, "start": 5, "target": [8.0, 0.0], "radius": 1.2}
GIVEN = {"start": 5, "target": (8.0, 0.0), "radius": 1.2}
"""What that says."""


def line(**values: Any) -> bytes:
    return json.dumps(values).encode() + b"\n"


def test_trials_and_cursor_come_beside_spikes_over_udp() -> None:
    receiver, feed = Receiver(), UdpFeed("127.0.0.1", 0)
    feed.start(receiver)
    assert feed.bound.wait(PATIENCE_S)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for data in (
            line(t=[1.0], units=["a"]),
            line(trial=TRIAL, seq=4),
            line(cursor={"t": [1.5], "pos": [[1, 2]]}),
            line(trial={"number": 7, "stop": 9}),
            line(trial={"number": 7, "end": "now", "success": True}, seq=6),
        ):
            peer.sendto(data, ("127.0.0.1", feed.port))
        receiver.wait_for(lambda: len(receiver.trials) == 2)
    feed.stop()
    assert [one.number for one in receiver.trials] == [7, 7]
    assert [one.given for one in receiver.trials] == [GIVEN, {"end": "now", "success": True}]
    assert receiver.cursor == [([1_500_000_000], [[1.0, 2.0]])]
    assert (feed.counters.messages, feed.counters.malformed) == (5, 1)
    assert receiver.losses == [1]
    assert feed.first_problem.startswith("trial: expected keys number, start, ")
    assert receiver.problems == [feed.first_problem]


def test_trials_come_over_tcp() -> None:
    receiver = Receiver()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        feed = TcpFeed("127.0.0.1", listening.getsockname()[1], 30_000.0)
        feed.start(receiver)
        with listening.accept()[0] as peer:
            peer.sendall(line(trial={"number": 1, "start_s": 2.0}) + line(cursor={"pos": [1, 2]}))
            receiver.wait_for(lambda: bool(receiver.trials and receiver.cursor))
            feed.stop()
    assert receiver.trials[0].given == {"start": 60_000}
    assert receiver.cursor == [(None, [[1.0, 2.0]])]


def test_who_takes_no_trials_is_not_given_any() -> None:
    class Older:
        def feed(self, ticks: Any, units: Any, **_: Any) -> None:
            raise AssertionError

        def feed_labels(self, ticks: Any, values: Any, **_: Any) -> None:
            raise AssertionError

    feed = UdpFeed("127.0.0.1", 0)
    feed._take(line(trial=TRIAL), Older(), 0)
    assert (feed.counters.messages, feed.counters.ignored) == (1, 1)


def test_a_feed_of_trials_alone_drops_what_else_it_brings() -> None:
    receiver, feed = Receiver(), UdpFeed("127.0.0.1", 0)
    only = OnlyTask(feed, receiver)
    for data in (line(t=1.0, units="a"), line(t=1.0, behavior=[1.0, 2.0]), line(trial=TRIAL)):
        feed._take(data, only, 0)
    assert (receiver.spikes, receiver.labels, len(receiver.trials)) == ([], [], 1)
    assert feed.counters.malformed == 2
    assert feed.first_problem == (
        "--trials: expected trials and the cursor alone, got spikes; name their feed with --from"
    )


def test_what_a_feed_of_trials_alone_cannot_use_is_passed_on() -> None:
    class Hears(Receiver):
        def note_problem(self, said: str) -> None:
            heard.append(said)

    heard, feed = list[str](), UdpFeed("127.0.0.1", 0)
    feed._receiver = OnlyTask(feed, Hears())
    feed._take(line(t=1.0, units="a"), feed._receiver, 0)
    feed.lost(3)
    assert heard == [feed.first_problem]
    assert isinstance(feed._receiver, OnlyTask)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    simulation = Simulation(duration_s=10.0, n_units=4)
    return simulate_recording(tmp_path / "a.h5", session_id="a", seed=1, simulation=simulation)


def test_a_recording_plays_its_trials_and_cursor_when_asked(recording: Path) -> None:
    feed = open_feed(f"file:{recording}?split=train&speed=100&trials=1&cursor=cursor.pos")
    receiver = Receiver()
    feed.start(receiver)
    assert feed.finished.wait(PATIENCE_S)
    feed.stop()
    trials, opened = Recording.open(recording).trials(), Recording.open(recording)
    assert trials is not None
    end = opened.intervals("train")[-1, 1]
    inside = np.flatnonzero(trials.end <= end).tolist()
    assert [one.number for one in receiver.trials] == [row for row in inside for _ in range(3)]
    newest = {one.number: one.given for one in receiver.trials}
    for row in inside:
        assert newest[row]["start"] == round(trials.start[row] * 1e9)
        assert newest[row]["end"] == round(trials.end[row] * 1e9)
        assert newest[row]["target"] == tuple(trials.target[row])
        assert newest[row]["success"] is True
    first = receiver.trials[0].given
    assert (first["end"], first["success"], first["go_time"]) == (None, None, None)
    times = opened.behavior("cursor.pos").times
    assert sum(len(ticks) for ticks, _ in receiver.cursor) == int((times < end).sum())


def test_a_recording_that_lacks_trials_or_the_cursor_says_so(recording: Path) -> None:
    with pytest.raises(UsageError, match=r"trials: expected trials in 'valid' of .* got none"):
        open_feed(f"file:{recording}?split=valid&trials=1")
    with pytest.raises(ValueError, match="one of the behaviours"):
        open_feed(f"file:{recording}?cursor=hand.pos")


def test_addresses_of_trials_alone() -> None:
    pytest.importorskip("redis", reason="redis is not installed")
    feed = open_feed("redis://127.0.0.1:1?trials=t&cursor=c", option="--trials")
    assert isinstance(feed, RedisTask)
    assert (feed.trials, feed.cursor) == ("t", "c")
    (beside,) = open_feed("redis://127.0.0.1:1/s?trials=t").beside
    assert isinstance(beside, RedisTask)
    with pytest.raises(UsageError, match="--trials: expected an address like"):
        open_feed("ftp://x", option="--trials")


# Lab Streaming Layer.


@pytest.fixture
def lsl() -> Any:
    try:
        import pylsl
    except Exception as error:  # The wheel may lack the library behind it.
        pytest.skip(f"pylsl is not installed ({error})")
    return pylsl


def text_stream(lsl: Any, name: str) -> Any:
    return lsl.StreamOutlet(lsl.StreamInfo(name, "Markers", 1, 0, lsl.cf_string, name))


def test_lsl_streams_bring_trials_and_cursor_beside_spikes(lsl: Any) -> None:
    name = f"poyo_edge_task_{os.getpid()}"
    spikes = lsl.StreamOutlet(lsl.StreamInfo(name, "spikes", 2, 0, lsl.cf_double64, name))
    trials = text_stream(lsl, f"{name}_trials")
    cursor = lsl.StreamOutlet(lsl.StreamInfo(f"{name}_pos", "pos", 2, 50, "float32", "pos"))
    feed = open_feed(f"lsl://{name}?trials={name}_trials&cursor={name}_pos")
    receiver = Receiver()
    feed.start(receiver)
    for one in (spikes, trials, cursor):
        assert one.wait_for_consumers(PATIENCE_S)
    stamp = lsl.local_clock()
    spikes.push_sample([3.0, 1.0], stamp)
    trials.push_sample(['{"number": 1, "start": "now", "target": [8, 0]}'], stamp)
    trials.push_sample(['{"number": 1, "begin": 5}'], stamp)
    trials.push_sample([json.dumps({"number": 1, "end_s": stamp + 0.5})], stamp + 0.6)
    cursor.push_sample([1.5, -3.0], stamp)
    receiver.wait_for(lambda: len(receiver.trials) == 2 and bool(receiver.cursor))
    receiver.wait(1)
    feed.stop()
    first, last = receiver.trials
    assert first.given["start"] / 1e9 == pytest.approx(stamp, abs=1e-3)
    assert last.given["end"] / 1e9 == pytest.approx(stamp + 0.5, abs=1e-3)
    ((ticks, positions),) = receiver.cursor
    assert ticks[0] / 1e9 == pytest.approx(stamp, abs=1e-3)
    assert positions == [[1.5, -3.0]]
    assert feed.beside[0].counters.malformed == 1
    assert "expected keys number, start" in feed.beside[0].first_problem


def test_lsl_stamps_beside_another_device_are_times_of_the_host(lsl: Any) -> None:
    name = f"poyo_edge_other_{os.getpid()}"
    trials = text_stream(lsl, name)
    feed, receiver = open_feed(f"lsl:?trials={name}"), Receiver()
    assert isinstance(feed, LslTrials)
    feed.own_clock = False
    feed.start(receiver)
    assert trials.wait_for_consumers(PATIENCE_S)
    trials.push_sample(['{"number": 1, "start": "now"}'], lsl.local_clock() - 0.5)
    sent = time.monotonic_ns()
    receiver.wait_for(lambda: bool(receiver.trials))
    feed.stop()
    assert receiver.trials[0].given == {"start": "now"}
    (host_ns,) = receiver.task_ns
    assert host_ns is not None
    assert (sent - host_ns) / 1e9 == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("kind", "channels", "rate", "format_", "said"),
    [
        (LslTrials, 1, 0, "float32", "expected an irregular stream of one text channel"),
        (LslTrials, 2, 0, "string", "expected an irregular stream of one text channel"),
        (LslTrials, 1, 50, "string", "expected an irregular stream of one text channel"),
        (LslCursor, 1, 0, "string", "expected a stream of numbers with a channel for each"),
        (LslCursor, 17, 50, "float32", "expected a stream of numbers with a channel for each"),
    ],
)
def test_lsl_streams_of_another_description_are_refused(
    lsl: Any, kind: Any, channels: int, rate: int, format_: str, said: str
) -> None:
    name = f"poyo_edge_no_{os.getpid()}_{channels}_{rate}_{format_}_{kind.__name__}"
    stream = lsl.StreamOutlet(lsl.StreamInfo(name, "x", channels, rate, format_, "id"))
    feed = kind(name)
    feed.start(Receiver())
    assert feed.finished.wait(PATIENCE_S)
    feed.stop()
    assert feed.last_failure.startswith(f"lsl://{name}: {said}")
    assert f"(type 'x', {channels} channel(s)" in feed.last_failure
    del stream


# Redis.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with redis_server(tmp_path) as running:
        yield running


def test_redis_streams_bring_trials_and_cursor(server: Server) -> None:
    client = server.start()
    feed = open_feed(f"redis://127.0.0.1:{server.port}?trials=t&cursor=c")
    receiver = Receiver()
    feed.start(receiver)
    wait_until(lambda: feed.counters.connections)
    position = np.array([1.5, -3.0], "<f8").tobytes()

    came = threading.Event()

    def add() -> None:
        client.xadd("t", {"trial": json.dumps(TRIAL)})
        client.xadd("c", {"pos": position, "ts": struct.pack("<Q", 99)})
        if receiver.trials and receiver.cursor:
            came.set()

    until(came, add)
    client.xadd("t", {"trial": "?"})
    client.xadd("c", {"pos": position})
    receiver.wait_for(lambda: receiver.cursor[-1][0] is None)
    wait_until(lambda: feed.counters.malformed)
    feed.stop()
    client.close()
    assert receiver.trials[0].given == GIVEN
    assert receiver.cursor[0] == ([99], [[1.5, -3.0]])
    assert feed.first_problem.startswith("t: trial: expected JSON like")
