"""What a package shows to others, loaded when it is first asked for.

A package says ``__getattr__ = lazily(__name__, {NAME: MODULE})`` where an import of all
its modules would be too much for ``--help``, or would load torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package.

    Args:
        package: its name, for the message.
        where: public name → module that holds it.
    """

    def load(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(where[name]), name)

    return load
