"""The loop's end of a ring: a frame for each window, without a lock, an array or a wait.

Called in the loop's thread alone. What arrives between two windows is added up in arrays that are
there from the start; ``write`` copies it all into the next slot.

Legend: D dimensions of a value, U units at most, N spikes or samples.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from poyo_edge.arrays import Float64, Int64, Rows
from poyo_edge.errors import UsageError
from poyo_edge.journal import STATUSES
from poyo_edge.runtime.page.ring import layout
from poyo_edge.runtime.page.ring.memory import RingFile
from poyo_edge.runtime.page.ring.state import StateWriter
from poyo_edge.trials import Trial

_STATUS = {name: number for number, name in enumerate(STATUSES)}
_CHECKED_FROM = 12
"""Byte of a frame behind ``sequence`` and ``check``."""
_LOW = 0xFFFFFFFF
_PIECE = 4096
_ONE = np.uint16(1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RingShape:
    """What a ring is made for.

    Attributes:
        dims: D.
        units: U, of the largest session.
        rate_hz: windows per second of the host.
        tick_rate_hz: ticks per second of the times that frames hold.
        window_s: length of a window.
        seconds: of frames that are kept.
    """

    dims: int
    units: int
    rate_hz: float
    tick_rate_hz: float
    window_s: float
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if not (1 <= self.dims <= 4096 and 1 <= self.units <= 65536):
            raise UsageError(
                f"ring: expected 1 to 4096 dimensions and 1 to 65536 units, got {self.dims} and "
                f"{self.units}"
            )
        if not (0 < self.rate_hz <= 1e4 and 0 < self.seconds <= 3600 and self.tick_rate_hz > 0):
            raise UsageError(
                f"ring: expected up to 10000 windows per second and 3600 s, got {self.rate_hz!r} "
                f"and {self.seconds!r}"
            )


class Listeners(NamedTuple):
    """What a writer is told between two windows."""

    spikes: Callable[[Int64, Rows], None]
    labels: Callable[[Int64, Float64], None]
    cursor: Callable[[Int64, Float64], None]
    trial: Callable[[Trial], None]


class FrameWriter:
    """Writes what a loop decodes; ``close`` takes the ring away.

    Args:
        run: name in ``/dev/shm``, or a path.
        shape: of the frames.

    Raises:
        UsageError: the name is taken, or there is no memory.
    """

    def __init__(self, run: str, shape: RingShape) -> None:
        self.run, self.shape = run, shape
        dtype = layout.frame_dtype(shape.dims, shape.units)
        slots = layout.n_slots(shape.rate_hz, shape.seconds)
        state_at = layout.HEAD_BYTES + slots * dtype.itemsize
        self._file = RingFile(run, state_at + 2 * layout.STATE_BYTES)
        self.path = self._file.path
        memory = self._file.memory
        self._slots, self._number = slots, 0
        self._head = layout.head_of(memory)
        self._frames = np.ndarray(slots, dtype, memory, layout.HEAD_BYTES)
        self._front, self._frame_bytes = layout.front_struct(), dtype.itemsize
        self._sequence, self._check = self._frames["sequence"], self._frames["check"]
        self._value, self._own_value = self._frames["value"], self._frames["own_value"]
        self._labels, self._units = self._frames["label"], self._frames["counts"]
        self._targets, self._cursors = self._frames["target"], self._frames["cursor"]
        whole = np.frombuffer(memory, np.uint8, slots * dtype.itemsize, layout.HEAD_BYTES)
        self._bytes = whole.reshape(slots, dtype.itemsize)[:, _CHECKED_FROM:]
        self.state = StateWriter(memory, state_at)
        self._write_head(slots, dtype.itemsize, state_at)
        self._counts = np.zeros(shape.units + 1, np.uint16)
        """Of spikes since the last frame; the last one is of all units without a row."""
        self._known = np.empty(_PIECE, np.int64)
        self._cursor, self._target = np.full((2, layout.MOST_DIMS), np.nan)
        self._cursor_dims = self._target_dims = 0
        self._cursor_t = self._trial_t = self._radius = math.nan
        self._label, self._label_t = np.full(shape.dims, np.nan), math.nan
        self._trial = -1
        self._last_spike: float | None = None
        self._session, self._session_bytes, self._swaps = "", b"", -1
        self._flags: tuple[str, ...] = ()
        self._flag_bits = 0
        self._file.show()

    @property
    def listeners(self) -> Listeners:
        """For a loop to tell."""
        return Listeners(self.note_spikes, self.note_labels, self.note_cursor, self.note_trial)

    def note_spikes(self, ticks: Int64, rows: Rows) -> None:
        """Count spikes that were pushed: rows (N,) of the session in use, -1 for none of it."""
        unsigned = rows.view(np.ndarray).view(np.uint32)  # -1 is larger than any row
        for start in range(0, len(unsigned), _PIECE):
            piece = unsigned[start : start + _PIECE]
            known = self._known[: len(piece)]
            np.minimum(piece, self.shape.units, out=known, casting="unsafe")
            np.add.at(self._counts, known, _ONE)

    def note_labels(self, ticks: Int64, values: Float64) -> None:
        """Keep the newest behaviour of ticks (N,) and values (N, D)."""
        self._label[:] = values[-1]
        self._label_t = ticks[-1] / self.shape.tick_rate_hz

    def note_cursor(self, ticks: Int64, positions: Float64) -> None:
        """Keep the newest position of ticks (N,) and (N, W)."""
        dims = positions.shape[1]
        self._cursor[:dims] = positions[-1]
        self._cursor_dims, self._cursor_t = dims, ticks[-1] / self.shape.tick_rate_hz

    def note_trial(self, trial: Trial) -> None:
        """Keep what is known of a trial; one that has ended leaves nothing to show."""
        if trial.end is not None:
            if trial.number == self._trial:
                self._no_trial()
            return
        self._trial, self._trial_t = trial.number, trial.start / self.shape.tick_rate_hz
        self._target[:] = math.nan
        self._target_dims = 0 if trial.target is None else len(trial.target)
        if trial.target is not None:
            self._target[: self._target_dims] = trial.target
        self._radius = math.nan if trial.radius is None else trial.radius

    def new_clock(self) -> None:
        """Ticks begin anew: trials and spikes of before have no place on it."""
        self._last_spike = None
        self._no_trial()

    def _no_trial(self) -> None:
        self._trial, self._trial_t, self._target_dims = -1, math.nan, 0
        self._radius = math.nan
        self._target[:] = math.nan

    def write(self, value: Any, *, due_ns: int, newest: bool, counters: Any) -> None:
        """Write the next frame.

        Args:
            value: the ``LoopResult`` that left.
            due_ns: when its window was due, of the host's monotonic clock.
            newest: whether a packet arrived since the frame before.
            counters: ``LoopCounters``.
        """
        number = self._number
        slot, whole = number % self._slots, 2 * number + 2
        result, control = value.result, value.control
        if result.flags != self._flags:
            self._flags, self._flag_bits = result.flags, layout.bits_of(result.flags)
        if result.session_id != self._session or self._swaps < 0:
            self._new_session(result.session_id)
        self._sequence[slot] = whole - 1
        self._front.pack_into(
            self._file.memory, layout.HEAD_BYTES + slot * self._frame_bytes + _CHECKED_FROM,
            _STATUS[result.status.value],
            _STATUS[(result if control is None else control).status.value],
            self._cursor_dims, self._target_dims, self._flag_bits,
            value.seq, result.t, value.t_s, value.epoch, result.n_spikes,
            value.host_ns, due_ns, value.valid_until_ns, value.newest_in_ns, result.latency_ns,
            value.host_ns - value.newest_in_ns if newest else -1, self._silence(result),
            counters.decoded, counters.skipped, counters.deadline_misses,
            counters.packets, counters.packets_dropped,
            self._swaps, int(self._counts[-1]), self._label_t, self._trial, self._trial_t,
            self._radius, self._cursor_t, self._session_bytes,
        )  # fmt: skip
        self._value[slot] = result.value
        self._own_value[slot] = result.value if control is None else control.decoded
        self._labels[slot] = self._label
        self._targets[slot], self._cursors[slot] = self._target, self._cursor
        self._units[slot] = self._counts[:-1]
        self._counts.fill(0)
        self._check[slot] = zlib.crc32(self._bytes[slot], whole & _LOW)
        self._sequence[slot] = whole
        self._number = number + 1
        self._head["written"] = self._number

    def close(self) -> None:
        """Take the ring away; its readers see that nobody writes any more. May be called again."""
        self._file.close()

    def _silence(self, result: Any) -> float:
        """Seconds since the newest spike of this clock, also when it has left the window."""
        if result.t_last_spike is not None:
            self._last_spike = result.t_last_spike
        if self._last_spike is None:
            return math.nan
        return float(result.t - self._last_spike) / self.shape.tick_rate_hz

    def _new_session(self, session: str) -> None:
        self._session, self._swaps = session, self._swaps + 1
        self._session_bytes = session.encode("utf-8", "replace")[: layout.SESSION_BYTES]

    def _write_head(self, slots: int, frame_bytes: int, state_at: int) -> None:
        head, shape = self._head, self.shape
        head["magic"], head["version"] = layout.MAGIC, layout.VERSION
        head["slots"], head["frame_bytes"] = slots, frame_bytes
        head["dims"], head["units"] = shape.dims, shape.units
        head["state_at"], head["state_bytes"] = state_at, layout.STATE_BYTES
        head["rate_hz"], head["tick_rate_hz"] = shape.rate_hz, shape.tick_rate_hz
        head["window_s"], head["pid"] = shape.window_s, os.getpid()
        head["began_ns"], head["began_unix_s"] = time.monotonic_ns(), time.time()
