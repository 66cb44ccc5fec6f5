"""Appends to a journal."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.files.writing import require_folder
from poyo_edge.journal.controlled import STATUSES, Controlled
from poyo_edge.journal.frames import (
    CONTROLLED,
    CURSOR,
    DECODED,
    DECODED_HEAD,
    EVENT,
    HEADER,
    LABELS,
    MAGIC,
    NOTE,
    SERIES_HEAD,
    SPIKES,
    SPIKES_HEAD,
    START,
    TRIAL,
    JournalHeader,
    as_json,
    framed,
)
from poyo_edge.trials import Trial

_log = logging.getLogger(__name__)
_FLUSH_S = 1.0


class JournalWriter:
    """Appends to a new file, from any thread; one of its own flushes to the disk each second.

    When the disk is full, or a flush finds the file deleted, replaced or truncated, what has been
    written stays, ``error`` says so and is logged, and ``lost_frames`` counts later entries.
    """

    def __init__(self, path: str | Path, header: JournalHeader) -> None:
        self.path = Path(path)
        require_folder(self.path)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._file = os.open(self.path, flags, 0o644)
        except FileExistsError:
            raise UsageError(
                f"{self.path}: expected a name that is free, got a file there; a journal is never "
                f"written over, so give another name"
            ) from None
        self.error: OSError | None = None
        self.lost_frames = 0
        self.n_bytes = 0
        self._closed, self._lock = threading.Event(), threading.Lock()
        self._append(MAGIC + framed(HEADER, json.dumps(header.to_json()).encode()))
        self._flusher = threading.Thread(target=self._flush, name="poyo-edge-journal", daemon=True)
        self._flusher.start()

    def spikes(
        self,
        host_ns: int,
        epoch: int,
        ticks: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int32],
    ) -> None:
        """Append a chunk of spikes, ticks (N,) and rows (N,)."""
        head = SPIKES_HEAD.pack(host_ns, epoch, len(ticks))
        body = np.asarray(ticks, "<i8").tobytes() + np.asarray(rows, "<i4").tobytes()
        self._append(framed(SPIKES, head + body))

    def start(self, **values: Any) -> None:
        """Append what is decoded with, once, before anything else."""
        self._append(framed(START, as_json(values)))

    def decoded(
        self,
        tick: int,
        host_ns: int,
        status: str,
        n_spikes: int,
        value: npt.NDArray[np.float64],
        *,
        flags: Sequence[str] = (),
        sync: Any = None,
    ) -> None:
        """Append a decoded value (D,), its flags, and the ``sync`` that it went out with."""
        head = DECODED_HEAD.pack(tick, host_ns, STATUSES.index(status), n_spikes, len(value))
        frame = framed(DECODED, head + np.asarray(value, "<f8").tobytes())
        if flags or sync is not None:
            frame = framed(NOTE, as_json({"flags": list(flags), "sync": sync})) + frame
        self._append(frame)

    def controlled(self, value: Controlled) -> None:
        """Append what left instead of the value that was decoded last."""
        self._append(framed(CONTROLLED, value.payload()))

    def labels(
        self, epoch: int, ticks: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
    ) -> None:
        """Append behaviour, ticks (N,) and values (N, D)."""
        self._append(_series(LABELS, epoch, ticks, values))

    def cursor(
        self, epoch: int, ticks: npt.NDArray[np.int64], positions: npt.NDArray[np.float64]
    ) -> None:
        """Append where the cursor was, ticks (N,) and positions (N, D)."""
        self._append(_series(CURSOR, epoch, ticks, positions))

    def trial(self, epoch: int, trial: Trial) -> None:
        """Append what is known of a trial by now."""
        self._append(framed(TRIAL, as_json({"epoch": epoch, "trial": trial.to_json()})))

    def event(self, **values: Any) -> None:
        """Append a note, for example that the clock was reset."""
        self._append(framed(EVENT, as_json(values)))

    def close(self) -> None:
        """Flush and close; may be called again."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        self._flusher.join()
        self._sync()
        os.close(self._file)

    def _append(self, data: bytes) -> None:
        with self._lock:
            if self.error is not None or self._closed.is_set():
                self.lost_frames += 1
                return
            try:
                written = os.write(self._file, data)
                if written != len(data):
                    os.ftruncate(self._file, self.n_bytes)
                    raise OSError(28, "the disk took part of a frame only: it is full")
                self.n_bytes += written
            except OSError as error:
                self._end_with(error)
                self.lost_frames += 1

    def _flush(self) -> None:
        while not self._closed.wait(_FLUSH_S):
            self._sync()

    def _sync(self) -> None:
        try:
            os.fsync(self._file)
            self._require_in_place()
        except OSError as error:
            self._end_with(error)

    def _require_in_place(self) -> None:
        """Whether people find at the name what is written here."""
        n_bytes, ours = self.n_bytes, os.fstat(self._file)  # n_bytes first: another thread appends
        try:
            there = self.path.stat()
        except FileNotFoundError:
            raise OSError("its file was deleted or moved; start the run again") from None
        if not os.path.samestat(ours, there):
            raise OSError("its file was replaced by another; start the run again")
        if there.st_size < n_bytes:
            got = f"expected {n_bytes} bytes, got {there.st_size}"
            raise OSError(f"its file was truncated: {got}; start the run again")

    def _end_with(self, error: OSError) -> None:
        if self.error is None:
            self.error = error
            _log.error("the journal %s: %s; nothing is recorded from here on", self.path, error)


def _series(
    kind: int, epoch: int, ticks: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> bytes:
    head = SERIES_HEAD.pack(epoch, len(ticks), values.shape[1])
    body = np.asarray(ticks, "<i8").tobytes() + np.asarray(values, "<f8").tobytes()
    return framed(kind, head + body)
