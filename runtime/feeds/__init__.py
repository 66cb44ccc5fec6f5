"""Thin adapters between a rig's systems and the decode loop.

None is imported by the runtime's core, and each imports its own library only when it is opened.
Start with ``open_feed`` and ``open_sink``, which take addresses like ``udp://127.0.0.1:5000``.
What a loop may rely on is said by ``Feed`` and ``Sink``, what a feed may rely on by ``Receiver``.
The tables ``FEEDS`` and ``SINKS`` have a row for each kind; a new one is a file and its row.
"""

from poyo_edge.runtime.feeds.feed import Feed, Receiver
from poyo_edge.runtime.feeds.opening import FEEDS, SINKS, open_feed, open_sink
from poyo_edge.runtime.feeds.values import Sink

__all__ = ["FEEDS", "SINKS", "Feed", "Receiver", "Sink", "open_feed", "open_sink"]
