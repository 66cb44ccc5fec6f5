"""A session as ``calibrate`` could have found it, for the model of a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.artifact import Session, SessionHeader
from poyo_edge.artifact.core_weights import core_hash
from poyo_edge.checkpoint import load_checkpoint


def calibrated_to(
    base: Path, ids: tuple[str, ...], *, session_id: str = "sim_02", **changes: Any
) -> Session:
    """Of units of these names; unit embeddings count up, the session's are sevens."""
    checkpoint = load_checkpoint(base)
    weights = {name: tensor.numpy() for name, tensor in checkpoint.weights.items()}
    header = SessionHeader(
        session_id=session_id, unit_ids=ids, core_hash=core_hash(weights, checkpoint.spec),
        method="calibration",
    )  # fmt: skip
    dim = checkpoint.spec.dim
    values = np.arange(len(ids) * dim, dtype=np.float32).reshape(len(ids), dim)
    made = Session(header=header, unit_embedding=values, session_embedding=np.full(dim, 7, "f4"))
    return dataclasses.replace(made, **changes)
