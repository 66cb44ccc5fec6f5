"""No file is longer than one can read at once, and no folder fuller than one can know."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from helpers.house import FOLDERS
from helpers.paths import ROOT

MOST_LINES, MOST_MODULES = 400, 16
BESIDE = ("tests", "benchmarks", "fuzz", "examples")
MAY_BE_FULL = {"poyo_edge/cli/commands", "benchmarks"}
"""A module for each command, a script for each question, and there are many."""


def python_files(root: Path) -> list[str]:
    """All of the project from its root, none of them twice through a link."""
    return files(root, ".py")


def files(root: Path, *suffixes: str) -> list[str]:
    """Those of these kinds."""
    return [
        path.relative_to(root).as_posix()
        for folder in (*FOLDERS, *BESIDE)
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in suffixes and not any(part.is_symlink() for part in path.parents)
    ]


def too_long(root: Path) -> dict[str, int]:
    """File → lines."""
    every = files(root, ".py", ".c", ".h", ".cpp")
    lines = {name: len((root / name).read_bytes().splitlines()) for name in every}
    return {name: count for name, count in lines.items() if count > MOST_LINES}


def too_full(root: Path) -> dict[str, int]:
    """Folder → modules in it, without those of its own folders."""
    modules = Counter(Path(name).parent.as_posix() for name in python_files(root))
    return {name: n for name, n in modules.items() if n > MOST_MODULES and name not in MAY_BE_FULL}


def test_no_file_is_too_long() -> None:
    assert too_long(ROOT) == {}


def test_no_folder_is_too_full() -> None:
    assert too_full(ROOT) == {}


def test_every_folder_is_looked_at_and_every_exception_is_one() -> None:
    folders = {Path(name).parent.as_posix() for name in python_files(ROOT)}
    assert {*FOLDERS, *BESIDE[1:], "tests/house", "tests/helpers/trt"} <= folders
    assert folders >= MAY_BE_FULL


def test_the_checks_can_fail(tmp_path: Path) -> None:
    for folder in ("runtime/feeds", "poyo_edge/cli/commands", "tests/helpers"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(MOST_MODULES + 1):
            (tmp_path / folder / f"m{number}.py").write_text("x = 1\n" * MOST_LINES)
    (tmp_path / "tests" / "helpers" / "m0.py").unlink()
    (tmp_path / "poyo_edge" / "runtime").symlink_to("../runtime")
    assert (too_long(tmp_path), too_full(tmp_path)) == ({}, {"runtime/feeds": 17})
    (tmp_path / "tests" / "helpers" / "m1.py").write_text("x = 1\n" * (MOST_LINES + 1))
    (tmp_path / "runtime" / "x.c").write_text("int x;\n" * (MOST_LINES + 1))
    assert too_long(tmp_path) == {"tests/helpers/m1.py": 401, "runtime/x.c": 401}
