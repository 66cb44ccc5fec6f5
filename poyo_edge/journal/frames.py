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
               what a loop was told, {"command_done": "swap", …} when it is done later, and
               {"control": {...}}, the settings that CONTROLLED frames were made with
    5 START    JSON, behind the header: what it was decoded with, see ``Journal.start``
    6 NOTE     JSON {"flags": [...], "sync": ...} of the DECODED frame behind it
    7 TRIAL    JSON {"epoch": 0, "trial": {...}}, ``Trial``: as much as was known of it then
    8 CURSOR   as LABELS: where the cursor was shown
    9 CONTROLLED  what left instead of the value of the DECODED frame before it, see ``Controlled``

0.1.0 wrote kinds 0 to 4 and of the events the first; its reader opens what has the others too.

Legend: N spikes or samples, D dimensions.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.journal.controlled import STATUSES, Controlled, controlled_from
from poyo_edge.records import JsonRecord, require_fields
from poyo_edge.trials import Trial

MAGIC = b"POYOJRN1"
HEADER, SPIKES, DECODED, LABELS, EVENT, START, NOTE, TRIAL, CURSOR, CONTROLLED = range(10)
FRAME = struct.Struct("<BxxxII")
SPIKES_HEAD = struct.Struct("<qII")
DECODED_HEAD = struct.Struct("<qqIIH6x")
SERIES_HEAD = struct.Struct("<IIHxx")
MOST_BYTES = 1 << 26
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cursor:
    """Where the cursor was: ``ticks`` (N,) int64, ``positions`` (N, D) float64."""

    epoch: int
    ticks: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialTold:
    """What was known of a trial by then."""

    epoch: int
    trial: Trial


Entry = Spikes | Decoded | Labels | Controlled | Cursor | TrialTold | dict[str, Any]


def framed(kind: int, payload: bytes) -> bytes:
    """A frame as it is appended."""
    return FRAME.pack(kind, len(payload), zlib.crc32(payload)) + payload


def swap_of(entry: Entry) -> Swap | None:
    """The swap that an event tells of; None for every other entry."""
    if not isinstance(entry, dict) or "swap" not in entry:
        return None
    if not isinstance(entry["swap"], dict):
        raise ValueError("a swap that is no object")
    return Swap.from_json(entry["swap"])


def as_json(values: dict[str, Any]) -> bytes:
    """JSON of anything at all: what has none is written as its text."""
    try:
        return json.dumps(values, default=str).encode()
    except (TypeError, ValueError, RecursionError):
        return json.dumps({name: str(value) for name, value in values.items()}).encode()


def start_of(kind: int, payload: bytes) -> dict[str, Any] | None:
    """What a START frame says; None for every other frame."""
    try:
        found = json.loads(payload) if kind == START else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def note_of(payload: bytes) -> dict[str, Any]:
    found = json.loads(payload)
    if not isinstance(found, dict) or not isinstance(found.get("flags"), list):
        raise ValueError("a note without flags")
    return {"flags": tuple(map(str, found["flags"])), "sync": found.get("sync")}


def entry_of(kind: int, payload: bytes) -> Entry | None:
    """The entry of a whole frame; None for kinds of later versions."""
    if kind == SPIKES:
        host_ns, epoch, n = SPIKES_HEAD.unpack_from(payload)
        ticks = np.frombuffer(payload, "<i8", n, SPIKES_HEAD.size)
        rows = np.frombuffer(payload, "<i4", n, SPIKES_HEAD.size + 8 * n)
        return Spikes(host_ns=host_ns, epoch=epoch, ticks=ticks, rows=rows)
    if kind == DECODED:
        tick, host_ns, status, n_spikes, dims = DECODED_HEAD.unpack_from(payload)
        value = np.frombuffer(payload, "<f8", dims, DECODED_HEAD.size)
        return Decoded(tick=tick, host_ns=host_ns, status=STATUSES[status], n_spikes=n_spikes,
                       value=value)  # fmt: skip
    if kind == CONTROLLED:
        return controlled_from(payload)
    if kind == LABELS:
        return Labels(**_series(payload, "values"))
    if kind == CURSOR:
        return Cursor(**_series(payload, "positions"))
    if kind == TRIAL:
        told = json.loads(payload)
        if not isinstance(told, dict) or type(told.get("epoch")) is not int:
            raise ValueError("a trial without its epoch")
        return TrialTold(epoch=told["epoch"], trial=Trial.from_json(told.get("trial", {})))
    if kind == EVENT:
        event = json.loads(payload)
        if not isinstance(event, dict):
            raise ValueError("an event that is no object")
        swap_of(event)
        return event
    return None


def _series(payload: bytes, name: str) -> dict[str, Any]:
    """Fields of an entry of ticks (N,) and values (N, D), which it calls ``name``."""
    epoch, n, dims = SERIES_HEAD.unpack_from(payload)
    ticks = np.frombuffer(payload, "<i8", n, SERIES_HEAD.size)
    values = np.frombuffer(payload, "<f8", n * dims, SERIES_HEAD.size + 8 * n)
    return {"epoch": epoch, "ticks": ticks, name: values.reshape(n, dims)}
