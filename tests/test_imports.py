"""Who may import whom, and that nothing on the device loads what only a workstation has.

Both checks have a test that proves that they can fail.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKSTATION_ONLY = ("torch", "onnx", "onnxscript", "onnx_ir", "typer", "matplotlib", "lightning")
DEVICE_MODULES = (
    "poyo_edge.runtime",
    "poyo_edge.calibration",
    "poyo_edge.artifact",
    "poyo_edge.recording",
    "poyo_edge.export.build",  # engines are built on devices
    "poyo_edge.export.engine_build",
)

_MODEL = r"poyo_edge\.(model|training|checkpoint)(_\w+)?"
_PHASES = r"poyo_edge\.(runtime|export|calibration)"
_NOT_SHARED = (
    r"(cli\w*|commands|demo|doctor\w*|inspecting|console\w*|evaluating|scaling|model"
    r"|checkpoint\w*)\.py"
)
_THIRD_PARTY = rf"({'|'.join(WORKSTATION_ONLY)}|torch_brain)"


def loaded_by(module: str, folder: Path) -> set[str]:
    """Top-level packages in ``sys.modules`` after importing a module in a fresh process."""
    code = f"import sys, json, {module}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize("module", DEVICE_MODULES)
def test_device_modules_load_nothing_that_only_a_workstation_has(
    module: str, tmp_path: Path
) -> None:
    loaded = loaded_by(module, tmp_path)
    assert "poyo_edge" in loaded
    assert loaded.isdisjoint(WORKSTATION_ONLY)


def test_a_backend_is_loaded_only_when_one_is_opened(tmp_path: Path) -> None:
    assert loaded_by("poyo_edge.runtime", tmp_path).isdisjoint({"onnxruntime", "tensorrt"})


def test_the_check_of_loaded_packages_can_fail(tmp_path: Path) -> None:
    assert not loaded_by("poyo_edge.cli", tmp_path).isdisjoint(WORKSTATION_ONLY)


def imported(source: str) -> set[str]:
    """Full names of everything that a module imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def forbidden_for(path: str) -> str:
    """What the module at ``path`` (from the repository's root) may not import: a pattern."""
    folder, name = path.split("/", 1)
    if folder in ("runtime", "calibration"):
        phases = "export|cli|converting" + "|calibration" * (folder == "runtime")
        return rf"poyo_edge\.({phases})|{_MODEL}|{_THIRD_PARTY}"
    if name.startswith("converting/"):
        return rf"poyo_edge\.(cli|export|training|model|checkpoint)|{_THIRD_PARTY}"
    if folder == "export":
        return r"poyo_edge\.(cli|training)"
    if re.fullmatch(r"(training/\w+|model|checkpoint\w*)\.py", name):
        return rf"{_PHASES}|poyo_edge\.cli"
    if re.fullmatch(_NOT_SHARED, name):
        return r"poyo_edge\.cli"
    if name == "figures.py":  # matplotlib, inside its functions
        return rf"{_PHASES}|poyo_edge\.cli|{_MODEL}|torch|onnx|typer"
    return rf"{_PHASES}|poyo_edge\.(cli|converting)|{_MODEL}|{_THIRD_PARTY}"


def arrows_against_the_rules(path: str, source: str) -> set[str]:
    pattern = re.compile(rf"(\.|({forbidden_for(path)})(\.|$))")
    return {name for name in imported(source) if pattern.match(name)}


def modules() -> list[str]:
    folders = ("poyo_edge", "runtime", "calibration", "export")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    paths = [path for path in paths if not any(part.is_symlink() for part in path.parents)]
    return [path.relative_to(ROOT).as_posix() for path in paths]


@pytest.mark.parametrize("path", modules())
def test_arrows_between_folders_point_one_way(path: str) -> None:
    assert arrows_against_the_rules(path, (ROOT / path).read_text(encoding="utf-8")) == set()


def test_all_four_folders_are_looked_at() -> None:
    assert {"poyo_edge/spec.py", "runtime/decoder.py", "export/fold.py"} <= set(modules())
    assert {"calibration/__init__.py", "poyo_edge/training/lazy.py"} <= set(modules())


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("poyo_edge/tokens.py", "from poyo_edge.runtime.ring import SpikeRing"),
        ("poyo_edge/tokens.py", "from poyo_edge import runtime"),
        ("poyo_edge/tokens.py", "import poyo_edge.export.fold as fold"),
        ("poyo_edge/tokens.py", "from poyo_edge.checkpoint_file import read_checkpoint_file"),
        ("poyo_edge/tokens.py", "def f():\n    import torch"),
        ("poyo_edge/tokens.py", "from . import runtime"),
        ("poyo_edge/tokens.py", "from poyo_edge.converting import convert"),
        ("poyo_edge/converting/nwb.py", "from poyo_edge.cli import main"),
        ("runtime/core.py", "from poyo_edge.converting import open_source"),
        ("poyo_edge/training/run.py", "from poyo_edge.runtime import Decoder"),
        ("poyo_edge/training/run.py", "from poyo_edge.calibration import Calibrator"),
        ("poyo_edge/wiener.py", "from poyo_edge.training import train"),
        ("poyo_edge/doctor.py", "from poyo_edge.cli import main"),
        ("runtime/core.py", "from poyo_edge.calibration import Calibrator"),
        ("runtime/core.py", "def f():\n    from poyo_edge.export import parity"),
        ("runtime/core.py", "from poyo_edge.model import POYO"),
        ("runtime/core.py", "import onnx"),
        ("calibration/fit.py", "from poyo_edge.training import train"),
        ("calibration/fit.py", "from poyo_edge import export"),
        ("export/fold.py", "from poyo_edge.cli import main"),
    ],
)
def test_the_check_of_arrows_can_fail(path: str, source: str) -> None:
    assert arrows_against_the_rules(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("runtime/backends.py", "def f():\n    import onnxruntime"),
        ("runtime/core.py", "from poyo_edge.artifact import Artifact"),
        ("calibration/fit.py", "from poyo_edge.runtime.core import Core"),
        ("export/parity.py", "import torch\nfrom poyo_edge.runtime.backends import Backend"),
        ("poyo_edge/demo.py", "from poyo_edge.export.pipeline import export_checkpoint"),
        ("poyo_edge/tokens.py", "from poyo_edge.spec import ModelSpec"),
    ],
)
def test_arrows_that_are_allowed_pass(path: str, source: str) -> None:
    assert not arrows_against_the_rules(path, source)
