"""Addresses that nobody answers on, or that somebody else has."""

from __future__ import annotations

import socket
import threading

import pytest
from helpers.feeds import Receiver

from poyo_edge.runtime.feeds import open_feed


def test_a_peer_that_cannot_be_had_is_named() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        other = silent.getsockname()[1]
        for address, problem in (
            (f"tcp://127.0.0.1:{other}", "a server that answers, got none"),
            (f"intan://127.0.0.1:{other}", "a server that answers, got none"),
        ):
            feed, stop = open_feed(address), threading.Event()
            with pytest.raises(ConnectionError, match=f"^{address}: expected {problem}"):
                feed.read(Receiver(), stop)


def test_a_port_of_somebody_else_ends_the_feed_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{taken.getsockname()[1]}"
        feed = open_feed(address)
        feed.start(Receiver())
        assert feed.finished.wait(20)
        feed.stop()
    said = f"{address}: expected a free port on an address of this machine, got one"
    assert feed.last_failure.startswith(said)
