"""What an artifact says about where it came from: the checkpoint, its hash, the tools."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from poyo_edge import __version__
from poyo_edge.checkpoint import Checkpoint


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
