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

TABLES = {
    "poyo_edge.runtime.backends": "BACKENDS of runtime/backends/opening.py",
    "poyo_edge.runtime.feeds": "FEEDS or SINKS of runtime/feeds/opening.py",
    "poyo_edge.converting.readers": "FORMATS of poyo_edge/converting/formats.py",
    "poyo_edge.converting": "FORMATS of poyo_edge/converting/formats.py",
    "poyo_edge.checkpoint.renaming": "LAYOUTS of poyo_edge/checkpoint/layouts.py",
    "poyo_edge.cli.commands": "COMMANDS of poyo_edge/cli/root.py",
}
"""Folder → the table that names what is in it."""


def named_by_nobody(files: dict[str, Path]) -> set[str]:
    """Files, packages aside, that no other imports or names."""
    graph = arrows(files)
    named = set[str]().union(*graph.values())
    return {name for name, path in files.items() if path.name != "__init__.py"} - named


def test_every_file_is_named_by_another_or_is_where_people_come_in() -> None:
    """A backend, feed, format, layout or command that its table lacks is a file that none names."""
    for module in sorted(named_by_nobody(modules()) - ENTRIES):
        where = next((table for folder, table in TABLES.items() if module.startswith(folder)), "")
        raise AssertionError(
            f"{module}: expected a file that another one names, got none; "
            + (f"add a row to {where} (CONTRIBUTING.md)" if where else "use it, or remove it")
        )
    assert named_by_nobody(modules()) == ENTRIES


@pytest.mark.parametrize("folder", TABLES)
def test_a_file_that_its_table_lacks_is_noticed(folder: str, tmp_path: Path) -> None:
    toy, name = tmp_path / "toy.py", f"{folder}.unheard_of"
    toy.write_text("def open_toy() -> None:\n    pass\n")
    files = modules()
    assert named_by_nobody({**files, name: toy}) - named_by_nobody(files) == {name}


def test_every_backend_stands_in_the_page_of_the_runtime() -> None:
    page = (ROOT / "docs" / "runtime.md").read_text(encoding="utf-8")
    for name in BACKENDS:
        assert f"`{name}`" in page, f"docs/runtime.md: expected `{name}` among the backends"


def test_every_command_stands_in_the_readme() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    table = set(re.findall(r"`poyo-edge ([a-z][a-z-]*)", page.partition("## Commands")[2]))
    commands = {
        one.callback.__name__.replace("_", "-") for one in app.registered_commands if one.callback
    }
    assert len(commands) >= len(COMMANDS)
    missing, gone = sorted(commands - table), sorted(table - commands)
    assert (missing, gone) == ([], []), "README.md, Commands: add the missing, remove the gone"
