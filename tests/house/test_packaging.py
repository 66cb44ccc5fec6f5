"""The top-level folders, the import names and the links say the same thing."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from helpers.commands import run_python
from helpers.house import modules
from helpers.paths import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from poyo_edge.errors import EXTRAS

ROOMS = ("export", "runtime", "calibration")
DATA = {
    "poyo_edge.runtime.native.kernels": "runtime/native/kernels",
    "poyo_edge.runtime.native.src.ort": "runtime/native/src/ort",
    "poyo_edge.runtime.page.web": "runtime/page/web",
    "poyo_edge.training.recipes": "poyo_edge/training/recipes",
}
"""Folders of files that code reads."""


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
    # setuptools warns of folders with package data that are no packages.
    read = {name: folder for name, folder in DATA.items() if (ROOT / folder).is_dir()}
    assert setuptools["package-data"].keys() == {"poyo_edge", *DATA}
    assert set(setuptools["packages"]) == {*found, *DATA}
    assert setuptools["package-dir"] == found | read


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
    files = {"h5py", "safetensors", "tomli"}
    assert names == {"numpy", "onnxruntime", "threadpoolctl", "typer", "rich", *files}


def test_versions_agree() -> None:
    from poyo_edge import __version__

    assert configuration()["project"]["version"] == __version__  # type: ignore[index]


def test_messages_name_the_packages_that_the_extras_bring() -> None:
    """Names and upper bounds are those of pyproject.toml, what extras bring of other extras too."""
    requirements = importlib.metadata.requires("poyo-edge") or []
    for extra, named in EXTRAS.items():
        brought = {requirement_name(one) for one in of_extra(requirements, extra)}
        assert {requirement_name(one) for one in named} == brought, extra
    listed = set(configuration()["project"]["optional-dependencies"])  # type: ignore[index]
    assert listed - {*EXTRAS} == {"dev", "docs", "all-feeds"}


def of_extra(requirements: list[str], extra: str) -> list[str]:
    """What an extra brings on this Python, names of other extras replaced by what they bring."""
    found = []
    for text in requirements:
        requirement = Requirement(text)
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        if marker is None or always or not marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "poyo-edge":
            inner = [of_extra(requirements, name) for name in requirement.extras]
            found += [one for part in inner for one in part]
        else:
            found.append(f"{requirement.name}{requirement.specifier}")
    return found


def requirement_name(text: str) -> str:
    """The name; with its version where a newer one would not do."""
    requirement = Requirement(text)
    bounded = any(one.operator in ("==", "<") for one in requirement.specifier)
    return canonicalize_name(requirement.name) + (str(requirement.specifier) if bounded else "")


def test_no_message_sends_anyone_to_the_name_of_the_project_at_the_index() -> None:
    told = re.compile(r"pip install [\"']?poyo.edge")
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *modules().values()]
    assert [path.name for path in pages if told.search(path.read_text(encoding="utf-8"))] == []
