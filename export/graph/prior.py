"""``prior.safetensors``: statistics of the trained embeddings, where fits of new sessions start."""

from __future__ import annotations

import json

import numpy as np

from poyo_edge.arrays import Float32
from poyo_edge.unit_guess import GUESS, GUESS_HELD, GUESS_NAMES, GUESS_TENSORS, UnitGuess

_FLOOR = 1e-4
"""Least variance of a direction, as a share of that of the widest one."""


def prior_tensors(units: Float32, sessions: Float32) -> dict[str, Float32]:
    """Mean and spread of the trained tables.

    Args:
        units: (U, D) trained unit embeddings.
        sessions: (S, D) trained session embeddings.

    Returns:
        ``unit_mean`` (D,); ``unit_root`` (D, D), whose columns are the principal directions of
        the units, each as long as their standard deviation along it; ``session_mean`` (D,).
    """
    mean = units.mean(0, dtype=np.float64)
    centred = units - mean
    covariance = centred.T @ centred / max(1, len(units) - 1)
    variance, directions = np.linalg.eigh(covariance)
    # A single unit has no spread; its own size stands in.
    widest = variance[-1] if variance[-1] > 0 else float((mean**2).mean()) or 1.0
    root = directions * np.sqrt(np.maximum(variance, _FLOOR * widest))
    return {
        "unit_mean": mean.astype(np.float32),
        "unit_root": root.astype(np.float32),
        "session_mean": sessions.mean(0, dtype=np.float64).astype(np.float32),
    }


def guess_tensors(guess: UnitGuess | None) -> tuple[dict[str, Float32], dict[str, str]]:
    """The same file's tensors and header of what is guessed of new units; empty without any."""
    if guess is None:
        return {}, {}
    arrays = {f"{GUESS}.{name}": getattr(guess, name) for name in GUESS_TENSORS}
    if guess.session_held is not None:
        arrays[f"{GUESS}.{GUESS_HELD}"] = guess.session_held
    names = {name: getattr(guess, name) for name in GUESS_NAMES}
    return arrays, {GUESS: json.dumps(names, ensure_ascii=False)}
