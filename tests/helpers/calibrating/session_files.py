"""A small session file, and the same with another header."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.artifact import Session, SessionHeader
from poyo_edge.errors import SessionError
from poyo_edge.files import tensors

DIM, CORE = 3, "c0" * 32

Change = Callable[[dict[str, Any]], None]


def a_session(**header: Any) -> Session:
    values: dict[str, Any] = {
        "session_id": "monkey/day 1",
        "unit_ids": ("u1", "ü2"),
        "core_hash": CORE,
        "method": "calibration",
        "labelled_s": 61.5,
        "steps": 120,
        "r2_heldout": 0.8125,
        "created": "2025-01-01T00:00:00+00:00",
    }
    return Session(
        header=SessionHeader(**(values | header)),
        unit_embedding=(np.arange(6) / 7).reshape(2, 3).astype(np.float32),
        session_embedding=np.array([0.5, -1.25, 3e-9], np.float32),
    )


def opened(path: Path) -> Session:
    return Session.open(path, dim=DIM, core_hash=CORE)


def rewritten(path: Path, change: Change, arrays: dict[str, Any] | None = None) -> Path:
    """The file with a changed header, whose checksum is right all the same where it can be."""
    found, metadata = tensors.from_bytes(path.read_bytes(), path, SessionError)
    values = json.loads(metadata["poyo_edge"])
    change(values)
    text = json.dumps(values)
    path.write_bytes(tensors.to_bytes({**found, **(arrays or {})}, {"poyo_edge": text}))
    return path
