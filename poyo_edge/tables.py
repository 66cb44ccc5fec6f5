"""What is named before it is loaded: rows of tables, and what packages show.

A table of things of one kind (backends, feeds, file formats) is a mapping from names to rows.
Messages, ``--help``, ``doctor`` and the pages under docs are made from it, so that who adds a row
and its own file has added everything.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from poyo_edge.errors import MissingExtraError, pip_install


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that people can name, and where it is loaded from when they do."""

    help: str
    """One line."""
    load: str
    """``MODULE:NAME`` of what opens it."""
    extra: str = ""
    """Of ours, that brings its library; "" where nothing has to be installed."""
    package: str = ""
    """That library, as it is imported."""

    @property
    def present(self) -> bool:
        """Whether its library is installed."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    @property
    def install(self) -> str:
        """The command that brings its library; "" where nothing has to be installed."""
        return pip_install(self.extra, self.package) if self.extra else ""

    @property
    def opener(self) -> Any:
        """What opens it, whether or not its library is installed."""
        return named(self.load)

    def require(self, purpose: str) -> None:
        """Find out whether its library is installed.

        Args:
            purpose: what it is needed for, in the words of the message.

        Raises:
            MissingExtraError: it is not.
        """
        if not self.present:
            raise MissingExtraError(self.package, self.extra, purpose)

    def loaded(self, purpose: str) -> Any:
        """What opens it; arguments and errors as of ``require``."""
        self.require(purpose)
        return self.opener


def named(where: str) -> Any:
    """What ``MODULE:NAME`` names; its module is loaded."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def lazily(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package: its public names are loaded when they are asked for.

    For packages all of whose modules would be too much for ``--help``, or would load torch.

    Args:
        package: its name, for the message.
        where: public name → module that holds it.
    """

    def load(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return named(f"{where[name]}:{name}")

    return load
