"""What an artifact says about where it came from: the checkpoint, its hash, the tools."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from typing import Any

import numpy as np

from poyo_edge import __version__
from poyo_edge.arrays import Float32
from poyo_edge.checkpoint import Checkpoint
from poyo_edge.spec import ModelSpec

TABLES = ("unit_emb.weight", "session_emb.weight")
"""The embedding tables, which no core depends on."""


def core_hash(weights: dict[str, Float32], spec: ModelSpec) -> str:
    """SHA-256 of everything that a session's embeddings depend on: all weights but the tables.

    It does not change when the graph is built differently, so sessions outlive new exporters.
    """
    digest = hashlib.sha256(json.dumps(spec.to_json(), sort_keys=True).encode())
    for name in sorted(set(weights) - set(TABLES)):
        array = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def source_record(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the manifest and the report say about the checkpoint."""
    return {
        "file": checkpoint.path.name,
        "sha256": checkpoint.sha256,
        "layout": checkpoint.layout,
        "container": checkpoint.container,
        "prefix": checkpoint.prefix,
        "omega": checkpoint.omega_formula,
        "scaled": checkpoint.scaled,
        "task": checkpoint.task,
        "notes": list(checkpoint.notes),
    }


def tool_versions() -> dict[str, str]:
    """Versions of what takes part in an export."""
    packages = ("numpy", "torch", "onnx", "onnx-ir", "onnxruntime", "safetensors")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"poyo-edge": __version__, "python": platform.python_version(), **versions}
