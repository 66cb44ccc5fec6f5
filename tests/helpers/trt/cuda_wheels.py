"""NVIDIA's CUDA runtimes of two versions, with their headers: from PyPI, never part of us."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

WHEELS = {
    "12.6": "nvidia-cuda-runtime-cu12==12.6.77",
    "13.0": "nvidia-cuda-runtime==13.0.96",
}


def cuda_wheel(version: str, cache: Path) -> Path:
    """The folder of one version, from the cache or from its wheel; skips when neither is here."""
    folder = cache / version
    if not (folder / "there").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        words += ["--only-binary=:all:", "--dest", str(folder), WHEELS[version]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            pytest.skip(f"{WHEELS[version]} cannot be downloaded here: {reason}")
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(folder)
        wheels[0].unlink()
        (folder / "there").touch()
    return folder


def declarations(header: Path) -> dict[str, list[str]]:
    """Function → C types of its arguments, as a header of CUDA declares them."""
    text = header.read_text(errors="replace")
    renamed = dict(re.findall(r"^#define\s+(cu\w+)\s+(cu\w+)$", text, re.MULTILINE))
    found: dict[str, list[str]] = {}
    pattern = r"\b(?:CUDARTAPI|CUDAAPI)\s+(cu\w+)\(([^;]*?)\)\s*;"
    for name, arguments in re.findall(pattern, text):
        types = [_type(part) for part in arguments.split(",") if part.strip() != "void"]
        found.setdefault(renamed.get(name, name), types)
    return found


def values(header: Path) -> dict[str, int]:
    """Constants of a header: what it defines, and members of its enums."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(errors="replace"), flags=re.DOTALL)
    pairs = re.findall(r"^#define\s+(\w+)\s+(0x[0-9a-fA-F]+|\d+)\s*$", text, re.MULTILINE)
    pairs += re.findall(r"^\s*(\w+)\s*=\s*(0x[0-9a-fA-F]+|\d+)\s*,?\s*$", text, re.MULTILINE)
    return {name: int(number, 0) for name, number in pairs}


def _type(argument: str) -> str:
    """The type of one argument, without its name and default."""
    words = re.sub(r"__dv\(.*?\)|\bconst\b|\benum\b", " ", argument)
    words = re.sub(r"__dv.*", " ", words)
    stars = words.count("*")
    names = words.replace("*", " ").split()
    return " ".join(names[:-1] if len(names) > 1 else names) + "*" * stars
