"""What every recording obeys, whether it is read or written; each broken rule is one sentence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import RecordingError
from poyo_edge.records import too_long

INDEX_1S = "timestamp_indices_1s"
"""torch_brain's index: the first sample of each second of the domain."""
NOT_KEYS = ("", "timestamps", INDEX_1S)
NOT_GROUPS = ("spikes", "units", "session", "subject")


def refuse(path: Path, field: str, expected: str, got: object, do: str) -> NoReturn:
    one_line = " ".join(str(got).split())  # arrays print on several
    raise RecordingError(path, field, expected=expected, got=one_line, do=do)


def checked_unit_ids(path: Path, ids: list[str], *, ascii_only: bool) -> tuple[str, ...]:
    repeated = sorted(i for i, n in Counter(ids).items() if n > 1)
    unusable = [i for i in ids if not i or (ascii_only and not i.isascii()) or "\0" in i]
    if not ids or repeated or unusable:
        got = f"{repeated[0]!r} twice" if repeated else repr(unusable[0]) if unusable else "none"
        expected = "at least one unit, all with different names" + " in ASCII" * ascii_only
        refuse(path, "units/id", expected, got, "name the units, for example SESSION/unit_000")
    long = too_long(ids)
    if long:
        refuse(path, "units/id", "names of sensible length", long, "give the units shorter names")
    return tuple(ids)


def check_spikes(path: Path, times: Any, units: Any, n_units: int) -> None:
    if times.ndim != 1 or times.shape != units.shape:
        expected = "as many unit indices as timestamps, in one dimension"
        got = f"shapes {times.shape} and {units.shape}"
        refuse(path, "spikes", expected, got, "write the group again")
    if not len(times):
        refuse(path, "spikes/timestamps", "at least one spike", "none", "leave this recording out")
    check_ascending(path, "spikes/timestamps", times)
    check_rows(path, units, n_units)


def check_rows(path: Path, units: Any, n_units: int) -> None:
    if units.dtype.kind not in "iu":
        do = "convert the indices to int64"
        refuse(path, "spikes/unit_index", "integers", f"dtype {units.dtype}", do)
    lowest, highest = int(units.min()), int(units.max())
    if lowest < 0 or highest >= n_units:
        wrong, do = lowest if lowest < 0 else highest, "write units and spikes from one table"
        refuse(path, "spikes/unit_index", f"rows 0 to {n_units - 1} of units/id", wrong, do)


def check_ascending(path: Path, field: str, times: Any) -> None:
    if times.ndim != 1 or times.dtype.kind != "f":
        got = f"shape {times.shape}, dtype {times.dtype}"
        refuse(path, field, "a list of float64 seconds", got, "convert the times")
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        got = f"{len(bad)} NaN or infinite, the first at index {bad[0]}"
        refuse(path, field, "finite seconds", got, "remove these samples")
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        got = f"{times[back[0] + 1]:.6f} s after {times[back[0]]:.6f} s at index {back[0] + 1}"
        refuse(path, field, "ascending seconds", got, "sort the samples by time")


def checked_intervals(path: Path, split: str, intervals: Any) -> Float64:
    field = {"all": "domain", "trials": "trials"}.get(split, f"{split}_domain")
    if intervals.shape[1:] != (2,) or intervals.dtype.kind not in "iuf":
        got = f"shape {intervals.shape}, dtype {intervals.dtype}"
        do = "give a start and an end for each interval"
        refuse(path, field, "intervals of shape (K, 2) in seconds", got, do)
    bad = np.flatnonzero(~(intervals[:, 1] > intervals[:, 0]) | ~np.isfinite(intervals).all(1))
    if len(bad):
        got = f"{intervals[bad[0], 0]} to {intervals[bad[0], 1]} s at index {bad[0]}"
        do = "correct or remove the interval"
        refuse(path, field, "finite intervals that end after they start", got, do)
    return np.asarray(intervals, dtype=np.float64)
