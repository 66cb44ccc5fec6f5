"""Starts a module of ours in a process of its own, for files that nobody vouches for."""

from __future__ import annotations

import sys

_START = (
    "import sys; sys.path[:] = filter(None, sys.path); from importlib import import_module; "
    "import_module({module!r}).main()"
)


def python_command(module: str, *arguments: str) -> list[str]:
    """What calls ``main`` of a module in a new interpreter, with ``arguments`` in ``sys.argv[1:]``.

    ``python -m`` would look into the current folder before anywhere else, and a stranger's
    ``json.py`` may have come into it beside his checkpoint.
    """
    return [sys.executable, "-c", _START.format(module=module), *arguments]
