"""One rig for some seconds, and what each of its windows took beside its decode.

Run by loop_time.py in a process of its own, with whichever poyo_edge that finds first.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pty
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from parts.feed_peer import PATIENCE_S, Peer, aliases
from poyo_edge.runtime.feeds.sockets import UdpFeed
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.rig import Rig, RigSettings

WARM_UP_S = 2.0
LOOK_EACH_S = 0.1


def main(words: str) -> None:
    """Measure as the JSON says; arrays go into ``out``, an npz file, figures to stdout."""
    given = json.loads(words)
    folder = Path(given["folder"])
    kept = Kept()
    peer = Peer(given["kind"], folder)
    feed = peer.feed()
    artifact = Path(given["artifact"])
    more: dict[str, Any] = (
        {"ring": str(folder / f"{time.monotonic_ns()}.ring")} if given["page"] else {}
    )
    settings = RigSettings(
        rate_hz=given["rate_hz"],
        journal=folder / f"{time.monotonic_ns()}.journal" if given["journal"] else None,
        units=aliases(artifact, given["kind"]),
        **more,  # another checkout may have none
    )
    if given["kind"] not in ("udp", "callback"):
        peer.start(given["seconds"] + PATIENCE_S)
    rig = Rig.open(artifact, feed, ["shm:" + f"poyo_loop_{peer.port}"], settings, on_value=kept)
    kept.rig, kept.stamped = rig, feed.bits is None and given["kind"] != "file"
    gc.collect()
    try:
        with rig, panel(rig, wanted=given["panel"]):
            if isinstance(feed, UdpFeed):
                assert feed.bound.wait(PATIENCE_S)
                peer.place = str(feed.port)
            peer.start(given["seconds"] + PATIENCE_S)
            kept.first.wait(PATIENCE_S)
            with page(more.get("ring"), given["seconds"] + 2 * PATIENCE_S):
                time.sleep(WARM_UP_S)
                begin, used = len(kept.rows), _used_s()
                time.sleep(given["seconds"])
                used = _used_s() - used
                rows = np.array(kept.rows[begin:], np.float64)
                stats = rig.stats()
    finally:
        peer.kill()
    np.save(given["out"], rows)
    loop = stats["loop"]
    figures = {
        "cpu_percent": 100 * used / given["seconds"],
        "skipped": loop["skipped"],
        "late": loop["deadline_misses"],
        "delayed": stats["decoder"]["counters"]["delayed"],
        "received": stats["decoder"]["counters"]["received"],
    }
    print(json.dumps(figures))


class Kept:
    """Of each value, in ns: when it was out, when its window was due, when its newest packet came,
    how long decoding took, and its last spike (NaN without)."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []
        self.first = threading.Event()
        self.rig: Any = None
        self.stamped = True
        """Whether spikes carry the host's monotonic clock."""

    def __call__(self, value: LoopResult) -> None:
        out = time.monotonic_ns()
        loop, result = self.rig.loop, value.result
        due = loop.clock.to_monotonic_ns(int(result.t))
        last = result.t_last_spike if self.stamped else None
        base = out - 1_000_000_000  # float64 holds what is left of it exactly
        self.rows.append((
            out - base, due - base, value.newest_in_ns - base, result.latency_ns,
            float("nan") if last is None else last - base,
        ))  # fmt: skip
        self.first.set()


def page(ring: str | None, seconds: float) -> contextlib.AbstractContextManager[None]:
    """A page of the ring; nothing where there is none."""
    if ring is None:
        return contextlib.nullcontext()
    from parts.page_beside import page_beside

    return page_beside(ring, seconds)


@contextlib.contextmanager
def panel(rig: Any, *, wanted: bool) -> Any:
    """Figures and the panel of ``poyo-edge run`` ten times a second, on a terminal."""
    if not wanted:
        yield
        return
    ours, theirs = pty.openpty()
    sys.stderr = os.fdopen(theirs, "w", encoding="utf-8")
    from poyo_edge.cli.live import LiveView

    ending = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):
            while os.read(ours, 1 << 16):
                pass

    def look() -> None:
        with LiveView("loop_time") as view:
            while not ending.wait(LOOK_EACH_S):
                if hasattr(rig.loop, "wait_for_value"):
                    rig.loop.wait_for_value(LOOK_EACH_S)
                view.update(rig.stats(), rig.loop.last)

    threading.Thread(target=read, daemon=True).start()
    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield
    finally:
        ending.set()
        watching.join()


def _used_s() -> float:
    """Processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
