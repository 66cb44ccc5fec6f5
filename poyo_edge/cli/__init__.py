"""The command line: ``poyo-edge`` and ``python -m poyo_edge``."""

from poyo_edge.cli.root import main
from poyo_edge.cli.shared import app

__all__ = [
    "app",
    "main",
]
