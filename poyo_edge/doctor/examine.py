"""What this machine can run, and what to install for the rest. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poyo_edge import __version__
from poyo_edge.checkpoint.layouts import LAYOUTS
from poyo_edge.converting import FORMATS
from poyo_edge.doctor.environment import GPU, exchanged, lacking, to_mend, unsupported
from poyo_edge.doctor.jetson import examine_jetson, remarks
from poyo_edge.doctor.real_time import examine_real_time
from poyo_edge.errors import pip_install
from poyo_edge.runtime.backends import BACKENDS, BackendInfo, list_backends
from poyo_edge.runtime.backends.machine import Machine, this_machine
from poyo_edge.runtime.feeds import FEEDS, SINKS
from poyo_edge.tables import Row
from poyo_edge.targets import TARGETS

_ON_ANY_CPU = {
    row.extra: row for row in BACKENDS.values() if row.extra and row.package and not row.gpu
}
_EXTRAS = {
    **{extra: (row.package,) for extra, row in _ON_ANY_CPU.items()},
    "export": ("torch", "onnx", "onnx-ir", "onnxruntime", "matplotlib"),
    "train": ("torch", "lightning", "torch_brain"),
    "all": ("torch", "lightning", "torch_brain", "onnx", "onnx-ir", "onnxruntime", "matplotlib"),
    "plot": ("matplotlib",),
}
_NEEDED_FOR = {
    **{extra: row.help for extra, row in _ON_ANY_CPU.items()},
    "export": "export checkpoints",
    "train": "pretrain",
    "all": "do all of it, and run the demo",
    "plot": "draw pictures",
}


def examine() -> dict[str, Any]:
    """Machine, packages, backends, what each extra still lacks, and what all tables offer, as JSON
    values."""
    versions = {name: _version(name) for names in _EXTRAS.values() for name in names}
    versions[GPU] = _version(GPU)
    missing = {extra: lacking(names, versions) for extra, names in _EXTRAS.items()}
    backends = list_backends()
    machine = this_machine()
    state, real_time = examine_jetson(machine), examine_real_time()
    return {
        "poyo_edge": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "supported": unsupported(platform.system()),
        "to_mend": to_mend(versions, gpu=bool(machine.sm)),
        "cores": _cores(),
        "jetson": _jetson() or (state.model if state else None),
        "jetson_state": None if state is None else dataclasses.asdict(state),
        "real_time": None if real_time is None else real_time.to_json(),
        "accelerator": machine.to_json(),
        "remarks": remarks(machine),
        "packages": {"numpy": _version("numpy"), "h5py": _version("h5py"), **versions},
        "backends": [
            {"name": info.name, "present": info.present, "reason": info.reason} for info in backends
        ],
        "best_backend": next((info.name for info in backends if info.present), None),
        "ready": {extra: not names for extra, names in missing.items()},
        "install": [
            f"{_install(extra, names, versions)}  # to {_NEEDED_FOR[extra]}; lacks "
            f"{', '.join(names)}"
            for extra, names in missing.items()
            if names
        ]
        + _for_the_gpu(machine, backends, versions),
        "missing_backends": _about_missing(machine, backends),
        "feeds": _rows(FEEDS),
        "sinks": _rows(SINKS),
        "formats": _rows(FORMATS),
        "layouts": [
            {"name": name, "help": row.help, "exported": not row.refused}
            for name, row in LAYOUTS.items()
        ],
    }


def _rows(table: Mapping[str, Row]) -> list[dict[str, Any]]:
    """What a table offers: whether the library is there, and the command that brings it."""
    return [
        {"name": name, "present": row.present, "help": row.help, "install": row.install}
        for name, row in table.items()
    ]


def _install(extra: str, names: Sequence[str], versions: Mapping[str, str | None]) -> str:
    """What brings an extra, without a second ONNX Runtime where there is one for GPUs."""
    if versions[GPU] is not None:
        return f"pip install {' '.join(names)}"
    return pip_install(extra, names[0])


def _for_the_gpu(
    machine: Machine, backends: Sequence[BackendInfo], versions: Mapping[str, str | None]
) -> list[str]:
    """What to install for backends that this GPU could run; a Jetson has a list of its own."""
    if not machine.sm or machine.l4t:
        return []
    return [
        f"{command}  # for the backend {target.backend}"
        for target in (TARGETS["rtx"], TARGETS["cuda"])
        if not target.sm or machine.sm in target.sm
        for info in backends
        if info.name == target.backend and not info.present
        for command in exchanged(target.install, versions)
    ]


def _about_missing(machine: Machine, backends: Sequence[BackendInfo]) -> str:
    """Why backends may stay missing though there is nothing to install; "" when that is clear."""
    missing = [i.name for i in backends if not i.present and BACKENDS[i.name].gpu]
    if machine.sm or not missing:
        return ""
    return f"{', '.join(missing)} need an NVIDIA GPU, and the driver shows none here"


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
