"""The top-level folders, the import names and the links say the same thing."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.commands import run_python
from helpers.house import modules
from helpers.paths import ROOT

ROOMS = ("export", "runtime", "calibration")


def configuration() -> dict[str, object]:
    tomllib = pytest.importorskip("tomllib")
    values: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return values


def test_every_package_folder_is_listed() -> None:
    setuptools = configuration()["tool"]["setuptools"]  # type: ignore[index]
    found = {
        name: path.parent.relative_to(ROOT).as_posix()
        for name, path in modules().items()
        if path.name == "__init__.py"
    }
    assert {"poyo_edge", "poyo_edge.converting", *(f"poyo_edge.{room}" for room in ROOMS)} <= {
        *found
    }
    assert set(setuptools["packages"]) == set(found)
    assert setuptools["package-dir"] == found


@pytest.mark.parametrize("room", ROOMS)
def test_editor_links_lead_to_the_folders(room: str) -> None:
    assert (ROOT / "poyo_edge" / room).resolve() == ROOT / room


def test_bare_folder_names_cannot_be_imported_elsewhere(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u\n"
        "assert not any(u.find_spec(n) for n in ('export', 'runtime', 'calibration'))\n"
        "import poyo_edge.runtime, poyo_edge.export, poyo_edge.calibration\n"
    )
    done = run_python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_device_needs_no_torch() -> None:
    project = configuration()["project"]
    device = project["dependencies"] + project["optional-dependencies"]["ort"]  # type: ignore[index]
    names = {requirement.split(">")[0].split("[")[0] for requirement in device}
    assert names == {"numpy", "h5py", "safetensors", "typer", "rich", "onnxruntime"}


def test_versions_agree() -> None:
    from poyo_edge import __version__

    assert configuration()["project"]["version"] == __version__  # type: ignore[index]
