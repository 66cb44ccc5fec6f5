"""What is wrong with this Python's environment: two ONNX Runtimes in one place, another system."""

from __future__ import annotations

from collections.abc import Mapping

from poyo_edge.errors import pip_install

CPU, GPU = "onnxruntime", "onnxruntime-gpu"
SUPPORTED = "Linux"
_LACKS = "shared memory, Linux's clocks and confined readers, which run, convert and export need"


def unsupported(system: str) -> str:
    """One sentence on a system that nothing has been tried on; "" on Linux.

    Args:
        system: as ``platform.system()`` says it.
    """
    if system == SUPPORTED:
        return ""
    return (
        f"{system or 'this system'} is not supported: expected Linux, for {_LACKS}; decoding by "
        f"poyo_edge.runtime may work, but nobody has tried"
    )


def to_mend(versions: Mapping[str, str | None], *, gpu: bool) -> list[str]:
    """Commands that mend the environment, each with its reason.

    Args:
        versions: package → version; None where it is not installed.
        gpu: whether an NVIDIA GPU is there.
    """
    if versions.get(CPU) is None or versions.get(GPU) is None:
        return []
    kept = GPU if gpu else CPU
    return [
        f"pip uninstall -y {CPU} {GPU} && pip install --no-deps {kept}=={versions[kept]}  "
        f"# {CPU} and {GPU} put the same module in one place; whichever came last is used"
    ]


def exchanged(commands: tuple[str, ...], versions: Mapping[str, str | None]) -> list[str]:
    """Commands that install what a GPU needs, without a second ONNX Runtime beside the first."""
    if versions.get(CPU) is None:
        return list(commands)
    return [
        command if command != pip_install("gpu") else f"pip uninstall -y {CPU} && {command}"
        for command in commands
        if command != pip_install("ort") or versions.get(GPU) is None
    ]


def lacking(names: tuple[str, ...], versions: Mapping[str, str | None]) -> list[str]:
    """Packages of an extra that are not there; either ONNX Runtime stands for the other."""
    missing = [name for name in names if versions.get(name) is None]
    return [name for name in missing if name != CPU or versions.get(GPU) is None]
