"""The house as its code says it is: modules, and who imports whom."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping
from pathlib import Path

from helpers.paths import ROOT

FOLDERS = ("poyo_edge", "runtime", "export", "calibration")
_OURS = "poyo_edge"
_NAMED = re.compile(r"poyo_edge(\.\w+)+(:\w+)?")
"""Text that may name a module to load later, as ``importlib`` and other processes do."""


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Name of each module of the project → its file, a package under its own name."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            inner = path.relative_to(root)
            if not any(part.is_symlink() for part in path.parents):
                found[name_of(inner.as_posix())] = path
    return found


def name_of(path: str) -> str:
    """The import name of a file, given from the repository's root."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(parts if parts[0] == _OURS else [_OURS, *parts])


def imports(source: str, known: Mapping[str, object]) -> set[str]:
    """Modules that a source names: ours in full, others by their package.

    Imports inside functions count, those for type checkers too, and texts that name a module.
    """
    plain, members, texts = _named(source)
    found = set(plain)
    found |= {f"{module}.{name}" if f"{module}.{name}" in known else module
              for module, name in members}  # fmt: skip
    found |= {named for text in texts if (named := text.partition(":")[0]) in known}
    return {name if is_ours(name) else name.partition(".")[0] or name for name in found}


@functools.cache
def _named(source: str) -> tuple[frozenset[str], frozenset[tuple[str, str]], frozenset[str]]:
    """Modules that a source imports, members of modules, and texts that may name a module."""
    plain, members, texts = set[str](), set[tuple[str, str]](), set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            plain |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            members |= {(module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts |= {node.value} if _NAMED.fullmatch(node.value) else set()
    return frozenset(plain), frozenset(members), frozenset(texts)


def is_ours(name: str) -> bool:
    """Whether a module is one of the project's."""
    return name.partition(".")[0] == _OURS


def arrows(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module → modules of the project that it imports."""
    return {
        name: {
            other
            for other in imports(path.read_text(encoding="utf-8"), files)
            if is_ours(other) and other != name
        }
        for name, path in files.items()
    }


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack, found = list[str](), list[list[str]]()

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found
