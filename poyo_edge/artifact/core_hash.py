"""Which core embeddings belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from poyo_edge.arrays import Float32
from poyo_edge.spec import ModelSpec

TABLES = ("unit_emb.weight", "session_emb.weight")
"""The embedding tables, which no core depends on."""


def core_hash(weights: Mapping[str, Float32], spec: ModelSpec) -> str:
    """SHA-256 of everything that a session's embeddings depend on: all weights but the tables.

    It does not change when the graph is built differently, so sessions outlive new exporters.

    Args:
        weights: torch_brain's keys → float32 arrays.
        spec: sizes and window.
    """
    digest = hashlib.sha256(json.dumps(spec.to_json(), sort_keys=True).encode())
    for name in sorted(set(weights) - set(TABLES)):
        array = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
