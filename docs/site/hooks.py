"""What mkdocs calls while it builds the site: pages that are made, links, and checks.

Problems are warnings, which ``mkdocs build --strict`` turns into the end of the build.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import command_pages
import notebooks
import outside
import public_names
from known_commands import known_commands
from mkdocs.structure.files import File
from stale import find_stale

ROOT = Path(__file__).resolve().parents[2]
log = logging.getLogger("mkdocs.hooks.site")
_origins: dict[str, Path] = {}
"""Address of a page that lies outside ``docs/`` → its file."""


def on_config(config: Any) -> Any:
    """Put pages that are made, and those that no section names yet, into the navigation."""
    made = {
        "COMMANDS": [f"reference/commands/{n}.md" for n, c in known_commands().items()
                     if not c.hidden],
        "PYTHON": list(public_names.pages(_public()))[1:],
        "NOTEBOOKS": [notebooks.address(path) for path in notebooks.sources(ROOT)],
    }  # fmt: skip
    named = set[str]()
    config.nav = [_filled(entry, made, named) for entry in config.nav]
    forgotten = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    _section(config.nav, "How-to").extend(name for name in forgotten if name not in named)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    made = public_names.pages(_public()) | command_pages.pages(known_commands())
    made["reference/errors.md"] = command_pages.errors_page()
    for name, address in outside.PAGES.items():
        _origins[address] = ROOT / name
        made[address] = (ROOT / name).read_text("utf-8")
    sources = dict[str, Path]()
    for path in [ROOT / "docs" / f.src_uri for f in files.documentation_pages()]:
        sources |= outside.linked_sources(path.read_text("utf-8"), path, ROOT)
    for path in _origins.values():
        sources |= outside.linked_sources(path.read_text("utf-8"), path, ROOT)
    made |= {address: outside.source_page(path, ROOT) for address, path in sources.items()}
    for address, text in made.items():
        files.append(File.generated(config, address, content=text))
    for path in notebooks.sources(ROOT):
        for address, content in notebooks.page(path, ROOT).items():
            files.append(File.generated(config, address, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Look for stale commands, and lead links to where their files are on the site."""
    address = page.file.src_uri
    at = _origins.get(address, ROOT / "docs" / address)
    made_of_the_program = address.startswith(
        ("reference/commands/", "reference/python/", "source/")
    )
    if not made_of_the_program and address != outside.PAGES["CHANGELOG.md"]:
        for problem in find_stale(markdown, ROOT):
            log.warning("%s: %s", address, problem)
    return outside.links_on_site(markdown, at, ROOT, address)


def on_env(env: Any, config: Any, files: Any) -> Any:
    """Hold every public name to have a docstring."""
    for problem in public_names.without_docstring(ROOT, _public()):
        log.warning("%s", problem)
    return env


def _public() -> dict[str, list[str]]:
    return public_names.public_names((ROOT / public_names.LIST).read_text("utf-8"))


def _filled(entry: Any, made: dict[str, list[str]], named: set[str]) -> Any:
    """An entry of the navigation with lists of made pages in it; notes which pages it names."""
    if isinstance(entry, str):
        named.add(entry)
        return entry
    (title, inner), *_ = entry.items()
    if isinstance(inner, list):
        filled = list[Any]()
        for one in inner:
            filled += made[one] if isinstance(one, str) and one in made else [
                _filled(one, made, named)]  # fmt: skip
        return {title: filled}
    named.add(inner)
    return {title: inner}


def _section(nav: list[Any], title: str) -> list[Any]:
    found: list[Any] = next(entry[title] for entry in nav if title in entry)
    return found
