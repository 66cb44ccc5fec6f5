"""What every benchmark does as a script: ask for packages, tell progress, write results, end."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from poyo_edge.errors import MissingExtraError, PoyoEdgeError


def run(main: Callable[[], None]) -> None:
    """Run a script; an error raised on purpose becomes a sentence and its exit code."""
    try:
        main()
    except PoyoEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def require(package: str, extra: str, purpose: str) -> None:
    """Raise ``MissingExtraError`` with the pip command unless ``package`` is installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, extra, purpose)


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, all others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write a results file, if one is wanted."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {path}", file=sys.stderr)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
