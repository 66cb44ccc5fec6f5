"""What was sent and never arrived is counted; a source that comes back is picked up again."""

from __future__ import annotations

import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.feeds import Receiver
from helpers.waiting import PATIENCE_S, wait_until

from poyo_edge.runtime.feeds.feed import Listener
from poyo_edge.runtime.feeds.intan import MAGIC, IntanFeed
from poyo_edge.runtime.feeds.open_ephys import OpenEphysFeed
from poyo_edge.runtime.feeds.sockets import TcpFeed, UdpFeed
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.feeds.wire.kernel import Overflow, drops_of
from poyo_edge.runtime.feeds.wire.sequence import Sequence
from poyo_edge.runtime.rig import Rig, RigSettings


def packet(number: int | None, t: float | None = None, unit: str = "a") -> bytes:
    message = {"t": time.monotonic() if t is None else t, "units": unit}
    return json.dumps(message if number is None else {**message, "seq": number}).encode() + b"\n"


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        ([5, 6, 7], [0, 0, 0]),
        ([5, 8, 9], [0, 2, 0]),
        ([5, 8, 6, 7, 9], [0, 2, -1, -1, 0]),
        ([5, 8, 0, 1, 3], [0, 2, 0, 0, 1]),
        ([5, 5 + 10**12, 6 + 10**12], [0, 10**12 - 1, 0]),
    ],
)
def test_gaps_are_missing_and_a_restarted_sender_is_none(
    numbers: list[int], lost: list[int]
) -> None:
    sequence = Sequence()
    assert [sequence.add(number) for number in numbers] == lost


# Datagrams.


def test_numbered_datagrams_that_are_missing_are_lost() -> None:
    feed, receiver = UdpFeed("127.0.0.1", 0), Receiver()
    feed.start(receiver)
    assert feed.bound.wait(PATIENCE_S)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for number in (1, 2, 5, 4, 0, 1):
            peer.sendto(packet(number), ("127.0.0.1", feed.port))
    receiver.wait(6)
    feed.stop()
    assert (receiver.losses, feed.counters.lost, feed.counters.malformed) == ([2], 1, 0)
    assert feed.details["receive_buffer_bytes"] > 0


def test_what_the_kernel_drops_is_lost_and_the_buffer_is_made_larger() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        before = peer.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(1.0)
        overflow = Overflow(peer)
        assert overflow.granted_bytes >= before
        sent = 1 + overflow.granted_bytes // 500
        for _ in range(sent):
            sender.sendto(bytes(1000), peer.getsockname())
        assert drops_of(1) == 0
        received = lost = 0
        while received + lost < sent:
            if received == 10:  # the kernel tells with the next datagram that it keeps
                sender.sendto(b"", peer.getsockname())
                sent += 1
            _, dropped = overflow.receive(1 << 16)
            received, lost = received + 1, lost + dropped
    assert lost > 0


def test_a_feed_counts_what_the_kernel_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Overflow.receive

    def lossy(self: Overflow, most: int) -> tuple[bytes, int]:
        return receive(self, most)[0], 3

    monkeypatch.setattr(Overflow, "receive", lossy)
    feed, receiver = UdpFeed("127.0.0.1", 0), Receiver()
    feed.start(receiver)
    assert feed.bound.wait(PATIENCE_S)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for number in (None, 7, 8):
            peer.sendto(packet(number), ("127.0.0.1", feed.port))
    receiver.wait(3)
    feed.stop()
    assert receiver.losses == [3, 3], "once the sender numbers them, its numbers hold"
    assert feed.details["kernel_drops"] == 9


def test_values_of_a_rig_say_what_was_lost(tiny: Path) -> None:
    out = list[LoopResult]()
    settings = RigSettings(session="tiny_a")
    feed = UdpFeed("127.0.0.1", 0)
    rig = Rig.open(tiny, feed, settings=settings, on_value=out.append)
    assert isinstance(rig.loop, Listener)
    unit = rig.decoder.unit_ids[0]
    with rig, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        assert feed.bound.wait(PATIENCE_S)
        numbers = iter([*range(20), *range(25, 10_000)])

        def flagged() -> bool:
            peer.sendto(packet(next(numbers), unit=unit), ("127.0.0.1", feed.port))
            return any("loss" in one.result.flags for one in out)

        wait_until(flagged)
    assert rig.stats()["feed"]["lost"] == 5


# Connections.


def again(feed: Any, send: Any, server: socket.socket) -> Receiver:
    """Two servers on one port, the second after the first was closed; each sends once."""
    receiver, (host, port) = Receiver(), server.getsockname()
    feed.start(receiver)
    for round_ in (1, 2):
        with server, server.accept()[0] as peer:
            peer.sendall(send(round_))
            receiver.wait(round_)
        if round_ == 1:
            server = socket.create_server((host, port))
    feed.stop()
    return receiver


def test_an_intan_server_that_comes_back_is_picked_up_and_the_break_is_a_loss() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    feed = IntanFeed("127.0.0.1", server.getsockname()[1], 30_000)
    receiver = again(feed, lambda i: struct.pack("<I5sIB", MAGIC, b"A-001", 3 - i, 1), server)
    assert [tick for tick, _ in receiver.spikes] == [2, 1], "its counter begins anew"
    assert (receiver.losses, feed.counters.lost, feed.counters.connections) == ([1], 1, 2)


@pytest.mark.parametrize(("second", "lost"), [(None, [1]), (3, []), (5, [2]), (0, [1])])
def test_numbers_say_what_a_tcp_server_sent_during_the_break(
    second: int | None, lost: list[int]
) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    feed = TcpFeed("127.0.0.1", server.getsockname()[1])
    receiver = again(feed, lambda i: packet(2 if i == 1 else second, float(i)), server)
    assert receiver.losses == lost


def test_an_open_ephys_gui_that_comes_back_is_picked_up_and_gaps_are_lost() -> None:
    zmq = pytest.importorskip("zmq", reason="pyzmq is not installed")
    receiver, feed, port = Receiver(), None, 0
    for numbers in ((7, 8, 11), (1, 2)):
        context = zmq.Context()
        publisher = context.socket(zmq.XPUB)
        publisher.setsockopt(zmq.LINGER, 0)
        if feed is None:
            port = publisher.bind_to_random_port("tcp://127.0.0.1")
            feed = OpenEphysFeed(f"tcp://127.0.0.1:{port}", 30_000)
            feed.start(receiver)
        else:
            publisher.bind(f"tcp://127.0.0.1:{port}")
        assert publisher.poll(PATIENCE_S * 1000)
        before = len(receiver.spikes)
        for number in numbers:
            spike = {"electrode": "T1", "sample_num": number, "sorted_id": 0}
            parts = {"message_no": number, "type": "spike", "spike": spike}
            publisher.send_multipart([b"EVENT", json.dumps(parts).encode()])
        receiver.wait(before + len(numbers))
        publisher.close()
        context.term()
    assert feed is not None
    feed.stop()
    assert [tick for tick, _ in receiver.spikes] == [7, 8, 11, 1, 2]
    assert (receiver.losses, feed.counters.lost, feed.first_problem) == ([2], 2, "")
