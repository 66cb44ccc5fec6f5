"""Whether TensorRT can be used here, and how an artifact's engines are opened with it."""

from __future__ import annotations

import importlib
from typing import Any

from poyo_edge.errors import BackendError, MissingExtraError, pip_install
from poyo_edge.runtime.backends.base import BackendInfo, CoreToOpen
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.trt.backend import TensorRTBackend
from poyo_edge.runtime.backends.trt.cuda import Cuda
from poyo_edge.runtime.backends.trt.engines import ENGINES, EngineStore

MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}


def look(machine: Machine) -> BackendInfo:
    """Whether TensorRT is installed, and the driver shows a GPU."""
    return _info("tensorrt", "TensorRT", machine.tensorrt, machine.sm, "it comes with JetPack")


def look_rtx(machine: Machine) -> BackendInfo:
    """Whether TensorRT-RTX is installed, and the driver shows a GPU."""
    hint = pip_install("rtx")
    return _info("tensorrt-rtx", "TensorRT-RTX", machine.rtx, machine.sm, hint)


def open_core(given: CoreToOpen) -> TensorRTBackend:
    """The artifact's engines for this machine: see ``open_engines``."""
    return _open_core("tensorrt", given)


def open_core_rtx(given: CoreToOpen) -> TensorRTBackend:
    """The artifact's engines of TensorRT-RTX for this machine: see ``open_engines``."""
    return _open_core("tensorrt-rtx", given)


def _info(name: str, title: str, version: str, sm: str, hint: str) -> BackendInfo:
    if not version:
        return BackendInfo(name=name, present=False, reason=f"{title} is not installed; {hint}")
    if not sm:
        reason = f"{title} {version} is installed, but the driver shows no GPU"
        return BackendInfo(name=name, present=False, reason=reason)
    return BackendInfo(name=name, present=True, reason=f"{title} {version}, GPU of SM {sm}")


def _open_core(name: str, given: CoreToOpen) -> TensorRTBackend:
    beside = given.beside
    if beside.folder is None:
        raise BackendError(f"{name}: expected an artifact with engines, got a core alone")
    store = EngineStore(beside.folder / ENGINES)
    return open_engines(name, store, beside.core_sha256, given.machine)


def open_engines(
    name: str, store: EngineStore, core_sha256: str, machine: Machine
) -> TensorRTBackend:
    """The engines of a core that fit this machine. TensorRT is imported after every check.

    Raises:
        ArtifactError: an engine is damaged.
        BackendError: none fits, or it cannot be run.
        MissingExtraError: TensorRT-RTX is not installed.
    """
    records = store.fitting(name, core_sha256, machine)
    engines = {record.key.n_spikes: store.read(record, machine) for record in records}
    precision = records[0].key.precision
    again = store.build_command(name, precision)
    return TensorRTBackend(
        name, import_tensorrt(name), Cuda.open(), engines, precision, again=again
    )


def import_tensorrt(name: str) -> Any:
    """The module behind "tensorrt" or "tensorrt-rtx".

    Raises:
        MissingExtraError: TensorRT-RTX is not installed.
        BackendError: TensorRT is not, or its libraries cannot be loaded.
    """
    for module in MODULES[name]:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as problem:
            raise BackendError(f"{name}: {module} cannot be loaded: {problem}") from problem
    if name == "tensorrt-rtx":
        raise MissingExtraError("tensorrt_rtx", "rtx", "the backend tensorrt-rtx")
    raise BackendError(
        "tensorrt: expected TensorRT's Python package, got none; on a Jetson run: sudo apt install "
        "nvidia-jetpack, and make virtual environments with --system-site-packages"
    )
