"""Pages and sources that lie outside ``docs/``, and links to them.

Pages link to files as they lie in the tree, so that they can be read there. On the site README and
its like are pages of their own, and a source that a page names is a page with its text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

PAGES = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "fuzz/README.md": "fuzz.md",
}
"""Page of the tree → its address on the site."""

_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_SCHEME = re.compile(r"[a-z]+:")
_SOURCES = {
    ".py": "python",
    ".c": "c",
    ".h": "c",
    ".cpp": "cpp",
    ".toml": "toml",
    ".sh": "bash",
    ".yaml": "yaml",
}


def address_of(path: Path, root: Path) -> str | None:
    """Where a file of the tree is on the site; None for one that is not there, or is no text."""
    inner = posixpath.relpath(path.as_posix(), root.as_posix())
    if inner in PAGES:
        return PAGES[inner]
    if inner.startswith("docs/"):
        return inner.removeprefix("docs/")
    if path.is_file() and path.suffix in _SOURCES:
        return f"source/{inner}.md"
    return None


def linked_sources(text: str, at: Path, root: Path) -> dict[str, Path]:
    """Address → file, of the sources that a page links to."""
    found = {}
    for target in (link[1] for link in _LINK.findall(text)):
        path = _resolve(target, at)
        address = None if path is None else address_of(path, root)
        if path is not None and address is not None and address.startswith("source/"):
            found[address] = path
    return found


def source_page(path: Path, root: Path) -> str:
    """A file of the tree as a page."""
    name = posixpath.relpath(path.as_posix(), root.as_posix())
    return f"# {name}\n\n~~~~ {_SOURCES[path.suffix]}\n{path.read_text('utf-8').rstrip()}\n~~~~\n"


def links_on_site(text: str, at: Path, root: Path, address: str) -> str:
    """A page with its links as they are on the site; one that leads nowhere stays, to be noticed.

    Args:
        text: Markdown.
        at: the file that it came from: what its links are relative to.
        root: of the project.
        address: of the page on the site.
    """

    def moved(found: re.Match[str]) -> str:
        path = _resolve(found[2], at)
        target = None if path is None else address_of(path, root)
        if target is None:
            return found[0]
        inner = posixpath.relpath(target, posixpath.dirname(address) or ".")
        return f"{found[1]}{inner}{found[3] or ''}{found[4]}"

    return _LINK.sub(moved, text)


def _resolve(target: str, at: Path) -> Path | None:
    if _SCHEME.match(target) or target.startswith("/"):
        return None
    return Path(posixpath.normpath((at.parent / target).as_posix()))
