"""Addresses that nobody answers on, or that somebody else has."""

from __future__ import annotations

import socket
import threading

import pytest
from feed_helpers import Receiver

from poyo_edge.runtime.feeds import open_feed


def test_a_peer_that_cannot_be_had_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, socket.socket() as silent:
        taken.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        port, other = taken.getsockname()[1], silent.getsockname()[1]
        for address, problem in (
            (f"udp://127.0.0.1:{port}", "a free port on an address of this machine, got one"),
            (f"tcp://127.0.0.1:{other}", "a server that answers, got none"),
            (f"intan://127.0.0.1:{other}", "a server that answers, got none"),
        ):
            feed, stop = open_feed(address), threading.Event()
            with pytest.raises(ConnectionError, match=f"^{address}: expected {problem}"):
                feed.read(Receiver(), stop)
