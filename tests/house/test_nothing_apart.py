"""A file that no table names, and a row that no page names, are noticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.house import arrows, modules
from helpers.paths import ROOT

from poyo_edge.cli import app
from poyo_edge.cli.root import COMMANDS
from poyo_edge.runtime.backends import BACKENDS

ENTRIES = {
    "poyo_edge.__main__",
    "poyo_edge.runtime.backends.trt.api",  # a list that tests hold against NVIDIA's bindings
    "poyo_edge.runtime.feeds.brand_node",
    "poyo_edge.runtime.feeds.falcon",
}
"""What is started, or imported from outside alone: docs/stability.md names the latter."""


def named_by_nobody(files: dict[str, Path]) -> set[str]:
    """Files, packages aside, that no other imports or names."""
    graph = arrows(files)
    named = set[str]().union(*graph.values())
    return {name for name, path in files.items() if path.name != "__init__.py"} - named


def test_every_file_is_named_by_another_or_is_where_people_come_in() -> None:
    """A backend, feed, format, layout or command that its table lacks is a file that none names."""
    assert named_by_nobody(modules()) == ENTRIES


@pytest.mark.parametrize(
    "path",
    [
        "runtime/backends/toy.py",
        "runtime/feeds/toy.py",
        "poyo_edge/converting/toy.py",
        "poyo_edge/checkpoint/toy.py",
        "poyo_edge/cli/commands/toy.py",
    ],
)
def test_a_file_that_its_table_lacks_is_noticed(path: str, tmp_path: Path) -> None:
    toy = tmp_path / "toy.py"
    toy.write_text("def open_toy() -> None:\n    pass\n")
    name = path.removesuffix(".py").replace("/", ".")
    assert named_by_nobody({**modules(), name: toy}) == {*ENTRIES, name}


def test_every_backend_stands_in_the_page_of_the_runtime() -> None:
    page = (ROOT / "docs" / "runtime.md").read_text(encoding="utf-8")
    assert [name for name in BACKENDS if f"`{name}`" not in page] == []


def test_every_command_stands_in_the_readme() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    table = set(re.findall(r"`poyo-edge ([a-z]+)", page.partition("## Commands")[2]))
    commands = {one.callback.__name__ for one in app.registered_commands if one.callback}
    assert len(commands) >= len(COMMANDS)
    assert commands == table
