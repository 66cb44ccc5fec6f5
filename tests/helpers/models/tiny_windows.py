"""Windows of the tiny artifact as a backend is fed with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.artifact import Artifact
from poyo_edge.runtime.core import Core


def tiny_windows(tiny: Path, counts: tuple[int, ...]) -> dict[str, Any]:
    """A window of each number of spikes, anywhere in its padded row, each queried twice."""
    artifact = Artifact.open(tiny)
    session = artifact.session("tiny_a")
    opened = Core.open(artifact, backend="ort-cpu")
    constants = opened.constants(session.unit_embedding, session.session_embedding)
    rng = np.random.default_rng(0)
    shape = len(counts), max(counts)
    mask = np.zeros(shape, np.bool_)
    for row, n in zip(mask, counts, strict=True):
        row[rng.permutation(len(row))[:n]] = True
    return {
        "spike_unit": rng.integers(0, 12, shape).astype(np.int32),
        "spike_time": rng.uniform(0, 1, shape).astype(np.float32),
        "spike_mask": mask,
        "query_time": np.tile(np.array([0.3, 1.0], np.float32), (len(counts), 1)),
        **constants.feeds(),
    }
