"""What of a checkpoint a core holds, in what order, and how it is known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32, Float64
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


def half_split_order(omega: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """The new order of a head's dimensions, (K,) int64, from ω (K/2,).

    torch_brain turns neighbours (2i, 2i+1) by ω_i; here the first members of the rotating pairs
    come first, then their partners, then everything that does not turn.
    """
    turning = np.flatnonzero(omega)
    still = np.flatnonzero(omega == 0)
    rest = np.stack([2 * still, 2 * still + 1], axis=1).ravel()
    return np.concatenate([2 * turning, 2 * turning + 1, rest]).astype(np.int64)


def permute_rows(matrix: Float64, order: npt.NDArray[np.int64], dim_head: int) -> Float64:
    """Rows of all heads, their dimensions in ``half_split_order``, or back by its ``argsort``."""
    blocks = matrix.reshape(-1, dim_head, matrix.shape[1])
    return blocks[:, order].reshape(matrix.shape)
