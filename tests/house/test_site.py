"""The documentation site: what it says exists, and each of its checks can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import command_pages
import notebooks
import outside
import public_names
import pytest
from helpers.paths import ROOT
from known_commands import known_commands, spellings
from stale import find_stale, recipes

PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"]
    if path.name != "CHANGELOG.md"  # it tells of what was
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_no_command_option_recipe_or_script_that_is_not_there(page: Path) -> None:
    assert find_stale(page.read_text(encoding="utf-8"), ROOT) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("`poyo-edge transmogrify x`", "poyo-edge transmogrify: expected a command"),
        ("`poyo-edge replay A R --chunk`", "poyo-edge replay --chunk: expected an option"),
        ("give `--no-such-option`", "--no-such-option: expected an option of some command"),
        ("```bash\npoyo-edge replay only.poyo\n```", "Missing argument"),
        ("```bash\npoyo-edge run a.poyo \\\n  udp://1\n```", "--from"),
        ("```bash\npoyo-edge bench a.poyo --repeats many\n```", "many"),
        ("```bash\njust fly\n```", "just fly: expected a recipe"),
        ("```sh\npython benchmarks/none.py\n```", "benchmarks/none.py: expected a file"),
        ("   ```bash\n   poyo-edge tell x\n   ```", "Missing argument"),
    ],
)
def test_a_stale_line_is_found(text: str, said: str) -> None:
    (problem,) = find_stale(text, ROOT)
    assert said in problem


def test_what_is_right_is_no_problem() -> None:
    text = (
        "`poyo-edge --version`, `poyo-edge COMMAND`, `--json`\n\n```bash\n"
        "poyo-edge run a.poyo --from udp://1:2 --to shm:x  # until Ctrl-C\n"
        "poyo-edge convert a.nwb --list && poyo-edge doctor | less\njust test\n```\n"
    )
    assert find_stale(text, ROOT) == []
    assert {"docs", "test", "demo", "test-oldest", "dist"} <= recipes(ROOT)


def test_every_command_has_a_page_with_its_options_and_example() -> None:
    pages = command_pages.pages(known_commands())
    for name, command in known_commands().items():
        text = pages[f"reference/commands/{name}.md"]
        assert command.epilog.removeprefix("Example: ") in text
        shown = [p for p in command.params if not getattr(p, "hidden", False)]
        for option in (p for p in shown if p.opts[0].startswith("-")):
            assert f"`{option.opts[0]}`" in text
        assert f"[`{name}`]({name}.md)" in pages[command_pages.INDEX]
    assert "--help" in spellings(known_commands()["replay"])


def test_every_exit_code_and_error_is_on_the_page_of_errors() -> None:
    page = command_pages.errors_page()
    assert "| 5 | `SessionError` | `ValueError` |" in page
    assert all(f"\n| {code} | " in page for code in (0, 1, 2, 3, 4, 5, 130))


def test_every_public_name_and_method_has_a_docstring() -> None:
    pytest.importorskip("griffe", reason="it reads the sources; just docs brings it")
    names = public_names.public_names((ROOT / public_names.LIST).read_text(encoding="utf-8"))
    assert len(names) > 10
    assert public_names.without_docstring(ROOT, names) == []


def test_a_name_without_a_docstring_is_noticed(tmp_path: Path) -> None:
    pytest.importorskip("griffe", reason="it reads the sources; just docs brings it")
    package = tmp_path / "poyo_edge"
    package.mkdir()
    (package / "__init__.py").write_text(
        "class Said:\n    '''Yes.'''\n    def silent(self): ...\n"
        "    @property\n    def mute(self): ...\n"
        "def nothing(): ...\n"
    )
    names = {"poyo_edge": ["Said", "nothing", "gone"]}
    missing = [line.partition(":")[0] for line in public_names.without_docstring(tmp_path, names)]
    assert missing == [
        "poyo_edge.Said.silent", "poyo_edge.Said.mute", "poyo_edge.nothing", "poyo_edge.gone",
    ]  # fmt: skip


@pytest.mark.parametrize(("link", "ends_well"), [("nowhere.md", False), ("index.md", True)])
def test_the_recipe_of_the_site_ends_badly_on_a_warning(
    link: str, ends_well: bool, tmp_path: Path
) -> None:
    pytest.importorskip("mkdocs", reason="just docs brings it")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# A page\n\n[It]({link})\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: a site\n")
    recipe = (ROOT / "Justfile").read_text(encoding="utf-8")
    (line,) = [one for one in recipe.splitlines() if "mkdocs build" in one]
    script = line.strip().replace("{{ bin }}/python", sys.executable)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode == 0) == ends_well, done.stdout
    assert ("nowhere.md" in done.stdout) != ends_well


def test_links_lead_to_pages_of_the_site_and_bad_ones_stay_to_be_noticed() -> None:
    at = ROOT / "docs" / "how-to" / "x.md"
    text = (
        "[a](../../README.md#install) [b](../feeds.md) [c](../../examples/embed.py) [d](../no.md) "
        "[e](https://example.org) [f](#here)"
    )
    moved = outside.links_on_site(text, at, ROOT, "how-to/x.md")
    assert moved == (
        "[a](../readme.md#install) [b](../feeds.md) [c](../source/examples/embed.py.md) "
        "[d](../no.md) [e](https://example.org) [f](#here)"
    )
    readme = outside.links_on_site("[a](docs/feeds.md)", ROOT / "README.md", ROOT, "readme.md")
    assert readme == "[a](feeds.md)"
    assert [*outside.linked_sources(text, at, ROOT)] == ["source/examples/embed.py.md"]


BROKEN = {
    "[x](none.md)": "the target 'none.md' is not found",
    "[x](other.md#none)": "does not contain an anchor '#none'",
    "[x](#none)": "there is no such anchor on this page",
    "![x](none.svg)": "the target 'none.svg' is not found",
}


@pytest.mark.parametrize("link", BROKEN)
def test_a_broken_link_or_anchor_ends_the_build(link: str, tmp_path: Path) -> None:
    """With what ``mkdocs.yml`` says of links, and nothing else of it."""
    commands = pytest.importorskip("mkdocs.commands.build", reason="just docs brings it")
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "other.md").write_text("# Other\n")
    page = tmp_path / "docs" / "index.md"
    said = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    checks = said[said.index("\nvalidation:") : said.index("\nmarkdown_extensions:")]
    config = tmp_path / "mkdocs.yml"
    config.write_text(f"site_name: x\nstrict: true\n{checks}\nplugins: []\ntheme: mkdocs\n")
    for text, fails in (("# Page\n\n[x](other.md#other)\n", False), (f"# Page\n\n{link}\n", True)):
        page.write_text(text)
        try:
            commands.build(load_config(str(config)))
            assert not fails
        except Abort:
            assert fails


def test_notebooks_are_committed_without_outputs() -> None:
    for path in notebooks.sources(ROOT):
        assert not notebooks.has_outputs(path), path.name


def test_a_notebook_with_outputs_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    cell = {"cell_type": "code", "outputs": [{"output_type": "stream"}], "execution_count": 1}
    path.write_text(json.dumps({"cells": [cell]}))
    assert notebooks.has_outputs(path)
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "outputs": []}]}))
    assert not notebooks.has_outputs(path)
