"""Notebooks of ``examples/``: executed into ``build/notebooks``, shown on the site with outputs.

Run: python docs/site/notebooks.py

What is committed has no outputs. An executed notebook is shown while its source is what was
executed; without one, the page shows the source and says so.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

EXECUTED = Path("build") / "notebooks"
_KEY = "poyo_edge_source_sha256"
_LIMIT_S = 1800


def sources(root: Path) -> list[Path]:
    """The notebooks, in the order of their names."""
    return sorted((root / "examples").glob("*.ipynb"))


def address(path: Path) -> str:
    """Where a notebook is on the site."""
    return f"tutorials/notebooks/{path.stem}.md"


def fingerprint(path: Path) -> str:
    """SHA-256 of a notebook's source."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def has_outputs(path: Path) -> bool:
    """Whether any cell of a notebook holds what it once printed."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def execute(path: Path, root: Path) -> float:
    """Run a notebook in ``build/notebooks`` and keep it there with its outputs; seconds taken.

    One may go on with what another left, in the order of their names.

    Raises:
        CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    folder = root / EXECUTED
    folder.mkdir(parents=True, exist_ok=True)
    notebook: Any = nbformat.read(path, as_version=4)
    notebook.metadata[_KEY] = fingerprint(path)
    started = time.monotonic()
    client = NotebookClient(
        notebook,
        timeout=_LIMIT_S,
        startup_timeout=_LIMIT_S // 3,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in notebook.cells:  # warnings and logs name folders of this machine
        kept = [one for one in cell.get("outputs", ()) if one.get("name") != "stderr"]
        if cell.cell_type == "code":
            cell.outputs = kept
    nbformat.write(notebook, root / EXECUTED / path.name)
    return time.monotonic() - started


def page(path: Path, root: Path) -> dict[str, str | bytes]:
    """Address → contents: the notebook as a page, and its pictures."""
    import nbformat
    from nbconvert import MarkdownExporter

    done = root / EXECUTED / path.name
    executed = done.is_file() and (
        json.loads(done.read_text("utf-8"))["metadata"].get(_KEY) == fingerprint(path)
    )
    notebook = nbformat.read(done if executed else path, as_version=4)
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    where, stem = address(path), path.stem
    made: dict[str, str | bytes] = {}
    for name, content in resources.get("outputs", {}).items():
        made[f"tutorials/notebooks/{stem}_{name}"] = content
        text = text.replace(f"({name})", f"({stem}_{name})")
    note = (
        f"\n\nThis page is `examples/{path.name}`"
        + (
            ", with what it printed when this site was built."
            if executed
            else "; it was not executed for this build of the site."
        )
        + "\n"
    )
    title, _, rest = text.partition("\n\n")
    return {where: f"{title}{note}\n{rest}", **made}


def main() -> None:
    """Execute all notebooks."""
    root = Path(__file__).resolve().parents[2]
    for path in sources(root):
        print(f"· executing {path.relative_to(root)}", file=sys.stderr, flush=True)
        print(f"{path.name}: {execute(path, root):.0f} s", flush=True)


if __name__ == "__main__":
    main()
