"""Streams of the right kind that are not what their feed reads: refused or counted, and why."""

from __future__ import annotations

import json
import struct
import types
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from helpers.feeds import Receiver

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds import Feed
from poyo_edge.runtime.feeds.blackrock import BlackrockFeed
from poyo_edge.runtime.feeds.brand import BrandFeed, parse_bin, read_bin
from poyo_edge.runtime.feeds.intan import CHUNK, MAGIC, IntanFeed, IntanParser
from poyo_edge.runtime.feeds.open_ephys import OpenEphysFeed
from poyo_edge.runtime.feeds.sockets import UdpFeed
from poyo_edge.runtime.feeds.wire.parsing import Malformed, read_json
from poyo_edge.runtime.feeds.wire.sequence import OneCounter

S = 1_000_000_000
CHANNELS = [f"ch{i}" for i in range(60)]


def entry(counts: Any, dtype: str, field: str = "samples") -> dict[bytes, bytes]:
    raw = np.asarray(counts).astype(dtype).tobytes()
    return {field.encode(): raw, b"ts": struct.pack("<Q", S)}


# BRAND.


@pytest.mark.parametrize(
    "counts", [[0.5, 1.0], [1.0, -1.0], [1001.0], [float("inf")], [(0 - 0.16) / 0.4, 2.1]]
)
def test_counts_that_are_no_counts_are_refused(counts: list[float]) -> None:
    with pytest.raises(Malformed, match="expected whole counts of 0 to 1000 as float32, got"):
        read_bin(entry(counts, "<f4"))
    assert parse_bin(entry(counts, "<f4")) is None


@pytest.mark.parametrize(
    ("dtype", "field", "lengths", "do"),
    [
        ("i1", "samples", "240 bytes of float32, got 60 bytes, 15 channels", "dtype=int8 or uint8"),
        ("i1", "crossings", "120 bytes of int16, got 60 bytes, 30 channels", "dtype=int8 or uint8"),
        ("<i4", "crossings", "120 bytes of int16, got 240 bytes, 120 ch", "dtype=int32 or float32"),
        ("<f8", "samples", "240 bytes of float32, got 480 bytes, 120 ch", "dtype=int64 or float64"),
    ],
)
def test_a_length_that_fits_the_units_as_another_type_is_asked_back(
    dtype: str, field: str, lengths: str, do: str
) -> None:
    with pytest.raises(Malformed) as caught:
        read_bin(entry(np.zeros(60), dtype, field), unit_names=CHANNELS)
    assert f"{field}: expected 60 channels (the session has ch59), {lengths}" in str(caught.value)
    assert do in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "names"), [("int8", CHANNELS), ("", CHANNELS[:7]), ("float64", CHANNELS[:30])]
)
def test_counts_of_a_stated_or_a_fitting_type_are_read(dtype: str, names: Collection[str]) -> None:
    counts = np.arange(60) % 3
    found = read_bin(entry(counts, dtype or "<f4"), dtype=dtype, unit_names=names)
    assert np.bincount(found.channels, minlength=60).tolist() == counts.tolist()


def test_a_brand_stream_of_other_fields_names_them() -> None:
    pytest.importorskip("redis", reason="redis is not installed")
    feed, receiver = BrandFeed({}, "s"), Receiver()
    feed._take([{b"thresholds": b"1", b"ts": b"1.5"}, entry([0.5], "<f4")], receiver, 0)
    said = "s: expected an entry with crossings or samples, and ts, got thresholds, ts; name the"
    assert feed.first_problem.startswith(said), "the first is kept"
    assert (feed.counters.malformed, receiver.spikes) == (2, [])
    with pytest.raises(UsageError, match="dtype: expected one of int8"):
        BrandFeed({}, "s", dtype="int9")


# JSON.


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"?", r"expected a JSON object, got \?; send one, like"),
        (b"[1]", "expected a JSON object, like"),
        (b'{"x": 1}', 'expected times, "t" in seconds or "ticks", got neither'),
        (b'{"ticks": [1.5], "units": ["a"]}', "expected whole numbers .*, got 1.5; send seconds"),
        (
            b'{"t": [1, 2], "units": ["a", 3]}',
            "expected names .text., got 3; send the units' names",
        ),
        (b'{"t": [1], "units": [7]}', "expected names .text., got 7"),
        (b'{"t": [1, 2], "units": ["a"]}', "expected one for each of 2 times, got 1"),
        (b'{"t": [1]}', 'units: expected names, like .*; send "units"'),
        (b'{"t": [1, 2], "ticks": [30000, 60000], "units": ["a", "b"]}', "expected 1e.09 for each"),
        (b'{"t": [1], "units": ["a"], "seq": 1.5}', "seq: expected a whole number"),
    ],
)
def test_json_that_cannot_be_meant_says_why(data: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        read_json(data, 1e9)


def test_times_given_twice_that_agree_are_read() -> None:
    data = b'{"t": [1, 2], "ticks": [30000, 60000], "units": ["a", "b"]}'
    assert read_json(data, 30_000).ticks.tolist() == [30_000, 60_000]


def test_the_first_packet_that_cannot_be_read_is_kept_as_an_example() -> None:
    feed = UdpFeed("127.0.0.1", 0)
    for data in (b'{"t": [1], "units": [7]}', b"?"):
        feed._take(data, Receiver(), 0)
    assert feed.first_problem.endswith('in {"t": [1], "units": [7]}')
    assert feed.to_json()["first_problem"] == feed.first_problem
    assert feed.counters.malformed == 2


@pytest.mark.parametrize(("stated", "wrong"), [(30_000.0, False), (1e9, True), (1_000.0, True)])
def test_times_that_contradict_the_stated_rate_are_said(stated: float, wrong: bool) -> None:
    feed: Feed = UdpFeed("127.0.0.1", 0, stated)
    for second in range(0, 50):
        data = json.dumps({"ticks": [3000 * second], "units": ["a"]}).encode()
        feed._take(data, Receiver(), second * S // 10)  # type: ignore[attr-defined]
    expected = f"expected {stated:g} ticks per second, got about 3e+04; state the counter's"
    assert (expected in feed.first_problem) == wrong
    assert bool(feed.first_problem) == wrong


def test_a_pause_and_a_backlog_are_no_rate() -> None:
    feed = UdpFeed("127.0.0.1", 0, 1000.0)
    for host, tick in (
        (0, 0),
        (1.1, 1100),
        (9, 1200),
        (10.1, 9000),
        (11.2, 11_200),
        (12.3, 12_300),
    ):
        data = json.dumps({"ticks": [tick], "units": ["a"]}).encode()
        feed._take(data, Receiver(), int(host * S))
    assert feed.first_problem == ""


# Intan.


def chunks(*found: tuple[int, int]) -> Any:
    data = b"".join(struct.pack("<I5sIB", MAGIC, b"A-001", tick, one) for tick, one in found)
    return np.frombuffer(data, CHUNK)


def test_artifacts_of_intan_are_dropped_and_counted() -> None:
    feed, receiver = IntanFeed("127.0.0.1", 1, 30_000), Receiver()
    feed._take(chunks((1, 1), (2, 0x80), (3, 0x81), (4, 0), (5, 2)), receiver, 0)
    assert [tick for tick, _ in receiver.spikes] == [1, 5]
    assert (feed.counters.artifacts, feed.counters.ignored) == (2, 1)
    assert feed.first_problem == ""
    assert "id 0" in feed.first_ignored


def test_intans_waveform_port_is_named_as_what_it_is() -> None:
    parser = IntanParser()
    parser.add(struct.pack("<II", 0x2EF07A08, 5) + bytes(40))
    from poyo_edge.runtime.feeds.intan import _not_spikes

    assert "got RHX's waveform output; name the port" in _not_spikes(parser.first_skipped)


# Open Ephys.


def spike(tick: int, **values: Any) -> list[bytes]:
    head = {"event_type": "spike", "electrode": "T1", "sample_number": tick, "sorted_id": 0}
    return [json.dumps({**head, **values}).encode()]


@pytest.fixture
def open_ephys() -> OpenEphysFeed:
    pytest.importorskip("zmq", reason="pyzmq is not installed")
    return OpenEphysFeed("tcp://h:1", 30_000.0)


def test_a_second_stream_from_the_start_asks_for_a_choice(open_ephys: OpenEphysFeed) -> None:
    said = "expected spikes of one stream, got 'B' beside 'A'; choose with .stream="
    with pytest.raises(UsageError, match=said):
        open_ephys._take([spike(1, stream="A"), spike(2, stream="B")], Receiver(), S)


def test_a_second_stream_later_is_dropped_and_said(open_ephys: OpenEphysFeed) -> None:
    receiver = Receiver()
    open_ephys._take([spike(1, stream="A")], receiver, S)
    open_ephys._take([spike(90_000, stream="A"), spike(2, stream="B")], receiver, 4 * S)
    assert [tick for tick, _ in receiver.spikes] == [1, 90_000]
    assert open_ephys.counters.malformed == 1
    assert "got 'B' beside 'A'" in open_ephys.first_problem


def test_one_stream_of_several_is_chosen() -> None:
    pytest.importorskip("zmq", reason="pyzmq is not installed")
    feed, receiver = OpenEphysFeed("tcp://h:1", 30_000.0, stream="B"), Receiver()
    feed._take([spike(1, stream="A"), spike(2, stream="B"), spike(3)], receiver, S)
    assert [tick for tick, _ in receiver.spikes] == [2]
    assert (feed.counters.ignored, feed.first_problem) == (2, "")
    assert "expected spikes of 'B', got 'A'" in feed.first_ignored


def test_a_sample_rate_that_the_message_contradicts_is_refused(open_ephys: OpenEphysFeed) -> None:
    open_ephys._take([spike(1, sample_rate=30_000.0)], Receiver(), S)
    with pytest.raises(ConnectionError, match=r"at 40000 Hz; say .rate=40000"):
        open_ephys._take([spike(1, sample_rate=40_000)], Receiver(), S)
    other = OpenEphysFeed("tcp://h:1", 30_000.0)
    with pytest.raises(UsageError, match=r"expected a sample rate of 30000 Hz, got"):
        other._take([spike(1, sample_rate=40_000)], Receiver(), S)


def test_a_second_counter_is_told_from_one_that_begins_anew() -> None:
    one = OneCounter(1000.0)
    assert [one.add(tick, "", S * i // 10) for i, tick in enumerate([5000, 5100, 0, 100, 200])] == [
        ""
    ] * 5
    two = OneCounter(1000.0)
    said = [two.add(t, "", S * i // 10) for i, t in enumerate([5000, 0, 5200, 200, 5400, 400])]
    assert said[:4] == [""] * 4
    assert "expected one counter of samples" in said[4]


def test_a_spike_without_its_fields_is_malformed_and_others_are_ignored(
    open_ephys: OpenEphysFeed,
) -> None:
    messages = [[b'{"event_type": "ttl", "line": 3}'], [b'{"type": "spike", "spike": {"n": 1}}']]
    open_ephys._take(messages, Receiver(), S)
    assert (open_ephys.counters.ignored, open_ephys.counters.malformed) == (1, 1)
    assert "got other messages" in open_ephys.first_ignored
    assert "expected a spike with electrode" in open_ephys.first_problem


# Blackrock.


def test_an_event_that_is_no_spike_is_told_from_noise() -> None:
    feed, receiver = BlackrockFeed("NSP", session=types.SimpleNamespace()), Receiver()
    for kind in (1, 255):
        feed.take(types.SimpleNamespace(chid=3, type=kind, time=10), receiver)
    assert (feed.first_problem, feed.first_ignored[:28]) == ("", "expected spikes, got noise (")
    feed.take(types.SimpleNamespace(chid=3, type=1, time=1.5), receiver)
    feed.take(types.SimpleNamespace(chid=3, type=64, time=10), receiver)
    assert "got an event with chid 3, type 1, time 1.5; give" in feed.first_problem
    assert (len(receiver.spikes), feed.counters.ignored) == (1, 3)
