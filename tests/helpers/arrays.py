"""The arrays of recordings, to be written with some of them changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.recording import Recording, write_recording


def sound_arrays() -> dict[str, Any]:
    """Ten seconds of three units with three behaviours, as ``write_recording`` takes them."""
    rng = np.random.default_rng(0)
    times = np.arange(500) / 50.0
    return {
        "session_id": "s1",
        "subject_id": "monkey",
        "unit_ids": ["s1/a", "s1/b", "s1/c"],
        "spike_times": np.sort(rng.integers(0, 100_000, 400)) / 1e4,
        "spike_units": rng.integers(0, 3, 400),
        "behaviors": {
            "cursor.pos": (times, rng.normal(size=(500, 2)).astype(np.float32)),
            "cursor.vel": (times, rng.normal(size=(500, 2))),
            "eye.pupil": (times[::2], rng.normal(size=250)),
        },
        "domains": {
            "all": [(0.0, 10.0)],
            "train": [(0.0, 3.0), (4.0, 7.0)],
            "valid": [(7.0, 8.0)],
            "test": [(8.0, 10.0)],
        },
    }


def arrays_of(path: Path) -> dict[str, Any]:
    """What a recording holds, with no behaviour but "cursor.vel", as session "tiny_a"."""
    recording = Recording.open(path)
    velocity = recording.behavior("cursor.vel")
    return {
        "session_id": "tiny_a",
        "subject_id": "nobody",
        "unit_ids": recording.unit_ids,
        "spike_times": recording.spike_times,
        "spike_units": recording.spike_units,
        "behaviors": {"cursor.vel": (velocity.times, velocity.values)},
        "domains": recording.domains,
    }


def written_again(source: Path, path: Path, **changes: Any) -> Path:
    """The recording of ``arrays_of`` with some of its arrays changed."""
    return write_recording(path, **(arrays_of(source) | changes))
