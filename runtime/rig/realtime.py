"""What the operating system can do for a thread with deadlines, and whether it did (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import os
import threading
from collections.abc import Callable, Iterator

from poyo_edge.errors import UsageError
from poyo_edge.runtime.turns import short_turns

GRANTED, NOT_ASKED = "granted", "not asked for"
_LOCK_NOW_AND_LATER = 3
"""MCL_CURRENT | MCL_FUTURE of mlockall(2)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeSettings:
    """What to ask for. All of it is off by default; nothing that is refused is an error."""

    cpus: tuple[int, ...] = ()
    """Cores that the decoding thread may run on; empty leaves them to the system."""
    priority: int | None = None
    """SCHED_FIFO priority, 1 to 99, of the decoding thread; needs root, CAP_SYS_NICE, or a limit
    as high (``ulimit -r``)."""
    lock_memory: bool = False
    """Keep the process in memory (mlockall); needs CAP_IPC_LOCK or a large ``ulimit -l``."""
    gc_off: bool = False
    """No cyclic garbage collection while the loop runs."""

    def __post_init__(self) -> None:
        if self.priority is not None and not 1 <= self.priority <= 99:
            raise UsageError(f"priority: expected 1 to 99, got {self.priority!r}")
        if any(cpu < 0 for cpu in self.cpus):
            raise UsageError(f"cpus: expected core numbers >= 0, got {self.cpus!r}")


@contextlib.contextmanager
def realtime(settings: RealtimeSettings) -> Iterator[dict[str, str]]:
    """Ask for the settings in the calling thread; give back what was granted at the end.

    In any case, objects that are there already are left out of Python's garbage collections
    meanwhile: going through them takes longer than a window may. And no thread keeps Python's lock
    for long while another waits for it (``switch_interval``).

    Yields setting → "granted", "not asked for", or "refused: why"; for ``switch_interval`` what it
    is.
    """
    with contextlib.ExitStack() as stack:
        _freeze(stack)
        interval_s = stack.enter_context(short_turns)
        yield {
            "cpus": _ask(bool(settings.cpus), lambda: _pin(settings.cpus, stack)),
            "priority": _ask(
                settings.priority is not None, lambda: _schedule(settings.priority or 1, stack)
            ),
            "lock_memory": _ask(settings.lock_memory, lambda: _lock_memory(stack)),
            "gc_off": _ask(settings.gc_off, lambda: _stop_collecting(stack)),
            "switch_interval": f"{1e3 * interval_s:g} ms",
        }


_lock = threading.Lock()
_n_freezing = 0


def _freeze(stack: contextlib.ExitStack) -> None:
    global _n_freezing
    with _lock:
        _n_freezing += 1
    gc.collect()
    gc.freeze()
    stack.callback(_unfreeze)


def _unfreeze() -> None:
    """The last one to leave gives all objects back to the collector."""
    global _n_freezing
    with _lock:
        _n_freezing -= 1
        if not _n_freezing:
            gc.unfreeze()


def _ask(wanted: bool, ask: Callable[[], None]) -> str:
    if not wanted:
        return NOT_ASKED
    try:
        ask()
    except (OSError, AttributeError, ValueError) as problem:
        return f"refused: {problem}"
    return GRANTED


def _pin(cpus: tuple[int, ...], stack: contextlib.ExitStack) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    stack.callback(os.sched_setaffinity, 0, before)


def _schedule(priority: int, stack: contextlib.ExitStack) -> None:
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    stack.callback(os.sched_setscheduler, 0, policy, parameter)


def _lock_memory(stack: contextlib.ExitStack) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_LOCK_NOW_AND_LATER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    stack.callback(libc.munlockall)


def _stop_collecting(stack: contextlib.ExitStack) -> None:
    if gc.isenabled():
        gc.collect()
        gc.disable()
        stack.callback(gc.enable)
