"""A journal: what a rig heard and decoded, appended frame by frame, so that a crash loses nothing.

A frame is handed to the system in one write; what was written survives the end of the process, and
a flush each second bounds what a power cut can take. A file that ends inside a frame is read up to
that frame. Layout: ``MAGIC``, then frames of ``kind u8, 3 zero bytes, length u32, crc32 u32`` and
``length`` bytes, little-endian; the first frame is the header (JSON). Readers pass over kinds that
they do not know.

    0 HEADER   JSON, ``JournalHeader``
    1 SPIKES   host_ns i64, epoch u32, N u32, N ticks i64, N rows i32, of the session in use
    2 DECODED  tick i64, host_ns i64, status u32, n_spikes u32, D u16, 6 zero bytes, D values f64
    3 LABELS   epoch u32, N u32, D u16, 2 zero bytes, N ticks i64, N * D values f64
    4 EVENT    JSON, one of
               {"clock": "discontinuity", "epoch": 1}: the decoder was reset
               {"swap": {...}}, see ``Swap``: from here on another session is in use
               {"unknown_unit": "ch7", "row": -2}: that row is a unit that no session has
               {"command": "mark", "text": "…", "seq": 3, "ok": true, "reason": "…", "from": "…"}:
               what a loop was told, and {"command_done": "swap", …} when it is done later
    5 START    JSON, behind the header: what it was decoded with, see ``Journal.start``
    6 NOTE     JSON {"flags": [...], "sync": ...} of the DECODED frame behind it
    9 CONTROLLED  what left instead of the value of the DECODED frame before it, see ``Controlled``

0.1.0 wrote kinds 0 to 4 and of the events the first; its reader opens what has the others too.

Legend: N spikes or samples, D dimensions.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.files.writing import require_folder
from poyo_edge.frames import FRAME, STATUSES, Controlled, any_json, controlled_from, framed
from poyo_edge.records import JsonRecord, require_fields

_log = logging.getLogger(__name__)
MAGIC = b"POYOJRN1"
HEADER, SPIKES, DECODED, LABELS, EVENT, START, NOTE, CONTROLLED = 0, 1, 2, 3, 4, 5, 6, 9
_SPIKES = struct.Struct("<qII")
_DECODED = struct.Struct("<qqIIH6x")
_LABELS = struct.Struct("<IHxx")
_MOST_BYTES = 1 << 26
_FLUSH_S = 1.0
_MOST_HZ = 1e12


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JournalHeader(JsonRecord):
    """What a journal says about itself."""

    session_id: str
    unit_ids: tuple[str, ...]
    tick_rate_hz: float
    behavior: str = ""
    """What the decoder decodes, as GROUP.KEY."""
    subject_id: str = "unknown"
    created: str = ""

    def __post_init__(self) -> None:
        require_fields(self)
        ids, rate = self.unit_ids, self.tick_rate_hz
        if len(set(ids)) != len(ids):
            raise UsageError(f"unit_ids: expected unique names, got {ids!r:.80}")
        if not 0 < rate <= _MOST_HZ:
            raise UsageError(f"tick_rate_hz: expected ticks per second, got {rate!r:.80}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spikes:
    """One chunk in the order it was used. ``ticks`` (N,) int64, ``rows`` (N,) int32."""

    host_ns: int
    epoch: int
    ticks: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """One decoded value (D,) of the window that ends at ``tick``."""

    tick: int
    host_ns: int
    status: str
    n_spikes: int
    value: npt.NDArray[np.float64]
    flags: tuple[str, ...] = ()
    """Why the status is what it is; journals of 0.1.0 do not say."""
    sync: Any = None
    """What the packet brought that it was passed through with."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """Behaviour: ``ticks`` (N,) int64, ``values`` (N, D) float64."""

    epoch: int
    ticks: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Swap(JsonRecord):
    """From here on another session is in use; an event of a journal."""

    session_id: str
    sha256: str
    """``Session.digest``."""
    unit_ids: tuple[str, ...]
    """Rows of spikes count along them."""

    def __post_init__(self) -> None:
        require_fields(self)


Entry = Spikes | Decoded | Labels | Controlled | dict[str, Any]


class JournalWriter:
    """Appends to a new file. One thread writes; another flushes it to the disk each second.

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
        self._closed = threading.Event()
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
        head = _SPIKES.pack(host_ns, epoch, len(ticks))
        body = np.asarray(ticks, "<i8").tobytes() + np.asarray(rows, "<i4").tobytes()
        self._append(framed(SPIKES, head + body))

    def start(self, **values: Any) -> None:
        """Append what is decoded with, once, before anything else."""
        self._append(framed(START, any_json(values)))

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
        head = _DECODED.pack(tick, host_ns, STATUSES.index(status), n_spikes, len(value))
        frame = framed(DECODED, head + np.asarray(value, "<f8").tobytes())
        if flags or sync is not None:
            frame = framed(NOTE, any_json({"flags": list(flags), "sync": sync})) + frame
        self._append(frame)

    def controlled(self, value: Controlled) -> None:
        """Append what left instead of the value that was decoded last."""
        self._append(framed(CONTROLLED, value.payload()))

    def labels(
        self, epoch: int, ticks: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
    ) -> None:
        """Append behaviour, ticks (N,) and values (N, D)."""
        head = struct.pack("<I", epoch) + _LABELS.pack(len(ticks), values.shape[1])
        body = np.asarray(ticks, "<i8").tobytes() + np.asarray(values, "<f8").tobytes()
        self._append(framed(LABELS, head + body))

    def event(self, **values: Any) -> None:
        """Append a note, for example that the clock was reset."""
        self._append(framed(EVENT, any_json(values)))

    def close(self) -> None:
        """Flush and close; may be called again."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._flusher.join()
        self._sync()
        os.close(self._file)

    def _append(self, data: bytes) -> None:
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


class Journal:
    """A journal that is read. ``entries`` stop where the file was cut off or damaged."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise RecordingError(self.path, "file", expected="a journal", got="no such file",
                                 do="check the path")  # fmt: skip
        self.bytes_left_out = 0
        """Bytes behind the last whole frame; known when ``entries`` has ended."""
        self.appended = False
        """These bytes begin another journal; known when ``entries`` has ended."""
        self.damaged = False
        """Whether it is damaged there, not only cut off; known when ``entries`` has ended."""
        with self.path.open("rb") as file:
            ours = file.read(len(MAGIC)) == MAGIC
            frames = list(itertools.islice(self._frames(file), 2)) if ours else []
        frame = frames[0] if frames else None
        self.start = _start(*frames[1]) if len(frames) > 1 else None
        """What it was decoded with: ``core``, ``session`` (id and sha256), ``backend``,
        ``precision``, ``machine``; None in journals of 0.1.0."""
        try:
            if frame is None or frame[0] != HEADER:
                raise ValueError("no header")
            self.header = JournalHeader.from_json(json.loads(frame[1]))
        except (ValueError, RecursionError) as error:
            raise RecordingError(
                self.path,
                "header",
                expected="a journal that poyo-edge run wrote",
                got=f"another file, or one that ends in its header ({error})",
                do="name another file",
            ) from None

    def entries(self) -> Iterator[Entry]:
        """All entries in the order in which they were written."""
        note = dict[str, Any]()
        with self.path.open("rb") as file:
            file.seek(len(MAGIC))
            for number, (kind, payload) in enumerate(self._frames(file)):
                if kind == HEADER and number:
                    self.appended = True
                    return  # of another start, whose units and ticks are its own
                try:
                    if kind == NOTE:
                        note = _note(payload)
                        continue
                    entry = _entry(kind, payload)
                except (struct.error, ValueError, IndexError, RecursionError):
                    self.damaged = True
                    return  # whole, but not what a writer of ours puts into a frame
                if isinstance(entry, Decoded) and note:
                    entry, note = dataclasses.replace(entry, **note), {}
                if entry is not None:
                    yield entry

    def _frames(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        size = os.fstat(file.fileno()).st_size
        while True:
            start = file.tell()
            self.bytes_left_out = size - start
            head = file.read(FRAME.size)
            self.appended = head.startswith(MAGIC)
            if len(head) < FRAME.size:
                return
            kind, length, checksum = FRAME.unpack(head)
            payload = file.read(length) if length <= _MOST_BYTES else b""
            if len(payload) != length or zlib.crc32(payload) != checksum:
                self.damaged = length > _MOST_BYTES or len(payload) == length
                return
            yield kind, payload


def is_journal(path: Path) -> bool:
    """Whether a path is a file that begins like a journal."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def swap_of(entry: Entry) -> Swap | None:
    """The swap that an event tells of; None for every other entry."""
    if not isinstance(entry, dict) or "swap" not in entry:
        return None
    if not isinstance(entry["swap"], dict):
        raise ValueError("a swap that is no object")
    return Swap.from_json(entry["swap"])


def _start(kind: int, payload: bytes) -> dict[str, Any] | None:
    """What a START frame says; None for every other frame."""
    try:
        found = json.loads(payload) if kind == START else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _note(payload: bytes) -> dict[str, Any]:
    found = json.loads(payload)
    if not isinstance(found, dict) or not isinstance(found.get("flags"), list):
        raise ValueError("a note without flags")
    return {"flags": tuple(map(str, found["flags"])), "sync": found.get("sync")}


def _entry(kind: int, payload: bytes) -> Entry | None:
    """The entry of a whole frame; None for kinds of later versions."""
    if kind == SPIKES:
        host_ns, epoch, n = _SPIKES.unpack_from(payload)
        ticks = np.frombuffer(payload, "<i8", n, _SPIKES.size)
        rows = np.frombuffer(payload, "<i4", n, _SPIKES.size + 8 * n)
        return Spikes(host_ns=host_ns, epoch=epoch, ticks=ticks, rows=rows)
    if kind == DECODED:
        tick, host_ns, status, n_spikes, dims = _DECODED.unpack_from(payload)
        value = np.frombuffer(payload, "<f8", dims, _DECODED.size)
        return Decoded(tick=tick, host_ns=host_ns, status=STATUSES[status], n_spikes=n_spikes,
                       value=value)  # fmt: skip
    if kind == LABELS:
        (epoch,) = struct.unpack_from("<I", payload)
        n, dims = _LABELS.unpack_from(payload, 4)
        ticks = np.frombuffer(payload, "<i8", n, 4 + _LABELS.size)
        values = np.frombuffer(payload, "<f8", n * dims, 4 + _LABELS.size + 8 * n)
        return Labels(epoch=epoch, ticks=ticks, values=values.reshape(n, dims))
    if kind == CONTROLLED:
        return controlled_from(payload)
    if kind == EVENT:
        event = json.loads(payload)
        if not isinstance(event, dict):
            raise ValueError("an event that is no object")
        swap_of(event)
        return event
    return None
