"""The feed of Redis against a real server, killed and restarted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
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
from helpers.labs.redis_server import Server, redis_server
from helpers.streams import never_read
from helpers.waiting import PATIENCE_S, until, wait_until

from poyo_edge.runtime.feeds import open_feed, open_sink
from poyo_edge.runtime.feeds.brand import BrandFeed, BrandSink
from poyo_edge.runtime.feeds.values import Sink
from poyo_edge.runtime.feeds.wire.entries import Entries
from poyo_edge.runtime.rig.outlets import close_all, outlet


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with redis_server(tmp_path) as running:
        yield running


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
    sink(dataclasses.replace(a_value(), valid_until_ns=60_000_020))
    sink.close()
    fields = client.xrevrange("decoded", count=1)[0][1]
    assert np.frombuffer(fields[b"samples"], "<f8").tolist() == [1.5, -2.0]
    assert json.loads(fields[b"sync"]) == {"nsp_idx_1": 4}
    assert struct.unpack("<Q", fields[b"ts"]) == (20,)
    assert fields[b"status"] == b"VALID"
    assert (fields[b"i"], float(fields[b"valid_for_ms"])) == (b"1", 60.0)
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


def test_a_server_that_hangs_gets_the_newest_value_when_it_wakes_and_holds_up_nobody(
    server: Server,
) -> None:
    client = server.start()
    assert server.process is not None
    address = f"redis://127.0.0.1:{server.port}/decoded"
    hanging, others = outlet(open_sink(address, 2)), list[int]()
    other = outlet(Sink("udp://x", lambda value: others.append(value.seq), lambda: None))

    def send(seq: int) -> None:
        for one in (hanging, other):
            one(a_value(seq))
        wait_until(lambda: others[-1:] == [seq])

    send(1)
    wait_until(lambda: hanging.to_json()["sent"] == 1)
    server.process.send_signal(signal.SIGSTOP)
    last = 1

    def goes_on() -> bool:
        nonlocal last
        send(last := last + 1)
        return bool(hanging.to_json()["failures"] >= 2)

    wait_until(goes_on)
    goes_on()
    server.process.send_signal(signal.SIGCONT)
    wait_until(lambda: hanging.to_json()["behind_ms"] == 0)
    found = hanging.to_json()
    close_all([hanging, other])
    assert others == list(range(1, last + 1))
    sent = [int(fields[b"i"]) for _, fields in client.xrange("decoded")]
    assert sent == sorted(set(sent))
    assert sent[-1] == last
    assert found["sent"] + found["superseded"] + found["failures"] == last
    assert found["superseded"] > 0
    assert found["last_failure"].startswith("TimeoutError: ")
    client.close()


@contextlib.contextmanager
def a_node(
    server: Server, client: Any, tiny: Path, **streams: Any
) -> Iterator[subprocess.Popen[str]]:
    """A node of a graph, when it is ready."""
    units = {"ch3": "tiny_a/unit_00", "ch7": "tiny_a/unit_01"}
    parameters = {"artifact": str(tiny), "session": "tiny_a", "input_stream": "thresh_cross_1",
                  "output_stream": "decoded", "rate_hz": 50, "units": units}  # fmt: skip
    graph = {"nodes": {"poyo": {"nickname": "poyo", "parameters": parameters}}}
    client.xadd("supergraph_stream", {"data": json.dumps(graph)})
    words = [sys.executable, "-m", "poyo_edge.runtime.feeds.brand_node", "-n", "poyo", "-i",
             "127.0.0.1", "-p", str(server.port)]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **(pipes | streams)) as node:
        try:
            wait_until(lambda: client.xlen("poyo_state") > 1 or node.poll() is not None)
            yield node
        finally:
            node.kill()


def states(client: Any) -> list[tuple[str, str]]:
    """What a node told its supervisor: codes and states."""
    return [
        (fields[b"code"].decode(), fields[b"status"].decode())
        for _, fields in client.xrange("poyo_state")
    ]


@pytest.mark.parametrize("how", ["SIGINT", "SIGHUP", "stderr is never read"])
def test_a_brand_node_reports_its_states_and_decodes(server: Server, tiny: Path, how: str) -> None:
    client = server.start()
    unread = never_read("pipe") if "stderr" in how else contextlib.nullcontext(subprocess.PIPE)
    with unread as stderr, a_node(server, client, tiny, stderr=stderr) as node:
        assert states(client) == [("0", "NODE_STARTED"), ("0", "NODE_READY")]
        decoded = threading.Event()

        def add() -> None:
            # One entry that cannot be read: it is said on stderr.
            client.xadd("thresh_cross_1", {"crossings": b"x", "ts": b"y"})
            client.xadd("thresh_cross_1", entry(time.monotonic_ns(), 3, 5))
            if client.xlen("decoded") > 10:
                decoded.set()

        until(decoded, add)
        node.send_signal(signal.SIGHUP if how == "SIGHUP" else signal.SIGINT)
        out, error = node.communicate(timeout=PATIENCE_S)
    assert node.returncode == 0, error
    stats = json.loads(out)
    assert stats["loop"]["decoded"] > 10
    assert stats["feed"]["malformed"] > 0
    assert states(client)[-1] == ("0", "NODE_SHUTDOWN")
    value = client.xrevrange("decoded", count=1)[0][1]
    assert json.loads(value[b"sync"]) == {"nsp_idx_1": 5}
    client.close()


def test_a_brand_node_that_decoded_nothing_is_no_success(server: Server, tiny: Path) -> None:
    client = server.start()
    with a_node(server, client, tiny) as node:
        seen = threading.Event()

        def add() -> None:
            client.xadd("thresh_cross_1", {"crossings": b"xyz", "ts": b"y"})
            if client.xlen("thresh_cross_1") > 20:
                seen.set()

        until(seen, add)
        node.send_signal(signal.SIGTERM)
        out, error = node.communicate(timeout=PATIENCE_S)
    assert node.returncode == 3, error
    reason = json.loads(out)["feed"]["first_problem"]
    assert reason
    said = f"node poyo: expected spikes of the session's units, but no spike was used: {reason}"
    assert error.splitlines()[-1] == f"[poyo] error: {said}"
    assert states(client)[-1] == ("1", f"NODE_FATAL_ERROR: {said}")
    client.close()


def test_a_brand_node_outlives_its_server_to_say_what_it_did(server: Server, tiny: Path) -> None:
    client = server.start()
    with a_node(server, client, tiny) as node:
        client.close()
        server.kill()
        node.send_signal(signal.SIGTERM)
        out, error = node.communicate(timeout=PATIENCE_S)
    assert node.returncode == 3, error
    assert json.loads(out)["loop"]["decoded"] == 0
    assert "Traceback" not in error


def test_a_brand_node_without_a_graph_says_so(server: Server) -> None:
    client = server.start()
    words = [sys.executable, "-m", "poyo_edge.runtime.feeds.brand_node", "-n", "poyo", "-i",
             "127.0.0.1", "-p", str(server.port)]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "expected a graph with a node 'poyo'" in done.stderr
    first, second = states(client)
    assert first == ("0", "NODE_STARTED")
    assert second[1].startswith("NODE_FATAL_ERROR")
    client.close()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_brand_stream_with_smaller_ids_is_another_one_and_is_read(
    server: Server, restarted: bool
) -> None:
    client = server.start()
    client.xadd("s", entry(1, 0), id="9000-5")
    feed, receiver = BrandFeed({"host": "127.0.0.1", "port": server.port}, "s"), Receiver()
    feed.start(receiver)
    numbers = iter(range(6, 10_000))
    seen = threading.Event()

    def add() -> None:
        client.xadd("s", entry(1_000_000, 1), id=f"9000-{next(numbers)}")
        if receiver.spikes:
            seen.set()

    until(seen, add)
    before = len(receiver.spikes)
    if restarted:
        client.close()
        server.kill()
        client = server.start()
    else:
        client.delete("s")
    client.xadd("s", entry(2_000_000, 2), id="7-1")
    client.xadd("s", entry(3_000_000, 3), id="7-2")
    receiver.wait_for(lambda: (2_500_000, "ch3") in receiver.spikes[before:])
    feed.stop()
    assert receiver.spikes[-2:] == [(1_500_000, "ch2"), (2_500_000, "ch3")]
    assert feed.details["began_anew"] == 1
    assert receiver.losses == [1], "what came between is not known"
    client.close()


def test_brand_entries_that_were_trimmed_before_they_were_read_are_lost(server: Server) -> None:
    client = server.start()
    if "entries-added" not in client.xinfo_stream(client.xadd("s", entry(1, 0)) and "s"):
        pytest.skip("this redis-server (before 7) does not count entries")
    entries = Entries("s")
    assert entries.look(client) == (0, True) or entries.last
    for i in range(5):
        client.xadd("s", entry(i, 1))
    assert entries.look(client) == (0, False), "some wait"
    client.xtrim("s", maxlen=2, approximate=False)
    entries.read(client.xread({"s": entries.last})[0][1])
    assert entries.look(client) == (3, True)
    assert entries.look(client) == (0, True)
    assert not entries.began_anew(client)
    client.close()


def test_a_brand_feed_flags_entries_that_were_trimmed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poyo_edge.runtime.feeds.brand._LOOK_EACH_S", 0.0)
    client = server.start()
    feed, receiver = BrandFeed({"host": "127.0.0.1", "port": server.port}, "s"), Receiver()
    feed.start(receiver)
    lost = threading.Event()

    def add() -> None:
        with client.pipeline() as together:  # Read between two of them is none.
            for i in range(4):
                together.xadd("s", entry(1_000_000 + i, 1), maxlen=1, approximate=False)
            together.execute()
        if receiver.losses:
            lost.set()

    until(lost, add)
    feed.stop()
    assert feed.counters.lost == sum(receiver.losses) > 0
    client.close()
