"""NVIDIA's Python bindings without NVIDIA's libraries: stand-ins export what they ask for.

The wheels are downloaded once into pytest's cache and never become part of the project. The
stand-ins are a dozen lines of C that are built here and do nothing: they let the module load, so
that its classes, members and signatures can be read.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

WHEELS = {
    "10.3.0": "tensorrt-cu12-bindings",
    "10.7.0": "tensorrt-cu12-bindings",
    "10.13.3.9": "tensorrt-cu13-bindings",
    "10.16.1.11": "tensorrt-cu13-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}
ENTRY_POINTS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry", "getNvOnnxParserVersion", "getPluginRegistry",
    "initLibNvInferPlugins",
)  # fmt: skip
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")

READ = """
import inspect, json, sys, warnings
warnings.simplefilter("ignore")
import tensorrt_bindings as trt
def members(thing):
    found = {}
    for name in dir(thing):
        value = inspect.getattr_static(thing, name)
        doc = getattr(value, "__doc__", None) or ""
        if isinstance(value, property):
            doc = "property " + ("settable" if value.fset else "read only")
        found[name] = doc
    return found
out = {"": {"__version__": trt.__version__}}
for name in dir(trt):
    thing = getattr(trt, name)
    if inspect.isclass(thing):
        out[name] = members(thing)
        for inner in ("Severity",):
            if inspect.isclass(getattr(thing, inner, None)):
                out[name + "." + inner] = members(getattr(thing, inner))
json.dump(out, sys.stdout)
"""

Api = dict[str, dict[str, str]]
"""Class → member → its docstring, whose first lines are the signatures."""


def read_bindings(version: str, cache: Path) -> Api:
    """The API of one version, from the cache or from its wheel; skips when neither is at hand."""
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}"
    known = cache / f"{version}-{python}.json"
    if not known.is_file():
        folder = cache / f"{version}-{python}"
        _download(version, folder)
        _build_stand_ins(version, folder)
        known.write_text(_read(folder))
    api: Api = json.loads(known.read_text())
    return api


def _download(version: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    wheel = f"{WHEELS[version]}=={version}"
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*words, "--dest", folder, wheel], capture_output=True, text=True, timeout=300, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"{wheel} cannot be downloaded here: {reason}")
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(folder)
    wheels[0].unlink()


def _build_stand_ins(version: str, folder: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-ins with")
    source = folder / "stand_in.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in ENTRY_POINTS))
    for library in LIBRARIES:
        name = f"lib{library}.so.{version.partition('.')[0]}"
        words = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        subprocess.run([*words, str(source)], check=True, capture_output=True)


def _read(folder: Path) -> str:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
