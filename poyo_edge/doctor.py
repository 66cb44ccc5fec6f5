"""What this machine can run, and what to install for the rest. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from poyo_edge import __version__
from poyo_edge.doctor_jetson import examine_jetson, remarks
from poyo_edge.runtime.backends import list_backends
from poyo_edge.runtime.machine import this_machine

_EXTRAS = {
    "ort": ("onnxruntime",),
    "export": ("torch", "onnx", "onnx-ir", "onnxruntime", "matplotlib"),
    "train": ("torch", "lightning", "torch_brain"),
    "all": ("torch", "lightning", "torch_brain", "onnx", "onnx-ir", "onnxruntime", "matplotlib"),
    "plot": ("matplotlib",),
    "openvino": ("openvino",),
}
_NEEDED_FOR = {
    "ort": "decode on this machine: replay, verify, bench",
    "export": "export checkpoints",
    "train": "pretrain",
    "all": "do all of it, and run the demo",
    "plot": "draw pictures",
    "openvino": "decode in BF16 on processors that compute it",
}


def examine() -> dict[str, Any]:
    """Machine, packages, backends and what each extra still lacks, as JSON values."""
    versions = {name: _version(name) for names in _EXTRAS.values() for name in names}
    missing = {
        extra: [name for name in names if versions[name] is None]
        for extra, names in _EXTRAS.items()
    }
    backends = list_backends()
    machine = this_machine()
    state = examine_jetson(machine)
    return {
        "poyo_edge": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": _cores(),
        "jetson": _jetson(),
        "jetson_state": None if state is None else dataclasses.asdict(state),
        "accelerator": machine.to_json(),
        "remarks": remarks(machine),
        "packages": {"numpy": _version("numpy"), "h5py": _version("h5py"), **versions},
        "backends": [
            {"name": info.name, "present": info.present, "reason": info.reason} for info in backends
        ],
        "best_backend": next((info.name for info in backends if info.present), None),
        "ready": {extra: not names for extra, names in missing.items()},
        "install": [
            f'pip install "poyo-edge[{extra}]"  # to {_NEEDED_FOR[extra]}; lacks {", ".join(names)}'
            for extra, names in missing.items()
            if names
        ],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cores() -> int | None:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _jetson() -> str | None:
    """The first line of the Jetson release file, or None on other machines."""
    release = Path("/etc/nv_tegra_release")
    if not release.is_file():
        return None
    lines = release.read_text(errors="replace").splitlines()
    return lines[0].lstrip("# ") if lines else None
