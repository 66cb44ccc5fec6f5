"""Feeds of Redis and LSL against a real server and real outlets, killed and restarted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.feeds import Receiver, a_value
from helpers.waiting import PATIENCE_S

from poyo_edge.runtime.feeds import open_feed, open_sink
from poyo_edge.runtime.feeds.brand import BrandFeed, BrandSink


class Server:
    """A redis-server of this test's own; ``start`` may be called again after ``kill``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Any:
        redis = pytest.importorskip("redis", reason="redis is not installed")
        words = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                 "--dir", str(self.folder)]  # fmt: skip
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "eady to accept connections" in line:
                break
        return redis.Redis(port=self.port)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    running = Server(tmp_path)
    yield running
    running.kill()


def entry(tick: int, channel: int, sync: int = 1) -> dict[str, Any]:
    crossings = np.zeros(8, "<i2")
    crossings[channel] = 1
    return {
        "crossings": crossings.tobytes(),
        "timestamps": struct.pack("<I", tick // 33_333),
        "ts": struct.pack("<Q", tick),
        "sync": json.dumps({"nsp_idx_1": sync}),
    }


def test_entries_that_came_together_are_one_packet() -> None:
    pytest.importorskip("redis", reason="redis is not installed")
    feed, receiver = BrandFeed({"host": "127.0.0.1", "port": 1}, "s"), Receiver()
    found: list[dict[str, Any]] = [entry(2_000_000, 3, 1), {"x": b"y"}, entry(3_000_000, 7, 2)]
    entries = [
        {name.encode(): value.encode() if isinstance(value, str) else value
         for name, value in one.items()} for one in found
    ]  # fmt: skip
    feed._take(entries, receiver, 0)
    feed._take([{b"x": b"y"}], receiver, 0)
    assert receiver.spikes == [(1_500_000, "ch3"), (2_500_000, "ch7")]
    assert receiver.syncs == [{"nsp_idx_1": 2}]
    assert (feed.counters.messages, feed.counters.malformed) == (4, 2)


def until(event: threading.Event, act: Any) -> None:
    """Do it again and again until the event is set."""
    deadline = time.monotonic() + PATIENCE_S
    while not event.wait(0.01):
        assert time.monotonic() < deadline
        act()


def test_crossings_come_in_and_values_go_out_with_their_sync(server: Server) -> None:
    client = server.start()
    client.xadd("thresh_cross_1", entry(1, 0))
    feed, receiver = open_feed(f"redis://127.0.0.1:{server.port}/thresh_cross_1"), Receiver()
    feed.start(receiver)
    started = threading.Event()

    def add() -> None:
        client.xadd("thresh_cross_1", entry(5_000_000, 3, 9))
        if receiver.spikes:
            started.set()

    until(started, add)
    client.xadd("thresh_cross_1", {"x": "y"})
    client.xadd("thresh_cross_1", entry(6_000_000, 7))
    receiver.wait_for(lambda: (5_500_000, "ch7") in receiver.spikes)
    feed.stop()
    assert set(receiver.spikes) <= {(4_500_000, "ch3"), (5_500_000, "ch7")}
    assert receiver.spikes[-1] == (5_500_000, "ch7")
    assert {"nsp_idx_1": 9} in receiver.syncs
    assert feed.counters.malformed == 1
    sink = open_sink(f"redis://127.0.0.1:{server.port}/decoded", 2)
    sink(a_value())
    sink.close()
    fields = client.xrevrange("decoded", count=1)[0][1]
    assert np.frombuffer(fields[b"samples"], "<f8").tolist() == [1.5, -2.0]
    assert json.loads(fields[b"sync"]) == {"nsp_idx_1": 4}
    assert struct.unpack("<Q", fields[b"ts"]) == (20,)
    assert fields[b"status"] == b"VALID"
    client.close()


def test_a_killed_server_is_found_again(server: Server) -> None:
    client = server.start()
    feed = BrandFeed({"host": "127.0.0.1", "port": server.port}, "s")
    sink = BrandSink({"host": "127.0.0.1", "port": server.port}, "out")
    receiver = Receiver()
    feed.start(receiver)
    for round_ in range(2):
        seen, before = threading.Event(), len(receiver.spikes)

        def add(client: Any = client, before: int = before, seen: Any = seen) -> None:
            client.xadd("s", entry(1_000_000, 1))
            if len(receiver.spikes) > before:
                seen.set()

        until(seen, add)
        if round_ == 0:
            client.close()
            server.kill()
            with pytest.raises(Exception, match=r"(?i)connect|closed"):
                sink(a_value())
            client = server.start()
    sink(a_value())
    feed.stop()
    sink.close()
    assert client.xlen("out") == 1
    assert feed.counters.connections == 2
    assert feed.counters.failures >= 1
    client.close()


def test_a_brand_node_reports_its_states_and_decodes(server: Server, tiny: Path) -> None:
    client = server.start()
    parameters = {"artifact": str(tiny), "session": "tiny_a", "input_stream": "thresh_cross_1",
                  "output_stream": "decoded", "rate_hz": 50}  # fmt: skip
    graph = {"nodes": {"poyo": {"nickname": "poyo", "parameters": parameters}}}
    client.xadd("supergraph_stream", {"data": json.dumps(graph)})
    words = [sys.executable, "-m", "poyo_edge.runtime.feeds.brand_node", "-n", "poyo", "-i",
             "127.0.0.1", "-p", str(server.port)]  # fmt: skip
    node = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for expected in (b"NODE_STARTED", b"NODE_READY"):
            states = client.xread({"poyo_state": "0"}, block=int(PATIENCE_S * 1000))[0][1]
            last = "0" if expected == b"NODE_STARTED" else states[0][0]
            found = client.xread({"poyo_state": last}, block=int(PATIENCE_S * 1000))[0][1]
            assert found[0][1][b"status"] == expected
        decoded = threading.Event()

        def add() -> None:
            client.xadd("thresh_cross_1", entry(time.monotonic_ns(), 3, 5))
            if client.xlen("decoded") > 10:
                decoded.set()

        until(decoded, add)
        node.send_signal(signal.SIGINT)
        out, error = node.communicate(timeout=PATIENCE_S)
    finally:
        node.kill()
    assert node.returncode == 0, error
    assert json.loads(out)["loop"]["decoded"] > 10
    status = client.xrevrange("poyo_state", count=1)[0][1][b"status"]
    assert status == b"NODE_SHUTDOWN"
    value = client.xrevrange("decoded", count=1)[0][1]
    assert json.loads(value[b"sync"]) == {"nsp_idx_1": 5}
    client.close()


def test_a_brand_node_without_a_graph_says_so(server: Server) -> None:
    client = server.start()
    words = [sys.executable, "-m", "poyo_edge.runtime.feeds.brand_node", "-n", "poyo", "-i",
             "127.0.0.1", "-p", str(server.port)]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "expected a graph with a node 'poyo'" in done.stderr
    states = [fields[b"status"] for _, fields in client.xrange("poyo_state")]
    assert states[0] == b"NODE_STARTED"
    assert states[1].startswith(b"NODE_FATAL_ERROR")
    client.close()


def outlet(lsl: Any, name: str) -> Any:
    info = lsl.StreamInfo(name, "spikes", 2, lsl.IRREGULAR_RATE, lsl.cf_double64, name)
    return lsl.StreamOutlet(info)


@pytest.fixture
def lsl() -> Any:
    try:
        import pylsl
    except Exception as error:  # The wheel may lack the library behind it.
        pytest.skip(f"pylsl is not installed ({error})")
    return pylsl


def test_an_lsl_outlet_that_dies_is_found_again(lsl: Any) -> None:
    name = f"poyo_edge_test_{os.getpid()}"
    feed, receiver = open_feed(f"lsl://{name}"), Receiver()
    feed.start(receiver)
    for round_ in range(2):
        stream = outlet(lsl, name)
        assert stream.wait_for_consumers(PATIENCE_S)
        before = len(receiver.spikes)
        stamp = lsl.local_clock()
        stream.push_sample([3.0, 1.0], stamp)
        stream.push_sample([12.0, 0.0], stamp + 0.001)
        receiver.wait(before + 2)
        assert [unit for _, unit in receiver.spikes[before:]] == ["ch3", "ch12"]
        # On one machine, what LSL corrects is below a millisecond.
        assert receiver.spikes[before][0] / 1e9 == pytest.approx(stamp, abs=1e-3)
        del stream
        if round_ == 0:
            lost = threading.Event()

            def look(lost: threading.Event = lost) -> None:
                if feed.counters.failures:
                    lost.set()

            until(lost, look)
    feed.stop()
    assert feed.counters.connections == 2


def refused_by(feed: Any) -> str:
    """Why a feed that is started ends by itself."""
    feed.start(Receiver())
    assert feed.finished.wait(PATIENCE_S)
    feed.stop()
    assert feed.first_problem == feed.last_failure
    return str(feed.last_failure)


@pytest.mark.parametrize(("channels", "rate"), [(60, 50), (8, 1000), (1, 50), (60, 0)])
def test_an_lsl_stream_of_counts_or_signals_is_refused(lsl: Any, channels: int, rate: int) -> None:
    name = f"poyo_edge_counts_{os.getpid()}_{channels}_{rate}"
    stream = lsl.StreamOutlet(lsl.StreamInfo(name, "EMG", channels, rate, "float32", "id"))
    said = refused_by(open_feed(f"lsl://{name}"))
    assert said.startswith(f"lsl://{name}: expected an irregular stream with a sample for each")
    assert f"(type 'EMG', {channels} channels, {f'{rate} Hz' if rate else 'irregular'})" in said
    del stream


def test_lsl_streams_of_one_name_are_listed_and_one_is_chosen(lsl: Any) -> None:
    name = f"poyo_edge_twin_{os.getpid()}"
    spikes = outlet(lsl, name)
    rates = lsl.StreamOutlet(lsl.StreamInfo(name, "Rates", 60, 50, "float32", "other"))
    said = refused_by(open_feed(f"lsl://{name}"))
    assert "expected one stream, got 2 of " in said
    for words in (f"source_id {name!r} on ", "(type 'spikes', 2 channels, irregular)",
                  "source_id 'other' on ", "(type 'Rates', 60 channels, 50 Hz)",
                  f"choose with lsl://{name}?source_id="):  # fmt: skip
        assert words in said
    assert "source_id 'none', got 0 of" in refused_by(open_feed(f"lsl://{name}?source_id=none"))
    feed, receiver = open_feed(f"lsl://{name}?source_id={name}"), Receiver()
    feed.start(receiver)
    assert spikes.wait_for_consumers(PATIENCE_S)
    spikes.push_sample([3.0, 1.0], lsl.local_clock())
    receiver.wait(1)
    for sample, stamp, problem in (
        ([3.7, 0.0], lsl.local_clock(), "expected a whole channel number or a unit's name first"),
        ([3.0, 0.0], 1.76e9, "expected stamps of LSL's clock (local_clock), got 1.76e+09 s"),
    ):
        feed.first_problem = ""
        seen = threading.Event()
        spikes.push_sample(sample, stamp)

        def look(seen: threading.Event = seen) -> None:
            if feed.first_problem:
                seen.set()

        until(seen, look)
        assert problem in feed.first_problem
    feed.stop()
    assert [unit for _, unit in receiver.spikes] == ["ch3"]
    assert feed.counters.malformed == 2
    del spikes, rates


def test_values_go_out_over_lsl(lsl: Any) -> None:
    name = f"poyo_edge_out_{os.getpid()}"
    sink = open_sink(f"lsl://{name}", 2)
    found = lsl.resolve_byprop("name", name, 1, timeout=PATIENCE_S)
    inlet = lsl.StreamInlet(found[0])
    inlet.open_stream(timeout=PATIENCE_S)
    sink(a_value())
    sample, _ = inlet.pull_sample(timeout=PATIENCE_S)
    inlet.close_stream()
    assert sample == [1.5, -2.0, 0.0]
    sink.close()
