"""What this machine is, as far as engines depend on it; asked without importing TensorRT."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib.metadata
import importlib.util
import platform
import re
from pathlib import Path
from typing import Any

from poyo_edge.records import JsonRecord
from poyo_edge.targets import find_jetson

L4T_FILE = Path("/etc/nv_tegra_release")
TREE = Path("/proc/device-tree")
"""Of the board; containers show it where they hide the release."""
_MAJOR, _MINOR, _MULTIPROCESSORS = 75, 76, 16
"""Device attributes of ``cuda.h``: COMPUTE_CAPABILITY_MAJOR, _MINOR, MULTIPROCESSOR_COUNT."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine(JsonRecord):
    """Facts that make an engine fit or not; "" where there is none or nobody can say."""

    sm: str = ""
    """Compute capability of GPU 0, like "87"."""
    driver: str = ""
    """CUDA version of the driver, like "12.6"."""
    l4t: str = ""
    """Jetson Linux release, like "36.4.3"; "" in a container that does not show it."""
    board: str = ""
    """Of a Jetson, like "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"."""
    gpu: str = ""
    """The board, or the name of GPU 0, and its multiprocessors: "NVIDIA …, 8 SMs". Boards of one
    compute capability differ in them, and engines of one are not for another."""
    tensorrt: str = ""
    rtx: str = ""
    """Version of TensorRT-RTX."""

    @property
    def jetson(self) -> bool:
        """Whether it is a Jetson; in containers the file with its release may be empty."""
        return bool(self.l4t) or (bool(self.board) and find_jetson(self.sm) is not None)


@functools.cache
def this_machine() -> Machine:
    """Ask once: the driver for the GPU, the packages for their versions, the system for L4T."""
    sm, driver, gpu = _gpu()
    board = tegra_board(TREE)
    text = L4T_FILE.read_text(errors="replace") if L4T_FILE.is_file() else ""
    return Machine(
        sm=sm,
        driver=driver,
        l4t=l4t_version(text),
        board=board,
        gpu=", ".join([board, gpu.rpartition(", ")[2]]) if board and gpu else gpu,
        tensorrt=_version("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
        or module_version("tensorrt"),
        rtx=_version("tensorrt-rtx-cu13-bindings", "tensorrt-rtx")
        or module_version("tensorrt_rtx"),
    )


_LIBRARIES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino")


@functools.cache
def same_bits() -> dict[str, str]:
    """What the last bits of a value depend on: processor, GPU, and versions of libraries."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*: *(.+)$", text, re.MULTILINE)
    found = {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        **{name: _version(name) for name in _LIBRARIES},
        **this_machine().to_json(),
    }
    return {name: value for name, value in found.items() if value}


def l4t_version(release: str) -> str:
    """ "36.4.3" of ``# R36 (release), REVISION: 4.3, GCID: …``; "" of anything else."""
    found = re.match(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", release)
    return f"{found[1]}.{found[2]}" if found else ""


def tegra_board(tree: Path) -> str:
    """The model in a device tree of an NVIDIA Tegra; "" of any other board."""
    try:
        compatible = (tree / "compatible").read_bytes()
        model = (tree / "model").read_text(errors="replace")
    except OSError:
        return ""
    return model.strip("\0 \n") if b"nvidia,tegra" in compatible else ""


def module_version(module: str) -> str:
    """What a package that came without metadata calls its version, read and not run; or ""."""
    try:
        spec = importlib.util.find_spec(module)
        text = Path(spec.origin).read_text() if spec is not None and spec.origin else ""
    except (ValueError, OSError, UnicodeDecodeError):
        return ""
    found = re.search(r"""^__version__ = ["']([\d.]+)["']""", text, re.MULTILINE)
    return found[1] if found else ""


def _gpu() -> tuple[str, str, str]:
    """Compute capability, CUDA version, name and multiprocessors, from the driver's own library."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "", "", ""
    return _ask(driver)


def _ask(driver: Any) -> tuple[str, str, str]:
    number, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDriverGetVersion(ctypes.byref(number)):
        return "", "", ""
    version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    if driver.cuDeviceGet(ctypes.byref(device), 0):
        return "", version, ""
    parts = []
    for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS):
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return "", version, ""
        parts.append(str(number.value))
    name = ctypes.create_string_buffer(256)
    if driver.cuDeviceGetName(name, len(name), device):
        return "".join(parts[:2]), version, ""
    return "".join(parts[:2]), version, f"{name.value.decode(errors='replace')}, {parts[2]} SMs"


def _version(*packages: str) -> str:
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
