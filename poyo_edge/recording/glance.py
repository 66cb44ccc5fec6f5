"""A glance at the series of an NWB file, for the command that a message names.

It reads names, shapes and units, follows no link and opens no data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from poyo_edge.recording.suggesting import suggested

_MOST_SERIES = 64
_DEPTH = 5


def likely_behavior(path: Path) -> str:
    """What to say to ``--behavior`` of an NWB file; "" where that cannot be seen at a glance."""
    found = list[dict[str, Any]]()
    try:
        with h5py.File(path, "r") as file:
            for name in ("processing", "acquisition"):
                if name in file and isinstance(file.get(name, getlink=True), h5py.HardLink):
                    _collect(file[name], name, found, _DEPTH)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        return ""
    names = [one["key"] for one in found]
    words = suggested(found)
    keys = words.rpartition("=")[2].split(",")
    return words if words and all(names.count(key) == 1 for key in keys) else ""


def _collect(group: Any, where: str, found: list[dict[str, Any]], depth: int) -> None:
    for name in group:
        if len(found) >= _MOST_SERIES:
            return
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        if not isinstance(item, h5py.Group):
            continue
        data = item["data"] if "data" in item and _own(item, "data") else None
        if isinstance(data, h5py.Dataset) and data.ndim in (1, 2) and data.dtype.kind in "iuf":
            unit = data.attrs.get("unit", "")
            found.append(
                {
                    "key": str(name),
                    "where": f"{where}/{name}",
                    "n_samples": int(data.shape[0]),
                    "n_dims": int(data.shape[1]) if data.ndim == 2 else 1,
                    "unit": unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit),
                }
            )
        elif depth:
            _collect(item, f"{where}/{name}", found, depth - 1)


def _own(group: Any, name: str) -> bool:
    return isinstance(group.get(name, getlink=True), h5py.HardLink)
