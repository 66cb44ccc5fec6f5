"""Where a benchmark ran: versions, commit, device and command line."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PACKAGES = ("poyo-edge", "numpy", "onnxruntime", "torch", "torch_brain", "onnx", "onnxscript")


def environment(threads: int) -> dict[str, Any]:
    """Versions, commit, device and command line, as JSON values."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": git_commit(),
        "device": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "threads": threads,
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }


def git_commit() -> str | None:
    """Hash of the commit of this repository, with "+changes" behind it; None outside git."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_model() -> str:
    """Name of the processor, as Linux tells it or as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(found: Mapping[str, Any]) -> str:
    """One line about ``environment``, to print beside every table."""
    device, versions = found["device"], found["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{device['cpu']}, {device['threads']} of {device['cores']} cores; {packages}; "
        f"commit {found['commit'] or 'unknown'}\n{found['command']}"
    )


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
