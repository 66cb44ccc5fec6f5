"""A receiver that a test can wait for, a value to send, and a process that sends values."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from helpers.commands import WITH_HELPERS
from helpers.waiting import PATIENCE_S
from poyo_edge.runtime import Result, Status
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.trials import Trial, TrialUpdate


class Receiver:
    """Keeps what arrives, and lets a test wait for it."""

    def __init__(self) -> None:
        self.spikes: list[tuple[int, str]] = []
        self.labels: list[Any] = []
        self.syncs: list[Any] = []
        self.losses: list[int] = []
        self.problems: list[str] = []
        self.trials: list[TrialUpdate] = []
        self.cursor: list[Any] = []
        self.task_ns: list[int | None] = []
        self._changed = threading.Condition()

    def feed(self, ticks: Any, units: Any, *, host_ns: int | None = None, sync: Any = None) -> None:
        with self._changed:
            self.spikes += zip(np.asarray(ticks).tolist(), np.asarray(units).tolist(), strict=True)
            self.syncs.append(sync)
            self._changed.notify_all()

    def feed_labels(self, ticks: Any, values: Any, *, host_ns: int | None = None) -> None:
        with self._changed:
            self.labels.append((np.asarray(ticks).tolist(), np.asarray(values).tolist()))
            self._changed.notify_all()

    def feed_trial(self, trial: Trial | TrialUpdate, *, host_ns: int | None = None) -> None:
        with self._changed:
            self.trials.append(TrialUpdate.of(trial) if isinstance(trial, Trial) else trial)
            self.task_ns.append(host_ns)
            self._changed.notify_all()

    def feed_cursor(self, ticks: Any, positions: Any, *, host_ns: int | None = None) -> None:
        with self._changed:
            given = None if ticks is None else np.asarray(ticks).tolist()
            self.cursor.append((given, np.asarray(positions).tolist()))
            self.task_ns.append(host_ns)
            self._changed.notify_all()

    def note_loss(self, n: int, *, host_ns: int | None = None) -> None:
        with self._changed:
            self.losses.append(n)
            self._changed.notify_all()

    def note_problem(self, said: str) -> None:
        with self._changed:
            self.problems.append(said)
            self._changed.notify_all()

    def wait(self, n_spikes: int = 0, n_labels: int = 0) -> None:
        self.wait_for(lambda: len(self.spikes) >= n_spikes and len(self.labels) >= n_labels)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S)


def a_value(seq: int = 1) -> LoopResult:
    result = Result(
        value=np.array([1.5, -2.0]), status=Status.VALID, flags=(), t=1_000_000_000, n_spikes=7,
        t_last_spike=999, latency_ns=5, session_id="s",
    )  # fmt: skip
    return LoopResult(seq=seq, result=result, t_s=1.0, epoch=0, sync={"nsp_idx_1": 4}, host_ns=20,
                      newest_in_ns=10)  # fmt: skip


@contextlib.contextmanager
def a_name(what: str) -> Iterator[str]:
    """A name in shared memory that is free, and is so again at the end."""
    name = f"poyo_edge_{what}_{threading.get_native_id()}"
    try:
        yield name
    finally:
        (Path("/dev/shm") / name).unlink(missing_ok=True)


_WRITER = """
import dataclasses, sys, time
from helpers.feeds import a_value
from poyo_edge.runtime.feeds import shared_memory as shm
sink, for_ns = shm.SharedMemorySink(sys.argv[1], 2), int(float(sys.argv[2]) * 1e9)
for line in sys.stdin:
    if line == "half\\n":
        shm.np.asarray = lambda *_: print("writing", flush=True) or time.sleep(600)
    now = time.monotonic_ns()
    sink(dataclasses.replace(a_value(), host_ns=now, valid_until_ns=now + for_ns))
    print("written", flush=True)
"""


class SharedWriter:
    """Another process that writes VALID values to shared memory."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self.pid = process, process.pid

    def put(self, *, half: bool) -> None:
        """Have it write a value, or stop for ever in the middle of one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("half\n" if half else "whole\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == ("writing\n" if half else "written\n")


@contextlib.contextmanager
def shared_writer(name: str, *, valid_for_s: float) -> Iterator[SharedWriter]:
    """A process whose values stand for so long; killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, name, str(valid_for_s)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **WITH_HELPERS},
    ) as process:  # fmt: skip
        try:
            yield SharedWriter(process)
        finally:
            process.send_signal(signal.SIGKILL)
