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

L4T_FILE = Path("/etc/nv_tegra_release")
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine(JsonRecord):
    """Facts that make an engine fit or not; "" where there is none or nobody can say."""

    sm: str = ""
    """Compute capability of GPU 0, like "87"."""
    driver: str = ""
    """CUDA version of the driver, like "12.6"."""
    l4t: str = ""
    """Jetson Linux release, like "36.4.3"."""
    tensorrt: str = ""
    rtx: str = ""
    """Version of TensorRT-RTX."""


@functools.cache
def this_machine() -> Machine:
    """Ask once: the driver for the GPU, the packages for their versions, the system for L4T."""
    sm, driver = _gpu()
    text = L4T_FILE.read_text(errors="replace") if L4T_FILE.is_file() else ""
    return Machine(
        sm=sm,
        driver=driver,
        l4t=l4t_version(text),
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


def module_version(module: str) -> str:
    """What a package that came without metadata calls its version, read and not run; or ""."""
    try:
        spec = importlib.util.find_spec(module)
        text = Path(spec.origin).read_text() if spec is not None and spec.origin else ""
    except (ValueError, OSError, UnicodeDecodeError):
        return ""
    found = re.search(r"""^__version__ = ["']([\d.]+)["']""", text, re.MULTILINE)
    return found[1] if found else ""


def _gpu() -> tuple[str, str]:
    """Compute capability and CUDA version, from the driver's own library."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "", ""
    return _ask(driver)


def _ask(driver: Any) -> tuple[str, str]:
    number, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDriverGetVersion(ctypes.byref(number)):
        return "", ""
    version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    if driver.cuDeviceGet(ctypes.byref(device), 0):
        return "", version
    parts = []
    for attribute in (_MAJOR, _MINOR):
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return "", version
        parts.append(str(number.value))
    return "".join(parts), version


def _version(*packages: str) -> str:
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
