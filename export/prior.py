"""``prior.safetensors``: statistics of the trained embeddings, where fits of new sessions start."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


def prior_tensors(units: Float32, sessions: Float32) -> dict[str, Float32]:
    """Means and roots of the covariances of the trained tables.

    Args:
        units: (U, D) trained unit embeddings.
        sessions: (S, D) trained session embeddings.

    Returns:
        ``unit_mean`` (D,), ``unit_root`` (D, D), ``session_mean`` and ``session_root`` likewise.
    """
    unit_mean, unit_root = _moments(units)
    session_mean, session_root = _moments(sessions)
    return {
        "unit_mean": unit_mean,
        "unit_root": unit_root,
        "session_mean": session_mean,
        "session_root": session_root,
    }


def _moments(rows: Float32) -> tuple[Float32, Float32]:
    """Mean (D,) and the symmetric root (D, D) of a covariance shrunk towards a sphere.

    With n rows in D dimensions the sphere weighs D / (n + D): few rows say little about
    directions. A single row says nothing about the spread; its own size stands in then.
    """
    count, dim = rows.shape
    mean = rows.mean(0, dtype=np.float64)
    centred = rows - mean
    covariance = centred.T @ centred / max(1, count - 1)
    level = np.trace(covariance) / dim if count > 1 else float((mean**2).mean()) or 1.0
    share = dim / (count + dim)
    shrunk = (1 - share) * covariance + share * level * np.eye(dim)
    values, vectors = np.linalg.eigh(shrunk)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    return mean.astype(np.float32), root.astype(np.float32)
