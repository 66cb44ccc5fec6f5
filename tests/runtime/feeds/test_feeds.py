"""Feeds in and out against real peers on loopback, and their parsers against anything."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.feeds import Receiver, a_value
from helpers.waiting import PATIENCE_S
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.errors import MissingExtraError, UsageError, pip_install
from poyo_edge.runtime.feeds import open_feed, open_sink
from poyo_edge.runtime.feeds.blackrock import BlackrockFeed, parse_event
from poyo_edge.runtime.feeds.brand import parse_bin
from poyo_edge.runtime.feeds.intan import CHUNK, MAGIC, IntanFeed, IntanParser
from poyo_edge.runtime.feeds.lsl import names_of
from poyo_edge.runtime.feeds.open_ephys import parse_spike
from poyo_edge.runtime.feeds.recording_feed import RecordingFeed
from poyo_edge.runtime.feeds.sockets import TcpFeed, UdpFeed, UdpSink
from poyo_edge.runtime.feeds.wire.parsing import parse_json, spread_counts
from poyo_edge.simulation.recordings import Simulation, simulate_recording

MODEST = settings(max_examples=150, deadline=None)


@contextlib.contextmanager
def server(port: int = 0) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", port), reuse_port=False) as listening:
        listening.settimeout(PATIENCE_S)
        yield listening


def line(**values: Any) -> bytes:
    return json.dumps(values).encode() + b"\n"


# Parsers.


def test_json_in_seconds_and_ticks() -> None:
    parsed = parse_json(b'{"t": [1.5, 2], "units": ["a", "b"], "sync": {"x": 1}}', 1e9)
    assert parsed is not None
    assert parsed.ticks.tolist() == [1_500_000_000, 2_000_000_000]
    assert parsed.units.tolist() == ["a", "b"]
    assert parsed.sync == {"x": 1}
    single = parse_json(b'{"ticks": 45, "units": "a"}', 30_000)
    assert single is not None
    assert single.ticks.tolist() == [45]
    labels = parse_json(b'{"t": 1.0, "behavior": [3.0, 4.0]}', 1000)
    assert labels is not None
    assert labels.values is not None
    assert (labels.ticks.tolist(), labels.values.tolist()) == ([1000], [[3.0, 4.0]])


def test_seconds_of_months_become_exact_ticks() -> None:
    parsed = parse_json(b'{"t": [16777216.5], "units": ["a"]}', 1e9)
    assert parsed is not None
    assert parsed.ticks.tolist() == [16_777_216_500_000_000]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff\xfe", b"[]", b"1", b"{}", b'{"t": 1}', b'{"units": ["a"]}',
        b'{"t": [1, 2], "units": ["a"]}', b'{"t": ["1"], "units": ["a"]}',
        b'{"t": [NaN], "units": ["a"]}', b'{"t": [1e300], "units": ["a"]}',
        b'{"ticks": [1.5], "units": ["a"]}', b'{"ticks": [99999999999999999999], "units": ["a"]}',
        b'{"t": [1], "units": [5]}', b'{"t": [[1]], "units": ["a"]}', b'{"t": {}, "units": []}',
        b'{"t": [1], "behavior": [["x"]]}', b'{"t": [1], "behavior": [[NaN]]}',
        b'{"t": [1, 2], "behavior": [[1, 2], [3]]}', b'{"t": [true], "units": ["a"]}',
        b'{"t": [' + b"9" * 5000 + b'], "units": ["a"]}', b"[" * 100_000,
        b'{"ticks": [[]]}', b'{"t": [1], "units": ["' + b"a" * 300 + b'"]}',
    ],
)  # fmt: skip
def test_json_that_cannot_be_meant_is_no_packet(data: bytes) -> None:
    assert parse_json(data, 1e9) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["t", "ticks", "units", "behavior", "sync", "spike",
                                       "type", "sample_num", "electrode", "sorted_id"]),
                      inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.slow
@MODEST
@given(st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()))
def test_no_json_makes_a_parser_fail(data: bytes) -> None:
    parsed = parse_json(data, 30_000.0)
    if parsed is not None:
        assert parsed.ticks.dtype == np.int64
        assert len(parsed.ticks) == len(parsed.units if parsed.values is None else parsed.values)
    parse_spike(data)


def chunk(channel: bytes, tick: int, identifier: int = 1) -> bytes:
    return struct.pack("<I5sIB", MAGIC, channel, tick, identifier)


@MODEST
@given(st.lists(st.binary(max_size=40) | st.builds(chunk, st.just(b"A-001"),
                                                   st.integers(0, 2**32 - 1))),
       st.integers(1, 50))  # fmt: skip
def test_an_intan_stream_is_cut_the_same_at_any_chunk_size(pieces: list[bytes], size: int) -> None:
    data = b"".join(pieces)
    whole = IntanParser().add(data)
    parser = IntanParser()
    cut = [parser.add(data[i : i + size]) for i in range(0, len(data), size)]
    assert np.array_equal(np.concatenate([np.empty(0, CHUNK), *cut]), whole)
    assert len(parser._rest) < CHUNK.itemsize


def test_an_intan_parser_finds_the_next_chunk_after_garbage() -> None:
    parser = IntanParser()
    found = parser.add(b"??" + chunk(b"A-001", 5) + b"x" + chunk(b"B-010", 2**32 - 1))
    assert found["tick"].tolist() == [5, 2**32 - 1]
    assert parser.skipped_bytes == 3


@MODEST
@given(st.dictionaries(st.sampled_from([b"crossings", b"samples", b"ts", b"sync", b"x"]),
                       st.binary(max_size=40)))  # fmt: skip
def test_no_stream_entry_makes_the_brand_parser_fail(fields: dict[bytes, bytes]) -> None:
    parsed = parse_bin(fields)
    if parsed is not None:
        assert len(parsed.ticks) == len(parsed.channels)


def test_a_brand_entry_becomes_spikes_inside_its_bin() -> None:
    entry = {
        b"crossings": np.array([0, 2, 1], "<i2").tobytes(),
        b"ts": struct.pack("<Q", 5_000_000),
        b"sync": b'{"nsp_idx_1": 9}',
    }
    parsed = parse_bin(entry)
    assert parsed is not None
    assert parsed.channels.tolist() == [1, 1, 2]
    assert parsed.ticks.tolist() == [4_250_000, 4_750_000, 4_500_000]
    assert parsed.sync == {"nsp_idx_1": 9}


def test_counts_spread_without_two_equal_times_of_a_channel() -> None:
    ticks, channels = spread_counts(np.array([3, 0, 40]), 600, 600.0)
    assert (ticks >= 0).all()
    assert (ticks < 600).all()
    pairs = set(zip(ticks.tolist(), channels.tolist(), strict=True))
    assert len(pairs) == 43
    assert len(spread_counts(np.array([np.nan, -3.0]), 600, 600.0)[0]) == 0


@pytest.mark.parametrize(
    ("part", "spike"),
    [
        (b'{"event_type": "spike", "electrode": "T1", "sample_number": 5, "sorted_id": 2}',
         (5, "T1", 2)),
        (b'{"type": "spike", "spike": {"sample_num": 7, "electrode": "T1"}}', (7, "T1", 0)),
        (b'{"event_type": "ttl", "electrode": "T1", "sample_number": 5}', None),
        (b'{"event_type": "spike", "electrode": 3, "sample_number": 5}', None),
        (b'{"event_type": "spike", "electrode": "T1", "sample_number": -5}', None),
        (b"\x00\x01", None),
    ],
)  # fmt: skip
def test_open_ephys_messages(part: bytes, spike: Any) -> None:
    assert parse_spike(part) == spike


def test_lsl_samples_name_units() -> None:
    names = [names_of(x) for x in ([[3.0, 1.0], [4.0, 0.0]], [["u1"], ["u2"]])]
    assert [None if n is None else n.tolist() for n in names] == [["ch3", "ch4"], ["u1", "u2"]]
    assert names_of([[float("nan")]]) is None
    assert names_of([]) is None


# Sockets.


def test_udp_in_and_out_counts_what_it_cannot_read() -> None:
    receiver, feed = Receiver(), UdpFeed("127.0.0.1", 0)
    feed.start(receiver)
    assert feed.bound.wait(PATIENCE_S)
    sink = UdpSink("127.0.0.1", feed.port)
    sink(a_value())  # a value is no packet of spikes
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for data in (b"?", line(t=[1.0], units=["a"], sync=3), line(t=2.0, behavior=[1.0, 2.0])):
            peer.sendto(data, ("127.0.0.1", feed.port))
    receiver.wait(1, 1)
    feed.stop()
    sink.close()
    assert receiver.spikes == [(1_000_000_000, "a")]
    assert receiver.labels == [([2_000_000_000], [[1.0, 2.0]])]
    assert (feed.counters.messages, feed.counters.malformed) == (4, 2)


def test_tcp_goes_on_after_its_server_was_killed() -> None:
    receiver = Receiver()
    with server() as listening:
        port = listening.getsockname()[1]
        feed = TcpFeed("127.0.0.1", port)
        feed.start(receiver)
        with listening.accept()[0] as peer:
            peer.sendall(line(t=1.0, units="a") + b'{"t": 2.0, "uni')
            receiver.wait(1)
    with server(port) as listening, listening.accept()[0] as peer:
        peer.sendall(b"\n" + line(t=3.0, units="b"))
        receiver.wait(2)
    feed.stop()
    assert [name for _, name in receiver.spikes] == ["a", "b"]
    assert feed.counters.connections == 2
    assert feed.counters.failures >= 1


def test_a_line_without_end_is_dropped_with_flat_memory() -> None:
    receiver = Receiver()
    with server() as listening:
        feed = TcpFeed("127.0.0.1", listening.getsockname()[1])
        feed.start(receiver)
        with listening.accept()[0] as peer:
            for _ in range(5):
                peer.sendall(b"x" * (1 << 20))
            peer.sendall(b"\n" + line(t=1.0, units="a"))
            receiver.wait(1)
            feed.stop()
    assert feed.counters.malformed >= 4


def test_intan_spikes_over_tcp() -> None:
    receiver = Receiver()
    with server() as listening:
        feed = IntanFeed("127.0.0.1", listening.getsockname()[1], 30_000, sorted_units=True)
        feed.start(receiver)
        with listening.accept()[0] as peer:
            peer.sendall(chunk(b"A-001", 7) + chunk(b"A-001", 8, 0) + chunk(b"B-002", 9, 3))
            receiver.wait(2)
            feed.stop()
    assert receiver.spikes == [(7, "A-001#1"), (9, "B-002#3")]
    assert (feed.counters.ignored, feed.bits) == (1, 32)


# Files and memory.


def test_a_recording_streams_all_its_spikes_and_labels(tmp_path: Path) -> None:
    path = simulate_recording(
        tmp_path / "a.h5", session_id="a", seed=1, simulation=Simulation(duration_s=10.0, n_units=4)
    )
    feed = open_feed(f"file:{path}?split=test&speed=100&labels=cursor.vel")
    assert isinstance(feed, RecordingFeed)
    receiver = Receiver()
    feed.start(receiver)
    assert feed.finished.wait(PATIENCE_S)
    feed.stop()
    recording = feed.recording
    inside = recording.within(recording.spike_times, "test")
    expected = np.rint(recording.spike_times[inside] * 1e9).astype(int)
    assert [tick for tick, _ in receiver.spikes] == expected.tolist()
    series = recording.behavior("cursor.vel")
    n_labels = int(recording.within(series.times, "test").sum())
    assert sum(len(ticks) for ticks, _ in receiver.labels) == n_labels


# Libraries of others.


def test_zmq_brings_open_ephys_spikes_and_takes_values() -> None:
    zmq = pytest.importorskip("zmq", reason="pyzmq is not installed")
    receiver = Receiver()
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        feed = open_feed(f"openephys://127.0.0.1:{port}?rate=30000&sorted=1")
        feed.start(receiver)
        assert publisher.poll(PATIENCE_S * 1000)
        assert publisher.recv() == b"\x01"  # the subscription has arrived
        header = {"event_type": "spike", "electrode": "T1", "sample_number": 5, "sorted_id": 2}
        publisher.send_multipart([b"\x05\x00", json.dumps(header).encode(), b"\x00" * 64])
        publisher.send(b"?")
        publisher.send_multipart([json.dumps({**header, "sample_number": 6}).encode()])
        receiver.wait(2)
        feed.stop()
    assert receiver.spikes == [(5, "T1#2"), (6, "T1#2")]
    assert feed.counters.ignored == 1


def test_zmq_publishes_values() -> None:
    zmq = pytest.importorskip("zmq", reason="pyzmq is not installed")
    from poyo_edge.runtime.feeds.open_ephys import ZmqSink

    sink = ZmqSink("tcp://127.0.0.1:*")
    with zmq.Context() as context, context.socket(zmq.SUB) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt(zmq.SUBSCRIBE, b"")
        peer.connect(sink.address)
        while not peer.poll(10):  # until the subscription has reached the publisher
            sink(a_value())
        assert json.loads(peer.recv())["value"] == [1.5, -2.0]
    taken = sink.address.replace("tcp:", "zmq:")
    with pytest.raises(UsageError, match=f"^{taken}: expected a free port"):
        open_sink(taken, 2)
    sink.close()


def test_blackrock_events_by_callback() -> None:
    class Session:
        running = True

        def on_event(self, kind: str) -> Any:
            assert kind == "FRONTEND"

            def keep(function: Any) -> Any:
                self.callback = function
                ready.set()
                return function

            return keep

    ready, session, receiver = threading.Event(), Session(), Receiver()
    feed = BlackrockFeed("NSP", session=session, sorted_units=True)
    feed.start(receiver)
    assert ready.wait(PATIENCE_S)
    for channel, kind, tick in ((1, 0, 10), (2, 255, 20), (96, 3, 30), (0, 1, 40)):
        session.callback(types.SimpleNamespace(chid=channel, type=kind, time=tick), b"")
    receiver.wait(2)
    feed.stop()
    assert receiver.spikes == [(10, "ch1#0"), (30, "ch96#3")]
    assert (feed.counters.messages, feed.counters.ignored) == (4, 2)
    assert parse_event(types.SimpleNamespace(), False) is None


@pytest.mark.parametrize(
    ("address", "package", "extra"),
    [
        ("lsl://spikes", "pylsl", "lsl"),
        ("redis://h:1/s", "redis", "redis"),
        ("openephys://h:1", "zmq", "zmq"),
        ("blackrock://HUB1", "pycbsdk", "blackrock"),
    ],
)
def test_a_missing_library_is_named_with_its_pip_command(
    monkeypatch: pytest.MonkeyPatch, address: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=re.escape(pip_install(extra))):
        open_feed(address)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://x", "expected an address like udp://"),
        ("udp://x", "expected HOST:PORT"),
        ("udp://x:99999", "expected an address"),
        ("udp://x:5?speed=3", "expected options"),
        ("udp://x:5?rate=fast", "rate: expected a number"),
        ("udp://x:5?rate=0", "rate: expected a number > 0, got '0'"),
        ("udp://x:5?bits=1.5", "bits: expected a whole number"),
        ("udp://x:5?bits=99", "bits: expected 8 to 63, got 99"),
        ("redis://x:5", "expected a stream"),
        ("lsl://", "expected a name"),
    ],
)
def test_addresses_that_cannot_be_are_refused(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_feed(address)
    with pytest.raises(UsageError, match="--to: expected an address like"):
        open_sink("file:a.h5", 2)
