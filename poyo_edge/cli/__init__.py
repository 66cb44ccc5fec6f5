"""The command line: ``poyo-edge`` and ``python -m poyo_edge``."""

from poyo_edge.cli.root import app, main

__all__ = [
    "app",
    "main",
]
