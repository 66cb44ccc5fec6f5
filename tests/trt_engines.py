"""Engines of the tiny artifact for the double of TensorRT, and windows to run on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from trt_double import MAGIC

from poyo_edge.artifact import Artifact
from poyo_edge.export.static_shapes import fix_axes
from poyo_edge.runtime.core import Core
from poyo_edge.runtime.machine import Machine

ORIN = Machine(sm="87", driver="12.6", l4t="36.4.3", tensorrt="10.3.0")
BUCKETS = (64, 1024)


def engines(core: bytes, n_units: int = 16) -> dict[int, bytes]:
    return {
        size: MAGIC
        + fix_axes(core, {"batch": 1, "n_spikes": size, "n_units": n_units, "n_queries": 1})
        for size in BUCKETS
    }


def three_windows(tiny: Path) -> dict[str, Any]:
    """Three windows of 0, 40 and 90 spikes, each queried twice."""
    artifact = Artifact.open(tiny)
    session = artifact.session("tiny_a")
    opened = Core.open(artifact, backend="ort-cpu")
    constants = opened.constants(session.unit_embedding, session.session_embedding)
    rng = np.random.default_rng(0)
    mask = np.zeros((3, 90), np.bool_)
    for row, n in zip(mask, (0, 40, 90), strict=True):
        row[rng.permutation(90)[:n]] = True
    return {
        "spike_unit": rng.integers(0, 12, (3, 90)).astype(np.int32),
        "spike_time": rng.uniform(0, 1, (3, 90)).astype(np.float32),
        "spike_mask": mask,
        "query_time": np.tile(np.array([0.3, 1.0], np.float32), (3, 1)),
        **constants.feeds(),
    }
