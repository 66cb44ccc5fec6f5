"""Builds the C library, and programs with it, by the compiler at hand."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.paths import ROOT

NATIVE = ROOT / "runtime" / "native"
SOURCES = sorted((NATIVE / "src").rglob("*.c"))
STAND_INS = ROOT / "tests" / "runtime" / "native" / "c"
"""Libraries and programs that only tests use."""
WARNINGS = (
    "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror",
)  # fmt: skip
DIALECT = ("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-ffp-contract=off", "-fPIC")
LIBRARIES = ("-ldl", "-lpthread", "-lm")

CC = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
CXX = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
NO_COMPILER = "no C compiler"
once_is_enough = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="C alone, which no Python changes: tested where everything is installed",
)


def run(command: Sequence[str | Path], *, timeout: float = 600, **settings: object) -> str:
    """Run a command that has to succeed within so many seconds; what it printed."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=timeout, **settings
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def build_library(out: Path, *flags: str) -> Path:
    """The shared library as the recipe builds it; with ``flags`` besides."""
    assert CC is not None
    hidden = () if "-fvisibility=default" in flags else ("-fvisibility=hidden",)
    run([CC, *DIALECT, *WARNINGS, "-O2", *hidden, *flags, "-shared", *SOURCES, "-o", out,
         *LIBRARIES])  # fmt: skip
    return out


def build_stand_in(out: Path, *flags: str) -> Path:
    """A library in ONNX Runtime's place: what it does is said in ``stand_in.c``."""
    assert CC is not None
    run([CC, *DIALECT, *WARNINGS, "-O2", *flags, "-shared", STAND_INS / "stand_in.c", "-o", out])
    return out
