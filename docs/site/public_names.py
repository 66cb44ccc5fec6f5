"""What can be imported, as docs/stability.md lists it, and the pages that show it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

LIST = Path("docs") / "stability.md"
PACKAGE = "poyo_edge"


def public_names(page: str) -> dict[str, list[str]]:
    """Module → public names, from the first block of Python of the page.

    Raises:
        ValueError: the page has none.
    """
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    if block is None:
        raise ValueError(f"{LIST}: expected a block of imports, got none")
    found = dict[str, list[str]]()
    for line in ast.parse(block[1]).body:
        if isinstance(line, ast.ImportFrom) and line.module:
            found.setdefault(line.module, []).extend(alias.name for alias in line.names)
    return found


def without_docstring(root: Path, names: dict[str, list[str]]) -> list[str]:
    """Public names, and public methods and properties of public classes, that nothing is said of.

    Read from the source, so that nothing has to be installed. Fields of records may speak for
    themselves.
    """
    package = load(root)
    missing = list[str]()
    for module, shown in names.items():
        for name in shown:
            found = _target(package, f"{module}.{name}")
            if found is None:
                missing.append(f"{module}.{name}: expected it to be there, got no such name")
            elif not found.has_docstring:
                missing.append(f"{module}.{name}: expected a docstring, got none")
            elif found.is_class:
                missing += _silent_members(found)
    return missing


def load(root: Path) -> Any:
    """The package as griffe reads it, all aliases followed."""
    import griffe

    return griffe.load(
        PACKAGE, search_paths=[str(root)], try_relative_path=False, resolve_aliases=True
    )


def _target(package: Any, path: str) -> Any:
    try:
        found = package[path.removeprefix(f"{PACKAGE}.")]
        return found.final_target if found.is_alias else found
    except (KeyError, AttributeError):
        return None


def _silent_members(owner: Any) -> list[str]:
    """Methods and properties of ours without a docstring."""
    silent = []
    for member in owner.all_members.values():
        if member.name.startswith("_"):
            continue
        ours = str(member.target_path if member.is_alias else member.path).startswith(PACKAGE)
        if not ours:
            continue
        found = member.final_target if member.is_alias else member
        spoken = found.is_function or "property" in found.labels
        if spoken and not found.has_docstring:
            silent.append(f"{owner.path}.{member.name}: expected a docstring, got none")
    return silent


def pages(names: dict[str, list[str]]) -> dict[str, str]:
    """Address of a page → its text for mkdocstrings: one for each module, and the list of them."""
    made, rows = dict[str, str](), list[str]()
    for module, shown in names.items():
        shown = list(dict.fromkeys(shown))
        parts = [f"::: {module}.{name}\n    options:\n      heading_level: 2\n" for name in shown]
        made[f"reference/python/{module}.md"] = f"# `{module}`\n\n" + "\n".join(parts)
        listed = ", ".join(f"`{name}`" for name in shown)
        rows.append(f"| [`{module}`]({module}.md) | {listed} |")
    head = (
        "# Python\n\nWhat can be imported and is kept ([what that means](../../stability.md)). "
        "Pages are made from the docstrings.\n\n| from | import |\n|---|---|\n"
    )
    return {"reference/python/index.md": head + "\n".join(rows) + "\n", **made}
