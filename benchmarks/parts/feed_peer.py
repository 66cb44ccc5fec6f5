"""What sends spikes over a feed, in a process of its own, and what its units are called."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parts.feed_sender import RATE_HZ, UNITS, names, stream
from poyo_edge.recording import write_recording
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.feeds import Feed, open_feed
from poyo_edge.runtime.feeds.blackrock import BlackrockFeed

KINDS = ("callback", "udp", "tcp", "intan", "redis", "openephys", "lsl")
"""Those that are sent to; "file" plays a recording."""
RECORDED_S = 120.0
PATIENCE_S = 30.0
HERE = Path(__file__).resolve().parent


class Peer:
    """What sends: a process, or a thread for the callback."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.place = f"poyo_edge_{os.getpid()}" if kind == "lsl" else str(self.port)
        self._server: subprocess.Popen[str] | None = None
        self._sender: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._callback: Any = None
        self._muted = threading.Event()

    def feed(self) -> Feed:
        """The feed to read it with."""
        if self.kind == "callback":
            return BlackrockFeed("NSP", session=self)
        addresses = {
            "udp": "udp://127.0.0.1:0", "tcp": f"tcp://127.0.0.1:{self.port}",
            "intan": f"intan://127.0.0.1:{self.port}", "lsl": f"lsl://{self.place}",
            "openephys": f"openephys://127.0.0.1:{self.port}?rate=1e9",
            "redis": f"redis://127.0.0.1:{self.port}/spikes",
            "file": f"file:{self.folder / 'recorded.h5'}",
        }  # fmt: skip
        if self.kind == "file":
            record(self.folder / "recorded.h5")
        return open_feed(addresses[self.kind])

    running = True

    def on_event(self, _: str) -> Callable[[Any], Any]:
        """Stands in for a Blackrock session."""

        def keep(callback: Any) -> Any:
            self._callback = callback
            return callback

        return keep

    def start(self, seconds: float) -> None:
        """Begin to send; a file sends by itself."""
        if self.kind == "file":
            return
        if self.kind == "callback":
            self._muted.clear()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=stream, args=(self._call, seconds + 2 * PATIENCE_S), daemon=True
                )
                self._thread.start()
            return
        if self.kind == "redis" and self._server is None:
            words = ["redis-server", "--port", self.place, "--bind", "127.0.0.1", "--save", ""]
            self._server = started([*words, "--dir", str(self.folder)], "eady to accept")
        if self._sender is None:
            script = [sys.executable, str(HERE / "feed_sender.py")]
            self._sender = started([*script, self.kind, self.place, str(seconds)], "ready")

    def kill(self) -> None:
        """End it at once."""
        self._muted.set()
        for process in (self._sender, self._server):
            if process is not None:
                process.kill()
                process.communicate()
        self._sender = self._server = None

    def _call(self, ns: npt.NDArray[np.int64], channels: npt.NDArray[np.int64]) -> None:
        if self._callback is None or self._muted.is_set():
            return
        for tick, channel in zip(ns.tolist(), channels.tolist(), strict=True):
            self._callback(types.SimpleNamespace(chid=channel + 1, type=0, time=tick), b"")


def record(path: Path) -> None:
    """A recording of such spikes, unless it is there."""
    if path.exists():
        return
    rng = np.random.default_rng(0)
    n = rng.poisson(UNITS * RATE_HZ * RECORDED_S)
    write_recording(
        path, session_id="recorded", subject_id="random", unit_ids=names(np.arange(UNITS)),
        spike_times=np.sort(rng.uniform(0.0, RECORDED_S, n)),
        spike_units=rng.integers(0, UNITS, n), behaviors={},
        domains={"train": [[0.0, RECORDED_S]]},
    )  # fmt: skip


def started(words: list[str], sign: str) -> subprocess.Popen[str]:
    """A process that has printed a sign of life."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, preexec_fn=ahead)
    assert process.stdout is not None
    for line in process.stdout:
        if sign in line:
            break
    return process


def ahead() -> None:
    """Where the decoder runs under SCHED_FIFO, senders go before it: a device waits for nobody."""
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        priority = os.sched_getparam(0).sched_priority + 1
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))


def aliases(artifact: Path, kind: str) -> dict[str, str]:
    """What the feed calls the units → ids of the session."""
    ids = Decoder.open(artifact).unit_ids[:UNITS]
    first = 1 if kind == "callback" else 0
    called = names(np.arange(first, UNITS + first))
    if kind == "intan":
        called = [f"A-{i:03d}" for i in range(UNITS)]
    return dict(zip(called, ids, strict=True))
