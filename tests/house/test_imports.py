"""What the device imports, and the arrows between the folders of the house.

``HOUSE`` is the table: each row is a folder (or one file), with what it may import of ours and of
others. A module belongs to the longest row that its name begins with. Imports inside functions
count as any others.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.commands import run_python
from helpers.house import arrows, circles, imports, is_ours, modules, name_of

WORKSTATION_ONLY = ("torch", "onnx", "onnxscript", "onnx_ir", "typer", "matplotlib", "lightning")
DEVICE_MODULES = (
    "poyo_edge.runtime",
    "poyo_edge.calibration",
    "poyo_edge.artifact",
    "poyo_edge.recording",
    "poyo_edge.simulation.calibrating",
    "poyo_edge.export",  # sessions are frozen on devices
    "poyo_edge.export.engines.build",  # and engines are built there
    "poyo_edge.export.engines.engine_build",
)


class Row(NamedTuple):
    """What a folder may import."""

    ours: str = ""
    """Names of other rows, each without "poyo_edge."; the ground floor is open to all."""
    others: str = ""
    """Packages beyond numpy and the standard library."""


STANDARD = {*sys.stdlib_module_names, "tomllib"}
"""The standard library; Python 3.10 has no ``tomllib`` yet, and tomli instead."""
GROUND = (
    "errors tables metrics spec targets tokens trials filters figures records core_inputs arrays "
    "unit_guess reports columns"
)
_FILES = "files recording artifact"
_DEVICE = "runtime runtime.backends runtime.backends.ov runtime.backends.trt"
HOUSE = {
    # shared by all
    "poyo_edge": Row(),
    "errors": Row(),
    "records": Row(),
    "tables": Row(),
    "metrics": Row(),
    "spec": Row(),
    "core_inputs": Row(),
    "arrays": Row(),
    "columns": Row(),
    "targets": Row(),
    "tokens": Row(),
    "trials": Row(),
    "unit_guess": Row(),
    "filters": Row(),
    "figures": Row("", "matplotlib"),
    "reports": Row(),
    "journal": Row("files"),
    "model": Row("", "torch"),
    "files": Row("", "safetensors"),
    "recording": Row("files", "h5py"),
    "artifact": Row("files recording", "cryptography"),
    "converting": Row("files recording journal converting.readers", "h5py pynwb neo"),
    "converting.readers": Row("recording converting", "h5py"),
    "simulation": Row(
        "recording artifact runtime runtime.control runtime.feeds runtime.rig calibration"
    ),
    # workstation
    # checkpoint, in the order of its stages: each takes what the one before it found
    "checkpoint.keys": Row(),
    "checkpoint.foreign": Row(),
    "checkpoint.renaming": Row("checkpoint.keys"),
    "checkpoint.layouts": Row("checkpoint.keys checkpoint.renaming"),
    "checkpoint.unpickling": Row("", "torch safetensors"),
    "checkpoint.confined": Row(
        "files checkpoint.foreign checkpoint.unpickling", "torch safetensors"
    ),
    "checkpoint.file": Row("checkpoint.unpickling checkpoint.confined", "safetensors"),
    "checkpoint.container": Row("checkpoint.keys checkpoint.foreign checkpoint.file", "torch"),
    "checkpoint.poyo_plus": Row("checkpoint.keys", "torch"),
    "checkpoint.family": Row("checkpoint.layouts checkpoint.container checkpoint.poyo_plus"),
    "checkpoint.sizes": Row("model checkpoint.keys checkpoint.foreign", "torch"),
    "checkpoint.config": Row("checkpoint.keys"),
    "checkpoint.additions": Row("", "torch"),
    "checkpoint.checkpoint": Row(
        "model checkpoint.keys checkpoint.file checkpoint.container checkpoint.poyo_plus "
        "checkpoint.family checkpoint.sizes checkpoint.config checkpoint.additions",
        "torch",
    ),
    "checkpoint": Row("checkpoint.checkpoint"),
    "checkpoint.readouts": Row("checkpoint.file checkpoint.config"),
    "training": Row(
        f"{_FILES} checkpoint checkpoint.file checkpoint.additions checkpoint.readouts model",
        "h5py torch lightning torch_brain tomli",
    ),
    "evaluation": Row(
        f"{_FILES} checkpoint checkpoint.readouts model training calibration export runtime "
        "runtime.checks",
        "torch torch_brain",
    ),
    "export": Row(
        f"{_FILES} checkpoint checkpoint.layouts runtime runtime.backends runtime.checks "
        "export.graph export.parity export.engines",
        "onnxruntime",
    ),
    "export.graph": Row("artifact runtime", "onnx onnx_ir"),
    "export.parity": Row("artifact recording model runtime runtime.backends export.graph", "torch"),
    "export.precision": Row(
        "runtime runtime.backends export.graph export.parity",
        "onnx onnx_ir onnxruntime ml_dtypes",
    ),
    # device
    "runtime": Row("files artifact runtime.backends runtime.clock"),
    "runtime.clock": Row(),
    "runtime.backends": Row(
        "files artifact runtime.backends.ov runtime.backends.trt", "onnxruntime"
    ),
    "runtime.backends.ov": Row("files runtime.backends", "openvino"),
    "runtime.backends.trt": Row("files runtime.backends"),
    "runtime.page": Row(
        "runtime.control runtime.page.plots runtime.page.ring", "bokeh tornado jinja2"
    ),
    "runtime.page.plots": Row("runtime.page runtime.page.ring", "bokeh"),
    "runtime.page.ring": Row("files artifact journal runtime"),
    "runtime.feeds": Row(
        "files artifact recording journal runtime", "falcon_challenge pycbsdk pylsl redis zmq"
    ),
    "runtime.feeds.brand_node": Row("runtime.rig"),
    "runtime.control": Row("files journal runtime runtime.feeds"),
    "runtime.rig": Row(
        "files artifact journal runtime runtime.backends runtime.clock runtime.control "
        "runtime.feeds runtime.page.ring"
    ),
    "runtime.checks": Row(
        "files artifact recording journal runtime runtime.backends runtime.backends.trt", "h5py"
    ),
    "calibration": Row(f"{_FILES} calibration.fit runtime"),
    "calibration.fit": Row("files artifact runtime runtime.backends", "threadpoolctl"),
    "calibration.free_use": Row(
        "artifact runtime runtime.control runtime.feeds calibration calibration.fit"
    ),
    "export.engines": Row(
        f"{_FILES} {_DEVICE} export.graph export.parity export.precision", "onnx"
    ),
    "doctor": Row("runtime.backends runtime.feeds converting checkpoint.layouts"),
    # on top
    "inspecting": Row(f"{_FILES} checkpoint journal"),
    "cli": Row(
        f"{_FILES} journal converting simulation checkpoint.layouts training evaluation export "
        "export.engines calibration calibration.free_use runtime runtime.backends runtime.control "
        "runtime.feeds runtime.page runtime.page.ring "
        "runtime.backends.trt runtime.rig runtime.checks doctor inspecting",
        "typer rich tomli",
    ),
    "__main__": Row("cli"),
}


def loaded_by(module: str, folder: Path) -> set[str]:
    """Top-level packages in ``sys.modules`` after importing all that a module shows."""
    code = f"import sys, json; from {module} import *; print(json.dumps(list(sys.modules)))"
    done = run_python(code, cwd=folder)
    assert done.returncode == 0, done.stderr
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


def row_of(module: str) -> str:
    """The longest row that a module's name begins with; "" for a module of no row."""
    parts = module.split(".")[1:]
    for length in range(len(parts), 0, -1):
        if (row := ".".join(parts[:length])) in HOUSE:
            return row
    return "" if parts else "poyo_edge"


def against_the_table(module: str, source: str, known: Collection[str]) -> set[str]:
    """What a module imports and may not; a module of no row may import nothing."""
    row = row_of(module)
    ours, others = HOUSE.get(row, Row())
    allowed = {row, "poyo_edge", *ours.split(), *(GROUND.split() if row else ())}
    packages = {"numpy", *others.split(), *STANDARD}
    found = imports(source, dict.fromkeys(known))
    return {name for name in found if not is_ours(name) and name not in packages} | {
        name for name in found if is_ours(name) and row_of(name) not in allowed
    }


@pytest.mark.parametrize("module", modules())
def test_arrows_between_folders_point_one_way(module: str) -> None:
    files = modules()
    source = files[module].read_text(encoding="utf-8")
    assert against_the_table(module, source, files) == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(arrows(modules())) == []


def test_the_search_for_circles_can_fail(tmp_path: Path) -> None:
    ring = tmp_path / "ring.py"  # whom the decoder imports, importing it inside a function
    ring.write_text("def f() -> None:\n    from poyo_edge.runtime.decoder import Decoder\n")
    files = {**modules(), "poyo_edge.runtime.ring": ring}
    (circle,) = circles(arrows(files))
    assert {"poyo_edge.runtime.decoder", "poyo_edge.runtime.ring"} <= {*circle}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_every_folder_is_looked_at_and_every_row_is_used() -> None:
    files = modules()
    assert {"poyo_edge.spec", "poyo_edge.runtime.decoder", "poyo_edge.export.graph.fold"} <= {
        *files
    }
    assert {"poyo_edge.calibration", "poyo_edge.training.lazy"} <= {*files}
    assert {row_of(module) for module in files} == {*HOUSE}


def test_the_table_allows_nothing_that_nobody_needs() -> None:
    files = modules()
    used = dict[str, set[str]]()
    for module, path in files.items():
        found = imports(path.read_text(encoding="utf-8"), files)
        used.setdefault(row_of(module), set()).update(
            row_of(name) if is_ours(name) else name for name in found
        )
    spare = {row: {*allowed.ours.split(), *allowed.others.split()} - used[row]
             for row, allowed in HOUSE.items()}  # fmt: skip
    assert {row: words for row, words in spare.items() if words} == {}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("poyo_edge/tokens.py", "from poyo_edge.runtime.ring import SpikeRing"),
        ("poyo_edge/tokens.py", "from poyo_edge import runtime"),
        ("poyo_edge/tokens.py", "import poyo_edge.export.graph.fold as fold"),
        ("poyo_edge/tokens.py", "from poyo_edge.checkpoint.file import read_checkpoint_file"),
        ("poyo_edge/checkpoint/layouts.py", "import torch"),
        ("poyo_edge/checkpoint/unpickling.py", "from poyo_edge.checkpoint.keys import OMEGA"),
        ("poyo_edge/checkpoint/container.py", "from poyo_edge.checkpoint.family import Family"),
        ("poyo_edge/checkpoint/config.py", "from poyo_edge.checkpoint import sizes"),
        ("poyo_edge/tokens.py", "def f():\n    import torch"),
        ("poyo_edge/tokens.py", "from . import runtime"),
        ("poyo_edge/tokens.py", "from poyo_edge.converting import convert"),
        ("poyo_edge/tokens.py", "load = 'poyo_edge.converting.nwb:open_nwb'"),
        ("poyo_edge/new_room.py", "from poyo_edge.runtime import Decoder"),
        ("poyo_edge/converting/nwb.py", "from poyo_edge.cli import main"),
        ("poyo_edge/recording/reading.py", "from poyo_edge.artifact import Artifact"),
        ("runtime/core.py", "from poyo_edge.converting import open_source"),
        ("poyo_edge/training/run.py", "from poyo_edge.runtime import Decoder"),
        ("poyo_edge/training/run.py", "from poyo_edge.calibration import Calibrator"),
        ("poyo_edge/filters/wiener.py", "from poyo_edge.training import train"),
        ("poyo_edge/doctor/examine.py", "from poyo_edge.cli import main"),
        ("runtime/core.py", "from poyo_edge.calibration import Calibrator"),
        ("runtime/core.py", "def f():\n    from poyo_edge.export.parity import core"),
        ("runtime/core.py", "from poyo_edge.model import POYO"),
        ("runtime/core.py", "from poyo_edge.runtime.rig import Rig"),
        ("runtime/core.py", "import onnx"),
        ("calibration/fit/fitting.py", "from poyo_edge.training import train"),
        ("calibration/fit/fitting.py", "from poyo_edge import export"),
        ("calibration/fit/fitting.py", "from poyo_edge.calibration import Calibrator"),
        ("export/graph/fold.py", "from poyo_edge.cli import main"),
        ("export/engines/build.py", "import torch"),
    ],
)
def test_the_check_of_arrows_can_fail(path: str, source: str) -> None:
    assert against_the_table(name_of(path), source, modules())


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("runtime/backends/ort_cpu.py", "def f():\n    import onnxruntime"),
        ("runtime/core.py", "from poyo_edge.artifact import Artifact"),
        ("calibration/fit/fitting.py", "from poyo_edge.runtime.core import Core"),
        ("export/parity/core.py", "import torch\nfrom poyo_edge.runtime.backends import Backend"),
        ("poyo_edge/cli/demo.py", "from poyo_edge.export.pipeline import export_checkpoint"),
        ("poyo_edge/tokens.py", "from poyo_edge.spec import ModelSpec"),
    ],
)
def test_arrows_that_are_allowed_pass(path: str, source: str) -> None:
    assert not against_the_table(name_of(path), source, modules())
