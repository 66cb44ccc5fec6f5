"""The functions of poyoedge.h through ctypes, as a decoder like Python's."""

from __future__ import annotations

import ctypes as c
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64

STATUSES = ("VALID", "WARMUP", "DEGRADED", "HELD", "INVALID")
FLAGS = (
    "warmup", "clock_reset", "silent", "gap", "over_budget", "overflow", "stale_rows", "delayed",
    "stream_lost", "backend",
)  # fmt: skip
COUNTERS = (
    "received", "accepted", "unknown_unit", "late", "delayed", "future", "duplicate", "not_finite",
    "overflow", "over_budget", "stale_rows", "session_change", "clock_resets", "gaps",
    "backend_failures",
)  # fmt: skip
OK, USAGE, ENVIRONMENT, FILE, BUSY = 0, 2, 4, 5, 6


class Options(c.Structure):
    """poyoedge_options."""

    _fields_ = [
        ("size", c.c_uint32),
        ("threads", c.c_uint32),
        ("session", c.c_char_p),
        ("onnxruntime", c.c_char_p),
        ("tick_rate_hz", c.c_double),
        ("capacity", c.c_uint32),
        ("warm_spikes", c.c_uint32),
        ("future_limit_s", c.c_double),
        ("hold_s", c.c_double),
        ("decay_s", c.c_double),
        ("missed_spikes", c.c_double),
        ("silence_s", c.c_double),
        ("kernels", c.c_char_p),
    ]


class ResultStruct(c.Structure):
    """poyoedge_result."""

    _fields_ = [
        ("size", c.c_uint32),
        ("status", c.c_uint32),
        ("flags", c.c_uint64),
        ("n_spikes", c.c_uint32),
        ("dim_out", c.c_uint32),
        ("last_spike_s", c.c_double),
        ("last_spike_tick", c.c_int64),
        ("latency_ns", c.c_int64),
    ]


class State(c.Structure):
    """poyoedge_state."""

    _fields_ = [
        ("size", c.c_uint32),
        ("n_units", c.c_uint32),
        ("dim_out", c.c_uint32),
        ("max_spikes", c.c_uint32),
        ("window_s", c.c_double),
        *((name, c.c_uint64) for name in COUNTERS),
        ("statuses", c.c_uint64 * len(STATUSES)),
        ("n_decodes", c.c_uint64),
        ("buffered_spikes", c.c_uint64),
        *((f"{name}_ms", c.c_double) for name in ("p50", "p90", "p99", "p999", "max")),
        ("decoding_since_ns", c.c_int64),
        ("last_decode_ns", c.c_int64),
        ("session_id", c.c_char * 256),
        ("unit", c.c_char * 64),
        ("onnxruntime", c.c_char * 32),
    ]


class NativeError(Exception):
    """A function returned a code."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NativeResult:
    """What one decode gave."""

    value: Float64
    status: str
    flags: frozenset[str]
    n_spikes: int
    t_last_spike: float | int | None
    latency_ns: int


@functools.cache
def load(library: Path) -> c.CDLL:
    """The library, with the types that need saying."""
    lib = c.CDLL(str(library))
    lib.poyoedge_decode.argtypes = [
        c.c_void_p, c.c_double, c.c_uint32, c.c_void_p, c.c_size_t, c.c_void_p,
    ]  # fmt: skip
    lib.poyoedge_decode_ticks.argtypes = [
        c.c_void_p, c.c_int64, c.c_uint32, c.c_void_p, c.c_size_t, c.c_void_p,
    ]  # fmt: skip
    for push in (lib.poyoedge_push, lib.poyoedge_push_ticks):
        push.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p, c.c_size_t]
    lib.poyoedge_rows.argtypes = [c.c_void_p, c.c_void_p, c.c_size_t, c.c_void_p]
    lib.poyoedge_swap.argtypes = [c.c_void_p, c.c_char_p]
    lib.poyoedge_stats.argtypes = [c.c_void_p, c.c_void_p]
    lib.poyoedge_error.argtypes = [c.c_void_p, c.c_char_p, c.c_size_t]
    lib.poyoedge_error.restype = c.c_size_t
    lib.poyoedge_open.argtypes = [c.c_void_p, c.c_void_p, c.c_char_p, c.c_size_t]
    lib.poyoedge_close.argtypes = [c.c_void_p]
    lib.poyoedge_close.restype = None
    lib.poyoedge_version.restype = c.c_char_p
    return lib


class NativeDecoder:
    """A decoder of the C library; raises ``NativeError`` where a function returns a code."""

    def __init__(
        self, library: Path, session: Path, onnxruntime: Path | None, **settings: Any
    ) -> None:
        self.lib, self.handle = load(library), c.c_void_p()
        defaults: dict[str, Any] = {
            "size": c.sizeof(Options),
            "threads": 1, "capacity": 1 << 18, "future_limit_s": 60.0, "hold_s": 0.1,
            "decay_s": 0.1, "missed_spikes": 30.0, "silence_s": 0.1,
        }  # fmt: skip
        options = Options(
            session=str(session).encode(),
            onnxruntime=None if onnxruntime is None else str(onnxruntime).encode(),
            **{**defaults, **settings},
        )
        self.ticks = bool(options.tick_rate_hz)
        why = c.create_string_buffer(512)
        code = self.lib.poyoedge_open(c.byref(options), c.byref(self.handle), why, len(why))
        if code != OK:
            assert not self.handle
            raise NativeError(code, why.value.decode(errors="replace"))
        self.dim_out = int(self.state().dim_out)

    def push(self, times: npt.NDArray[Any], rows: npt.NDArray[np.int32]) -> None:
        """Times (N,) float64 seconds or int64 ticks, rows (N,) int32."""
        push = self.lib.poyoedge_push_ticks if self.ticks else self.lib.poyoedge_push
        times = np.ascontiguousarray(times, np.int64 if self.ticks else np.float64)
        rows = np.ascontiguousarray(rows, np.int32)
        self._done(push(self.handle, times.ctypes.data, rows.ctypes.data, len(times)))

    def decode(self, t: float | int, *, stream_lost: bool = False) -> NativeResult:
        """Decode the window that ends at ``t``."""
        decode = self.lib.poyoedge_decode_ticks if self.ticks else self.lib.poyoedge_decode
        value = np.full(self.dim_out, np.nan)
        result = ResultStruct(size=c.sizeof(ResultStruct))
        where = value.ctypes.data
        self._done(decode(self.handle, t, int(stream_lost), where, len(value), c.byref(result)))
        last = result.last_spike_tick if self.ticks else result.last_spike_s
        return NativeResult(
            value=value,
            status=STATUSES[result.status],
            flags=frozenset(name for i, name in enumerate(FLAGS) if result.flags >> i & 1),
            n_spikes=result.n_spikes,
            t_last_spike=last if result.n_spikes else None,
            latency_ns=result.latency_ns,
        )

    def rows(self, names: Sequence[str]) -> npt.NDArray[np.int32]:
        """Rows (N,) of unit names."""
        rows = np.empty(len(names), np.int32)
        pointers = (c.c_char_p * len(names))(*(name.encode() for name in names))
        self._done(self.lib.poyoedge_rows(self.handle, pointers, len(names), rows.ctypes.data))
        return rows

    def swap(self, session: Path) -> None:
        """Decode with another session."""
        self._done(self.lib.poyoedge_swap(self.handle, str(session).encode()))

    def state(self) -> State:
        """Everything that it says of itself."""
        state = State(size=c.sizeof(State))
        self._done(self.lib.poyoedge_stats(self.handle, c.byref(state)))
        return state

    def counters(self) -> dict[str, int]:
        """Name → count."""
        state = self.state()
        return {name: getattr(state, name) for name in COUNTERS}

    def error(self) -> str:
        """The sentence of the last call that failed."""
        sentence = c.create_string_buffer(512)
        self.lib.poyoedge_error(self.handle, sentence, len(sentence))
        return sentence.value.decode(errors="replace")

    def close(self) -> None:
        """Release it; later calls raise."""
        self.lib.poyoedge_close(c.byref(self.handle))

    def __enter__(self) -> NativeDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _done(self, code: int) -> None:
        if code != OK:
            raise NativeError(code, self.error())


def onnxruntime_library() -> Path | None:
    """The library inside the installed wheel; None where there is none."""
    try:
        import onnxruntime
    except ImportError:
        return None
    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    return found[-1] if found else None
