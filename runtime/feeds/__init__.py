"""Thin adapters between a rig's systems and the decode loop.

None is imported by the runtime's core, and each imports its own library only when it is opened.
Start with ``open_feed`` and ``open_sink``, which take addresses like ``udp://127.0.0.1:5000``.
"""

from poyo_edge.runtime.feeds.feed import Feed, Receiver
from poyo_edge.runtime.feeds.opening import open_feed, open_sink

__all__ = ["Feed", "Receiver", "open_feed", "open_sink"]
