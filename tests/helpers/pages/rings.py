"""A ring of a few frames, and a process that writes one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from helpers.commands import WITH_HELPERS
from helpers.feeds import a_value
from poyo_edge.runtime.page.ring.writer import FrameWriter, RingShape
from poyo_edge.runtime.rig.settings import LoopCounters

SHAPE = RingShape(
    dims=2, units=5, rate_hz=50.0, tick_rate_hz=1e9, window_s=1.0, seconds=1.0
)  # 256 frames


def write(ring: FrameWriter, n: int, *, first: int = 0, **changes: Any) -> None:
    """Frames whose value is (number, -number)."""
    for number in range(first, first + n):
        value = a_value(number)
        result = dataclasses.replace(
            value.result, value=np.array([number, -number], np.float64), **changes
        )
        value = dataclasses.replace(value, result=result, host_ns=1000 + number)
        ring.write(value, due_ns=900 + number, newest=True, counters=LoopCounters(decoded=number))


_WRITER = """
import sys, time
from helpers.pages.rings import SHAPE, write
from poyo_edge.runtime.page.ring import writer
ring, number = writer.FrameWriter(sys.argv[1], SHAPE), 0
print("open", flush=True)
for line in sys.stdin:
    if line == "half\\n":
        writer.zlib.crc32 = lambda *_: print("writing", flush=True) or sys.stdin.read()
    if line == "busy\\n":
        while True:
            write(ring, 100, first=number)
            number += 100
    if line == "state\\n":
        ring.state.put({"host_ns": time.monotonic_ns(), "ended": "", "events": []})
    else:
        write(ring, 1, first=number)
        number += 1
    print("written", flush=True)
"""


class RingWriter:
    """Another process that writes frames when it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def put(self, what: str = "whole") -> None:
        """Have it write a frame (whole) or a state, stop for ever within a frame (half), or never
        stop (busy)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        if what != "busy":
            said = "writing\n" if what == "half" else "written\n"
            assert self._process.stdout.readline() == said

    def hang(self) -> None:
        """Do nothing from now on, and live."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """At once, as a crash does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def ring_writer(path: Path) -> Iterator[RingWriter]:
    """A process that writes a ring; killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env={**os.environ, **WITH_HELPERS},
    ) as process:  # fmt: skip
        writer = RingWriter(process)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield writer
        finally:
            writer.kill()
